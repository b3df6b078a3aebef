"""Why: clients choose their windows and packet sizes as they like, and a relay must not need a reasonable one."""

from __future__ import annotations

import asyncio

import asyncssh
import pytest
from asyncssh.packet import UInt32

from tests.bastion.relay.doors import Door, connect
from tests.bastion.relay.test_hostile import until

WINDOW_ADJUST = 93


class _Collects(asyncssh.SSHClientSession[bytes]):
    def __init__(self) -> None:
        self.got = b""
        self.status: int | None = None
        self.ended = asyncio.Event()

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        del datatype
        self.got += data

    def exit_status_received(self, status: int) -> None:
        self.status = status

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.ended.set()


@pytest.mark.parametrize(("window", "packet"), [(1, 1), (7, 1000), (1023, 1), (70_000, 50), (0xFFFFFFFF, 0xFFFFFFFF)])
async def test_everything_arrives_whatever_the_window(door: Door, window: int, packet: int) -> None:
    async with connect(door) as conn:
        chan, session = await conn.create_session(
            _Collects,
            "head -c 5000 /dev/zero | tr '\\0' x; echo end; exit 3",
            encoding=None,
            window=window,
            max_pktsize=packet,
        )
        await asyncio.wait_for(session.ended.wait(), 60)
        assert (session.got, session.status) == (b"x" * 5000 + b"end\n", 3)
        chan.close()


async def test_a_window_of_nothing_lets_everything_else_through(door: Door) -> None:
    """Status and end need no window; what needs it comes when it is there."""
    async with connect(door) as conn:
        chan, session = await conn.create_session(_Collects, "true; exit 4", encoding=None, window=0)
        await until(lambda: session.status == 4)
        chan.close()
        chan, session = await conn.create_session(_Collects, "echo here; exit 5", encoding=None, window=0)
        chan._recv_window += 3
        chan.send_packet(WINDOW_ADJUST, UInt32(3))
        chan._recv_window += 2
        chan.send_packet(WINDOW_ADJUST, UInt32(2))
        await until(lambda: (session.got, session.status) == (b"here\n", 5))
        chan.close()
