"""Why: one route that forgets what all others heed is enough. So each rule is tried on every route that there is, and
a route that this table does not know fails.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from fastapi.routing import APIRoute

from api.app import create_app
from api.front import open_front
from api.routes import operate, pods
from api.routes.public import ROUTERS
from api.store import Store
from tests.support.browser import Person, form
from tests.support.hub import Hub
from tests.support.ports import new_key
from tests.support.service import Service, running_service

EVIL = "https://evil.example.org"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
CROSS_SITE = frozenset({"nothing was done"})
"""Words of the two refusals of a request that did not come from our own page."""

Route = tuple[str, str]

ROUTES: list[Route] = [
    (method, route.path)
    for router in (operate.router, pods.router, *ROUTERS)
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods)
]
CHANGING = [route for route in ROUTES if route[0] not in SAFE]
READING = [route for route in ROUTES if route[0] in SAFE]

NO_COOKIE_COUNTS: dict[Route, str] = {
    ("POST", "/enrolments"): "a pod's token",
    ("DELETE", "/enrolments"): "a withdraw token",
    ("POST", "/certificates"): "a JupyterHub token",
    ("POST", "/certificates/renew"): "a proof of possession",
    ("POST", "/device"): "nobody: a stranger asks, and a browser of another site is refused",
    ("POST", "/device/token"): "a device code",
}
"""Routes that change something and on which a browser's session is worth nothing, with what counts there instead."""

JSON_BODIES: dict[Route, dict[str, Any]] = {
    ("POST", "/enrolments"): {"host_key": new_key(), "ssh_port": 40222, "key_port": 40080, "unix_user": "jovyan"},
    ("POST", "/certificates"): {"public_key": new_key()},
    ("POST", "/certificates/renew"): {},
    ("POST", "/revocations"): {"user": "alice"},
}
"""What a route that reads JSON is sent. The others read forms, or nothing."""

FORM_FIELDS: dict[str, str] = {"public_key": new_key(), "device_code": "x", "code": "BCDF-GHJK", "then": "approve"}


def url(path: str, serial: str = "1") -> str:
    """A path with something in each of its places."""
    places = {"serial": serial, "login": "alice", "name": "page.css", "id": "9f86d081884c7d65"}
    return re.sub(r"\{(\w+)\}", lambda match: places[match[1]], path)


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(hub, tmp_path / "state", SERVERS_START="true") as running:
        yield running


@dataclass
class Sent:
    """One way to send a request that a browser would send for another site's page, or for nobody's."""

    what: str
    headers: dict[str, str]
    token: str


def ways(own: str, foreign: str, origin: str) -> Iterator[Sent]:
    """Every way that must do nothing: `own` is the session's form token, `foreign` another session's."""
    ours = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    yield Sent("no token", ours, "")
    yield Sent("a token of another session", ours, foreign)
    yield Sent("another site, with the token", {"Origin": EVIL}, own)
    yield Sent("no site, with the token", {"Origin": "null"}, own)
    yield Sent("another site in the fetch's words", {"Sec-Fetch-Site": "cross-site"}, own)
    yield Sent("a neighbour of ours", {"Sec-Fetch-Site": "same-site"}, own)
    yield Sent("nothing that says where it comes from, and no token", {}, "")


async def send(client: httpx.AsyncClient, route: Route, sent: Sent, serial: str) -> httpx.Response:
    method, path = route
    headers = {**sent.headers, **({"X-Form-Token": sent.token} if sent.token else {})}
    if route in JSON_BODIES or method == "DELETE":
        body = {} if method == "DELETE" else {"json": JSON_BODIES[route]}
    else:
        body = {"data": {**FORM_FIELDS, "form_token": sent.token}}
    return await client.request(method, url(path, serial), headers=headers, follow_redirects=False, **body)


async def written(service: Service) -> int:
    """How often something that counts was written to the database."""
    return (await service.services.store.refresh(service.services.now_ms())).meta.high_water


async def alices_browser(service: Service, stack: Person, user: str = "alice") -> str:
    """Log in; the form token of the session."""
    return form(await stack.log_in(user), "/logout").fields["form_token"]


# -- requests that another site's page sends -----------------------------------------------------------------------


