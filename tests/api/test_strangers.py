"""Why: whoever sends tokens that nobody knows must not keep the api from hearing which servers run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api import quiet, strangers
from api.errors import HubUnavailable, Refused, TokenRefused
from api.hub import HubClient
from api.networks import network_of, wide_network_of
from api.quiet import Quiet
from api.strangers import Strangers
from ca.audit import CertificateIssued, Event, RefusalsLeftOut, RequestRefused
from ca.errors import Reason
from tests.support.clock import Clock
from tests.support.ports import open_ports

LIMIT = 30.0


class SlowHub:
    """A JupyterHub that answers a question about a token only when it is let to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = asyncio.Event()
        self.url = ""
        self._more = asyncio.Condition()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if head.startswith("GET /hub/api/users?"):
                    status, body = 200, json.dumps({"items": [], "_pagination": {"next": None}})
                else:
                    async with self._more:
                        self.asked.append(head)
                        self._more.notify_all()
                    await self.go.wait()
                    status, body = 403, json.dumps({"status": 403, "message": "no"})
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def was_asked(self, times: int) -> None:
        async with asyncio.timeout(LIMIT), self._more:
            await self._more.wait_for(lambda: len(self.asked) >= times)


@asynccontextmanager
async def slow_hub() -> AsyncIterator[SlowHub]:
    hub = SlowHub()
    server = await asyncio.start_server(hub.answer, "127.0.0.1", 0, backlog=1000)
    hub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hub/api"
    try:
        yield hub
    finally:
        hub.go.set()
        server.close()


async def ask(desk: Strangers, number: int, address: str) -> str:
    try:
        await desk.whose(f"garbage{number}", address)
    except Refused as error:
        return str(error.refusal.reason)
    except (TokenRefused, HubUnavailable) as error:
        return type(error).__name__
    return "known"


async def test_many_tokens_of_one_network_wait_for_each_other_and_for_nobody_else() -> None:
    async with slow_hub() as hub, HubClient(hub.url, "token", timeout=LIMIT) as client:
        desk = Strangers(client, Clock(0.0))
        crowd = [asyncio.create_task(ask(desk, at, f"2001:db8:0:{at:x}::1")) for at in range(800)]
        await hub.was_asked(strangers.ROOM.of_network)
        honest = asyncio.create_task(ask(desk, 1000, "192.0.2.1"))
        await hub.was_asked(strangers.ROOM.of_network + 1)
        assert "garbage1000" in hub.asked[-1]
        hub.go.set()
        answers = await asyncio.gather(*crowd, honest)
        assert answers.count("TokenRefused") == strangers.ROOM.of_network + strangers.ROOM.waiting_of_network + 1
        assert answers.count("too_many") == 801 - answers.count("TokenRefused")


async def test_a_token_that_was_refused_is_not_asked_about_again_for_a_while() -> None:
    async with slow_hub() as hub, HubClient(hub.url, "token", timeout=LIMIT) as client:
        hub.go.set()
        clock = Clock(0.0)
        desk = Strangers(client, clock)
        for _ in range(3):
            assert await ask(desk, 1, "192.0.2.1") == "TokenRefused"
        assert len(hub.asked) == 1
        clock.advance(strangers.REMEMBER_SECONDS)
        assert await ask(desk, 1, "192.0.2.1") == "TokenRefused"
        assert len(hub.asked) == 2


async def test_the_list_of_servers_is_heard_while_strangers_send_hundreds_of_tokens(tmp_path: Path) -> None:
    async with slow_hub() as hub, open_ports(None, tmp_path, HUB_API_URL=hub.url) as ports:
        peers = [f"198.51.{at // 250}.{at % 250 + 1}" for at in range(400)]
        crowd = [asyncio.create_task(ports.enrol(f"garbage{at}", peer=peer)) for at, peer in enumerate(peers)]
        await hub.was_asked(strangers.ROOM.at_once)
        await ports.services.roster.ask_hub()
        assert ports.services.roster.heard_seconds_ago is not None
        hub.go.set()
        await asyncio.gather(*crowd)


def refusal(peer: str | None) -> RequestRefused:
    return RequestRefused(peer=peer, route="/x", reason=Reason.INVALID_TOKEN)


def test_refusals_of_strangers_are_bounded_for_each_network_and_what_is_left_out_is_said() -> None:
    written: list[Event] = []
    clock = Clock(0.0)
    log = Quiet(written.append, clock)
    for _ in range(quiet.OF_NETWORK + 7):
        log.write(refusal("2001:db8::1"))
    assert len(written) == quiet.OF_NETWORK
    log.write(refusal("192.0.2.1"))
    assert written[-1] == refusal("192.0.2.1")
    clock.advance(quiet.WINDOW_SECONDS)
    log.write(refusal("2001:db8:0:1::1"))
    assert written[-2:] == [RefusalsLeftOut(peer="2001:db8:0:1::1", count=7), refusal("2001:db8:0:1::1")]


def test_refusals_of_strangers_are_bounded_in_all_and_nobody_elses_lines_are() -> None:
    written: list[Event] = []
    log = Quiet(written.append, Clock(0.0))
    for number in range(quiet.IN_ALL + 50):
        log.write(refusal(f"198.18.{number // 250}.{number % 250}"))
    assert len(written) == quiet.IN_ALL
    issued = CertificateIssued(
        user="alice", serial="1", fingerprint="x", principals=(), extensions=(), valid_before=1, how="page"
    )
    log.write(issued)
    assert written[-1] == issued


@pytest.mark.parametrize("address", ["192.0.2.1", "255.255.255.255", "2001:db8:0:1::1", "::1", "unknown"])
def test_a_network_and_its_wide_one_are_the_same_for_every_writing(address: str) -> None:
    network = network_of(address)
    assert wide_network_of(network) == network[:15]
    assert len(network) <= 64
