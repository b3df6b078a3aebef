"""Why: a bound that holds but keeps valid users out is a denial of service of our own making."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncssh
import httpx
import pytest

from tests.bastion.test_proxyprotocol import header
from tests.support.hub import no_tls
from tests.support.site import LIMIT, Site, site

LOUD = "127.0.0.2"
BALANCER = "127.0.0.3"


@asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[Site]:
    """A bastion of one process, with metrics."""
    async with site(folder, METRICS_PORT="0", SHUTDOWN_GRACE="0", **settings) as made:
        await made.start()
        yield made


async def tcp(at: Site, source: str = LOUD) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare connection."""
    return await asyncio.open_connection("127.0.0.1", at.port, local_addr=(source, 0))


async def login(at: Site, key: Path, *, source: str = "127.0.0.1", sent: bytes = b"") -> asyncssh.SSHClientConnection:
    """Alice, by asyncssh, over a connection that `sent` was said on before."""
    sock = socket.create_connection(("127.0.0.1", at.port), source_address=(source, 0))
    sock.sendall(sent)
    sock.setblocking(False)
    return await asyncssh.connect(
        "127.0.0.1",
        username="alice",
        sock=sock,
        client_keys=[asyncssh.load_keypairs(str(key))[0]],
        known_hosts=None,
        config=None,
        agent_path=None,
    )


async def flood(at: Site, addresses: list[str], count: int, said: bytes) -> list[asyncio.StreamWriter]:
    """So many connections that say this, and then nothing."""
    writers = []
    for number in range(count):
        with contextlib.suppress(OSError):
            _, writer = await tcp(at, addresses[number % len(addresses)])
            writer.write(said)
            writers.append(writer)
    return writers


