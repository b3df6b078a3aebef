"""Why: a stopped server must leave the list within a second or so, and an absent JupyterHub must change nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from api.hub import Model
from api.issue import claims_for
from api.roster import reconcile, why_ended
from api.servers import Person, listing
from api.shares import standing
from api.store import Enrolment
from ca.claims import Claims, Running, TokenKind, TokenOwner
from ca.errors import Refusal
from ca.keys import parse_public_key
from ca.names import Instance, Server
from tests.support.hub import Hub
from tests.support.ports import Ports, new_key, open_ports

LIMIT = 30.0
KEY = parse_public_key(new_key())
ALICE = Instance(Server("alice"), 1)
NEXT = Instance(Server("alice"), 2)


def enrolled(instance: Instance = ALICE, *, seen_ready: bool = True) -> Enrolment:
    return Enrolment(instance, KEY, "127.0.0.1", 40222, 40080, "jovyan", 0, seen_ready)


def running(instance: Instance = ALICE, *, ready: bool = True, pending: str | None = None) -> dict[Server, Running]:
    return {instance.server: Running(instance=instance, ready=ready, pending=pending)}


def test_a_server_that_runs_as_enrolled_stays() -> None:
    verdict = reconcile([enrolled()], running())
    assert (verdict.ready, verdict.ended, verdict.doubtful) == ((), {}, ())


def test_a_server_is_listed_once_it_is_ready() -> None:
    new = enrolled(seen_ready=False)
    assert reconcile([new], running(ready=False, pending="spawn")).ready == ()
    assert reconcile([new], running()).ready == (ALICE,)


def test_a_stopping_server_is_ended_without_asking_again() -> None:
    assert reconcile([enrolled()], running(ready=False, pending="stop")).ended == {ALICE: "stopped"}


def test_a_hub_that_is_still_checking_after_its_restart_changes_nothing() -> None:
    verdict = reconcile([enrolled()], running(ready=False, pending="check"))
    assert (verdict.ready, verdict.ended, verdict.doubtful) == ((), {}, ())


def test_absence_and_another_run_are_asked_about_once_more() -> None:
    assert reconcile([enrolled()], {}).doubtful == (ALICE,)
    assert reconcile([enrolled()], running(NEXT)).doubtful == (ALICE,)
    assert reconcile([enrolled()], running(NEXT)).ended == {}


def test_the_second_answer_decides() -> None:
    assert why_ended(ALICE, None) == "stopped"
    assert why_ended(ALICE, Running(instance=NEXT, ready=True)) == "restarted"
    assert why_ended(ALICE, Running(instance=ALICE, ready=False, pending="stop")) == "stopped"
    assert why_ended(ALICE, Running(instance=ALICE, ready=True)) is None
    assert why_ended(ALICE, Running(instance=ALICE, ready=False, pending="check")) is None


async def state(ports: Ports, version: str = "", wait: float = 0) -> dict[str, object]:
    answer = await ports.internal("GET", "/internal/state", params={"version": version, "wait": wait})
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


async def test_a_stopped_server_leaves_the_list_and_its_next_run_comes_back_by_enrolling(
    hub: Hub, ports: Ports
) -> None:
    await hub.start_server("alice", "gpu")
    await ports.enrol(await hub.server_token("alice", "gpu"))
    await ports.services.roster.ask_hub()
    assert await ports.listed() == ["alice+gpu"]
    await hub.stop_server("alice", "gpu")
    await ports.services.roster.ask_hub()
    assert await ports.listed() == []
    assert [line["reason"] for line in ports.events("unenrolled")] == ["stopped"]
    await hub.start_server("alice", "gpu")
    await ports.services.roster.ask_hub()
    assert await ports.listed() == []
    await ports.enrol(await hub.server_token("alice", "gpu"))
    assert await ports.listed() == ["alice+gpu"]


async def test_a_server_restarted_between_two_questions_is_not_taken_for_the_one_before(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice")
    await ports.enrol(await hub.server_token("alice"))
    await hub.stop_server("alice")
    await hub.start_server("alice")
    await ports.services.roster.ask_hub()
    assert await ports.listed() == []
    assert [line["reason"] for line in ports.events("unenrolled")] == ["restarted"]


async def test_a_server_enrolled_while_it_starts_is_listed_when_it_is_ready(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice", wait=False)
    model = await hub.server("alice")
    assert model is not None
    answer = await ports.enrol(await hub.server_token("alice"))
    assert answer.status_code == 200, answer.text
    async with asyncio.timeout(LIMIT):
        while not (await hub.server("alice") or {}).get("ready"):
            pass
    await ports.services.roster.ask_hub()
    assert await ports.listed() == ["alice"]


async def test_a_name_that_ssh_cannot_write_costs_nobody_else_anything(hub: Hub, ports: Ports) -> None:
    """JupyterHub 5.5 takes such servers from everybody; both releases take such users from administrators."""
    services, too_long = ports.services, "y" * 256
    for name in ("", "gpu"):
        await hub.start_server("alice", name)
        await ports.enrol(await hub.server_token("alice", name))
    await hub.start_server("bob")
    await hub.share("alice", "gpu", "bob")
    its_own = await hub.request("POST", f"/users/bob/servers/{too_long}", await hub.token("bob"), json={})
    assert its_own.status_code in (201, 400), its_own.text
    await hub.start_server(too_long)
    assert too_long in {user["name"] for user in await services.hub.active_servers()}
    before = services.roster.heard_seconds_ago
    await services.roster.ask_hub()
    assert (before, services.roster.heard_seconds_ago) != (None, None)
    assert await ports.listed() == ["alice", "alice+gpu"]
    if its_own.status_code == 201:
        await hub.share("bob", too_long, "alice", [f"custom:{hub.service}:connect"])
        answer = await ports.enrol(await hub.server_token("bob", too_long))
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_name")
    for user, servers in (("alice", {"alice", "alice/gpu"}), ("bob", {"bob", "alice/gpu"})):
        claims = await claims_for(services, TokenOwner(user, TokenKind.ACCESS))
        assert isinstance(claims, Claims)
        assert {str(one.server) for one in claims.running} == servers
        listed = await listing(services, Person(user))
        assert not isinstance(listed, Refusal)
        assert {str(one.server) for one in listed} == servers
        assert (await standing(services, user)).shared == ({Server("alice", "gpu")} if user == "bob" else set())
    await hub.stop_server("alice", "gpu")
    await services.roster.ask_hub()
    assert await ports.listed() == ["alice"]
    assert [line["server"] for line in ports.events("unenrolled")] == ["alice/gpu"]


async def test_an_answer_that_cannot_be_read_ends_the_servers_of_that_user_and_is_news_of_all_others(
    lone: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of which nobody knows whether it goes on must not be told as one that does."""
    services = lone.services
    run = {"started": "1970-01-01T00:00:01Z", "pending": None, "ready": True}
    models: dict[str, Model] = {owner: {"name": owner, "servers": {"": run}} for owner in ("alice", "bob")}

    async def active() -> tuple[Model, ...]:
        return tuple(models.values())

    async def user(name: str) -> Model:
        return models[name]

    monkeypatch.setattr(services.hub, "active_servers", active)
    monkeypatch.setattr(services.hub, "user", user)
    for owner, key in (("alice", KEY), ("bob", parse_public_key(new_key()))):
        new = replace(enrolled(Instance(Server(owner), 1_000_000)), host_key=key)
        await services.store.enrol(new, owner)
    await services.roster.ask_hub()
    assert await lone.listed() == ["alice", "bob"]
    models["bob"] = {**models["bob"], "servers": {"": {**run, "pending": 7}}}
    await services.roster.ask_hub()
    assert await lone.listed() == ["alice"]
    heard = services.roster.heard_seconds_ago
    models["alice"] = {"name": "alice"}
    await services.roster.ask_hub()
    assert await lone.listed() == ["alice"], "nobody can be read: that is no word on anybody"
    assert (services.roster.heard_seconds_ago or 0) > (heard or 0)


