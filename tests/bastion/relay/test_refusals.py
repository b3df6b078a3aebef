"""Why: what the front refuses must not reach the pod, and the person must read why."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from asyncssh import SSHClientSession
from asyncssh.channel import SSHForwardChannel
from asyncssh.packet import String, UInt32

from bastion.relay.meanings import Exec, Session
from ca.limits import ALL, Capability
from tests.bastion.relay.doors import Door, Way, connect, run
from tests.support.sshd import free_port

COMMANDS = {
    Capability.EXEC: ["--", "echo inside"],
    Capability.SUBSYSTEM: ["-s", "--", "sftp"],
    Capability.LOCAL_FORWARD: ["-W", "127.0.0.1:1"],
}


@pytest.mark.parametrize("denied", COMMANDS)
async def test_a_denied_capability_fails_with_its_sentence(door: Door, denied: Capability) -> None:
    door.allowed = ALL - {denied}
    answer = await Way.through(door).run("-o", "LogLevel=INFO", *COMMANDS[denied])
    assert answer.status == 255
    assert f"{denied.value} is not permitted here; ask your administrator.".encode() in answer.err
    assert answer.out == b""


@pytest.mark.parametrize("copier", [["sftp", "-b", "-"], ["scp"], ["scp", "-O"]], ids=["sftp", "scp", "scp -O"])
async def test_a_copier_without_the_capability_says_why(door: Door, tmp_path: Path, copier: list[str]) -> None:
    door.allowed = ALL - {Capability.SUBSYSTEM, Capability.EXEC}
    target = ["127.0.0.1"] if copier[0] == "sftp" else ["127.0.0.1:/etc/hostname", str(tmp_path / "got")]
    answer = await run([*copier, *Way.through(door).options, *target])
    assert answer.status != 0
    assert b"is not permitted here" in answer.err


async def test_a_denied_terminal_says_so(door: Door) -> None:
    door.allowed = ALL - {Capability.PTY}
    answer = await Way.through(door).run("-tt", "--", "tty; echo ran")
    assert (answer.status, answer.out) == (255, b"")
    assert b"pty is not permitted here" in answer.err


async def test_a_denied_remote_forward_does_not_listen(door: Door) -> None:
    door.allowed = ALL - {Capability.REMOTE_FORWARD}
    answer = await Way.through(door).run(
        "-o", "ExitOnForwardFailure=yes", "-R", f"{free_port()}:127.0.0.1:1", "--", "echo inside"
    )
    assert (answer.status, answer.out) == (255, b"")
    assert b"remote port forwarding failed" in answer.err
    assert b"remote-forward is not permitted here; ask your administrator." in answer.err


@pytest.mark.parametrize("capability", [Capability.REMOTE_FORWARD, Capability.STREAMLOCAL])
async def test_refused_forwards_say_why_once_in_the_session_that_goes_on(
    door: Door, tmp_path: Path, capability: Capability
) -> None:
    door.allowed = ALL - {capability}
    here = "0" if capability == Capability.REMOTE_FORWARD else str(tmp_path / "socket")
    answer = await Way.through(door).run(*["-R", f"{here}:127.0.0.1:1"] * 5, "--", "echo inside; exit 3")
    assert (answer.status, answer.out) == (3, b"inside\n")
    assert answer.err.count(f"{capability.value} is not permitted here; ask your administrator.".encode()) == 1


async def test_a_forward_refused_later_says_why_in_the_sessions_that_are_open(door: Door) -> None:
    door.allowed = ALL - {Capability.REMOTE_FORWARD}
    async with connect(door) as conn:
        kind, _ = await asyncio.wait_for(conn._make_global_request(b"tcpip-forward", *_forward()), 20)
        assert kind == 82  # nobody to tell
        process = await conn.create_process("cat", encoding=None)
        assert b"is not permitted here" in await process.stderr.readline() + await process.stderr.readline()
        process.stdin.write_eof()
        await process.wait()


async def test_denied_unix_sockets_agent_and_x11_do_not_reach_the_pod(door: Door, tmp_path: Path) -> None:
    door.allowed = ALL - {Capability.STREAMLOCAL, Capability.AGENT, Capability.X11}
    async with connect(door) as conn:
        with pytest.raises(Exception, match="streamlocal is not permitted"):
            await conn.open_unix_connection(str(door.directory / "socket"))
        agent = tmp_path / "agent"
        process = await asyncio.create_subprocess_exec(
            "ssh-agent", "-D", "-a", str(agent), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            await process.stdout.readline()
            answer = await Way.through(door).run(
                "-A", "-o", f"IdentityAgent={agent}", "--", "echo ${SSH_AUTH_SOCK-none} ${DISPLAY-none}"
            )
        finally:
            process.terminate()
            await process.wait()
    assert answer.out == b"none none\n"
    assert b"agent is not permitted here" in answer.err


def _forward() -> tuple[bytes, bytes]:
    return String(b"127.0.0.1"), UInt32(0)


async def test_replies_stay_in_order_when_the_relay_refuses_one_itself(door: Door) -> None:
    door.allowed = ALL - {Capability.SUBSYSTEM}
    async with connect(door) as conn:
        chan = _forward_channel(conn)
        await chan._open(b"session")
        replies = await asyncio.gather(
            chan._make_request(b"env", *_strings(b"RELAY_A", b"1")),
            chan._make_request(b"subsystem", *_strings(b"sftp")),
            chan._make_request(b"env", *_strings(b"RELAY_B", b"2")),
            chan._make_request(b"nonsense@example.org"),
            chan._make_request(b"env", *_strings(b"REFUSED", b"2")),
        )
        chan.close()
        await chan.wait_closed()
    assert replies == [True, False, True, False, False]


async def test_unknown_types_are_refused_without_ending_the_connection(door: Door) -> None:
    async with connect(door) as conn:
        for name in (b"tun@openssh.com", b"forwarded-tcpip", b"auth-agent@openssh.com", b"\xff\xfe"):
            with pytest.raises(Exception, match="unknown channel type"):
                await _forward_channel(conn)._open(name)
        for name in (b"hostkeys-prove-00@openssh.com", b"\xff", b"tun"):
            kind, _ = await conn._make_global_request(name, b"junk")
            assert kind == 82
        assert (await conn.run("echo alive", encoding=None)).stdout == b"alive\n"


async def test_malformed_payloads_of_known_types_are_refused_and_end_nothing(door: Door) -> None:
    async with connect(door) as conn:
        with pytest.raises(Exception, match="malformed"):
            await _forward_channel(conn)._open(b"direct-tcpip", b"\0\0\0\xffshort")
        kind, _ = await conn._make_global_request(b"tcpip-forward", b"\0\0")
        assert kind == 82
        chan, _ = await conn.create_session(_Quiet, command="cat")
        assert await chan._make_request(b"pty-req", b"\0\0\0\x05xterm") is False
        chan.close()
        await chan.wait_closed()
        assert (await conn.run("echo alive", encoding=None)).stdout == b"alive\n"


async def test_no_more_sessions_is_kept_to(door: Door) -> None:
    async with connect(door) as conn:
        assert (await conn.run("true")).exit_status == 0
        assert (await conn._make_global_request(b"no-more-sessions@openssh.com"))[0] == 81
        with pytest.raises(Exception, match="no more sessions"):
            await conn.run("true")


async def test_a_pod_that_cannot_be_reached_fails_the_channel_with_a_sentence_and_is_tried_again(door: Door) -> None:
    door.pod_port = free_port()
    async with connect(door) as conn:
        with pytest.raises(Exception, match="cannot be reached"):
            await conn.run("true")
        door.pod_port = 0
        assert (await conn.run("echo again", encoding=None)).stdout == b"again\n"
    assert door.dials == 2


async def test_a_refused_open_never_dials_the_pod(door: Door) -> None:
    door.allowed = frozenset()
    async with connect(door) as conn:
        with pytest.raises(Exception, match="local-forward is not permitted"):
            await conn.open_connection("127.0.0.1", 1)
    assert door.dials == 0
    assert not [one for one in door.fronts[0].asked if isinstance(one.meaning, Session | Exec)]


class _Quiet(SSHClientSession[str]):
    pass


def _strings(*values: bytes) -> list[bytes]:
    return [String(value) for value in values]


def _forward_channel(conn: object) -> SSHForwardChannel[bytes]:
    chan = SSHForwardChannel[bytes](conn, asyncio.get_running_loop(), None, "strict", 1 << 20, 32768)  # type: ignore[arg-type]
    chan._read_datatypes = {1}
    return chan
