"""Why: starting somebody's server is an order to JupyterHub, so each is given to a real one, by owners and others."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.progress import pause_between
from api.servers import choose, options_with_ssh
from tests.support.browser import Person, form
from tests.support.hub import Hub, Release
from tests.support.service import Service, refused, running_service

ACCESS = "access:services!service=ssh"


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(hub, tmp_path / "state", SERVERS_START="true") as running:
        yield running


@pytest.fixture
async def token(hub: Hub) -> str:
    return await hub.token("alice", [ACCESS])


async def states(service: Service, token: str) -> dict[str, str]:
    answer = await service.request("GET", "/servers", token)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return {one["login"]: one["state"] for one in answer.json()["servers"]}


async def steps(service: Service, token: str, login: str) -> list[dict[str, Any]]:
    """Every event of a start, up to its end."""
    found: list[dict[str, Any]] = []
    async with service.client() as client, asyncio.timeout(120):
        headers = {"Authorization": f"token {token}"}
        async with client.stream("GET", f"/servers/{login}/progress", headers=headers) as stream:
            assert stream.status_code == 200
            assert stream.headers["content-type"].startswith("text/event-stream")
            async for line in stream.aiter_lines():
                if line:
                    found.append(json.loads(line.removeprefix("data: ")))
    return found


async def ready(service: Service, token: str, owner: str = "alice", name: str = "") -> dict[str, Any]:
    """The last word of a start's progress; the real pod side has enrolled by then."""
    return (await steps(service, token, f"{owner}+{name}" if name else owner))[-1]


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHLMNFRKb0ysWqFgFgdfNGtMA3u4DyKsfsYBzRBEGsXN"


async def test_a_server_that_never_ran_is_listed_started_with_ssh_watched_and_stopped(
    hub: Hub, service: Service, token: str
) -> None:
    listed = (await service.request("GET", "/servers", token)).json()
    assert listed["user"] == "alice"
    assert listed["may_start"] is True
    assert listed["servers"] == [
        {
            "owner": "alice",
            "name": "",
            "login": "alice",
            "host_name": "alice.hub",
            "state": "stopped",
            "ssh": None,
            "via": "own",
            "instance": None,
            "unix_user": None,
        }
    ]
    answer = await service.request("POST", "/servers/alice", token)
    assert answer.status_code == 202
    assert answer.json()["state"] in ("starting", "running")
    last = await ready(service, token)
    assert (last["state"], last["ssh"], last["over"], last["percent"]) == ("running", True, True, 100)
    server = await hub.server("alice")
    assert server is not None
    assert server["user_options"] == {"enable_ssh": True}
    assert "SSH_BASTION_ENABLE" in await hub.server_environment("alice")
    stopped = await service.request("DELETE", "/servers/alice", token)
    assert stopped.status_code == 202
    assert stopped.json()["state"] in ("stopping", "stopped")
    assert [(one["user"], one["server"], one["action"]) for one in service.events("server_asked")] == [
        ("alice", "alice", "start"),
        ("alice", "alice", "stop"),
    ]


async def test_the_choices_of_the_last_run_are_kept_and_the_box_is_ticked(
    hub: Hub, service: Service, token: str
) -> None:
    await hub.start_server("alice", "gpu", ssh=False, profile="large", enable={"deep": [1]})
    await hub.stop_server("alice", "gpu")
    assert await states(service, token) == {"alice": "stopped", "alice+gpu": "stopped"}
    assert (await service.request("POST", "/servers/gpu", token)).status_code == 202
    await ready(service, token, name="gpu")
    server = await hub.server("alice", "gpu")
    assert server is not None
    assert server["user_options"] == {"enable_ssh": True, "profile": "large", "enable": {"deep": [1]}}


def test_what_jupyterhub_would_take_for_itself_is_not_sent_again() -> None:
    last = {"user_options": {"a": 1}, "display_name": 3, "size": "x", "enable_ssh": False}
    assert options_with_ssh(last) == {"size": "x", "enable_ssh": True}


