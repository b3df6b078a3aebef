"""Why: one click on this page gives a certificate away, so every trick to get that click is tried on the real page."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import logins
from api.guesses import OF_SESSION
from api.logins import Begun, Kind, NewLogin
from api.waiting import ALPHABET
from ca.keys import parse_public_key
from tests.support.browser import Person, form, forms
from tests.support.holder import logged_in
from tests.support.hub import Hub
from tests.support.ports import new_key
from tests.support.service import Service, running_service
from tests.support.ssh_keygen import fingerprint, show

FORWARDED = ({"X-Forwarded-For": "198.51.100.1"}, {"Forwarded": "for=198.51.100.1"})
ELSEWHERE = {"X-Forwarded-For": "203.0.113.9"}


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    networks = {"LISTEN_TRUSTED_PROXIES": "127.0.0.1/32", "PODS_NETWORKS": "10.244.0.0/16"}
    async with running_service(hub, tmp_path / "state", **networks) as running:
        yield running


@pytest.fixture
async def alice(service: Service) -> AsyncIterator[Person]:
    async with Person(service) as person:
        await person.log_in("alice")
        yield person


async def begin(service: Service, headers: dict[str, str] | None = None, **fields: str) -> dict[str, Any]:
    body = {"public_key": new_key(), **fields}
    answer = await service.request("POST", "/device", data=body, headers=headers or {})
    begun: dict[str, Any] = answer.json()
    return begun


async def look(person: Person, begun: dict[str, Any]) -> httpx.Response:
    return await person.client.get(f"/activate?code={begun['user_code']}")


async def stands(service: Service, begun: dict[str, Any]) -> str:
    """What the client is told."""
    service.clock.advance(3)
    answer = await service.request("POST", "/device/token", data={"device_code": begun["device_code"]})
    return "certificate" if answer.status_code == 200 else str(answer.json()["error"])


def words(page: httpx.Response) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", page.text))


async def test_opening_the_link_does_nothing(hub: Hub, service: Service, alice: Person) -> None:
    await hub.start_server("alice")
    begun = await begin(service)
    for _ in range(3):
        assert (await look(alice, begun)).status_code == 200
    assert await stands(service, begun) == "authorization_pending"


async def test_whoever_has_no_link_types_the_code(hub: Hub, service: Service, alice: Person) -> None:
    await hub.start_server("alice")
    begun = await begin(service, ELSEWHERE)
    page = await alice.client.get("/activate")
    page = await alice.submit(page, "/activate", code=begun["user_code"].lower().replace("-", " "), then="look")
    assert "203.0.113.9" in page.text
    assert "Approved" in (await alice.submit(page, "/activate", then="approve")).text
    assert await stands(service, begun) == "certificate"


@pytest.mark.parametrize("behind", FORWARDED, ids=["x-forwarded-for", "forwarded"])
async def test_behind_a_proxy_that_nobody_named_the_code_is_typed(
    hub: Hub, tmp_path: Path, behind: dict[str, str]
) -> None:
    """Both seem to be at the proxy's address there, so that says nothing."""
    await hub.start_server("alice")
    async with running_service(hub, tmp_path / "state") as service, Person(service) as alice:
        await alice.log_in("alice")
        begun = await begin(service, behind)
        alice.client.headers.update(behind)
        page = await look(alice, begun)
        assert "The same as that of this browser" not in words(page)
        assert "behind a proxy that it was not told of" in words(page)
        assert begun["user_code"] not in words(page)
        assert (await alice.submit(page, "/activate", then="approve")).status_code == 400
        assert "Approved" in (await alice.submit(page, "/activate", then="approve", typed=begun["user_code"])).text
        assert await stands(service, begun) == "certificate"
        assert "bastion_api_unknown_proxy_total" in service.services.metrics.text().decode()


async def test_a_browser_behind_an_unknown_proxy_is_nowhere_whoever_asks(hub: Hub, tmp_path: Path) -> None:
    await hub.start_server("alice")
    async with running_service(hub, tmp_path / "state") as service, Person(service) as alice:
        await alice.log_in("alice")
        begun = await begin(service)
        alice.client.headers.update(FORWARDED[0])
        assert "behind a proxy that it was not told of" in words(await look(alice, begun))


async def test_from_another_address_the_code_is_typed_and_not_shown(hub: Hub, service: Service, alice: Person) -> None:
    await hub.start_server("alice")
    begun = await begin(service, ELSEWHERE, host_name="laptop")
    page = await look(alice, begun)
    assert "Not that of this browser, which is 127.0.0.1" in words(page)
    assert begun["user_code"] not in words(page)
    for typed in ("", "BBBB-BBBB", begun["user_code"][:8]):
        again = await alice.submit(page, "/activate", then="approve", typed=typed)
        assert again.status_code == 400
        assert "not the code of this login" in words(again)
    assert await stands(service, begun) == "authorization_pending"
    done = await alice.submit(page, "/activate", then="approve", typed=begun["user_code"])
    assert "Approved" in done.text
    assert await stands(service, begun) == "certificate"
    (approved,) = service.events("device_login_approved")
    assert (approved["peer"], approved["client"]) == ("127.0.0.1", "203.0.113.9")


