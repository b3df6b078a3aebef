"""Why: OpenSSH's clients hide when a key was typed among made-up packets, where the server answers their pings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asyncssh.connection import SSHConnection
from asyncssh.packet import String, UInt32

from tests.bastion.relay.doors import Door, connect

PING, PONG, EXT_INFO = 192, 193, 7


async def test_pings_are_offered_and_come_back_as_they_were(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    pongs: asyncio.Queue[bytes] = asyncio.Queue()
    offers: list[bytes] = []
    theirs: Any = SSHConnection._packet_handlers[EXT_INFO]

    def told(conn: Any, kind: int, number: int, packet: Any) -> Any:
        offers.append(packet._packet)
        return theirs(conn, kind, number, packet)

    def pong(conn: Any, kind: int, number: int, packet: Any) -> None:
        del conn, kind, number
        pongs.put_nowait(packet.get_string())

    monkeypatch.setitem(SSHConnection._packet_handlers, EXT_INFO, told)
    monkeypatch.setitem(SSHConnection._packet_handlers, PONG, pong)
    async with connect(door) as conn:
        assert String("ping@openssh.com") + String("0") in offers[0]
        for data in (b"", b"PING!", bytes(30_000)):
            conn.send_packet(PING, String(data))
            assert await asyncio.wait_for(pongs.get(), 20) == data
        running = asyncio.ensure_future(conn.run("head -c 3000000 /dev/zero", encoding=None))
        for number in range(500):
            conn.send_packet(PING, String(b"%d" % number))
            assert await asyncio.wait_for(pongs.get(), 20) == b"%d" % number
        assert len((await running).stdout) == 3_000_000


@pytest.mark.parametrize("payload", [b"", UInt32(5) + b"four", String(b"x") + b"y"])
async def test_a_ping_that_is_none_ends_that_connection(door: Door, payload: bytes) -> None:
    async with connect(door) as conn:
        conn.send_packet(PING, payload)
        assert "packet" in str((await door.next_end()).ended[0])