async def test_no_route_that_changes_something_believes_another_sites_page(hub: Hub, service: Service) -> None:
    await hub.start_server("alice")
    issued = await service.request(
        "POST",
        "/certificates",
        await hub.token("alice", ["access:services!service=ssh"]),
        json={"public_key": new_key()},
    )
    serial = issued.json()["serial"]
    async with Person(service) as bob, Person(service) as alice:
        foreign, own = await alices_browser(service, bob, "bob"), await alices_browser(service, alice)
        before, mark = service.events(), await written(service)
        for route in CHANGING:
            for sent in ways(own, foreign, service.front.sessions.origin):
                answer = await send(alice.client, route, sent, serial)
                told = (route, sent.what, answer.status_code, answer.text[-400:])
                if route == ("POST", "/device/token"):
                    assert answer.status_code == 400, told  # nobody has that code
                elif route == ("POST", "/device"):
                    elsewhere = any(
                        value in (EVIL, "null", "cross-site", "same-site") for value in sent.headers.values()
                    )
                    assert answer.status_code == (403 if elsewhere else 200), told
                elif route in NO_COOKIE_COUNTS:
                    assert answer.status_code == 401, told
                else:
                    assert answer.status_code == 403, told
                    assert any(words in answer.text for words in CROSS_SITE), told
        assert await written(service) == mark
        done = {line["audit"] for line in service.events()[len(before) :]}
        refused = {"request_refused", "certificate_refused", "enrolment_refused", "device_login_refused"}
        assert done - refused == {"device_login_begun"}  # by a stranger, and approved by nobody
        assert await hub.server("alice") is not None
        assert (await alice.client.get("/certificates")).status_code == 200  # still logged in


async def test_the_same_requests_from_our_own_page_are_heard(hub: Hub, service: Service) -> None:
    """Without this the test before would be content with routes that refuse everybody."""
    await hub.start_server("alice")
    ours = {"Origin": service.front.sessions.origin, "Sec-Fetch-Site": "same-origin"}
    last: list[Route] = [("DELETE", "/servers/{login}"), ("POST", "/servers/{login}/stop"), ("POST", "/logout")]
    routes = [route for route in CHANGING if route not in NO_COOKIE_COUNTS and route not in last]
    async with Person(service) as alice:
        own = await alices_browser(service, alice)
        for route in (*routes, *last):
            answer = await send(alice.client, route, Sent("ours", ours, own), "1")
            told = (route, answer.status_code, answer.text[-400:])
            assert answer.status_code != 401, told
            assert not any(words in answer.text for words in CROSS_SITE), told
        assert (await alice.client.get("/certificates")).status_code == 401  # logged out


async def test_a_form_of_another_site_cannot_pass_for_json(hub: Hub, service: Service) -> None:
    """Browsers send these types across sites without asking first."""
    async with Person(service) as alice:
        own = await alices_browser(service, alice)
        for method, path in JSON_BODIES:
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
                headers = {"Content-Type": kind, "X-Form-Token": own}
                answer = await alice.client.request(method, path, content=b'{"user": "alice"}', headers=headers)
                assert answer.status_code in (401, 415), (method, path, answer.text)


async def test_no_page_of_another_site_is_allowed_to_read_or_to_send_more(service: Service) -> None:
    for method, path in ROUTES:
        asking = {
            "Origin": EVIL,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "x-form-token",
        }
        answer = await service.request("OPTIONS", url(path), headers=asking)
        assert answer.status_code == 405, (path, answer.status_code)
        answer = await service.request("GET", url(path), headers={"Origin": EVIL})
        assert not [name for name in answer.headers if name.startswith("access-control-")], path


# -- what browsers do with our answers ------------------------------------------------------------------------------


async def everything(service: Service, client: httpx.AsyncClient) -> list[tuple[str, httpx.Response]]:
    """An answer of every route to GET, and the kinds of errors."""
    answers = [
        (path, await client.get(url(path), follow_redirects=False))
        for path in dict.fromkeys(path for _, path in ROUTES)
        if path != "/servers/{login}/progress"
    ]
    answers.append(("a long request", await client.post("/device", content=b"x" * 70_000)))
    answers.append(("no such page", await client.get("/no/such/page")))
    answers.append(("the OpenAPI text", await client.get("/openapi.json")))
    return answers


