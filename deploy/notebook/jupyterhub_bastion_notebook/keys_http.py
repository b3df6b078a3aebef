"""Exists for the bastion's fallback without certificates: it asks each pod which keys its owner allows.

`GET /publickey` answers the text of `authorized_keys` as it is at that moment; the protocol is PrimeHub's. Public keys
are no secret, but the service must not cost the notebook anything: few connections, small requests, short time-outs.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from . import ports

LARGEST_FILE = 1024 * 1024
"""Bytes of authorized_keys; a longer file is answered as empty rather than cut inside a line."""

_PATIENCE = 5.0  # seconds for a request to arrive, and again for its answer to be taken
_LARGEST_HEAD = 8 * 1024
_MOST_CONNECTIONS = 64


class KeyServer:
    """The service for one file. Refuses nobody: when too many wait, the one that has waited longest makes room."""

    def __init__(self, authorized_keys: Path) -> None:
        self._file = authorized_keys
        self._open: dict[asyncio.StreamWriter, None] = {}

    async def start(self, listen: str, port: int) -> int:
        """Listen, and return the port; port 0 picks one. Raises OSError."""
        server = await asyncio.start_server(self._serve, sock=ports.bound(listen, port), limit=_LARGEST_HEAD)
        return int(server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= _MOST_CONNECTIONS:
            next(iter(self._open)).transport.abort()
        self._open[writer] = None
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _PATIENCE)
            writer.write(answer(head, self._file))
            await asyncio.wait_for(writer.drain(), _PATIENCE)
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), _PATIENCE)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # Its own loss: a client that hangs, leaves or sends too much gets no answer.
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()


def answer(head: bytes, authorized_keys: Path) -> bytes:
    """The whole response to a request's head."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _response("400 Bad Request", b"")
    if words[1].split(b"?", 1)[0] != b"/publickey":
        return _response("404 Not Found", b"")
    if words[0] != b"GET":
        return _response("405 Method Not Allowed", b"")
    return _response("200 OK", read_keys(authorized_keys))


def read_keys(path: Path) -> bytes:
    """The file's content; empty when it is missing, unreadable, too large or not a plain file."""
    try:
        # O_NONBLOCK: a named pipe must not hold everything up before it is seen to be one.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return b""
            content = stream.read(LARGEST_FILE + 1)
    except OSError:
        return b""
    return content if len(content) <= LARGEST_FILE else b""


def _response(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
