"""Pods for tests: made up ones, and real listeners on 127.0.0.1 that behave as badly as a user's pod can.

A `KeyServer` speaks just enough HTTP to answer `GET /publickey` or to misbehave. Nothing in it is timed: a pod
that hangs does so until the test lets it go, and each pod tells when it has been asked.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache

import asyncssh

from bastion.directory.table import Found, Pod, Table
from ca.keys import PublicKey, parse_public_key
from ca.names import Instance, Server

LIMIT = 20.0
"""Seconds after which a wait in a test has failed."""


@cache
def key(number: int) -> PublicKey:
    """A key of its own for each number."""
    return parse_public_key(asyncssh.generate_private_key("ssh-ed25519").export_public_key())


def pod(owner: str, name: str = "", *, run: int = 1, port: int = 9, **more: object) -> Pod:
    """A pod of `owner`'s server in its `run`th instance, whose key server is on `port` of this machine."""
    fields: dict[str, object] = {
        "address": "127.0.0.1",
        "ssh_port": 40222,
        "key_port": port,
        "unix_user": "jovyan",
        "host_key": None,
    }
    return Pod(instance=Instance(Server(owner, name), run), **(fields | more))  # type: ignore[arg-type]


class Running:
    """A directory that holds just what a test puts in."""

    def __init__(self, *pods: Pod) -> None:
        self.table = Table()
        self.table.replace(pods, 0.0)

    def find(self, server: Server) -> Found:
        return self.table.find(server)

    def running(self) -> tuple[Pod, ...]:
        return self.table.running()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class KeyServer:
    """A pod's key server: `lines` is its `authorized_keys`, `asked` counts the requests it has read."""

    def __init__(self, port: int, lines: list[str]) -> None:
        self.port = port
        self.lines = lines
        self.requests: list[str] = []
        self.asked = asyncio.Condition()
        self.released = asyncio.Event()
        self.gone = asyncio.Event()

    async def was_asked(self, times: int = 1) -> None:
        """Wait until it has been asked so often."""
        async with asyncio.timeout(LIMIT), self.asked:
            await self.asked.wait_for(lambda: len(self.requests) >= times)

    async def _note(self, reader: asyncio.StreamReader) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        async with self.asked:
            self.requests.append(request.decode("latin-1"))
            self.asked.notify_all()


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


async def honest(server: KeyServer, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with its lines."""
    writer.write(response("\n".join(server.lines).encode(), "200 OK", "Content-Type: text/plain"))


async def hanging(server: KeyServer, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the request and says nothing until it is released; then it is honest."""
    await server.released.wait()
    writer.write(response("\n".join(server.lines).encode()))


Behaviour = Callable[[KeyServer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def key_server(*lines: str | PublicKey, behave: Behaviour = honest) -> AsyncIterator[KeyServer]:
    """A real listener that behaves as `behave` after it has read a request."""
    texts = [line.line if isinstance(line, PublicKey) else line for line in lines]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await served._note(reader)
            await behave(served, reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            served.gone.set()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    served = KeyServer(listener.sockets[0].getsockname()[1], texts)
    try:
        yield served
    finally:
        served.released.set()
        listener.close()
        await listener.wait_closed()


def free_port() -> int:
    """A port of this machine where nothing listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
