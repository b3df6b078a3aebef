"""Why: a connection can end from either side or from the middle, and nobody may be left waiting or untold."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from bastion.relay.limits import RelayLimits
from bastion.relay.meanings import Exec
from tests.bastion.relay.doors import Door, Way, connect
from tests.bastion.relay.doors_pty import on_terminal
from tests.support.sshd import Sshd

WHY = "Your server alice/gpu was stopped."


async def test_a_cut_session_reads_the_sentence_on_standard_error(door: Door) -> None:
    process = await _started(door, "-o", "LogLevel=QUIET", "--", "echo up; cat")
    door.sides[0].close(WHY)
    assert process.stderr is not None
    assert WHY.encode() in await asyncio.wait_for(process.stderr.read(), 20)
    assert await process.wait() == 255


async def test_a_cut_terminal_shows_the_sentence(door: Door) -> None:
    async with on_terminal(Way.through(door).command("-tt", "--", "echo up; cat")) as (terminal, process):
        await terminal.until(b"up")
        door.sides[0].close(WHY)
        await terminal.until(WHY.encode())
        assert await process.wait() == 255


async def test_a_cut_connection_without_a_session_hears_it_in_the_disconnect(door: Door) -> None:
    process = await asyncio.create_subprocess_exec(
        *Way.through(door).command("-N"), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    while not (door.fronts and door.fronts[0].inside):
        await asyncio.sleep(0.01)
    door.sides[0].close(WHY)
    assert process.stderr is not None
    assert WHY.encode() in await asyncio.wait_for(process.stderr.read(), 20)
    await process.wait()


async def test_a_client_that_stopped_is_cut_within_the_farewell(door: Door) -> None:
    process = await _started(door, "--", "echo up; cat /dev/zero")
    process.send_signal(signal.SIGSTOP)
    try:
        door.sides[0].close(WHY)
        front = await asyncio.wait_for(door.ended.get(), RelayLimits().farewell + 1)
        assert front.ended == [None]
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        await process.communicate()


async def test_a_sentence_with_control_characters_is_made_harmless(door: Door) -> None:
    process = await _started(door, "--", "echo up; cat")
    door.sides[0].close("bad\x1b]0;title\x07\nnews")
    assert process.stderr is not None
    said = await asyncio.wait_for(process.stderr.read(), 20)
    assert b"\x1b" not in said
    assert b"bad ]0;title  news" in said
    await process.wait()


async def test_a_dead_pod_ends_the_session_with_a_sentence_and_the_front_hears_who_ended_it(tmp_path: Path) -> None:
    with Sshd.running(tmp_path / "sshd") as own:
        async with Door(own, tmp_path / "door").serving() as door:
            process = await _started(door, "--", "echo up; cat")
            for child in own.connections():
                os.kill(child, signal.SIGKILL)
            assert process.stderr is not None
            said = await asyncio.wait_for(process.stderr.read(), 20)
            assert b"The connection to your server was lost" in said
            assert await process.wait() == 255
            front = await door.next_end()
            assert (front.ended, front.pods_lost) == ([None], 1)


async def test_a_client_that_is_killed_takes_the_pods_connection_along(door: Door) -> None:
    process = await _started(door, "--", "echo up; cat")
    process.kill()
    await process.communicate()
    front = await door.next_end()
    assert len(front.ended) == 1
    await asyncio.wait_for(door.pods[0].wait_closed(), 20)
    assert front.pods_lost == 0


async def test_the_front_hears_of_an_end_before_authentication_too(door: Door) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.close()
    await writer.wait_closed()
    front = await door.next_end()
    assert (len(front.ended), front.inside) == (1, [])


@pytest.mark.parametrize("login_seconds", [0.2])
async def test_silence_before_login_is_bounded(sshd: Sshd, tmp_path: Path, login_seconds: float) -> None:
    limits = replace(RelayLimits(), login_seconds=login_seconds)
    async with Door(sshd, tmp_path / "door", limits=limits).serving() as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"SSH-2.0-jupyterhub-bastion\r\n")
        writer.close()
        await door.next_end()


async def test_a_client_that_vanished_is_noticed_by_keepalives(sshd: Sshd, tmp_path: Path) -> None:
    limits = replace(RelayLimits(), keepalive_seconds=0.1, keepalive_count=2)
    async with Door(sshd, tmp_path / "door", limits=limits).serving() as door:
        process = await _started(door, "--", "echo up; cat")
        process.send_signal(signal.SIGSTOP)
        try:
            front = await door.next_end()
            assert "not responding" in str(front.ended[0])
        finally:
            process.kill()
            await process.communicate()


async def test_a_pod_that_vanished_is_noticed_by_keepalives_and_counted(tmp_path: Path) -> None:
    hits: list[str] = []
    limits = replace(RelayLimits(), keepalive_seconds=0.2, keepalive_count=2, hit=hits.append)
    with Sshd.running(tmp_path / "sshd") as own:
        async with Door(own, tmp_path / "door", limits=limits).serving() as door:
            process = await _started(door, "--", "echo up; cat")
            stopped = own.connections()
            for child in stopped:
                os.kill(child, signal.SIGSTOP)
            try:
                assert process.stderr is not None
                said = await asyncio.wait_for(process.stderr.read(), 20)
                assert b"The connection to your server was lost" in said
                assert await process.wait() == 255
                assert (await door.next_end()).ended == [None]
                assert hits == ["keepalive_count"]
            finally:
                for child in stopped:
                    os.kill(child, signal.SIGCONT)


async def test_an_idle_client_that_answers_keepalives_stays(sshd: Sshd, tmp_path: Path) -> None:
    limits = replace(RelayLimits(), keepalive_seconds=0.05, keepalive_count=1)
    async with Door(sshd, tmp_path / "door", limits=limits).serving() as door:
        answer = await Way.through(door).run("--", "sleep 1; echo still here")
        assert answer.out == b"still here\n"


async def test_a_client_that_leaves_while_the_pod_is_dialled_leaves_nothing(door: Door) -> None:
    dialling, go = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        dialling.set()
        await go.wait()

    door.before_dial = wait  # type: ignore[assignment]
    async with connect(door) as conn:
        opening = asyncio.ensure_future(conn.run("true"))
        await asyncio.wait_for(dialling.wait(), 20)
        conn.abort()
        with pytest.raises(Exception, match="closed"):
            await opening
    await door.next_end()
    go.set()
    assert door.sides[0].channels == 0
    assert not door.pods


async def _started(door: Door, *arguments: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *Way.through(door).command(*arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"up\n"
    assert isinstance(await door.fronts[-1].saw(Exec), Exec)
    return process
