"""Why: terminals, environment, subsystems and several sessions must behave as with a plain sshd."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from bastion.relay.meanings import Break, Env, Exec, Pty, Signal, WindowChange
from tests.bastion.relay.doors import Door, Way, connect, master
from tests.bastion.relay.doors_pty import on_terminal
from tests.bastion.relay.test_parity_commands import same
from tests.support.sshd import Sshd


async def test_a_terminal_has_the_modes_size_and_type_of_the_persons_own(sshd: Sshd, door: Door) -> None:
    seen = []
    for way in (Way.direct(sshd), Way.through(door)):
        command = way.command("-tt", "--", "stty -a; echo $TERM; tty >/dev/null && echo yes; echo END")
        async with on_terminal(command, rows=33, columns=101) as (terminal, process):
            seen.append((await terminal.until(b"END"), await process.wait()))
    assert seen[0] == seen[1]
    assert b"rows 33; columns 101" in seen[0][0]
    assert b"vt220" in seen[0][0]


async def test_a_resized_window_and_keys_reach_the_shell(door: Door) -> None:
    command = Way.through(door).command(
        "-tt", "--", "trap 'stty size; exit 9' WINCH; echo READY; while :; do sleep 0.05; done"
    )
    async with on_terminal(command) as (terminal, process):
        await terminal.until(b"READY")
        terminal.resize(50, 132)
        await terminal.until(b"50 132")
        assert await process.wait() == 9
    assert [one.meaning for one in door.fronts[0].asked if isinstance(one.meaning, WindowChange)]
    assert Pty(term="vt220", columns=80, rows=24) in [one.meaning for one in door.fronts[0].asked]


async def test_an_interactive_shell_answers_and_control_c_interrupts(door: Door) -> None:
    async with on_terminal(Way.through(door).command("-tt")) as (terminal, process):
        terminal.type(b"PS1='<$?> '; stty -echo; sh -c 'echo re''ady; exec sleep 100'\n")
        await terminal.until(b"ready\r\n")
        terminal.type(b"\x03")
        await terminal.until(b"<130> ")
        terminal.type(b"exit 7\n")
        assert await process.wait() == 7


async def test_environment_is_passed_on_as_the_sshd_accepts_it(sshd: Sshd, door: Door) -> None:
    answer = await same(
        sshd,
        door,
        "-o", "SendEnv=RELAY_* REFUSED_*",
        "--",
        "env | grep -E '^(RELAY|REFUSED)_' | sort",
        env={"RELAY_B": "two words", "RELAY_A": "é", "REFUSED_X": "1"},
    )  # fmt: skip
    assert answer.out == "RELAY_A=é\nRELAY_B=two words\n".encode()
    assert Env(b"RELAY_B", b"two words") in [one.meaning for one in door.fronts[0].asked]


@pytest.mark.parametrize("name", ["fails", "no-such-subsystem"])
async def test_a_failing_subsystem_fails_alike(sshd: Sshd, door: Door, name: str) -> None:
    assert (await same(sshd, door, "-s", "--", name)).status != 0


async def test_fifty_megabytes_arrive_whole_in_both_directions(door: Door, tmp_path: Path) -> None:
    way = Way.through(door)
    source, returned = tmp_path / "source", tmp_path / "returned"
    content = hashlib.shake_256(b"seed").digest(1 << 20) * 50
    source.write_bytes(content)
    with source.open("rb") as stdin, returned.open("wb") as stdout:
        process = await asyncio.create_subprocess_exec(
            *way.command("--", "cat; echo $? >&2"), stdin=stdin, stdout=stdout, stderr=asyncio.subprocess.PIPE
        )
        _, err = await asyncio.wait_for(process.communicate(), 120)
    assert (process.returncode, err) == (0, b"0\n")
    assert hashlib.sha256(returned.read_bytes()).digest() == hashlib.sha256(content).digest()


async def test_rekeying_every_megabyte_changes_nothing(door: Door) -> None:
    content = hashlib.shake_256(b"rekey").digest(1 << 20) * 12
    answer = await Way.through(door).run("-o", "RekeyLimit=1M", "--", "cat", stdin=content)
    assert answer.out == content


async def test_a_reader_that_stops_gets_everything_and_the_status_when_it_goes_on(door: Door) -> None:
    command = Way.through(door).command("--", "head -c 20000000 /dev/zero; exit 5")
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, limit=1 << 16
    )
    assert process.stdout is not None
    got = len(await process.stdout.readexactly(1000))
    got += len(await process.stdout.read())
    assert (got, await process.wait()) == (20000000, 5)


async def test_ten_sessions_share_one_connection(door: Door, tmp_path: Path) -> None:
    way = Way.through(door)
    async with master(way, tmp_path / "mux") as control:
        answers = await asyncio.gather(
            *(way.run(*control, "--", f"cat; echo {n}; exit {n}", stdin=b"x" * 100_000) for n in range(10))
        )
    assert [(answer.out, answer.status) for answer in answers] == [(b"x" * 100_000 + b"%d\n" % n, n) for n in range(10)]
    assert (len(door.fronts), door.dials) == (1, 1)


async def test_a_signal_is_passed_on(door: Door) -> None:
    async with connect(door) as conn:
        # What it does is the sshd's matter: OpenSSH's signals nobody where it runs as root for root.
        process = await conn.create_process("trap 'exit 8' USR1; echo up; cat; exit 8")
        assert await process.stdout.readline() == "up\n"
        process.send_signal("USR1")
        process.stdin.write_eof()
        assert (await process.wait()).exit_status == 8
    meanings = [one.meaning for one in door.fronts[0].asked]
    assert Signal("USR1") in meanings
    assert any(isinstance(one, Exec) for one in meanings)


async def test_a_break_typed_in_the_persons_terminal_is_passed_on(door: Door) -> None:
    async with on_terminal(Way.through(door).command("-tt", "--", "echo up; cat")) as (terminal, _):
        await terminal.until(b"up")
        terminal.type(b"\r~B")
        assert isinstance(await door.fronts[0].saw(Break), Break)
