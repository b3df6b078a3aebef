"""Why: a thousand ssh processes would take the machine from what is measured; one process with asyncssh does not.

Started as `python -m bench.load` with a JSON object per line on standard input, it answers each with one line:

    {"do": "connect", "count": 100, "parallel": 32, "session": true}   -> {"seconds": [...], "failed": 0}
    {"do": "type", "seconds": 5, "rate": 500}                          -> {"seconds": [...], "failed": 0}
    {"do": "close"}                                                    -> {"failed": 0}

The first line says the route: {"port", "login", "jump": null or {"port", "login"}, "key", "certificates", "command"}.
A session has a terminal, whose echo is what a keystroke waits for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import asyncssh

ECHO_LIMIT = 20.0
CONNECT_LIMIT = 120.0


class Typist(asyncssh.SSHClientSession[bytes]):
    """A session whose every keystroke comes back."""

    def __init__(self) -> None:
        self.sent: deque[float] = deque()
        self.echoes: list[float] = []
        self.lost = False
        self.channel: asyncssh.SSHClientChannel[bytes] | None = None

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self.channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        now = time.perf_counter()
        for _ in range(min(len(data), len(self.sent))):
            self.echoes.append(now - self.sent.popleft())

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def type(self) -> None:
        """One keystroke."""
        if self.channel is not None and not self.lost:
            self.sent.append(time.perf_counter())
            self.channel.write(b"x")


class Load:
    """The sessions that are open, and how to open more."""

    def __init__(self, route: dict[str, Any]) -> None:
        self._route = route
        key = asyncssh.read_private_key(route["key"])
        lines = Path(route["certificates"]).read_text().splitlines()
        self._pairs = [(key, asyncssh.import_certificate(line)) for line in lines]
        self._used = 0
        self._connections: list[asyncssh.SSHClientConnection] = []
        self._typists: list[Typist] = []
        self._options = asyncssh.SSHClientConnectionOptions(
            known_hosts=None, config=None, agent_path=None, connect_timeout=CONNECT_LIMIT, login_timeout=CONNECT_LIMIT
        )

    async def connect(self, count: int, parallel: int, session: bool) -> dict[str, Any]:
        """Open so many more connections, `parallel` at a time, each with the next certificate."""
        room = asyncio.Semaphore(parallel)
        seconds: list[float] = []
        failures: list[str] = []

        async def one() -> None:
            async with room:
                began = time.perf_counter()
                try:
                    async with asyncio.timeout(CONNECT_LIMIT):
                        await self._open(session)
                except (OSError, asyncssh.Error, TimeoutError) as error:
                    failures.append(f"{type(error).__name__}: {error}"[:200])
                else:
                    seconds.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        took = time.perf_counter() - began
        return {"seconds": seconds, "took": took, "failed": len(failures), "why": failures[:3]}

    async def _open(self, session: bool) -> None:
        pair = self._pairs[self._used % len(self._pairs)]
        self._used += 1
        route, tunnel = self._route, None
        if route["jump"] is not None:
            tunnel = await self._log_in(route["jump"], pair, None)
        connection = await self._log_in(route, pair, tunnel)
        if session:
            typist = Typist()
            self._typists.append(typist)
            await connection.create_session(lambda: typist, route["command"], term_type="xterm", encoding=None)

    async def _log_in(
        self, at: dict[str, Any], pair: Any, tunnel: asyncssh.SSHClientConnection | None
    ) -> asyncssh.SSHClientConnection:
        connection = await asyncssh.connect(
            "127.0.0.1",
            at["port"],
            username=at["login"],
            client_keys=[pair],
            options=self._options,
            tunnel=tunnel or (),
        )
        self._connections.append(connection)
        return connection

    async def type(self, seconds: float, rate: float) -> dict[str, Any]:
        """Keystrokes at `rate` per second in all, on one session after the other, in an order by chance."""
        order = random.sample(self._typists, len(self._typists))
        for typist in order:
            typist.echoes.clear()
        loop = asyncio.get_running_loop()
        began, count = loop.time(), int(seconds * rate)
        for number in range(count):
            pause = began + number / rate - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            order[number % len(order)].type()
        end = loop.time() + ECHO_LIMIT
        while any(typist.sent for typist in order if not typist.lost) and loop.time() < end:
            await asyncio.sleep(0.01)
        echoes = [echo for typist in order for echo in typist.echoes]
        lost = sum(1 for typist in order if typist.lost)
        return {"seconds": echoes, "failed": count - len(echoes), "lost": lost}

    async def close(self) -> dict[str, Any]:
        """Close everything."""
        connections, self._connections, self._typists = self._connections, [], []
        for connection in reversed(connections):
            connection.close()
        for connection in reversed(connections):
            await connection.wait_closed()
        return {"failed": 0}

    async def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what a line says."""
        what = asked.pop("do")
        if what == "connect":
            return await self.connect(**asked)
        return await (self.type(**asked) if what == "type" else self.close())


async def main() -> None:
    """Answer line by line until standard input ends."""
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    load = Load(json.loads(await reader.readline()))
    while line := await reader.readline():
        print(json.dumps(await load.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