@pytest.mark.parametrize("user", [None, "alice"])
async def test_every_answer_can_be_framed_sniffed_and_leaked_by_nobody(
    hub: Hub, service: Service, user: str | None
) -> None:
    async with Person(service) as person:
        if user is not None:
            await person.log_in(user)
        for path, answer in await everything(service, person.client):
            told = (path, answer.status_code, dict(answer.headers))
            policy = answer.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy, told
            assert "default-src 'none'" in policy, told
            assert "unsafe" not in policy, told
            assert "*" not in policy, told
            assert "http" not in policy.replace(service.url, "").replace(service.hub.url, ""), told
            assert answer.headers["x-frame-options"] == "DENY", told
            assert answer.headers["x-content-type-options"] == "nosniff", told
            assert answer.headers["referrer-policy"] in ("no-referrer", "same-origin"), told
            assert answer.headers["cross-origin-resource-policy"] == "same-origin", told
            assert answer.headers["cache-control"], told
            for cookie in answer.headers.get_list("set-cookie"):
                assert "httponly" in cookie.lower(), told
                assert "samesite=lax" in cookie.lower(), told
                assert "path=/" in cookie.lower(), told
                assert "domain" not in cookie.lower(), told


async def test_what_is_one_persons_is_kept_by_no_cache(hub: Hub, service: Service) -> None:
    shared = {"/static/{name}", "/krl", "/about", "/hubssh", "/ca.pub", "/known_hosts", "/ssh_config", "/openapi.json"}
    async with Person(service) as person:
        await person.log_in("alice")
        for path, answer in await everything(service, person.client):
            if path not in shared:
                assert "no-store" in answer.headers["cache-control"], (path, answer.headers["cache-control"])


async def test_reading_changes_nothing(hub: Hub, service: Service) -> None:
    """So that a link, an image or a browser that fetches ahead does nothing."""
    await hub.start_server("alice")
    async with Person(service) as alice:
        await alice.log_in("alice")
        mark, before = await written(service), len(service.events())
        for path in (path for method, path in READING if method == "GET"):
            for query in ("", "?then=approve&code=BCDF-GHJK&_method=POST"):
                answer = await alice.client.get(f"{url(path)}{query}", follow_redirects=False)
                assert answer.status_code < 500, path
        assert await written(service) == mark
        assert {line["audit"] for line in service.events()[before:]} <= {
            "login_refused",  # a callback out of nowhere
            "device_login_refused",  # a code that nobody has
        }
        assert await hub.server("alice") is not None
        assert (await alice.client.get("/certificates")).status_code == 200


# -- where our answers lead ------------------------------------------------------------------------------------------

ELSEWHERE = (
    EVIL,
    "//evil.example.org/",
    "/\\evil.example.org",
    "/%2f%2fevil.example.org",
    "/%5cevil.example.org",
    "\thttps://evil.example.org",
    "https:evil.example.org",
    "javascript:alert(1)",
    "/..//evil.example.org",
    "/@evil.example.org",
    ".evil.example.org",
)


async def test_no_answer_leads_to_another_site(hub: Hub, service: Service) -> None:
    """Neither a redirect nor a link or form of a page, whatever stands in the address or in the Host header."""
    names = ("next", "code", "done", "watch", "url", "redirect_uri", "return_to", "state", "then")
    async with Person(service) as nobody, Person(service) as alice:
        await alice.log_in("alice")
        for client in (nobody.client, alice.client):
            for path in (path for method, path in READING if method == "GET" and not path.endswith("/progress")):
                for there in ELSEWHERE:
                    query = "&".join(f"{name}={quote(there, safe='')}" for name in names)
                    headers = {"Host": "evil.example.org", "X-Forwarded-Host": "evil.example.org"}
                    answer = await client.get(f"{url(path)}?{query}", headers=headers, follow_redirects=False)
                    stays_here(service, path, answer)


def stays_here(service: Service, path: str, answer: httpx.Response) -> None:
    """A redirect goes to a page of ours, or to the login of the hub, which then comes back to us."""
    told = (path, answer.status_code, answer.headers.get("location"))
    if 300 <= answer.status_code < 400 and answer.status_code != 304:
        target = answer.headers["location"]
        if target.startswith(f"{service.hub.hub_url}/api/oauth2/authorize?"):
            back = parse_qs(urlsplit(target).query)["redirect_uri"]
            assert back == [f"{service.url}/oauth_callback"], told
        else:
            assert target.startswith(f"{service.url}/"), told
            assert urlsplit(target).netloc == urlsplit(service.url).netloc, told
    if "text/html" in answer.headers.get("content-type", ""):
        for link in re.findall(r'(?:src|href|action)="([^"]*)"', answer.text):
            assert link.startswith((f"{service.url}/", f"{service.hub.url}/hub/", "#")), (path, link)


