"""A double of the api's internal port: real HTTP on 127.0.0.1, and nothing behind it.

It answers what a test puts into `state` and `answers`, as the interface documents it (there a function may make the
answer of the body); it signs nothing, checks nothing but the shared secret, and knows no JupyterHub. It holds a long
poll open until `change` is called or the test ends. What it says about the real api is only as true as the
interface's description; the end-to-end tests run against the real one.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

SECRET = "a-secret-of-the-tests-that-is-long-enough"


class InternalApi:
    """`requests` holds (method, path, body) of every authorised request, in order."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.answers: dict[str, tuple[int, Any] | Callable[[Any], tuple[int, Any]]] = {}
        self.raw: bytes | None = None
        self.hold: asyncio.Event | None = None
        self.requests: list[tuple[str, str, Any]] = []
        self.asked = asyncio.Condition()
        self._changed = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; on the same port as before after a `stop`."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Go away as a killed process does: the listener and every open connection."""
        if self._listener is None:
            return
        self._listener.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._changed.set()
        self._changed = asyncio.Event()
        await self._listener.wait_closed()
        self._listener = None

    def change(self, **fields: Any) -> None:
        """Let the open long polls see a new state."""
        self.state = {**self.state, **fields}
        self._changed.set()
        self._changed = asyncio.Event()

    async def was_asked(self, times: int) -> None:
        """Wait until it has been asked so often."""
        async with asyncio.timeout(20), self.asked:
            await self.asked.wait_for(lambda: len(self.requests) >= times)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(await self._answer(head.decode("latin-1"), reader))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader) -> bytes:
        line, *rest = head.split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("authorization") != f"Bearer {SECRET}":
            return _response(401, {"error": "invalid_token", "error_description": "Wrong secret."})
        async with self.asked:
            self.requests.append((method, target, json.loads(body) if body else None))
            self.asked.notify_all()
        if self.hold is not None:
            await self.hold.wait()
        if self.raw is not None:
            return self.raw
        parts = urlsplit(target)
        if parts.path in self.answers:
            answer = self.answers[parts.path]
            return _response(*(answer(json.loads(body) if body else None) if callable(answer) else answer))
        if parts.path == "/internal/state":
            query = parse_qs(parts.query, keep_blank_values=True)
            if query["version"] == [self.state["version"]] and query["wait"] != ["0"]:
                await self._changed.wait()
            return _response(200, self.state)
        return _response(404, {"error": "not_found", "error_description": "No such route."})


def _response(status: int, body: Any) -> bytes:
    content = json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(content),
        content,
    )


@asynccontextmanager
async def internal_api(state: dict[str, Any]) -> AsyncIterator[InternalApi]:
    """A double that listens, and is gone afterwards."""
    api = InternalApi(state)
    await api.start()
    try:
        yield api
    finally:
        if api.hold is not None:
            api.hold.set()
        await api.stop()
