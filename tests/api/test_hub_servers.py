"""Why: an order to start a server must not be called done, nor refused, by something that is not JupyterHub."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api.errors import HubUnavailable
from api.hubservers import MAX_LISTENERS, HubServers, News, Said
from tests.api.test_hub_client import TOKEN, http, listening


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[HubServers, list[bytes]]]:
    """A client of a server that sends `answer` to every request, and the requests."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()

    async with listening(serve) as url, HubServers(url, TOKEN, timeout=20) as client:
        yield client, seen


@pytest.mark.parametrize(
    "answer",
    [
        http(200, "<h1>Log in</h1>", "text/html"),
        http(302, "", "text/html", "Location: /hub/login"),
        http(403, "Forbidden", "text/plain"),
        http(404, "<h1>Not found</h1>", "text/html"),
        http(500, "{}"),
        http(503, "<h1>Service Unavailable</h1>", "text/html"),
        http(401, '{"status": 401, "message": "no"}'),
        http(403, '{"status": 403, "message": "Action is not authorized with current scopes"}'),
        b"",
        b"garbage\r\n\r\n",
    ],
)
async def test_what_jupyterhub_did_not_say_is_neither_yes_nor_no(answer: bytes) -> None:
    async with answering(answer) as (client, _):
        for asked in (client.start("alice", "", {}), client.stop("alice", "gpu")):
            with pytest.raises(HubUnavailable) as raised:
                await asked
            assert TOKEN not in str(raised.value)
            assert str(raised.value).endswith(".")


async def test_jupyterhubs_own_words_are_kept_to_one_printable_line() -> None:
    words = json.dumps({"status": 400, "message": "a\nb\u202e " + "x" * 900})
    async with answering(http(400, words)) as (client, _):
        said = await client.start("alice", "", {})
    assert said == Said(400, ("a b " + "x" * 900)[:300])


@pytest.mark.parametrize(
    ("owner", "name", "path"),
    [
        ("alice", "", "users/alice/server"),
        ("alice", "gpu", "users/alice/servers/gpu"),
        ("..", "..", "users/%2E%2E/servers/%2E%2E"),
        ("a/b", "c?d", "users/a%2Fb/servers/c%3Fd"),
    ],
)
async def test_names_stay_inside_their_part_of_the_path(owner: str, name: str, path: str) -> None:
    async with answering(http(204, "")) as (client, seen):
        assert await client.stop(owner, name) == Said(204)
    assert seen[0].startswith(f"DELETE /hub/api/{path} HTTP/1.1\r\n".encode())


async def heard(answer: bytes) -> list[News]:
    async with answering(answer) as (client, _):
        return [news async for news in client.listen("alice", "")]


async def test_a_start_is_heard_to_its_end() -> None:
    events = (
        b'\n\ndata: {"progress": 0, "message": "Server requested"}\n\n'
        b'data: {"progress": 1e999, "message": ["no text"]}\n\ndata: []\n\ndata: {\n\n'
        b'data: {"progress": NaN, "message": "on\\u001b[1m its way", "ready": "yes"}\n\n'
        b'data: {"progress": 100, "ready": true, "message": "Server ready"}\n\ndata: {"progress": 3}\n\n'
    )
    assert await heard(http(200, events, "text/event-stream")) == [
        News(0, "Server requested"),
        News(None, ""),
        News(None, "on[1m its way"),
        News(100, "Server ready", over=True),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        http(400, '{"status": 400, "message": "alice is not starting..."}'),
        http(503, "<h1>Service Unavailable</h1>", "text/html"),
        http(200, b"data: " + b"x" * 200_000, "text/event-stream"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
        b"",
    ],
)
async def test_a_stream_that_breaks_is_no_news(answer: bytes) -> None:
    assert await heard(answer) == []


async def test_when_too_many_listen_one_more_hears_nothing() -> None:
    async with answering(http(200, 'data: {"progress": 1}\n\n')) as (client, seen):
        for _ in range(MAX_LISTENERS):
            await client._listeners.acquire()
        assert [news async for news in client.listen("alice", "")] == []
        client._listeners.release()
        assert [news async for news in client.listen("alice", "")] == [News(1, "")]
    assert len(seen) == 1