@pytest.mark.parametrize("there", ELSEWHERE)
async def test_a_login_ends_on_this_site_whatever_the_link_to_it_said(hub: Hub, service: Service, there: str) -> None:
    async with Person(service) as alice:
        page = await alice.log_in("alice", quote(there, safe=""))
        assert str(page.url).startswith(f"{service.url}/")
        assert page.url.netloc == urlsplit(service.url).netloc.encode()


# -- whose session it is ----------------------------------------------------------------------------------------------


async def test_a_session_that_somebody_planted_becomes_nobody_elses(hub: Hub, service: Service) -> None:
    """Bob puts his own cookies into alice's browser and keeps copies of them; then alice logs in there."""
    async with Person(service) as bob, Person(service) as alice:
        await bob.log_in("bob")
        kept = httpx.Cookies(bob.client.cookies)
        for cookie in bob.client.cookies.jar:
            if cookie.name.startswith("bastion-"):
                alice.client.cookies.set(cookie.name, cookie.value or "", domain=cookie.domain, path="/")
        page = await alice.log_in("alice")
        assert "alice" in page.text
        session = service.front.sessions.read(dict(alice.client.cookies.items()))
        assert session is not None
        assert session.user == "alice"
        async with service.client(cookies=kept) as copy:
            answer = await copy.get("/certificates")
            assert answer.status_code == 401  # not alice, and not bob any more


async def test_a_copied_cookie_dies_on_every_replica_when_its_owner_logs_out(hub: Hub, service: Service) -> None:
    async with Person(service) as alice:
        page = await alice.log_in("alice")
        kept = dict(alice.client.cookies.items())
        settings, clock = service.services.settings, service.clock
        async with httpx.AsyncClient() as http, Store(settings.database, settings.state_directory) as store:
            await store.open(service.services.now_ms())
            replica = open_front(settings, http, store, clock)
            assert replica.sessions.read(kept) is not None
            await alice.submit(page, "/logout")
            await store.refresh(service.services.now_ms())
            assert replica.sessions.read(kept) is None


async def test_a_login_that_somebody_began_elsewhere_is_finished_by_nobody(hub: Hub, service: Service) -> None:
    """Bob begins a login and sends alice the hub's answer to it, which would make her browser his."""
    async with Person(service) as bob, Person(service) as alice:
        begun = await bob.client.get("/login", follow_redirects=False)
        callback = await service.hub.log_in_here(bob.client, begun.headers["location"], "bob")
        assert callback.status_code == 200
        sent = next(one for one in callback.history if "/oauth_callback" in str(one.url))
        page = await alice.client.get(str(sent.url))
        assert page.status_code in (400, 403), page.status_code
        assert service.front.sessions.read(dict(alice.client.cookies.items())) is None


async def test_the_cookies_of_one_purpose_count_for_no_other(hub: Hub, service: Service) -> None:
    async with Person(service) as alice:
        await alice.log_in("alice")
        session = alice.client.cookies["bastion-session"]
        begun = await alice.client.get("/login", follow_redirects=False)
        login = next(cookie for cookie in begun.headers.get_list("set-cookie") if "session" not in cookie.split("=")[0])
        value = login.partition("=")[2].partition(";")[0]
        for cookies in ({"bastion-session": value}, {"bastion-login": session}):
            async with service.client(cookies=cookies) as client:
                assert (await client.get("/certificates")).status_code == 401


# -- the table itself ------------------------------------------------------------------------------------------------


async def test_the_table_knows_every_route_of_the_running_site(service: Service) -> None:
    """The site is made from the same routers; what is added beside them would show here."""
    edge: Any = create_app(service.services, service.front, ROUTERS)
    routes = edge._app._app.routes  # below what looks after every request, and what reads proxies' words
    routers = [getattr(one, "original_router", None) for one in routes]
    assert [one for one in routers if one is not None] == [operate.router, pods.router, *ROUTERS]
    plain = [one.path for one, router in zip(routes, routers, strict=True) if router is None]
    assert plain == ["/openapi.json"]
    assert set(NO_COOKIE_COUNTS) | set(JSON_BODIES) <= set(ROUTES)