async def test_a_client_cannot_say_itself_where_it_is(hub: Hub, tmp_path: Path) -> None:
    async with running_service(hub, tmp_path / "plain") as service:
        begun = await begin(service, ELSEWHERE)
        login = await logins.by_code(service.services.store, begun["user_code"])
        assert login is not None
        assert login.wanted.address is None, "neither where it says that it is, nor where its proxy would be"
        (line,) = service.events("device_login_begun")
        assert line["peer"] == "127.0.0.1"


async def test_the_key_of_another_user_is_warned_of(hub: Hub, service: Service, alice: Person, tmp_path: Path) -> None:
    await hub.start_server("alice")
    await hub.start_server("bob")
    bob = await logged_in(service, "bob", tmp_path)
    begun = await begin(service, public_key=Path(f"{bob.key}.pub").read_text())
    page = await look(alice, begun)
    assert "known here as somebody else’s" in words(page)
    assert "bob" not in words(page)
    assert (await alice.submit(page, "/activate", then="approve")).status_code == 400
    await alice.submit(page, "/activate", then="approve", typed=begun["user_code"])
    assert await stands(service, begun) == "certificate"


async def test_another_site_can_neither_send_the_form_nor_frame_the_page(
    hub: Hub, service: Service, alice: Person
) -> None:
    await hub.start_server("alice")
    begun = await begin(service)
    page = await look(alice, begun)
    fields = {**form(page, "/activate").fields, "then": "approve"}
    ours = service.front.sessions.origin
    for headers, token in (
        ({"Origin": "https://evil.example"}, fields["form_token"]),
        ({"Origin": ours, "Sec-Fetch-Site": "cross-site"}, fields["form_token"]),
        ({"Origin": ours, "Sec-Fetch-Site": "same-origin"}, "guessed"),
        ({"Origin": ours}, ""),
    ):
        answer = await alice.client.post("/activate", data={**fields, "form_token": token}, headers=headers)
        assert answer.status_code == 403
    assert len(service.events("request_refused")) == 4
    assert await stands(service, begun) == "authorization_pending"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "same-origin"
    assert "<script>" not in page.text
    assert " style=" not in page.text


async def test_the_form_of_one_person_is_nothing_in_the_hands_of_another(
    hub: Hub, service: Service, alice: Person
) -> None:
    await hub.start_server("bob")
    begun = await begin(service)
    page = await look(alice, begun)
    async with Person(service) as bob:
        await bob.log_in("bob")
        answer = await bob.submit(page, "/activate", then="approve")
        assert answer.status_code == 403
    assert await stands(service, begun) == "authorization_pending"


async def test_what_a_client_says_of_itself_is_text(hub: Hub, service: Service, alice: Person) -> None:
    await hub.start_server("alice")
    evil = "<img src=x onerror=alert(1)>'\"{{7*7}}"
    begun = await begin(service, host_name=evil, public_key=f"{new_key()} <script>alert(2)</script>", server="<b>")
    page = await look(alice, begun)
    assert "<img" not in page.text
    assert "alert(2)" not in page.text
    assert "<b>" not in page.text
    assert evil in unescape(page.text)


async def test_a_code_from_the_address_never_becomes_markup_or_another_site(service: Service, alice: Person) -> None:
    for code in ('"><script>', "//evil.example", "%0d%0aX: y", "\u202e", "BCDF-GHJK&next=//evil.example"):
        page = await alice.client.get("/activate", params={"code": code})
        assert page.status_code in (400, 200)
        assert "<script>" not in page.text
        assert "evil" not in page.text
    async with service.client() as stranger:
        for query in ("?code=%22%3E", "?code=BCDF-GHJK&next=//evil.example", "?next=https://evil.example", ""):
            answer = await stranger.get(f"/activate{query}")
            assert answer.status_code == 303
            assert answer.headers["location"].startswith(f"{service.url}/login?next=%2Factivate")
            assert "evil" not in answer.headers["location"]


async def test_after_the_login_the_browser_is_back_at_the_code_with_a_new_session(hub: Hub, service: Service) -> None:
    await hub.start_server("alice")
    begun = await begin(service)
    async with Person(service) as victim:
        planted = "planted"
        victim.client.cookies.set("bastion-session", planted, domain="127.0.0.1", path="/")
        page = await victim.service.hub.log_in_here(victim.client, begun["verification_uri_complete"], "alice")
        assert str(page.url) == begun["verification_uri_complete"]
        assert planted not in victim.client.cookies.values()
        assert "Approved" in (await victim.submit(page, "/activate", then="approve")).text


async def test_without_a_session_nothing_is_approved(service: Service) -> None:
    begun = await begin(service)
    headers = {"Origin": service.front.sessions.origin}
    async with service.client() as stranger:
        fields = {"code": begun["user_code"], "then": "approve", "form_token": "x"}
        assert (await stranger.post("/activate", data=fields, headers=headers)).status_code == 401
    assert await stands(service, begun) == "authorization_pending"


