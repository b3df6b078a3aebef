"""Why: clients, shells and strangers speak to these two routes, so each form that RFC 8628 knows is sent for real."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from api import logins
from tests.support.browser import Person
from tests.support.hub import Hub
from tests.support.ports import new_key
from tests.support.service import Service, refused, running_service
from tests.support.ssh_keygen import fingerprint, show

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(hub, tmp_path / "state") as running:
        yield running


async def begin(service: Service, **fields: Any) -> dict[str, Any]:
    answer = await service.request("POST", "/device", data={"public_key": new_key(), **fields})
    assert answer.status_code == 200, answer.text
    begun: dict[str, Any] = answer.json()
    return begun


async def fetch(service: Service, begun: dict[str, Any], **headers: str) -> httpx.Response:
    service.clock.advance(3)
    body = {"device_code": begun["device_code"], "grant_type": GRANT_TYPE}
    return await service.request("POST", "/device/token", data=body, headers=headers)


async def test_a_person_clicks_once_and_the_client_has_a_certificate(hub: Hub, service: Service) -> None:
    await hub.start_server("alice", "gpu")
    line = new_key()
    begun = await begin(service, public_key=line, host_name="laptop")
    assert begun["verification_uri"] == f"{service.url}/activate"
    assert begun["verification_uri_complete"] == f"{service.url}/activate?code={begun['user_code']}"
    assert (begun["expires_in"], begun["interval"]) == (600, 2)
    refused(await fetch(service, begun), 400, "authorization_pending")
    async with Person(service) as alice:
        page = await alice.log_in("alice", f"/activate?code={begun['user_code']}")
        assert page.url == begun["verification_uri_complete"]
        for shown in ("laptop", "127.0.0.1", fingerprint(line), "alice/gpu", begun["user_code"]):
            assert shown in page.text
        assert "Approved" in (await alice.submit(page, "/activate", then="approve")).text
    answer = await fetch(service, begun)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert show(told["certificate"]).fingerprint == fingerprint(line)
    (logged_in,) = service.events("logged_in")
    assert told["user"] == logged_in["user"] == "alice"
    assert told["renew_until"] > told["valid_before"] > service.clock()
    assert [one["login"] for one in told["servers"]] == ["alice+gpu"]
    refused(await fetch(service, begun), 400, "invalid_grant")


async def test_json_is_taken_as_well_as_forms(service: Service) -> None:
    wanted = {"public_key": new_key(), "lifetime": 600, "start": True, "server": "alice+gpu", "client_id": "anything"}
    answer = await service.request("POST", "/device", json=wanted)
    assert answer.status_code == 200
    login = await logins.by_code(service.services.store, answer.json()["user_code"])
    assert login is not None
    assert (login.wanted.lifetime, login.wanted.start, login.wanted.server) == (600, True, "alice+gpu")
    code = {"device_code": answer.json()["device_code"]}
    refused(await service.request("POST", "/device/token", json=code), 400, "authorization_pending")


@pytest.mark.parametrize(
    ("asked", "only"),
    [
        ({}, True),
        ({"server": "alice+gpu"}, True),
        ({"server": "alice+gpu", "start": "1"}, False),
        ({"server": "alice+gpu", "start": "1", "only": "1"}, True),
    ],
)
async def test_a_server_is_for_itself_alone_unless_it_only_says_what_to_start(
    service: Service, asked: dict[str, str], only: bool
) -> None:
    answer = await service.request("POST", "/device", data={"public_key": new_key(), **asked})
    login = await logins.by_code(service.services.store, answer.json()["user_code"])
    assert login is not None
    assert login.wanted.only is only


async def test_a_shell_gets_lines_and_sends_one_back(hub: Hub, service: Service) -> None:
    await hub.start_server("alice")
    text = {"Accept": "text/plain"}
    answer = await service.request("POST", "/device", data={"public_key": new_key(), "start": "0"}, headers=text)
    assert answer.headers["content-type"].startswith("text/plain")
    line = next(line for line in answer.text.splitlines() if line.startswith("device_code="))
    begun = dict(one.split("=", 1) for one in answer.text.splitlines())
    pending = await service.request("POST", "/device/token", content=line, headers={**text, **FORM})
    assert pending.status_code == 400
    assert pending.text.startswith("error=authorization_pending\n")
    async with Person(service) as alice:
        page = await alice.log_in("alice", f"/activate?code={begun['user_code']}")
        await alice.submit(page, "/activate", then="approve")
    service.clock.advance(3)
    given = await service.request("POST", "/device/token", content=line, headers={**text, **FORM})
    assert given.status_code == 200
    assert show(given.text.strip()).key_id == "alice"


async def test_a_client_that_asks_too_often_is_told_a_longer_pause(service: Service) -> None:
    begun = await begin(service)
    body = {"device_code": begun["device_code"]}
    refused(await service.request("POST", "/device/token", data=body), 400, "authorization_pending")
    for pause in (7, 12):
        answer = await service.request("POST", "/device/token", data=body)
        refused(answer, 400, "slow_down", "interval")
        assert answer.json()["interval"] == pause


async def test_denied_and_expired_are_said_in_the_words_of_the_rfc(service: Service) -> None:
    begun = await begin(service)
    async with Person(service) as alice:
        page = await alice.log_in("alice", f"/activate?code={begun['user_code']}")
        assert "Denied" in (await alice.submit(page, "/activate", then="deny")).text
    refused(await fetch(service, begun), 400, "access_denied")
    begun = await begin(service)
    service.clock.advance(600)
    refused(await fetch(service, begun), 400, "expired_token")
    refused(await fetch(service, {"device_code": "never given"}), 400, "invalid_grant")
    body = {"device_code": "x", "grant_type": "password"}
    refused(await service.request("POST", "/device/token", data=body), 400, "unsupported_grant_type")


async def test_a_page_of_another_site_begins_nothing(service: Service) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await service.request("POST", "/device", data={"public_key": new_key()}, headers=headers)
        refused(answer, 403, "not_permitted")
    assert len(service.events("request_refused")) == 3
    assert not service.events("device_login_begun")


@pytest.mark.parametrize("key", ["", "ssh-rsa AAAA", "-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-ed25519 AAAA\nmore"])
async def test_what_is_no_public_key_begins_nothing(service: Service, key: str) -> None:
    answer = await service.request("POST", "/device", json={"public_key": key})
    refused(answer, 400, "bad_key")
    assert [line["reason"] for line in service.events("device_login_refused")] == ["bad_key"]


@pytest.mark.parametrize(
    "fields",
    [
        {"host_name": "x" * 65},
        {"host_name": "two\nlines"},
        {"host_name": "\u202eevil"},
        {"host_name": "\ud800"},
        {"server": "\0"},
        {"server": "x" * 601},
        {"lifetime": 0},
        {"lifetime": 1 << 31},
        {"lifetime": "soon"},
        {"start": "perhaps"},
        {"public_key": None},
        {"public_key": ["x"]},
        {"public_key": "x" * 32769},
    ],
)
async def test_what_cannot_be_shown_or_counted_is_refused(service: Service, fields: dict[str, Any]) -> None:
    body = json.dumps({"public_key": new_key(), **fields})
    answer = await service.request("POST", "/device", content=body, headers={"Content-Type": "application/json"})
    refused(answer, 400, "bad_request")


@pytest.mark.parametrize("body", ["", "[]", "null", "{", "3", '"x"', "[" * 5000, '{"public_key": 1e999}', "\ud83d"])
@pytest.mark.parametrize("path", ["/device", "/device/token"])
async def test_garbage_is_answered_with_a_sentence(service: Service, path: str, body: str) -> None:
    content = body.encode("utf-8", "surrogatepass")
    for kind in ("application/json", "application/x-www-form-urlencoded"):
        answer = await service.request("POST", path, content=content, headers={"Content-Type": kind})
        assert answer.status_code == 400, answer.text
        assert set(answer.json()) == {"error", "error_description"}


async def test_a_form_says_each_thing_once_and_nothing_else_is_a_form(service: Service) -> None:
    twice = f"{urlencode({'public_key': new_key()})}&public_key=x"
    refused(await service.request("POST", "/device", content=twice, headers=FORM), 400, "bad_request")
    many = "&".join(f"f{number}=1" for number in range(30))
    refused(await service.request("POST", "/device", content=many, headers=FORM), 400, "bad_request")
    for kind in ("text/plain", "multipart/form-data; boundary=x", ""):
        answer = await service.request("POST", "/device", content=b"x", headers={"Content-Type": kind})
        refused(answer, 415, "unsupported_media_type")


async def test_too_many_logins_from_one_address_are_refused(hub: Hub, tmp_path: Path) -> None:
    async with running_service(hub, tmp_path / "one", LOGINS_WAITING_PER_ADDRESS="1") as service:
        await begin(service)
        answer = await service.request("POST", "/device", data={"public_key": new_key()})
        refused(answer, 429, "too_many")
        assert "retry-after" in answer.headers
        assert [line["reason"] for line in service.events("device_login_refused")] == ["too_many"]


async def test_nothing_that_is_secret_is_in_an_address_or_in_the_audit_log(hub: Hub, service: Service) -> None:
    await hub.start_server("alice")
    begun = await begin(service)
    async with Person(service) as alice:
        page = await alice.log_in("alice", f"/activate?code={begun['user_code']}")
        await alice.submit(page, "/activate", then="approve")
    await fetch(service, begun)
    assert begun["device_code"] not in begun["verification_uri_complete"]
    assert begun["device_code"] not in service.audit.getvalue()
    assert begun["user_code"] not in service.audit.getvalue()
    assert (await service.request("GET", f"/device/token?device_code={begun['device_code']}")).status_code == 405


async def test_about_tells_clients_what_they_need(service: Service) -> None:
    answer = await service.request("GET", "/about")
    assert answer.headers["cache-control"] == "public, max-age=60"
    told = answer.json()
    assert (told["public_url"], told["hub_url"]) == (service.url, service.hub.url)
    assert (told["zone"], told["time"], told["unix_user"]) == ("hub", int(service.clock()), "jovyan")
    assert told["bastion"] == {"hosts": ["127.0.0.1", "localhost"], "port": 2222, "jump_login": "jump"}
    assert told["features"]["device"] is True
    assert told["features"]["start"] is False


async def test_it_can_be_switched_off(hub: Hub, tmp_path: Path) -> None:
    async with running_service(hub, tmp_path / "state", LOGINS_DEVICE="false") as service:
        for path, body in (("/device", {"public_key": new_key()}), ("/device/token", {"device_code": "x"})):
            refused(await service.request("POST", path, data=body), 403, "not_permitted")
        features = (await service.request("GET", "/about")).json()["features"]
        assert (features["device"], features["interactive"]) == (False, False)


async def test_the_client_is_served_as_it_stands_in_the_repository(service: Service) -> None:
    file = Path(__file__).parents[2] / "deploy" / "client" / "hubssh.py"
    answer = await service.request("GET", "/hubssh")
    assert answer.content == file.read_bytes()
    assert answer.headers["content-type"] == "text/x-python; charset=utf-8"
    again = await service.request("GET", "/hubssh", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
