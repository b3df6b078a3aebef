"""Why: whoever sends half a request, and another half, and another, must not take every file descriptor of the api."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from api.patience import PatientProtocol
from tests.support.service import _Server

LIMIT = 60.0
LONG = bytes(32 << 20)


class Hasty(PatientProtocol):
    head_seconds = 0.2
    drain_seconds = 0.2


class Answers:
    """An app that answers `/slow` when it is told to, and everything else at once; `/long` with more than any sockets
    keep between two programs."""

    def __init__(self) -> None:
        self.now = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/slow":
            await self.now.wait()
        body = LONG if scope["path"] == "/long" else b"ok"
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def app() -> Answers:
    return Answers()


@pytest.fixture
async def port(app: Answers) -> AsyncIterator[int]:
    server = _Server(uvicorn.Config(app, http=Hasty, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@pytest.mark.parametrize("sent", [b"", b"GET ", b"GET / HTTP/1.1\r\nHost: here\r\nX-More: "])
async def test_half_a_request_is_not_waited_for(port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    assert await ended(reader) == b""
    writer.close()


async def test_neither_is_the_half_of_a_second_one(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        async with asyncio.timeout(LIMIT):
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    writer.write(b"GET / HTTP/1.1\r\n")
    assert await ended(reader) == b""
    writer.close()


async def test_an_answer_may_take_as_long_as_it_takes(app: Answers, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")
    other, half = await asyncio.open_connection("127.0.0.1", port)
    assert await ended(other) == b""  # later than the patience with a head would have ended
    half.close()
    app.now.set()
    async with asyncio.timeout(LIMIT):
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    writer.close()


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"], ids=["kept alive", "to be closed"])
async def test_an_answer_that_nobody_reads_is_not_waited_for(port: int, more: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /long HTTP/1.1\r\nHost: here\r\n" + more + b"\r\n")
        broken = select.poll()
        broken.register(client, 0)  # nothing but the end that the other side made
        assert await asyncio.to_thread(broken.poll, LIMIT * 1000)


async def test_whoever_reads_gets_all_of_a_long_answer(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /long HTTP/1.1\r\nHost: here\r\n\r\n")
    async with asyncio.timeout(LIMIT):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(LONG)) == LONG
    writer.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection has ended, in whichever way."""
    try:
        async with asyncio.timeout(LIMIT):
            return await reader.read()
    except ConnectionResetError:
        return b""
