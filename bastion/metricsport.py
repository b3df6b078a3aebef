"""The port that Prometheus asks, on loopback unless set otherwise: one page over HTTP, served by the event loop itself.

A thread of its own (prometheus_client's server) would read rooms that the event loop is changing at that moment.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from bastion.settings import bind_to
from ca.errors import BastionError

_SECONDS = 10.0
_MAX_HEAD = 16 << 10

_log = logging.getLogger(__name__)


class MetricsPort:
    """Serves `text` as `GET /metrics`."""

    def __init__(self, host: str, port: int, text: Callable[[], Awaitable[bytes]]) -> None:
        """`port` 0 takes a free one, which the log tells."""
        self._host = host
        self._port = port
        self._text = text
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises `BastionError` when the port is taken."""
        try:
            self._server = await asyncio.start_server(self._serve, bind_to(self._host), self._port, limit=_MAX_HEAD)
        except OSError as error:
            place = f"{self._host} port {self._port}"
            raise BastionError(f"Cannot listen on {place} for metrics: {error.strerror}.") from None
        self._port = self._server.sockets[0].getsockname()[1]
        _log.info("metrics on http://%s:%d/metrics", self._host, self._port)

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head.split(b"\r\n", 1)[0].split()))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):  # TimeoutError is an OSError
            pass
        finally:
            writer.close()

    async def _answer(self, request: list[bytes]) -> bytes:
        if len(request) != 3 or request[0] != b"GET":
            return _response(b"405 Method Not Allowed", b"Only GET.\n")
        if request[1].partition(b"?")[0] != b"/metrics":
            return _response(b"404 Not Found", b"The metrics are at /metrics.\n")
        return _response(b"200 OK", await self._text(), CONTENT_TYPE_LATEST.encode())


def _response(status: bytes, body: bytes, kind: bytes = b"text/plain; charset=utf-8") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, kind, len(body)) + body