async def test_many_servers_are_read_page_by_page(hub: Hub, ports: Ports, monkeypatch: object) -> None:
    import api.hub

    api.hub.PAGE, page = 1, api.hub.PAGE
    try:
        for owner in ("alice", "bob"):
            await hub.start_server(owner)
            await ports.enrol(await hub.server_token(owner))
        assert len(await ports.services.hub.active_servers()) == 2
        await ports.services.roster.ask_hub()
        assert await ports.listed() == ["alice", "bob"]
    finally:
        api.hub.PAGE = page


async def test_an_absent_hub_changes_nothing_but_the_age_of_the_news(own_hub: Hub, tmp_path: Path) -> None:
    async with open_ports(own_hub, tmp_path / "state", HUB_TIMEOUT="5") as ports:
        assert (await state(ports))["heard_seconds_ago"] is None
        await own_hub.start_server("alice")
        await ports.enrol(await own_hub.server_token("alice"))
        await ports.services.roster.ask_hub()
        before = await state(ports)
        own_hub.kill()
        await ports.services.roster.ask_hub()
        after = await state(ports)
        assert after["enrolled"] == before["enrolled"] != []
        assert after["version"] == before["version"]
        assert float(str(after["heard_seconds_ago"])) > float(str(before["heard_seconds_ago"]))
        assert (await ports.public("GET", "/readyz")).status_code == 200
    async with open_ports(None, tmp_path / "state") as restarted:
        again = await state(restarted)
        assert (again["enrolled"], again["heard_seconds_ago"]) == (before["enrolled"], None)
    own_hub.start()
    async with open_ports(own_hub, tmp_path / "state") as ports:
        await ports.services.roster.ask_hub()
        assert (await state(ports))["enrolled"] == before["enrolled"]


