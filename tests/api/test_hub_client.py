"""Why: whatever answers at JupyterHub's address that is not JupyterHub must read as "unknown", never as "stopped"."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import structlog.testing

from api.errors import HubUnavailable, TokenRefused
from api.hub import MAX_ANSWER, HubClient
from tests.support.hub import Hub

TOKEN = "our-own-token-0123456789"
Answer = Callable[[str], bytes]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NUL = pytest.param("\0", id="nul")


def http(status: int, body: bytes | str, kind: str = "application/json", *more: str) -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(raw)}", "Connection: close", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + raw


@asynccontextmanager
async def something(answer: Answer) -> AsyncIterator[HubClient]:
    """A client of a server that answers a request with `answer(its first line)`, byte for byte."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(head.split(b"\r\n")[0].decode()))
        await writer.drain()

    async with listening(serve) as url, HubClient(url, TOKEN, timeout=20) as client:
        yield client


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """Where `serve` gets every connection; all of them have ended afterwards."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hub/api"
        await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    "answer",
    [
        http(503, "<h1>Service Unavailable</h1>", "text/html"),
        http(502, "{}"),
        http(500, '{"status": 500, "message": "oops"}'),
        http(429, '{"status": 429, "message": "slow down"}'),
        http(404, "<h1>Not Found</h1>", "text/html"),
        http(404, "{}"),
        http(403, "Forbidden", "text/plain"),
        http(403, '{"status": 403, "message": "no"}'),
        http(401, '{"status": 401, "message": "no"}'),
        http(302, "", "text/html", "Location: /hub/login"),
        http(200, "<html>login</html>", "text/html"),
        http(200, ""),
        http(200, "null"),
        http(200, "[]"),
        http(200, '"text"'),
        http(200, "{" * 100_000),
        http(200, b"\xff\xfe"),
        http(200, '{"name": "bob", "servers": {}}'),
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MAX_ANSWER + 1),
    ],
)
async def test_a_user_is_unknown_and_not_absent_while_jupyterhub_does_not_answer(answer: bytes) -> None:
    async with something(lambda _line: answer) as client:
        with pytest.raises(HubUnavailable) as raised:
            await client.user("alice")
    assert TOKEN not in str(raised.value)
    assert str(raised.value).endswith(".")


async def test_only_jupyterhubs_own_word_makes_a_user_absent() -> None:
    async with something(lambda _line: http(404, '{"status": 404, "message": "Not Found"}')) as client:
        assert await client.user("alice") is None


async def test_a_port_where_nobody_listens_is_unknown() -> None:
    async with HubClient("http://127.0.0.1:9/hub/api", TOKEN) as client:
        for asked in (client.user("alice"), client.active_servers(), client.whose_token("x"), client.shared_with("x")):
            with pytest.raises(HubUnavailable):
                await asked


async def test_a_hub_that_hangs_costs_its_time_out_and_no_more() -> None:
    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(hang) as url, HubClient(url, TOKEN, timeout=0.1) as client:
        with pytest.raises(HubUnavailable, match="in time"):
            await client.user("alice")


@pytest.mark.parametrize(
    "token", ["", " ", "two words", "line\nbreak", "ünï", "x" * 5000, pytest.param("\0", id="nul")]
)
async def test_what_cannot_be_a_token_is_refused_without_asking(token: str) -> None:
    async with HubClient("http://127.0.0.1:9/hub/api", TOKEN) as client:
        with pytest.raises(TokenRefused):
            await client.whose_token(token)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_token_is_refused_only_by_jupyterhub_itself(status: int) -> None:
    async with something(lambda _line: http(status, json.dumps({"status": status, "message": "no"}))) as client:
        with pytest.raises(TokenRefused):
            await client.whose_token("theirs")
    async with something(lambda _line: http(status, "<h1>proxy</h1>", "text/html")) as client:
        with pytest.raises(HubUnavailable):
            await client.whose_token("theirs")


@pytest.mark.parametrize(
    ("name", "path"),
    [("..", "%2E%2E"), ("a/b", "a%2Fb"), ("a b?c#d", "a%20b%3Fc%23d"), ("ünï", "%C3%BCn%C3%AF"), ("a\nb", "a%0Ab")],
)
async def test_a_user_name_is_one_segment_of_the_path(name: str, path: str) -> None:
    seen: list[str] = []

    def answer(line: str) -> bytes:
        seen.append(line)
        return http(200, json.dumps({"name": name, "servers": {}}))

    async with something(answer) as client:
        assert await client.user(name) == {"name": name, "servers": {}}
    assert seen == [f"GET /hub/api/users/{path} HTTP/1.1"]


def page(names: list[str], following: object) -> bytes:
    items = [{"name": name, "servers": {}} for name in names]
    return http(200, json.dumps({"items": items, "_pagination": {"next": following}}))


async def test_pages_are_followed_to_the_end() -> None:
    pages = {"0": page(["alice"], {"offset": 1}), "1": page(["bob"], {"offset": 2}), "2": page([], None)}
    async with something(lambda line: pages[line.split("offset=")[1].split(" ")[0].split("&")[0]]) as client:
        assert [model["name"] for model in await client.active_servers()] == ["alice", "bob"]


@pytest.mark.parametrize("following", [{"offset": 0}, {"offset": "1"}, {}, "next", 7])
async def test_pages_that_lead_nowhere_are_no_answer(following: object) -> None:
    async with something(lambda _line: page(["alice"], following)) as client:
        with pytest.raises(HubUnavailable):
            await client.active_servers()


async def test_a_hub_without_sharing_shares_nothing() -> None:
    async with something(lambda _line: http(404, '{"status": 404, "message": "Not Found"}')) as client:
        assert await client.shared_with("alice") == ()


async def test_real_users_tokens_servers_and_shares_are_read(hub: Hub) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    await hub.user("Bob.Smith@example.org")
    async with HubClient(hub.api_url, hub.service_token, timeout=60) as client:
        assert [model["name"] for model in await client.active_servers()] == ["alice"]
        assert set((await client.user("alice") or {})["servers"]) == {"gpu"}
        assert (await client.user("Bob.Smith@example.org") or {})["name"] == "Bob.Smith@example.org"
        assert await client.user("nobody") is None
        assert await client.user("..") is None
        assert len(await client.shared_with("bob")) == 1
        assert await client.shared_with("nobody") == ()
        model = await client.whose_token(await hub.server_token("alice", "gpu"))
        assert (model["name"], "access:servers!server=alice/gpu" in model["scopes"]) == ("alice", True)


async def test_a_service_token_that_jupyterhub_does_not_know_is_an_outage_of_ours(hub: Hub) -> None:
    async with HubClient(hub.api_url, "0" * 32, timeout=60) as client:
        with pytest.raises(HubUnavailable):
            await client.user("alice")
        with pytest.raises(HubUnavailable):
            await client.active_servers()


async def test_tokens_show_in_no_log_and_no_repr() -> None:
    with structlog.testing.capture_logs() as lines:
        async with HubClient("http://127.0.0.1:9/hub/api", TOKEN) as client:
            with pytest.raises(HubUnavailable):
                await client.whose_token("somebodys-token-0123456789")
            assert TOKEN not in repr(client)
    assert "token-0123456789" not in repr(lines)
