"""Why: whoever lost a laptop must be able to end what is on it, and nobody may end what is another's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.revoke import read_server
from ca.errors import Refusal
from ca.names import Server
from tests.support.browser import Person, form
from tests.support.hub import Hub
from tests.support.ports import new_key
from tests.support.service import Service, running_service

ACCESS = "access:services!service=ssh"


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(hub, tmp_path / "state") as running:
        yield running


async def certificate(service: Service, user: str, **wanted: Any) -> dict[str, Any]:
    token = await service.hub.token(user, [ACCESS])
    answer = await service.request("POST", "/certificates", token, json={"public_key": new_key(), **wanted})
    assert answer.status_code == 201, answer.text
    issued: dict[str, Any] = answer.json()
    return issued


async def counting(service: Service, *users: str) -> set[str]:
    """The serials that still count, of these users."""
    found: set[str] = set()
    for user in users:
        answer = await service.request("GET", "/certificates", await service.hub.token(user, [ACCESS]))
        found |= {one["serial"] for one in answer.json()["certificates"]}
    return found


async def revoke(service: Service, by: str, **what: str) -> httpx.Response:
    token = await service.hub.token(by, [ACCESS])
    return await service.request("POST", "/revocations", token, json=what)


class Browser(Person):
    """Somebody at our page, who asks as its scripts do."""

    token = ""

    async def enter(self, user: str) -> Browser:
        self.token = form(await self.log_in(user), "/logout").fields["form_token"]
        return self

    async def revoke(self, headers: dict[str, str] | None = None, **what: str) -> httpx.Response:
        given = {"X-Form-Token": self.token, "Origin": self.service.front.sessions.origin}
        return await self.client.post("/revocations", json=what, headers=given if headers is None else headers)


async def test_people_end_their_own_certificate_all_of_them_or_a_server(hub: Hub, service: Service) -> None:
    await hub.start_server("alice")
    await hub.start_server("alice", "gpu")
    one, both, gpu = (
        await certificate(service, "alice", server="alice"),
        await certificate(service, "alice"),
        await certificate(service, "alice", server="alice+gpu"),
    )
    assert await counting(service, "alice") == {one["serial"], both["serial"], gpu["serial"]}
    version = service.services.roster.state().version
    assert (await revoke(service, "alice", server="alice+gpu", why="shared no more")).status_code == 204
    assert service.services.roster.state().version != version
    assert await counting(service, "alice") == {one["serial"], both["serial"]}
    assert (await revoke(service, "alice", serial=one["serial"])).status_code == 204
    assert await counting(service, "alice") == {both["serial"]}
    assert (await revoke(service, "alice", user="alice")).status_code == 204
    assert await counting(service, "alice") == set()
    lines = service.events("revoked")
    assert [(line["by"], line["reason"]) for line in lines] == [
        ("alice", "shared no more"),
        ("alice", "by its owner"),
        ("alice", "by its owner"),
    ]
    assert [line.get("server") or line.get("serial") or line["user"] for line in lines] == [
        "alice/gpu",
        one["serial"],
        "alice",
    ]
    service.clock.advance(1)
    fresh = await certificate(service, "alice")
    assert await counting(service, "alice") == {fresh["serial"]}


async def test_an_owner_ends_the_certificates_of_those_with_whom_the_server_was_shared(
    hub: Hub, service: Service
) -> None:
    await hub.start_server("alice", "gpu")
    await hub.start_server("bob")
    await hub.share("alice", "gpu", "bob")
    shared = await certificate(service, "bob", server="alice+gpu")
    both = await certificate(service, "bob")
    assert (await revoke(service, "alice", server="alice/gpu")).status_code == 204
    assert await counting(service, "bob") == {both["serial"]}
    assert shared["serial"] != both["serial"]


@pytest.mark.parametrize("what", [{"user": "alice"}, {"server": "alice+gpu"}, {"server": "alice"}, {"user": "nobody"}])
async def test_nobody_ends_what_is_another_ones(hub: Hub, service: Service, what: dict[str, str]) -> None:
    await hub.start_server("alice", "gpu")
    hers = await certificate(service, "alice")
    for user in ("bob", "admin"):  # a token makes nobody an administrator
        answer = await revoke(service, user, **what)
        assert (answer.status_code, answer.json()["error"]) == (403, "not_yours")
        answer = await revoke(service, user, serial=hers["serial"])
        assert (answer.status_code, answer.json()["error"]) == (403, "not_yours")
    assert await counting(service, "alice") == {hers["serial"]}
    assert service.events("revoked") == []
    assert {line["route"] for line in service.events("request_refused")} == {"/revocations"}


async def test_an_administrator_ends_anybodys_with_the_browser_while_being_one(hub: Hub, service: Service) -> None:
    await hub.start_server("alice", "gpu")
    serials = [(await certificate(service, "alice"))["serial"] for _ in range(2)]
    async with Browser(service) as admin:
        await admin.enter("admin")
        assert (await admin.revoke(serial=serials[0])).status_code == 204
        assert await counting(service, "alice") == {serials[1]}
        assert (await admin.revoke(server="alice+gpu")).status_code == 204
        assert await counting(service, "alice") == set()
        assert (await admin.revoke(user="somebody who is gone", why="left the company")).status_code == 204
        assert service.services.store.snapshot.revocations.users.keys() == {"somebody who is gone"}
        await hub.request("PATCH", "/users/admin", json={"admin": False})
        assert (await admin.revoke(user="alice")).status_code == 403
    await hub.request("PATCH", "/users/admin", json={"admin": True})
    lines = service.events("revoked")
    assert [line["reason"] for line in lines] == ["by an administrator"] * 2 + ["left the company"]


async def test_a_browser_needs_its_form_token_and_no_other_site_may_ask(hub: Hub, service: Service) -> None:
    async with Browser(service) as alice:
        await alice.enter("alice")
        for headers in (
            {},
            {"X-Form-Token": "x"},
            {"X-Form-Token": alice.token, "Origin": "https://evil.example.org"},
            {"X-Form-Token": alice.token, "Sec-Fetch-Site": "cross-site"},
        ):
            answer = await alice.revoke(headers, user="alice")
            assert (answer.status_code, answer.json()["error"]) == (403, "not_permitted")
        assert service.events("revoked") == []
        assert (await alice.revoke(user="alice")).status_code == 204


async def test_nobody_and_a_servers_own_token_revoke_nothing(hub: Hub, service: Service) -> None:
    await hub.start_server("alice", "gpu")
    assert (await service.request("POST", "/revocations", json={"user": "alice"})).status_code == 401
    token = await hub.server_token("alice", "gpu")
    answer = await service.request("POST", "/revocations", token, json={"server": "alice+gpu"})
    assert (answer.status_code, answer.json()["error"]) == (403, "wrong_token")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "alice", "server": "alice"},
        {"user": ""},
        {"user": "a\nb"},
        {"user": "x" * 256},
        {"server": ""},
        {"server": "a+b+c"},
        {"user": None},
        {"user": "alice", "why": "x" * 201},
        {"user": "alice", "why": "two\nlines"},
        {"everyone": True},
        {"serial": 5},
        [],
    ],
)
async def test_what_cannot_be_read_gets_a_sentence(hub: Hub, service: Service, body: object) -> None:
    answer = await service.request("POST", "/revocations", await hub.token("alice", [ACCESS]), json=body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error", "error_description"}


async def test_revoking_in_a_loop_is_slowed_down(hub: Hub, tmp_path: Path) -> None:
    async with running_service(hub, tmp_path / "state", LIMITS_REVOCATIONS="1") as service:
        assert [(await revoke(service, "alice", user="alice")).status_code for _ in range(3)] == [204, 429, 429]
        assert [line["reason"] for line in service.events("request_refused")] == ["too_many"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("alice", Server("alice")),
        ("alice+gpu", Server("alice", "gpu")),
        ("alice/gpu", Server("alice", "gpu")),
        ("Alice/GPU", Server("Alice", "GPU")),
        ("=42ob=40example.org", Server("Bob@example.org")),
        ("Bob@example.org", Server("Bob@example.org")),
        ("Bob@example.org+a", Server("Bob@example.org", "a")),
        ("A+b", None),
        ("", None),
        ("/", None),
        ("/gpu", None),
    ],
)
def test_a_server_is_named_as_people_write_it_where_only_one_can_be_meant(typed: str, meant: Server | None) -> None:
    read = read_server(typed, "Bob@example.org")
    assert isinstance(read, Refusal) if meant is None else read == meant