async def test_a_poll_answers_at_once_when_the_version_is_another(lone: Ports) -> None:
    now = await state(lone, "something else", wait=60)
    assert now["zone"] == "hub"
    expected = (
        "version mark epoch raw_keys interactive heard_seconds_ago zone trust revocations enrolled ended_sessions"
    )
    assert set(now) == set(expected.split())


async def test_a_poll_waits_for_a_change_and_answers_with_it(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice")
    first = await state(ports)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(state(ports, str(first["version"]), wait=60))
        enrolled = await ports.enrol(await hub.server_token("alice"))
    second = waiting.result()
    assert second["version"] != first["version"]
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(state(ports, str(second["version"]), wait=60))
        await ports.public("DELETE", "/enrolments", enrolled.json()["withdraw_token"])
    assert waiting.result()["enrolled"] == []


async def test_a_poll_ends_after_its_time_with_the_same_version(lone: Ports) -> None:
    first = await state(lone)
    again = await state(lone, str(first["version"]), wait=0.05)
    assert again["version"] == first["version"]


async def test_a_poll_ends_when_the_service_does(lone: Ports) -> None:
    first = await state(lone)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(state(lone, str(first["version"]), wait=60))
        await asyncio.sleep(0)
        lone.services.roster.close()
    assert waiting.result()["version"] == first["version"]


async def test_what_another_replica_revoked_is_told(lone: Ports, tmp_path: Path) -> None:
    first = await state(lone)
    async with open_ports(None, tmp_path / "state") as other:
        moment = other.services.now_ms()  # its clock is its own
        await other.services.store.revoke_user("bob", "admin", "left", moment)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(state(lone, str(first["version"]), wait=60))
        await lone.services.roster.read_store()
    revoked = waiting.result()["revocations"]
    assert isinstance(revoked, dict)
    assert revoked["users"] == {"bob": moment + 1}


async def test_the_beat_goes_on_by_itself_and_survives_a_lost_database(hub: Hub, tmp_path: Path) -> None:
    async with open_ports(hub, tmp_path / "state", HUB_POLL_INTERVAL="0.05") as ports:
        first = await state(ports)
        epoch = (await ports.public("GET", "/enrolments/epoch")).json()["epoch"]
        beating = asyncio.create_task(ports.services.roster.run())
        try:
            ports.clock.advance(5)
            (tmp_path / "state" / "api.sqlite").unlink()
            async with asyncio.timeout(LIMIT):
                second = await state(ports, str(first["version"]), wait=60)
            revoked = second["revocations"]
            assert isinstance(revoked, dict)
            assert revoked["everyone_before"] == ports.services.now_ms()
            assert (await ports.public("GET", "/enrolments/epoch")).json()["epoch"] != epoch
            await hub.start_server("alice")
            await ports.enrol(await hub.server_token("alice"))
            third = await state(ports)
            assert third["enrolled"] != []
            await hub.stop_server("alice")
            async with asyncio.timeout(LIMIT):
                while (third := await state(ports, str(third["version"]), wait=60))["enrolled"]:
                    pass
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
