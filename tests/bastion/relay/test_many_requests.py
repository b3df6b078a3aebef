"""Why: clients ask for many things at once, and none of that may end a connection, or be kept without a bound."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from asyncssh.packet import Boolean, String, UInt32

from bastion.relay.limits import RelayLimits
from bastion.relay.meanings import DirectTcp
from bastion.relay.wire_link import MOST_ASKED
from tests.bastion.relay.doors import Door, Way, connect
from tests.bastion.relay.raw import Raw, until
from tests.support.sshd import Sshd

GLOBAL = 80
FEW = replace(RelayLimits(), unanswered=16)


async def test_three_hundred_forwards_asked_for_at_once_are_all_made(door: Door) -> None:
    forwards = [part for _ in range(300) for part in ("-R", "0:127.0.0.1:1")]
    answer = await Way.through(door).run("-o", "ExitOnForwardFailure=yes", *forwards, "--", "echo inside")
    assert (answer.status, answer.out) == (0, b"inside\n")


async def test_a_client_waits_while_as_many_requests_of_a_channel_as_may_have_no_answer(tmp_path: Path) -> None:
    with Sshd.running(tmp_path / "sshd") as own:
        async with Door(own, tmp_path / "door", limits=FEW).serving() as door, connect(door) as conn:
            chan = await Raw.session(conn)
            other = await Raw.session(conn)
            stopped = own.connections()
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            try:
                waiters = [asyncio.get_running_loop().create_future() for _ in range(100)]
                for waiter in waiters:
                    chan._request_waiters.append(waiter)
                    chan._send_request(b"nonsense@example.org", want_reply=True)
                side = door.sides[0]
                await until(lambda: side._holds)
                assert not side._tcp.is_reading()
                assert [len(leg._replies) for leg in side.legs.values()] == [16, 0]
            finally:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
            assert await asyncio.wait_for(asyncio.gather(*waiters), 20) == [False] * 100
            assert await other._make_request(b"exec", String(b"true"))
            conn.abort()
        await door.next_end()


async def test_a_channel_that_the_pod_closes_with_requests_unanswered_holds_nobody_up(
    sshd: Sshd, tmp_path: Path
) -> None:
    async with Door(sshd, tmp_path / "door", limits=FEW).serving() as door, connect(door) as conn:
        await Raw.session(conn)
        side = door.sides[0]
        (leg,) = side.legs.values()
        for _ in range(20):
            leg._replies.question()  # as if the pod had been asked, and never answered
        assert side._holds == 1
        leg.close()  # the pod's word
        assert side._holds == 0
        await until(lambda: not side.legs)  # the client's
        assert (await conn.run("echo alive", encoding=None)).stdout == b"alive\n"
        conn.abort()
    await door.next_end()


async def test_forwards_that_want_no_answer_are_bounded_while_the_pod_is_dialled(sshd: Sshd, tmp_path: Path) -> None:
    go = asyncio.Event()
    async with Door(sshd, tmp_path / "door", limits=FEW).serving() as door:
        door.before_dial = go.wait  # type: ignore[assignment]
        async with connect(door) as conn:
            side = door.sides[0]
            anywhere = String(b"127.0.0.1") + UInt32(0)
            for _ in range(100):
                conn.send_packet(GLOBAL, String(b"tcpip-forward") + Boolean(False) + anywhere)
            await until(lambda: side._holds)
            assert len(side._global_replies) == 16
            assert len(side._tasks) <= 16 + 2
            go.set()
            kind, _ = await conn._make_global_request(b"tcpip-forward", anywhere)
            assert kind == 81
            assert len(door.fronts[0].asked) == 101


async def test_requests_that_nobody_ever_answers_end_the_connection(sshd: Sshd, tmp_path: Path) -> None:
    hits: list[str] = []
    limits = replace(FEW, keepalive_seconds=0.2, keepalive_count=1, hit=hits.append)
    async with Door(sshd, tmp_path / "door", limits=limits).serving() as door:
        door.before_dial = asyncio.Event().wait  # type: ignore[assignment]
        async with connect(door) as conn:
            for _ in range(16):
                conn.send_packet(GLOBAL, String(b"tcpip-forward") + Boolean(False) + String(b"") + UInt32(0))
            front = await door.next_end()
            assert "no answer" in str(front.ended[0])
            assert hits == ["unanswered"]
            conn.abort()


async def test_long_names_are_refused_and_no_name_is_kept(door: Door) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])
        gone.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = UInt32(server.sockets[0].getsockname()[1])
    async with server, connect(door) as conn:
        with pytest.raises(asyncssh.ChannelOpenError, match="at most 4096 bytes") as refused:
            await Raw.on(conn)._open(b"direct-tcpip", String(b"127.0.0.1") + port + String(b"o" * 5000) + UInt32(1))
        assert refused.value.code == 4
        kind, _ = await conn._make_global_request(b"streamlocal-forward@openssh.com", String(b"/" * MOST_ASKED))
        assert kind == 82
        assert door.fronts[0].asked == []
        await Raw.on(conn)._open(b"direct-tcpip", String(b"127.0.0.1") + port + String(b"o" * 3000) + UInt32(1))
        (leg,) = door.sides[0].legs.values()
        assert leg.opening is DirectTcp
        conn.abort()
        await door.next_end()
        await asyncio.wait_for(gone.wait(), 20)