async def wrong_keys(at: Site, source: str) -> None:
    """One login after the other with a key that nobody knows."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    while True:
        with contextlib.suppress(asyncssh.Error, OSError):
            await asyncssh.connect(
                "127.0.0.1",
                at.port,
                local_addr=(source, 0),
                username="alice",
                client_keys=[key],
                known_hosts=None,
                config=None,
                agent_path=None,
            )


@pytest.mark.parametrize(
    ("addresses", "bound"),
    [
        ([LOUD], "limits_unauthenticated_per_address"),
        ([f"127.0.1.{n}" for n in range(1, 51)], "limits_unauthenticated_full"),
    ],
    ids=["one address", "fifty addresses"],
)
async def test_a_flood_keeps_nobody_out_and_leaves_nothing_behind(
    tmp_path: Path, addresses: list[str], bound: str
) -> None:
    settings = {"START": "60", "RATE": "100", "FULL": "120", "PER_ADDRESS": "100"}
    async with running(
        tmp_path,
        LIMITS_CONNECTIONS="400",
        **{f"LIMITS_UNAUTHENTICATED_{name}": value for name, value in settings.items()},
    ) as made:
        key = made.key("alice")
        writers: list[asyncio.StreamWriter] = []
        loops = [asyncio.create_task(wrong_keys(made, addresses[0])) for _ in range(2)]
        try:
            for said in (b"", b"SSH-2.0-half-open\r\n"):
                writers += await flood(made, addresses, 250, said)
                assert await made.gets_in(key, source=LOUD)
                assert await made.gets_in(key, source="127.0.0.1")
            assert await made.metric("connections_waiting") <= 120
            assert await made.metric('logins_abandoned_total{reason="made_room"}') > 0
            reached = await made.metrics()
            assert any(
                count for name, count in reached.items() if name.startswith(f'limit_reached_total{{limit="{bound[:22]}')
            )
            await made.until_metric('logins_total{how="",reason="unknown_credential",result="refused"}', bool)
        finally:
            for task in loops:
                task.cancel()
            await asyncio.wait(loops)
            for writer in writers:
                writer.transport.abort()
        for gauge in ("connections_waiting", "addresses_waiting", "connections", 'sessions{mode="direct"}'):
            await made.until_metric(gauge, lambda value: value == 0)
        assert await made.metric('connections_refused_total{reason="connections"}') == 0


async def test_a_class_of_300_behind_one_nat_passes_on_the_defaults_all_at_once(tmp_path: Path) -> None:
    """Two connections each, as an editor makes them."""
    students = 300
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    try:
        async with running(tmp_path) as made, AsyncExitStack() as stack:
            keys = [made.key(f"key-{number}", user=f"student-{number}") for number in range(students)]
            pairs = await asyncio.gather(*(login(made, key, source=LOUD) for key in (*keys, *keys)))
            for conn in pairs:
                await stack.enter_async_context(conn)
            assert await made.metric('sessions{mode="direct"}') == 2 * students
            seen = await made.metrics()
            assert not [name for name, count in seen.items() if count and name.startswith(("limit_", "logins_aban"))]
            assert not [name for name, count in seen.items() if count and name.startswith("connections_refused")]
            assert (await pairs[-1].run("echo in")).stdout == "in\n"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_who_never_logs_in_is_sent_away_after_the_grace_time(tmp_path: Path) -> None:
    async with running(tmp_path, LOGIN_GRACE="1", LOGIN_PROBES="2", LIMITS_CONNECTIONS_PER_USER="1") as made:
        key = made.key("alice")
        reader, writer = await tcp(made)
        async with asyncio.timeout(LIMIT):
            assert (await reader.readline()).startswith(b"SSH-2.0-")
            assert await reader.read() == b""
        writer.close()
        assert await made.metric('logins_abandoned_total{reason="grace"}') == 1
        assert await made.metric('limit_reached_total{limit="login_grace"}') == 1
        strangers = [made.key(f"stranger-{number}", certified=False) for number in range(6)]
        many = [word for stranger in strangers for word in ("-i", str(stranger))]
        status, _, errors = await (await made.ssh(strangers[0], *many, "true")).ends()
        assert status == 255
        assert b"Too many authentication failures" in errors
        assert await made.metric('limit_reached_total{limit="login_probes"}') == 1
        first = await made.ssh(key, "cat")
        assert await first.talks(b"in")
        status, _, errors = await (await made.ssh(key, "true")).ends()
        assert status == 255
        assert b"You have too many sessions open." in errors
        assert await made.metric('limit_reached_total{limit="limits_connections_per_user"}') == 1
        assert await made.metric('logins_total{how="",reason="too_many",result="refused"}') == 1
        assert (await first.ends())[0] == 0
        assert await made.gets_in(key)


async def test_a_connection_has_so_many_sessions_and_channels_and_a_process_so_many_connections(tmp_path: Path) -> None:
    bounds = {"SESSIONS": "2", "CHANNELS": "3", "CONNECTIONS": "2", "CONNECTIONS_PER_ADDRESS": "1"}
    async with running(tmp_path, **{f"LIMITS_{name}": value for name, value in bounds.items()}) as made:
        key = made.key("alice")
        async with await login(made, key) as alice:
            for _ in range(2):
                await alice.create_process("cat")
            with pytest.raises(asyncssh.ChannelOpenError, match="at most 2 sessions"):
                await alice.create_process("cat")
            await alice.open_connection("127.0.0.1", made.sshd.port)
            with pytest.raises(asyncssh.ChannelOpenError, match="at most 3 channels"):
                await alice.open_connection("127.0.0.1", made.sshd.port)
            _, _, errors = await (await made.ssh(key, "true")).ends()
            assert b"Too many connections from your address. Close some and try again." in errors
            async with await login(made, key, source=LOUD):
                _, _, errors = await (await made.ssh(key, "true", source=BALANCER)).ends()
                assert b"This bastion has no room for more connections. Try again later." in errors
        seen = await made.metrics()
        for limit in ("limits_sessions", "limits_channels", "limits_connections", "limits_connections_per_address"):
            assert seen[f'limit_reached_total{{limit="{limit}"}}'] == 1
        assert seen['connections_refused_total{reason="connections"}'] == 1
        await made.until_metric("connections", lambda value: value == 0)


async def test_a_proxys_header_says_who_the_client_is_and_only_a_proxys(tmp_path: Path) -> None:
    async with running(tmp_path, PROXY_NETWORKS=f"{BALANCER}/32", PROXY_TIMEOUT="2") as made:
        key = made.key("alice")
        stalled = [await tcp(made, BALANCER) for _ in range(5)]
        stalled[0][1].write(header()[:20])
        line = b"PROXY TCP4 192.0.2.8 127.0.0.1 4711 2222\r\n"
        for said in (header("192.0.2.7"), header("2001:db8::7", fields=b"\x04\x00\x02ab"), line):
            async with await login(made, key, source=BALANCER, sent=said) as alice:
                assert (await alice.run("echo in")).stdout == "in\n"
                async with await login(made, key) as direct:
                    peers = {row["peer"] for row in await made.sessions()}
                    assert peers & {"192.0.2.7", "2001:db8::7", "192.0.2.8"}
                    assert "127.0.0.1" in peers
                    assert BALANCER not in peers
                    assert (await direct.run("echo in")).stdout == "in\n"
        async with await login(made, key, source=BALANCER, sent=header(command=0x20)):
            assert [row["peer"] for row in await made.sessions()] == [BALANCER]
        assert {line["peer"] for line in made.audit("session_opened")} >= {
            "192.0.2.7",
            "2001:db8::7",
            "192.0.2.8",
            BALANCER,
        }
        for source, said in ((BALANCER, b"SSH-2.0-x\r\n"), ("127.0.0.1", header("192.0.2.9"))):
            reader, writer = await tcp(made, source)
            writer.write(said)
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(1000):
                    pass
            writer.close()
        assert await made.metric('connections_refused_total{reason="proxy_header"}') == 1
        assert all(line["peer"] != "192.0.2.9" for line in made.audit())
        for reader, writer in stalled:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        assert await made.metric('connections_refused_total{reason="proxy_timeout"}') == 5
        await made.until_metric("connections", lambda value: value == 0)


async def test_metrics_tell_how_much_and_not_who(tmp_path: Path) -> None:
    async with running(tmp_path) as made:
        key = made.key("alice")
        assert await made.gets_in(key)
        tunnel = await made.ssh(key, "-W", "alice.hub:22", login="jump")
        assert tunnel.process.stdout is not None
        assert (await tunnel.process.stdout.readline()).startswith(b"SSH-2.0-")
        seen = await made.metrics()
        assert seen['logins_total{how="certificate",reason="",result="accepted"}'] == 2
        assert (seen['sessions{mode="jump"}'], seen['sessions{mode="tunnel"}']) == (1, 1)
        assert (seen["servers"], seen["fresh"], seen["api_reachable"], seen["hop_certificates"]) == (1, 1, 1, 1)
        assert seen["tunnels_opened_total"] == 1
        assert seen['bytes_total{direction="to_clients"}'] >= len(b"in\n")
        assert "process_open_fds" in seen
        assert "event_loop_lag_seconds_count" in seen
        assert not [name for name in seen if "alice" in name or "127.0.0" in name]
        await tunnel.ends()
        port = (await made.logged(r"http://127.0.0.1:(\d+)/metrics"))[1]
        async with httpx.AsyncClient(verify=no_tls(), trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/")).status_code == 404
            assert (await client.post("/metrics")).status_code == 405


async def test_operators_errors_are_sentences(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        status, _, errors = await made.command("sessions")
        assert (status, "No bastion is running" in errors) == (1, True)
        await made.start()
        for which, words in {
            "session:x": "is no session",
            "serial:x": "is no serial",
            "user:": "needs a name",
            "group:x": "names nothing",
            "a,b": "names no server",
        }.items():
            status, _, errors = await made.command("cut", which)
            assert status == 1
            assert words in errors
        key = made.key("alice")
        client = await made.ssh(key, "cat")
        assert await client.talks(b"in")
        (row,) = await made.sessions()
        for which in ("serial:1", "user:bob", "session:99", "bob"):
            assert (await made.command("cut", which))[1] == "0 sessions told to end.\n"
        shown = (await made.command("sessions"))[1].splitlines()
        assert shown[0].split() == ["id", "identity", "login", "server", "mode", "peer", "since", "received", "sent"]
        assert (await made.command("cut", f"serial:{row['serial']}"))[1] == "1 session told to end.\n"
        assert (await client.ends())[0] == 255
        assert "one process" in (await made.command("workers"))[2]
        assert "session:3" in (await made.command("cut", "--help"))[1]
