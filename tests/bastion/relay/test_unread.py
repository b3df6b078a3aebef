"""Why: whoever asks and does not read the answers must not have the bastion keep them, and must not stay for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import Boolean, String, UInt32

from bastion.relay.limits import RelayLimits
from bastion.relay.wire_cipher import PACKET, READ
from tests.bastion.relay.doors import Door, connect
from tests.bastion.relay.raw import Raw, until
from tests.support.sshd import Sshd

OPEN, GLOBAL, PING = 90, 80, 192
ASKING: dict[str, Callable[[int], tuple[int, bytes]]] = {
    "ping": lambda _: (PING, String(bytes(30_000))),
    "open": lambda number: (OPEN, String(b"x" * 100) + UInt32(number) + UInt32(1) + UInt32(1)),
}


def most(limits: RelayLimits) -> int:
    """What may wait for a connection whose peer only asks: the bound, and the answers to one turn's read."""
    return 2 * limits.buffered + 3 * (READ + PACKET)


def lets_answers_pass(conn: Any) -> None:
    """asyncssh itself ends a connection on answers to what it did not ask."""

    def drop(*_: object) -> bool:
        return True

    conn._packet_handlers = {**conn._packet_handlers, **dict.fromkeys((81, 82, 92, 193), drop)}


def shorten(transport: Any, option: int) -> None:
    """Have the kernel keep little."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 1 << 14)


async def ask_until(held: Callable[[], object], conn: Any, packet: Callable[[int], tuple[int, bytes]]) -> int:
    """Ask on and on. The number of questions."""
    number = 0
    async with asyncio.timeout(60):
        while not held():
            conn.send_packet(*packet(number))
            number += 1
            if not number % 50 or conn._transport.get_write_buffer_size() > 1 << 20:
                await asyncio.sleep(0)
    return number


@pytest.mark.parametrize("kind", ASKING)
async def test_a_client_that_reads_no_answers_is_not_read_until_it_does(sshd: Sshd, tmp_path: Path, kind: str) -> None:
    limits = replace(RelayLimits(), buffered=1 << 15)
    async with Door(sshd, tmp_path / "door", limits=limits).serving() as door, connect(door) as conn:
        side = door.sides[0]
        lets_answers_pass(conn)
        if kind != "ping":  # whose answers are small
            shorten(conn._transport, socket.SO_RCVBUF)
            shorten(side._tcp, socket.SO_SNDBUF)
        conn._transport.pause_reading()
        asked = await ask_until(lambda: side._holds, conn, ASKING[kind])
        for _ in range(30):  # it goes on
            conn.send_packet(*ASKING[kind](asked))
            asked += 1
        await asyncio.sleep(0)
        assert not side._tcp.is_reading()
        assert side._tcp.get_write_buffer_size() <= most(limits)
        conn._transport.resume_reading()
        await until(lambda: not side._holds)
        assert (await conn.run("echo still", encoding=None)).stdout == b"still\n"
        conn.abort()


class _AnyKey(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True


async def test_a_pod_that_reads_no_answers_is_not_read(sshd: Sshd, tmp_path: Path) -> None:
    limits = replace(RelayLimits(), buffered=1 << 15)
    gone = asyncio.Event()

    async def serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
        conn: Any = process.channel.get_connection()
        shorten(conn._transport, socket.SO_RCVBUF)
        conn._transport.pause_reading()
        await ask_until(lambda: door.pods[0]._holds, conn, ASKING["open"])
        await gone.wait()
        conn.abort()

    async with Door(sshd, tmp_path / "door", limits=limits).serving() as door:
        pod = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=_AnyKey,
            server_host_keys=[(sshd.host_key, sshd.host_certificate([sshd.name]))],
            process_factory=serve,
            encoding=None,
            config=None,
            gss_host=None,
        )
        door.pod_port = pod.get_port()
        async with pod, connect(door) as conn:
            chan = await Raw.session(conn)
            shorten(door.pods[0]._tcp, socket.SO_SNDBUF)
            assert await chan._make_request(b"exec", String(b"go"))
            await until(lambda: door.pods and door.pods[0]._holds)
            side = door.pods[0]
            assert not side._tcp.is_reading()
            assert side._tcp.get_write_buffer_size() <= most(limits)
            gone.set()
            side.abort()
            conn.abort()
            await door.next_end()


async def test_a_ping_larger_than_any_client_sends_ends_that_connection(door: Door) -> None:
    async with connect(door) as conn:
        conn.send_packet(PING, String(bytes((32 << 10) + 1)))
        assert "32768 bytes at most" in str((await door.next_end()).ended[0])


async def test_answers_without_a_word_count_while_a_key_exchange_hangs(sshd: Sshd, tmp_path: Path) -> None:
    hits: list[str] = []
    limits = replace(RelayLimits(), deferred=1 << 20, hit=hits.append)
    async with Door(sshd, tmp_path / "door", limits=limits).serving() as door, connect(door) as conn:
        side = door.sides[0]
        conn._transport.pause_reading()
        conn._send_kexinit()
        conn._kex_complete = True  # and goes on as if it had not begun
        unknown = String(b"x") + Boolean(True)
        await ask_until(lambda: side.is_gone, conn, lambda _: (GLOBAL, unknown))
        await door.next_end()
        assert hits == ["deferred"]
        assert len(side._deferred_packets) * 256 <= 2 << 20


async def test_two_ends_that_both_hang_are_noticed(tmp_path: Path) -> None:
    """Neither is read while the other is full, so neither could answer whether it is there."""
    hits: list[str] = []
    limits = replace(RelayLimits(), keepalive_seconds=1, keepalive_count=1, hit=hits.append)
    with Sshd.running(tmp_path / "sshd") as own:
        async with Door(own, tmp_path / "door", limits=limits).serving() as door, connect(door) as conn:
            down = await Raw.session(conn, window=0xFFFFFFFF)
            assert await down._make_request(b"exec", String(b"cat /dev/zero"))
            up = await Raw.session(conn)
            side, pod = door.sides[0], door.pods[0]
            conn._transport.pause_reading()
            stopped: list[int] = []
            try:
                await until(lambda: side.full)
                stopped = own.connections()
                for pid in stopped:
                    os.kill(pid, signal.SIGSTOP)
                async with asyncio.timeout(30):
                    while not pod.full and not side.is_gone:
                        up._send_request(b"env", String(b"RELAY_A") + String(b"x" * 200_000))
                        await asyncio.sleep(0)
                assert (side._holds, pod._holds) == (1, 1)
                await door.next_end()
                assert "keepalive_count" in hits
            finally:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
                conn.abort()
