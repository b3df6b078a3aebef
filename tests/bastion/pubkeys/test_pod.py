"""Real listeners that behave as badly as a user's pod can: each costs one time-out, or less, and nothing else."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest

from bastion.pubkeys.pod import KeysUnavailable, PodKeys, PodLimits, _slices
from ca.keys import AuthorizedKey
from tests.support.pods import LIMIT, Behaviour, KeyServer, free_port, hanging, key, key_server, pod, response

HERE = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SHORT = PodLimits(seconds=0.2)


@pytest.fixture
async def keys() -> AsyncIterator[PodKeys]:
    client = PodKeys(HERE, PodLimits(seconds=LIMIT))
    yield client
    await client.aclose()


@pytest.fixture
async def hasty() -> AsyncIterator[PodKeys]:
    """For pods that never answer: what ends the wait is the time-out itself."""
    client = PodKeys(HERE, SHORT)
    yield client
    await client.aclose()


async def test_a_pod_answers_its_lines_with_their_options(keys: PodKeys) -> None:
    async with key_server(key(1), "# a comment", f'restrict,command="ls" {key(2).line} me@home') as server:
        found = await keys.fetch(pod("alice", port=server.port))
    assert found == (AuthorizedKey(key(1)), AuthorizedKey(key(2), ("restrict", 'command="ls"')))
    assert server.requests[0].startswith("GET /publickey HTTP/1.1\r\n")


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r"])
async def test_a_comment_of_a_restricted_key_never_becomes_a_key_without_the_restrictions(
    keys: PodKeys, separator: str
) -> None:
    """sshd ends a line at a newline only; what others send as a comment must not end one here either."""
    line = f'restrict,command="ls" {key(1).line} me{separator}{key(1).line}{separator}{key(2).line}'
    async with key_server(line) as server:
        found = await keys.fetch(pod("alice", port=server.port))
    assert [one for one in found if not one.options] == []


async def test_an_empty_list_is_an_answer(keys: PodKeys) -> None:
    async with key_server() as server:
        assert await keys.fetch(pod("alice", port=server.port)) == ()


async def test_a_pod_is_told_nothing_but_what_is_asked_and_no_proxy_hears_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    client = PodKeys(HERE, PodLimits(seconds=LIMIT))
    async with key_server(key(1)) as server:
        await client.fetch(pod("alice", port=server.port))
    await client.aclose()
    names = {line.partition(":")[0].lower() for line in server.requests[0].split("\r\n")[1:] if line}
    assert names <= {"host", "accept", "accept-encoding", "connection", "user-agent"}


async def test_a_pod_on_an_ipv6_address_is_asked_there(keys: PodKeys) -> None:
    with pytest.raises(KeysUnavailable, match="ConnectError"):
        await keys.fetch(pod("alice", address="::1", port=free_port()))


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1/x", "", "127.0.0.1:80@evil"])
async def test_what_is_no_ip_address_is_never_asked(keys: PodKeys, address: str) -> None:
    with pytest.raises(KeysUnavailable, match="IP address"):
        await keys.fetch(pod("alice", address=address))


async def test_a_pod_where_nothing_listens(keys: PodKeys) -> None:
    with pytest.raises(KeysUnavailable):
        await keys.fetch(pod("alice", port=free_port()))


def says(raw: bytes) -> Behaviour:
    async def behave(_: KeyServer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return behave


MEGABYTES = response(b"a" * ((1 << 20) + 1))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\xff garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"X" * 1_000_000,
        response(b"\xff\xfe\xfd"),
        response(b"", "404 Not Found"),
        response(b"", "500 Internal Server Error"),
        response(b"", "204 No Content"),
        MEGABYTES,
        response(gzip.compress(b"\n" * 50_000_000), "200 OK", "Content-Encoding: gzip"),
    ],
    ids=lambda raw: repr(raw[:24]),
)
async def test_garbage_is_no_answer(keys: PodKeys, raw: bytes) -> None:
    async with key_server(behave=says(raw)) as server:
        with pytest.raises(KeysUnavailable):
            await keys.fetch(pod("alice", port=server.port))


async def test_a_redirect_is_not_followed(keys: PodKeys) -> None:
    async with key_server(key(1)) as elsewhere:
        target = f"Location: http://127.0.0.1:{elsewhere.port}/publickey"
        async with key_server(behave=says(response(b"", "302 Found", target))) as server:
            with pytest.raises(KeysUnavailable, match="302"):
                await keys.fetch(pod("alice", port=server.port))
    assert elsewhere.requests == []


async def test_a_cookie_is_not_kept(keys: PodKeys) -> None:
    async with key_server(behave=says(response(b"", "200 OK", "Set-Cookie: a=b; Path=/"))) as server:
        for _ in range(2):
            await keys.fetch(pod("alice", port=server.port))
    assert "cookie" not in server.requests[1].lower()


async def test_reading_stops_long_before_a_hundred_megabytes(keys: PodKeys) -> None:
    sent = 0

    async def flood(_: KeyServer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while sent < 100_000_000:
            writer.write(b"a" * 65536)
            await writer.drain()
            sent += 65536

    async with key_server(behave=flood) as server:
        with pytest.raises(KeysUnavailable, match="bytes"):
            await keys.fetch(pod("alice", port=server.port))
        async with asyncio.timeout(LIMIT):
            await server.gone.wait()
    assert sent < 20_000_000


async def test_a_pod_that_hangs_costs_its_time_out(hasty: PodKeys) -> None:
    async with key_server(behave=hanging) as server:
        with pytest.raises(KeysUnavailable, match="within"):
            await hasty.fetch(pod("alice", port=server.port))


async def test_a_pod_that_drips_gets_no_longer_than_one_that_hangs(hasty: PodKeys) -> None:
    async def drip(_: KeyServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"a")
            await writer.drain()
            try:
                async with asyncio.timeout(0.01):
                    await reader.read(1)
            except TimeoutError:
                pass

    async with key_server(behave=drip) as server:
        with pytest.raises(KeysUnavailable, match="within"):
            await hasty.fetch(pod("alice", port=server.port))


async def test_more_lines_and_keys_than_allowed_are_left_out() -> None:
    client = PodKeys(HERE, PodLimits(seconds=LIMIT, max_lines=100, max_keys=3))
    async with key_server(*[key(number) for number in range(5)]) as server:
        found = await client.fetch(pod("alice", port=server.port))
    assert [one.key for one in found] == [key(0), key(1), key(2)]
    async with key_server(*["junk"] * 100, key(1)) as server:
        assert await client.fetch(pod("alice", port=server.port)) == ()
    await client.aclose()


def test_lines_are_read_in_short_groups_and_none_is_lost() -> None:
    lines = ["a"] * 70 + ["b" * 40_000] * 3 + ["c"]
    groups = list(_slices(lines))
    assert [line for group in groups for line in group] == lines
    assert max(len(group) for group in groups) <= 32
    assert all(sum(map(len, group[:-1])) < 32 << 10 for group in groups)


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "::1"])
async def test_a_pod_outside_the_networks_of_notebook_servers_is_not_dialled(address: str) -> None:
    async with key_server(key(1)) as server:
        client = PodKeys((ip_network("10.0.0.0/8"),), PodLimits(seconds=LIMIT))
        with pytest.raises(KeysUnavailable, match="outside the networks"):
            await client.fetch(pod("mallory", port=server.port, address=address))
        await client.aclose()
        assert server.requests == []
