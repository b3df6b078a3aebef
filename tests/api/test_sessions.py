"""Why: people see who is in their servers and end sessions, and must not see or end anybody else's."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.session import Session
from api.sightings import MAX_PROCESSES, Reported
from ca.sessions import public_name
from tests.support.browser import Person
from tests.support.holder import logged_in
from tests.support.hub import Hub
from tests.support.ports import Ports, open_ports
from tests.support.service import Service, running_service

ACCESS = "access:services!service=ssh"
ONE, OTHER = "1" * 32, "2" * 32
"""The secrets of two bastion processes."""


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(hub, tmp_path / "state") as running:
        yield running


def row(
    name: str = "aa", user: str | None = "alice", login: str | None = "alice+gpu", **changed: Any
) -> dict[str, Any]:
    """A session as a bastion reports it."""
    return {
        "id": name,
        "user": user,
        "identity": user or "key:SHA256:abc",
        "login": login,
        "instance": None if login is None else "1763000000000000",
        "serial": None if user is None else "17",
        "mode": "direct",
        "how": "key" if user is None else "certificate",
        "peer": "192.0.2.7",
        "since": 1763000000.5,
        "received": 1,
        "sent": 2,
        **changed,
    }


async def report(ports: Ports, *rows: dict[str, Any], bastion: str = ONE, status: int = 200) -> dict[str, Any]:
    answer = await ports.internal("POST", "/internal/sessions", json={"bastion": bastion, "sessions": list(rows)})
    assert answer.status_code == status, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def known(ports: Ports) -> set[str]:
    return {one.told.id for one in await ports.services.sightings.everybodys(ports.services.now_ms())}


async def hear(service: Service, *rows: dict[str, Any], bastion: str = ONE) -> None:
    """The same report, without the port."""
    await service.services.sightings.hear(bastion, [Reported(**one) for one in rows], service.services.now_ms())


async def listed(service: Service, token: str | None, query: str = "") -> list[dict[str, Any]]:
    answer = await service.request("GET", f"/sessions{query}", token)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: list[dict[str, Any]] = answer.json()["sessions"]
    return found


# --- what bastions report


async def test_a_report_replaces_the_one_before_it_and_other_processes_have_their_own(lone: Ports) -> None:
    await report(lone, row("aa"), row("ab"))
    await report(lone, row("ba"), bastion=OTHER)
    assert await known(lone) == {"aa", "ab", "ba"}
    await report(lone, row("ab"), row("ac"))
    assert await known(lone) == {"ab", "ac", "ba"}
    await report(lone)
    assert await known(lone) == {"ba"}


async def test_a_process_that_is_silent_for_a_minute_has_no_sessions(lone: Ports) -> None:
    await report(lone, row())
    lone.clock.advance(59)
    assert await known(lone) == {"aa"}
    lone.clock.advance(2)
    assert await known(lone) == set()
    await report(lone, row())
    assert await known(lone) == {"aa"}


async def test_another_replica_knows_them_too(lone: Ports, tmp_path: Path) -> None:
    await report(lone, row("aa"))
    async with open_ports(None, tmp_path / "state") as other:
        assert await known(other) == {"aa"}
        lone.clock.advance(2)
        await report(lone, row("ab"))
        assert await known(other) == {"ab"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "no such name"},
        {"id": "a" * 41},
        {"user": 3},
        {"received": -1},
        {"sent": "many"},
        {"since": "today"},
        {"instance": "x"},
        {"mode": "DROP TABLE"},
        {"peer": "1" * 65},
        {"password": "x"},
    ],
)
async def test_a_report_that_cannot_be_read_changes_nothing(lone: Ports, wrong: dict[str, Any]) -> None:
    await report(lone, row("aa"))
    assert (await report(lone, {**row("ab"), **wrong}, status=400))["error"] == "bad_request"
    assert await known(lone) == {"aa"}


async def test_five_thousand_sessions_can_be_reported_and_no_more(lone: Ports) -> None:
    rows = [row(f"{number:x}", login="alice+" + "n" * 40) for number in range(5001)]
    await report(lone, *rows[:5000])
    assert len(await known(lone)) == 5000
    await report(lone, *rows, status=400)


async def test_processes_cannot_be_invented_without_end(lone: Ports) -> None:
    for _ in range(MAX_PROCESSES):
        await lone.services.sightings.hear(secrets.token_hex(16), [], lone.services.now_ms())
    assert (await report(lone, row(), status=429))["error"] == "too_many"
    lone.clock.advance(61)
    await report(lone, row())


async def test_nobody_without_the_secret_reports_anything(lone: Ports) -> None:
    for path in ("/internal/sessions", "/internal/activity"):
        answer = await lone.internal("POST", path, secret="wrong", json={"bastion": ONE, "sessions": [row()]})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    assert await known(lone) == set()


async def test_the_secret_of_a_process_is_not_kept(lone: Ports, tmp_path: Path) -> None:
    await report(lone, row())
    state = tmp_path / "state"
    assert not any(ONE.encode() in path.read_bytes() for path in state.iterdir() if path.is_file())


# --- who sees what


async def test_people_see_their_own_sessions_and_who_is_in_their_servers(hub: Hub, service: Service) -> None:
    alice, bob = await hub.token("alice", [ACCESS]), await hub.token("bob", [ACCESS])
    await hear(
        service,
        row("aa"),
        row("bb", "bob", "alice+gpu", since=1763000001),
        row("bc", "bob", "bob"),
        row("dd", None, "alice", since=1763000002),
        row("ee", "alice", None, mode="jump", since=1763000003),
    )
    hers = await listed(service, alice)
    assert [(one["user"], one["server"], one["mode"]) for one in hers] == [
        ("alice", "alice/gpu", "direct"),
        ("bob", "alice/gpu", "direct"),
        ("key:SHA256:abc", "alice", "direct"),
        ("alice", None, "jump"),
    ]
    assert hers[0] == {
        "id": public_name(ONE, "aa"),
        "user": "alice",
        "server": "alice/gpu",
        "login": "alice+gpu",
        "peer": "192.0.2.7",
        "mode": "direct",
        "how": "certificate",
        "since": 1763000000,
        "received": 1,
        "sent": 2,
        "ending": False,
    }
    assert [(one["user"], one["server"]) for one in await listed(service, bob)] == [
        ("bob", "bob"),
        ("bob", "alice/gpu"),
    ]


async def test_strangers_and_servers_tokens_see_nothing(hub: Hub, service: Service) -> None:
    await hub.start_server("alice")
    await hear(service, row())
    for token in (None, "x", await hub.server_token("alice"), await hub.token("alice", ["read:users!user"])):
        for method, path in (("GET", "/sessions"), ("DELETE", f"/sessions/{public_name(ONE, 'aa')}")):
            answer = await service.request(method, path, token)
            assert answer.status_code in (401, 403), answer.text
    assert service.services.store.snapshot.ended_sessions == {}


async def test_everybodys_sessions_are_for_administrators_with_a_browser(hub: Hub, service: Service) -> None:
    await hear(service, row())
    for user in ("alice", "admin"):
        answer = await service.request("GET", "/sessions?everybody=true", await hub.token(user, [ACCESS]))
        assert (answer.status_code, answer.json()["error"]) == (403, "not_permitted")
    async with Person(service) as alice:
        await alice.log_in("alice")
        assert (await alice.client.get("/sessions?everybody=true")).status_code == 403
    async with Person(service) as admin:
        await admin.log_in("admin")
        assert (await admin.client.get("/sessions")).json()["sessions"] == []
        assert len((await admin.client.get("/sessions?everybody=true")).json()["sessions"]) == 1


# --- who ends what


async def end(service: Service, token: str, name: str = "aa", bastion: str = ONE) -> tuple[int, str]:
    answer = await service.request("DELETE", f"/sessions/{public_name(bastion, name)}", token)
    return answer.status_code, "" if answer.status_code == 204 else answer.json()["error"]


async def test_a_session_is_ended_by_whoever_opened_it_and_by_the_owner_of_its_server(
    hub: Hub, service: Service
) -> None:
    alice, bob = await hub.token("alice", [ACCESS]), await hub.token("bob", [ACCESS])
    await hear(service, row("aa"), row("ab"), row("ba", "bob"), row("bb", "bob"), row("bc", "bob", "bob"))
    assert await end(service, alice, "aa") == (204, "")
    assert await end(service, alice, "ba") == (204, "")
    assert await end(service, bob, "bb") == (204, "")
    assert await end(service, bob, "ab") == (403, "not_yours")
    assert await end(service, alice, "bc") == (403, "not_yours")
    assert await end(service, alice, "nothing") == (403, "not_yours")
    state = service.services.roster.state()
    assert state.body["ended_sessions"] == {
        public_name(ONE, "aa"): "alice",
        public_name(ONE, "ba"): "alice",
        public_name(ONE, "bb"): "bob",
    }
    assert [
        (line["by"], line["session"], line["identity"], line["server"]) for line in service.events("session_ended")
    ] == [
        ("alice", "aa", "alice", "alice/gpu"),
        ("alice", "ba", "bob", "alice/gpu"),
        ("bob", "bb", "bob", "alice/gpu"),
    ]
    ending = {one["id"] for one in await listed(service, alice) if one["ending"]}
    assert ending == {public_name(ONE, name) for name in ("aa", "ba", "bb")}


async def test_ending_twice_changes_nothing_also_when_it_is_gone(hub: Hub, service: Service) -> None:
    alice = await hub.token("alice", [ACCESS])
    await hear(service, row())
    assert await end(service, alice) == (204, "")
    assert await end(service, alice) == (204, "")
    await hear(service)
    assert await end(service, alice) == (204, "")
    assert len(service.events("session_ended")) == 1


async def test_a_session_that_another_bastion_made_up_ends_no_other(hub: Hub, service: Service) -> None:
    """Even with the shared secret, and knowing the name that hers has in audit lines, nobody can point at it."""
    bob = await hub.token("bob", [ACCESS])
    await hear(service, row("aa"))
    hers = public_name(ONE, "aa")
    await hear(service, row("aa", "bob", "bob"), row(hers, "bob", "bob"), bastion=OTHER)
    assert await end(service, bob, "aa") == (403, "not_yours")
    assert await end(service, bob, "aa", OTHER) == (204, "")
    assert await end(service, bob, hers, OTHER) == (204, "")
    assert hers not in service.services.store.snapshot.ended_sessions


async def test_an_administrator_ends_any_session_from_the_browser_only(hub: Hub, service: Service) -> None:
    await hear(service, row("aa"), row("ab"))
    assert await end(service, await hub.token("admin", [ACCESS]), "ab") == (403, "not_yours")
    async with Person(service) as admin:
        await admin.log_in("admin")
        session = service.front.sessions.read(dict(admin.client.cookies.items()))
        assert isinstance(session, Session)
        path = f"/sessions/{public_name(ONE, 'aa')}"
        answer = await admin.client.delete(path, headers={"X-Form-Token": "guessed"})
        assert (answer.status_code, answer.json()["error"]) == (403, "not_permitted")
        foreign = {"X-Form-Token": session.form_token, "Origin": "https://evil.example"}
        assert (await admin.client.delete(path, headers=foreign)).status_code == 403
        assert service.events("session_ended") == []
        answer = await admin.client.delete(path, headers={"X-Form-Token": session.form_token})
        assert answer.status_code == 204
    (line,) = service.events("session_ended")
    assert (line["by"], line["identity"]) == ("admin", "alice")


async def test_whoever_holds_a_certificate_sees_and_ends_her_sessions_without_a_browser(
    hub: Hub, service: Service, tmp_path: Path
) -> None:
    await hub.start_server("alice")
    alice = await logged_in(service, "alice", tmp_path)
    await hear(service, row("aa"), row("bb", "bob", "bob"))
    (seen,) = (await alice.ask("GET", "/sessions")).json()["sessions"]
    assert seen["id"] == public_name(ONE, "aa")
    assert (await alice.ask("DELETE", f"/sessions/{public_name(ONE, 'bb')}")).status_code == 403
    assert (await alice.ask("DELETE", f"/sessions/{seen['id']}")).status_code == 204
    assert [line["identity"] for line in service.events("session_ended")] == ["alice"]


async def test_bastions_are_told_for_ten_minutes(hub: Hub, service: Service) -> None:
    alice = await hub.token("alice", [ACCESS])
    await hear(service, row("aa"), row("ab"))
    assert await end(service, alice) == (204, "")
    service.clock.advance(601)
    await hear(service, row("ab"))
    assert await end(service, alice, "ab") == (204, "")
    assert set(service.services.roster.state().body["ended_sessions"]) == {public_name(ONE, "ab")}
