"""Why: people see their sessions elsewhere and end them there, and none of it may be in the way of the sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ca.sessions import public_name
from tests.support.site import ALICE, LIMIT, Client, Site, site

AWAY = (503, {"error": "unavailable", "error_description": "Not now."})


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Site]:
    """A bastion of one process that tells activity often."""
    async with site(tmp_path, ACTIVITY_INTERVAL="0.2", SHUTDOWN_GRACE="0") as made:
        await made.start()
        yield made


def told(of: Site, path: str = "/internal/sessions") -> list[dict[str, Any]]:
    """What was reported, oldest first."""
    return [body for _, asked, body in of.api.requests if asked == path]


async def until_told(of: Site, holds: Callable[[list[dict[str, Any]]], bool]) -> dict[str, Any]:
    """The first report, the latest ones looked at only, whose sessions are as wanted."""
    await of.until("a report", lambda: bool(told(of)) and holds(told(of)[-1]["sessions"]))
    return told(of)[-1]


async def inside(of: Site, key: Path, *arguments: str, login: str = "alice") -> Client:
    client = await of.ssh(key, *(arguments or ("cat",)), login=login)
    if not arguments:
        assert await client.talks(b"in")
    return client


async def cut(client: Client) -> bytes:
    """What a session that was not ended by its user says when it is over."""
    async with asyncio.timeout(LIMIT):
        assert await client.process.wait() == 255
    return (await client.ends())[2]


async def test_a_session_is_told_and_its_end_too(one: Site) -> None:
    assert told(one) == []
    client = await inside(one, one.key("alice"))
    report = await until_told(one, bool)
    (session,) = report["sessions"]
    (opened,) = one.audit("session_opened")
    expected = {
        "id": opened["session"],
        "user": "alice",
        "identity": "alice",
        "login": "alice",
        "instance": str(ALICE.id),
        "serial": opened["serial"],
        "mode": "direct",
        "how": "certificate",
        "peer": "127.0.0.1",
    }
    assert {name: session[name] for name in expected} == expected
    await client.ends()
    assert (await until_told(one, lambda sessions: not sessions))["bastion"] == report["bastion"]


async def test_a_tunnel_speaks_for_its_connection(one: Site) -> None:
    tunnel = await inside(one, one.key("alice"), "-W", "alice.hub:22", login="jump")
    report = await until_told(one, lambda sessions: any(row["instance"] for row in sessions))
    (session,) = report["sessions"]
    (opened,) = one.audit("session_opened")
    assert session["id"] == f"{opened['session']}.1"
    assert (session["mode"], session["login"]) == ("jump", "alice")
    tunnel.process.kill()
    await until_told(one, lambda sessions: not sessions)


async def test_a_session_that_was_ended_in_the_browser_is_cut_with_a_sentence_and_no_other_is(one: Site) -> None:
    key = one.key("alice")
    first, second = await inside(one, key), await inside(one, key)
    report = await until_told(one, lambda sessions: len(sessions) == 2)
    names = [public_name(report["bastion"], row["id"]) for row in report["sessions"]]
    mine = public_name("0" * 32, report["sessions"][1]["id"])
    one.api.change(version="2", ended_sessions={names[0]: "alice", mine: "alice"})
    assert b"You ended this session in the browser." in await cut(first)
    assert await second.talks(b"still here")
    one.api.change(version="3", ended_sessions={names[0]: "alice", names[1]: "admin"})
    assert b"An administrator ended this session." in await cut(second)
    closed = {line["session"]: line["why"] for line in one.audit("session_closed")}
    assert closed[report["sessions"][0]["id"]] == "You ended this session in the browser."


async def test_a_tunnel_that_was_ended_is_cut(one: Site) -> None:
    tunnel = await inside(one, one.key("alice"), "-W", "alice.hub:22", login="jump")
    report = await until_told(one, lambda sessions: any(row["instance"] for row in sessions))
    name = public_name(report["bastion"], report["sessions"][0]["id"])
    one.api.change(version="2", ended_sessions={name: "alice"})
    async with asyncio.timeout(LIMIT):
        await tunnel.process.wait()


async def test_each_worker_tells_of_itself_and_ends_its_own(tmp_path: Path) -> None:
    async with site(tmp_path, SHUTDOWN_GRACE="0") as two:
        await two.start("--workers", "2")
        key = two.key("alice")
        clients: list[Client] = []

        def latest() -> dict[str, list[str]]:
            return {body["bastion"]: [row["id"] for row in body["sessions"]] for body in told(two)}

        async with asyncio.timeout(LIMIT):
            while len(latest()) < 2:
                clients.append(await inside(two, key))
        await two.until("all sessions to be told", lambda: sum(map(len, latest().values())) == len(clients))
        everybody = {public_name(process, name): "alice" for process, names in latest().items() for name in names}
        two.api.change(version="2", ended_sessions=everybody)
        for client in clients:
            assert b"You ended this session in the browser." in await cut(client)


async def test_an_api_that_takes_no_reports_is_in_nobodys_way_and_hears_all_of_it_later(one: Site) -> None:
    one.api.answers["/internal/sessions"] = AWAY
    key = one.key("alice")
    client = await inside(one, key)
    await one.logged("/internal/sessions was not heard")
    assert await one.gets_in(key)
    assert await client.talks(b"still here")
    one.api.answers["/internal/sessions"] = (200, {"heard": 1})
    await one.logged("/internal/sessions is heard again")
    assert len((await until_told(one, lambda sessions: len(sessions) == 1))["sessions"]) == 1
    await one.api.stop()
    assert await client.talks(b"and without any api")


async def test_a_bastion_that_ends_says_that_nobody_is_here(one: Site) -> None:
    client = await inside(one, one.key("alice"))
    await until_told(one, bool)
    await one.end()
    assert told(one)[-1]["sessions"] == []
    await client.ends()


async def test_a_server_is_used_while_its_session_moves_data(one: Site) -> None:
    client = await inside(one, one.key("alice"))

    def used() -> int:
        return len(told(one, "/internal/activity"))

    await one.until("the first use", lambda: used() > 0)
    for word in (b"one", b"two"):
        before = used()
        assert await client.talks(word)
        await one.until("the next use", lambda before=before: used() > before)  # type: ignore[misc]
    (server,) = told(one, "/internal/activity")[-1]["servers"]
    assert (server["login"], server["instance"]) == ("alice", str(ALICE.id))
    await client.ends()


async def test_activity_can_be_switched_off(tmp_path: Path) -> None:
    async with site(tmp_path, ACTIVITY_INTERVAL="0") as off:
        await off.start()
        client = await inside(off, off.key("alice"))
        await until_told(off, bool)
        await client.ends()
        await off.end()
        assert told(off, "/internal/activity") == []