async def test_two_clicks_at_once_approve_once(hub: Hub, service: Service, alice: Person) -> None:
    await hub.start_server("alice")
    begun = await begin(service)
    page = await look(alice, begun)
    answers = await asyncio.gather(*(alice.submit(page, "/activate", then="approve") for _ in range(4)))
    assert sum("Approved" in one.text for one in answers) == 1
    assert len(service.events("device_login_approved")) == 1
    assert {line["reason"] for line in service.events("device_login_refused")} == {"wrong_code"}


async def test_guessing_ends_after_a_few_codes(service: Service, alice: Person) -> None:
    begun = await begin(service)
    statuses = [
        (await alice.client.get(f"/activate?code=BBBB-BBB{letter}")).status_code
        for letter in ALPHABET[: OF_SESSION + 2]
    ]
    assert statuses == [400] * OF_SESSION + [429] * 2
    assert (await look(alice, begun)).status_code == 429
    assert len(service.events("device_login_refused")) == OF_SESSION + 3


async def test_a_login_that_is_over_says_so(hub: Hub, service: Service, alice: Person) -> None:
    begun = await begin(service)
    page = await look(alice, begun)
    await alice.submit(page, "/activate", then="deny")
    assert "decided already" in words(await alice.submit(page, "/activate", then="approve"))
    assert "decided already" in words(await look(alice, begun))
    late = await begin(service)
    service.clock.advance(600)
    assert "time is up" in words(await look(alice, late))


async def test_with_no_server_running_the_page_says_what_to_do(service: Service, alice: Person) -> None:
    begun = await begin(service)
    page = await look(alice, begun)
    assert "None of your servers is running" in words(page)
    assert form(page, "/activate").choices["then"] == ["deny"]
    answer = await alice.submit(page, "/activate", then="approve")
    assert "None of your servers is running" in words(answer)
    assert await stands(service, begun) == "authorization_pending"
    assert [line["reason"] for line in service.events("device_login_refused")] == ["no_server"]


async def test_a_server_is_started_by_the_click_and_the_client_waits_for_it(hub: Hub, tmp_path: Path) -> None:
    async with running_service(hub, tmp_path / "starting", SERVERS_START="true") as service, Person(service) as person:
        begun = await begin(service, start="1")
        page = await person.log_in("alice", f"/activate?code={begun['user_code']}")
        assert "Approving starts it" in words(page)
        assert await hub.server("alice") is None
        assert "starting" in words(await person.submit(page, "/activate", then="approve"))
        said: list[dict[str, Any]] = []
        async with asyncio.timeout(120):
            while True:
                service.clock.advance(3)
                answer = await service.request("POST", "/device/token", data={"device_code": begun["device_code"]})
                if answer.status_code == 200:
                    break
                assert answer.json()["error"] == "authorization_pending", answer.text
                said.append(answer.json().get("progress"))
        assert show(answer.json()["certificate"]).key_id == "alice"
        assert all(one is None or one["message"] for one in said)
        assert [line["action"] for line in service.events("server_asked")] == ["start"]


async def test_a_start_is_not_for_sites_that_do_not_want_it(hub: Hub, service: Service, alice: Person) -> None:
    begun = await begin(service, start="1")
    page = await look(alice, begun)
    assert "None of your servers is running" in words(page)
    await alice.submit(page, "/activate", then="approve")
    assert await hub.server("alice") is None


async def test_a_client_names_ones_own_server_as_its_owner_does(hub: Hub, service: Service, alice: Person) -> None:
    await hub.start_server("alice", "gpu")
    begun = await begin(service, server="gpu")
    page = await look(alice, begun)
    assert "alice/gpu" in words(page)
    await alice.submit(page, "/activate", then="approve")
    assert await stands(service, begun) == "certificate"


async def test_an_ssh_connection_is_shown_as_one(hub: Hub, service: Service, alice: Person) -> None:
    await hub.start_server("alice")
    key = parse_public_key(new_key())
    new = NewLogin(Kind.INTERACTIVE, key, "127.0.0.1", server="alice")
    begun = await logins.begin(service.services.store, new, service.services.now_ms())
    assert isinstance(begun, Begun)
    page = await alice.client.get(f"/activate?code={begun.user_code}")
    assert "Let this SSH connection in?" in words(page)
    assert fingerprint(key.line) not in words(page)
    assert "Approved" in (await alice.submit(page, "/activate", then="approve")).text


async def test_each_page_has_one_form_of_its_own_and_works_without_script(
    hub: Hub, service: Service, alice: Person
) -> None:
    await hub.start_server("alice")
    begun = await begin(service)
    for path in ("/activate", f"/activate?code={begun['user_code']}"):
        page = await alice.client.get(path)
        found = [one for one in forms(page) if one.action.endswith("/activate")]
        assert len(found) == 1
        assert found[0].method == "post"
        assert begun["device_code"] not in page.text