async def test_starting_twice_starts_once(hub: Hub, service: Service, token: str) -> None:
    answers = await asyncio.gather(*(service.request("POST", "/servers/alice", token) for _ in range(4)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert 202 in {answer.status_code for answer in answers}
    await ready(service, token)
    again = await service.request("POST", "/servers/alice", token)
    assert (again.status_code, again.json()["state"], again.json()["ssh"]) == (202, "running", True)


async def test_somebody_elses_server_is_neither_started_nor_stopped(hub: Hub, service: Service, token: str) -> None:
    await hub.start_server("bob", "gpu")
    await hub.share("bob", "gpu", "alice")
    await hub.stop_server("bob", "gpu")
    await hub.start_server("bob")
    for login in ("bob", "bob+gpu", "gpu", "../bob", "bob/server", "%2e%2e", "=ff", "alice+new"):
        for method in ("POST", "DELETE"):
            answer = await service.request(method, f"/servers/{login}", token)
            assert answer.status_code in (404, 409), login
    assert await hub.server("bob") is not None
    assert await hub.server("bob", "gpu") is None
    assert "gpu" not in (await hub.user("alice"))["servers"]
    assert {one["reason"] for one in service.events("server_refused")} == {"no_server"}
    assert service.events("server_asked") == []


async def test_a_shared_server_is_listed_while_it_runs(hub: Hub, service: Service, token: str) -> None:
    await hub.start_server("bob", "gpu")
    await hub.share("bob", "gpu", "alice")
    await service.enrol("bob", "gpu", KEY)
    listed = (await service.request("GET", "/servers", token)).json()["servers"]
    assert [(one["login"], one["via"], one["state"], one["ssh"]) for one in listed] == [
        ("alice", "own", "stopped", None),
        ("bob+gpu", "shared", "running", True),
    ]


async def test_a_site_that_did_not_switch_it_on_starts_and_stops_nothing(hub: Hub, tmp_path: Path, token: str) -> None:
    await hub.start_server("alice", "gpu")
    async with running_service(hub, tmp_path / "state") as service:
        assert (await service.request("GET", "/servers", token)).json()["may_start"] is False
        for method, login in (("POST", "alice"), ("DELETE", "alice+gpu")):
            sentence = refused(await service.request(method, f"/servers/{login}", token), 403, "not_permitted")
            assert "JupyterHub's own page" in sentence
        assert [one["action"] for one in service.events("server_refused")] == ["start", "stop"]
    assert await hub.server("alice") is None
    assert await hub.server("alice", "gpu") is not None


async def test_a_servers_own_token_and_a_strangers_start_nothing(hub: Hub, service: Service) -> None:
    await hub.start_server("alice", "gpu")
    captured = await hub.token("alice", ["access:services!service=other"])
    for token in (await hub.server_token("alice", "gpu"), captured, "nonsense", None):
        for method, path in (("POST", "/servers/alice"), ("GET", "/servers"), ("GET", "/servers/alice/progress")):
            assert (await service.request(method, path, token)).status_code in (401, 403)
    assert await hub.server("alice") is None


async def test_a_browser_needs_its_form_token_to_start(hub: Hub, service: Service) -> None:
    async with Person(service) as person:
        page = await person.log_in("alice")
        token = form(page, "/logout").fields["form_token"]
        for headers in ({}, {"X-Form-Token": "x"}, {"X-Form-Token": token, "Origin": "https://evil.example"}):
            answer = await person.client.post("/servers/alice", headers=headers)
            assert answer.status_code == 403
        assert await hub.server("alice") is None
        assert len(service.events("request_refused")) == 3
        assert (await person.client.get("/servers")).json()["user"] == "alice"
        answer = await person.client.post("/servers/alice", headers={"X-Form-Token": token, "Origin": service.url})
        assert answer.status_code == 202
        await ready(service, await hub.token("alice", [ACCESS]))


async def test_a_name_that_was_given_to_somebody_else_starts_nothing(hub: Hub, service: Service) -> None:
    await hub.user("carol")
    async with Person(service) as person:
        page = await person.log_in("carol")
        token = form(page, "/logout").fields["form_token"]
        await hub.request("DELETE", "/users/carol")
        await hub.user("carol")
        answer = await person.client.post("/servers/carol", headers={"X-Form-Token": token, "Origin": service.url})
        assert refused(answer, 403, "not_a_user")
        assert (await person.client.get("/servers")).status_code == 403
    assert await hub.server("carol") is None


async def test_progress_of_what_does_not_start_is_over_at_once(hub: Hub, service: Service, token: str) -> None:
    (only,) = await steps(service, token, "alice")
    assert (only["state"], only["over"], only["failed"]) == ("stopped", True, False)
    refused(await service.request("GET", "/servers/bob/progress", token), 409, "no_server")


async def test_one_person_watches_only_so_many_starts(service: Service, token: str) -> None:
    watchers = service.services.watchers
    with (
        watchers.watching("alice"), watchers.watching("alice"), watchers.watching("alice"),
        watchers.watching("alice"), watchers.watching("alice"), watchers.watching("alice"),
    ):  # fmt: skip
        refused(await service.request("GET", "/servers/alice/progress", token), 429, "too_many")
    assert (await steps(service, token, "alice"))[-1]["over"]


async def test_whoever_stops_watching_is_forgotten_and_so_is_everybody_when_the_service_ends(
    hub: Hub, service: Service, token: str
) -> None:
    await chosen(hub, "gpu", slow=8)
    await service.request("POST", "/servers/alice+gpu", token)
    watchers, headers = service.services.watchers, {"Authorization": f"token {token}"}
    async with service.client() as client:
        async with client.stream("GET", "/servers/alice+gpu/progress", headers=headers) as stream:
            await anext(stream.aiter_lines())
            assert watchers.size == 1
        async with asyncio.timeout(60):
            while watchers.size:
                await asyncio.sleep(0.02)
        async with client.stream("GET", "/servers/alice+gpu/progress", headers=headers) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            service.services.roster.close()
            async with asyncio.timeout(60):
                assert not [line async for line in lines if '"over": true' in line]
    assert watchers.size == 0


def test_a_class_that_watches_its_servers_start_asks_jupyterhub_no_more_often() -> None:
    assert [pause_between(watchers) for watchers in (1, 20, 200)] == [1, 1, 10]


def test_nothing_typed_means_the_default_server() -> None:
    assert choose("", "alice", ()) == choose("alice", "alice", ())


# -- a JupyterHub that takes its time, or says no -------------------------------------------------------------------


async def chosen(hub: Hub, name: str, **options: Any) -> None:
    """A run with these choices, which are kept; whether it came up does not matter."""
    body = {"enable_ssh": False, **options}
    await hub.request("POST", f"/users/alice/servers/{name}", json=body)
    await hub.stop_server("alice", name)


async def test_a_slow_start_is_answered_at_once_and_watched_to_its_end(hub: Hub, service: Service, token: str) -> None:
    await chosen(hub, "gpu", slow=4)
    answer = await service.request("POST", "/servers/alice+gpu", token)
    assert (answer.status_code, answer.json()["state"]) == (202, "starting")
    again = await service.request("POST", "/servers/alice+gpu", token)
    assert again.json()["instance"] == answer.json()["instance"]
    told = await steps(service, token, "alice+gpu")
    assert {one["state"] for one in told[:-1]} == {"starting"}
    assert any(one["percent"] for one in told[:-1])
    assert (told[-1]["state"], told[-1]["ssh"]) == ("running", True)


async def test_a_start_that_fails_is_told_in_the_spawners_words(
    hub: Hub, hub_release: Release, service: Service, token: str
) -> None:
    await chosen(hub, "gpu", refuse="No GPU is free. \u202e<b>Ask</b>")
    sentence = refused(await service.request("POST", "/servers/alice+gpu", token), 409, "start_failed")
    if hub_release == "6":  # 5.5 keeps the words for its event stream
        assert "No GPU is free. <b>Ask</b>" in sentence
    (line,) = service.events("server_refused")
    assert (line["server"], line["action"], line["reason"]) == ("alice/gpu", "start", "start_failed")
    last = (await steps(service, token, "alice+gpu"))[-1]
    assert (last["state"], last["failed"], last["over"]) == ("stopped", True, True)
    assert "No GPU is free." in last["message"]


async def test_a_slow_start_that_fails_in_the_end_says_why(hub: Hub, service: Service, token: str) -> None:
    await chosen(hub, "gpu", slow=4, refuse="No GPU is free.")
    assert (await service.request("POST", "/servers/alice+gpu", token)).status_code == 202
    last = (await steps(service, token, "alice+gpu"))[-1]
    assert (last["state"], last["failed"], last["over"]) == ("stopped", True, True)
    assert "No GPU is free." in last["message"]


async def test_a_hub_that_does_not_let_this_service_start_servers_is_an_outage_that_says_what_is_missing(
    hub_release: Release, tmp_path: Path
) -> None:
    hub = Hub(tmp_path / "hub", hub_release, start_servers=False)
    try:
        hub.start()
        async with running_service(hub, tmp_path / "state", SERVERS_START="true") as service:
            token = await hub.token("alice", [ACCESS])
            await hub.start_server("alice", "gpu")
            for method, login in (("POST", "alice"), ("DELETE", "alice+gpu")):
                answer = await service.request(method, f"/servers/{login}", token)
                assert "start_servers=True" in refused(answer, 503, "hub_unavailable")
            assert (await states(service, token))["alice+gpu"] == "running"
    finally:
        hub.stop()
