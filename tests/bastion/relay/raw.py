"""Why: what no well-behaved client does has to be tried, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from asyncssh.channel import SSHForwardChannel


class Raw(SSHForwardChannel[bytes]):
    """A channel that does what it is told, permitted or not."""

    _read_datatypes = {1}  # noqa: RUF012

    @classmethod
    def on(cls, conn: Any, window: int = 1 << 20) -> Raw:
        return cls(conn, asyncio.get_running_loop(), None, "strict", window, 32768)

    @classmethod
    async def session(cls, conn: Any, window: int = 1 << 20) -> Raw:
        chan = cls.on(conn, window)
        await chan._open(b"session")
        return chan


async def until(true: Callable[[], object], limit: float = 30) -> None:
    """Wait for something that nobody announces."""
    async with asyncio.timeout(limit):
        while not true():
            await asyncio.sleep(0.01)
