"""Why: who may ask with which token is the heart of the matter: each row is tried with a token that JupyterHub made."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncssh
import httpx
import pytest

from tests.support.browser import Person, form
from tests.support.hub import Hub
from tests.support.service import Service, refused, running_service
from tests.support.ssh_keygen import fingerprint, show

ACCESS = "access:services!service=ssh"


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(hub, tmp_path / "state") as running:
        yield running


@dataclass
class Key:
    """A fresh key pair's public line."""

    line: str


@pytest.fixture
def key() -> Key:
    return Key(asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip())


async def ask(service: Service, token: str | None, key: Key, **more: Any) -> httpx.Response:
    return await service.request("POST", "/certificates", token, json={"public_key": key.line, **more})


async def token_by_oauth(hub: Hub, user: str, client_id: str, secret: str, redirect_uri: str) -> str:
    """The access token that an OAuth client of the hub gets when `user` visits it: what a service could capture."""
    browser = await hub.login(user)
    try:
        answer = await browser.get(
            f"{hub.hub_url}/api/oauth2/authorize",
            params={"client_id": client_id, "redirect_uri": redirect_uri, "response_type": "code", "state": "s"},
            follow_redirects=False,
        )
        if answer.status_code == 200:  # the hub asks whether this visit is meant
            fields = re.findall(r'name="(_xsrf|scopes)"\s+(?:type="\w+"\s+)?value="([^"]*)"', answer.text)
            answer = await browser.post(answer.url, data=_multiple(fields), follow_redirects=False)
        code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
    finally:
        await browser.aclose()
    body = {
        "client_id": client_id,
        "client_secret": secret,
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
    }
    given = await hub.request("POST", "/oauth2/token", token="", data=body)
    assert given.status_code == 200, given.text
    return str(given.json()["access_token"])


def _multiple(fields: list[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in fields:
        found.setdefault(name, []).append(value)
    return found


async def test_a_token_made_for_this_service_gets_a_certificate_for_everything_that_runs(
    hub: Hub, service: Service, key: Key
) -> None:
    await hub.start_server("alice")
    await hub.start_server("alice", "gpu")
    answer = await ask(service, await hub.token("alice", [ACCESS]), key)
    assert answer.status_code == 201
    told = answer.json()
    certificate = show(told["certificate"])
    assert certificate.kind == "user"
    assert certificate.fingerprint == fingerprint(key.line)
    assert certificate.key_id == told["key_id"] == "alice"
    assert str(certificate.serial) == told["serial"]
    assert list(certificate.principals) == told["principals"]
    assert [name.partition(":")[0] for name in told["principals"]] == ["alice/", "alice/gpu"]
    assert certificate.valid_before == told["valid_before"] == service.clock.now + 12 * 3600
    assert certificate.valid_after == told["valid_after"] == service.clock.now - 60
    assert [name.partition(" ")[0] for name in certificate.extensions] == told["extensions"]
    assert certificate.critical == ()
    assert told["servers"] == [
        {"owner": "alice", "name": "", "login": "alice", "host_name": "alice.hub"},
        {"owner": "alice", "name": "gpu", "login": "alice+gpu", "host_name": "alice+gpu.hub"},
    ]
    assert answer.headers["cache-control"] == "no-store"
    record = await service.services.store.certificate(certificate.serial)
    assert record is not None
    assert (record.user, record.principals) == ("alice", certificate.principals)
    (line,) = service.events("certificate_issued")
    assert (line["how"], line["serial"]) == ("token", told["serial"])


async def test_the_header_may_say_bearer_as_well(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice")
    token = await hub.token("alice", [ACCESS])
    answer = await service.request(
        "POST", "/certificates", headers={"Authorization": f"Bearer {token}"}, json={"public_key": key.line}
    )
    assert answer.status_code == 201


async def test_a_shell_gets_the_certificate_as_one_line(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice")
    token, body = await hub.token("alice", [ACCESS]), {"public_key": key.line}
    answer = await service.request("POST", "/certificates", token, json=body, headers={"Accept": "text/plain"})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert answer.headers["content-type"].startswith("text/plain")
    assert show(answer.text.removesuffix("\n")).fingerprint == fingerprint(key.line)
    answer = await service.request("POST", "/certificates", token, json=body, headers={"Accept": "*/*"})
    assert answer.json()["key_id"] == "alice"
    answer = await service.request("POST", "/certificates", "x", json=body, headers={"Accept": "text/plain"})
    refused(answer, 401, "invalid_token")


async def test_one_server_and_a_shorter_life_can_be_asked_for(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice")
    await hub.start_server("alice", "gpu")
    token = await hub.token("alice", [ACCESS])
    told = (await ask(service, token, key, server="alice+gpu", lifetime=300)).json()
    assert [one["login"] for one in told["servers"]] == ["alice+gpu"]
    assert show(told["certificate"]).valid_before == service.clock.now + 300
    told = (await ask(service, token, key, lifetime=10**9)).json()
    assert told["valid_before"] == service.clock.now + 12 * 3600
    refused(await ask(service, token, key, lifetime=5), 400, "bad_lifetime")


async def test_a_token_that_may_do_everything_its_user_may_counts_as_made_for_this_service(
    hub: Hub, service: Service, key: Key
) -> None:
    await hub.start_server("alice")
    assert (await ask(service, await hub.token("alice"), key)).status_code == 201


# -- tokens that do not count -------------------------------------------------------------------------------------


async def test_a_token_without_our_scope_signs_nothing(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice")
    for scopes in (["read:users:name!user=alice"], ["read:servers!user=alice"], ["access:servers!user=alice"]):
        said = refused(await ask(service, await hub.token("alice", scopes), key), 403, "wrong_token")
        assert said
    assert service.events("certificate_issued") == []
    assert {line["reason"] for line in service.events("certificate_refused")} == {"wrong_token"}


async def test_a_token_for_another_service_signs_nothing(hub: Hub, service: Service, key: Key) -> None:
    """Alice visited the service "other", which now holds a token that names her."""
    await hub.start_server("alice")
    captured = await token_by_oauth(hub, "alice", "service-other", hub.other_token, "http://127.0.0.1:9/oauth_callback")
    model = (await hub.request("GET", "/user", token=captured)).json()
    assert model["name"] == "alice"
    refused(await ask(service, captured, key), 403, "wrong_token")
    refused(await service.request("GET", "/certificates", captured), 403, "wrong_token")


async def test_the_token_of_our_own_login_counts_but_is_never_a_browser(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("admin")
    token = await token_by_oauth(hub, "admin", hub.client_id, hub.service_token, f"{hub.public_url}/oauth_callback")
    assert (await ask(service, token, key)).status_code == 201
    assert service.events("certificate_issued")[0]["how"] == "token"
    await hub.start_server("alice")
    refused(await ask(service, token, key, server="alice"), 409, "server_not_running")


async def test_a_servers_own_token_gets_a_certificate_for_that_server_only(
    hub: Hub, service: Service, key: Key
) -> None:
    await hub.start_server("alice")
    await hub.start_server("alice", "gpu")
    await hub.start_server("bob", "work")
    await hub.share("bob", "work", "alice")
    token = await hub.server_token("alice", "gpu")
    told = (await ask(service, token, key)).json()
    assert [one["login"] for one in told["servers"]] == ["alice+gpu"]
    assert len(show(told["certificate"]).principals) == 1
    for other in ("alice", "bob+work"):
        refused(await ask(service, token, key, server=other), 409, "server_not_running")
    refused(await service.request("GET", "/certificates", token), 403, "wrong_token")
    refused(await service.request("DELETE", f"/certificates/{told['serial']}", token), 403, "wrong_token")


async def test_a_collaborators_token_for_a_shared_server_signs_nothing(hub: Hub, service: Service, key: Key) -> None:
    """Bob, with whom alice shared gpu, can mint a token with exactly the scope that the server's own token has."""
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob", ["access:servers"])
    token = await hub.token("bob", ["access:servers!server=alice/gpu"])
    refused(await ask(service, token, key), 403, "wrong_token")
    refused(await ask(service, token, key, server="alice+gpu"), 403, "wrong_token")


async def test_a_token_captured_from_an_admins_visit_signs_nothing(hub: Hub, service: Service, key: Key) -> None:
    """An admin opened alice's server: the server was then the OAuth client, and kept a token that names the admin."""
    await hub.start_server("alice", "gpu")
    environment = await hub.server_environment("alice", "gpu")
    captured = await token_by_oauth(
        hub,
        "admin",
        environment["JUPYTERHUB_CLIENT_ID"],
        environment["JUPYTERHUB_API_TOKEN"],
        environment["JUPYTERHUB_OAUTH_CALLBACK_URL"],
    )
    model = (await hub.request("GET", "/user", token=captured)).json()
    assert (model["name"], model["admin"]) == ("admin", True)
    refused(await ask(service, captured, key), 403, "wrong_token")
    refused(await ask(service, captured, key, server="alice+gpu"), 403, "wrong_token")


async def test_service_tokens_are_no_persons(hub: Hub, service: Service, key: Key) -> None:
    for token in (hub.service_token, hub.other_token, hub.admin_token):
        refused(await ask(service, token, key), 403, "not_a_user")


async def test_tokens_that_jupyterhub_does_not_know_are_nobodys(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice")
    server = await hub.server_token("alice")
    await hub.stop_server("alice")
    for token in ("garbage", "0" * 32, "../users/alice", "ü".encode().hex(), server):
        refused(await ask(service, token, key), 401, "invalid_token")
    assert service.events("certificate_issued") == []


@pytest.mark.parametrize("header", [None, "", "token", "Basic YTpi", "token a b", "Token\tx", "x" * 9000])
async def test_without_a_token_the_answer_says_how_to_send_one(service: Service, key: Key, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = await service.request("POST", "/certificates", headers=headers, json={"public_key": key.line})
    said = refused(answer, 401, "invalid_token")
    assert "Authorization" in said
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_browser_session_is_no_token_for_signing(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice")
    async with Person(service) as person:
        await person.log_in("alice")
        answer = await person.client.post("/certificates", json={"public_key": key.line})
    refused(answer, 401, "invalid_token")


# -- which servers ------------------------------------------------------------------------------------------------


async def test_nobody_gets_anybody_elses_server(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice", "gpu")
    await hub.start_server("bob")
    for user in ("bob", "admin"):
        token = await hub.token(user, [ACCESS])
        for typed in ("alice+gpu", "alice/gpu", "ALICE+GPU"):
            refused(await ask(service, token, key, server=typed), 409, "server_not_running")
    told = (await ask(service, await hub.token("bob", [ACCESS]), key)).json()
    assert [one["login"] for one in told["servers"]] == ["bob"]


async def test_sharing_the_web_pages_of_a_server_shares_no_ssh(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob", ["access:servers"])
    token = await hub.token("bob", [ACCESS])
    refused(await ask(service, token, key), 409, "no_server")
    await hub.share("alice", "gpu", "bob", ["custom:ssh:connect"])
    told = (await ask(service, token, key)).json()
    assert [one["login"] for one in told["servers"]] == ["alice+gpu"]
    assert told["valid_before"] == service.clock.now + 3600
    await hub.unshare("alice", "gpu", "bob")
    refused(await ask(service, token, key), 409, "no_server")


async def test_sharing_one_server_shares_that_one_only(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice")
    await hub.start_server("alice", "gpu")
    await hub.start_server("bob")
    await hub.share("alice", "gpu", "bob")
    token = await hub.token("bob", [ACCESS])
    told = (await ask(service, token, key)).json()
    assert [one["login"] for one in told["servers"]] == ["alice+gpu", "bob"]
    refused(await ask(service, token, key, server="alice"), 409, "server_not_running")


async def test_an_admin_enters_other_servers_only_where_that_is_on_and_only_by_the_browser(
    hub: Hub, tmp_path: Path, key: Key
) -> None:
    await hub.start_server("alice", "gpu")
    token = await hub.token("admin", [ACCESS])
    async with running_service(hub, tmp_path / "off") as service, Person(service) as admin:
        page = await admin.log_in("admin")
        fields = {"public_key": key.line, "other": "alice+gpu", "then": "download"}
        assert (await admin.submit(page, "/certificates/form", **fields)).status_code == 409
    async with running_service(hub, tmp_path / "on", CERTIFICATES_ADMIN_SSH="true") as service:
        refused(await ask(service, token, key, server="alice+gpu"), 409, "server_not_running")
        async with Person(service) as admin:
            page = await admin.log_in("admin")
            assert "It is recorded that you did" in page.text
            file = await admin.submit(page, "/certificates/form", **fields)
            assert show(file.text.strip()).principals[0].startswith("alice/gpu:")
            assert service.events("certificate_issued")[-1]["as_admin"] is True
            await hub.request("PATCH", "/users/admin", json={"admin": False})
            answer = await admin.submit(page, "/certificates/form", **fields)
            assert answer.status_code == 409
        async with Person(service) as bob:
            answer = await bob.submit(await bob.log_in("bob"), "/certificates/form", **fields)
            assert answer.status_code == 409
    await hub.request("PATCH", "/users/admin", json={"admin": True})


# -- input --------------------------------------------------------------------------------------------------------


async def test_bodies_that_are_not_what_is_asked_for_are_refused(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice")
    token = await hub.token("alice", [ACCESS])
    for body, says in [
        ({}, "public_key"),
        ({"public_key": None}, "public_key"),
        ({"public_key": 1}, "public_key"),
        ({"public_key": [key.line]}, "public_key"),
        ({"public_key": key.line, "principals": ["root"]}, "principals"),
        ({"public_key": key.line, "valid_before": 1}, "valid_before"),
        ({"public_key": key.line, "lifetime": "60"}, "lifetime"),
        ({"public_key": key.line, "lifetime": 60.5}, "lifetime"),
        ({"public_key": key.line, "lifetime": True}, "lifetime"),
        ({"public_key": key.line, "lifetime": -1}, "lifetime"),
        ({"public_key": key.line, "lifetime": 1 << 31}, "lifetime"),
        ({"public_key": key.line, "server": 1}, "server"),
        ({"public_key": key.line, "server": "a" * 3000}, "server"),
        ([], ""),
        ("x", ""),
        (7, ""),
    ]:
        answer = await service.request("POST", "/certificates", token, json=body)
        assert says in refused(answer, 400, "bad_request")
    assert service.events("certificate_issued") == []


async def test_servers_with_strange_names_do_not_run(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice")
    token = await hub.token("alice", [ACCESS])
    for typed in ("+", "alice+", "a,b", "*", "alice/", "alice\nbob", "äöü", "=zz", "\x00", "alice:1", "alice,bob"):
        answer = await ask(service, token, key, server=typed)
        assert answer.status_code in (400, 409), typed
        assert answer.json()["error"] in ("bad_name", "server_not_running"), typed
        assert answer.json()["error_description"].isprintable()
    assert service.events("certificate_issued") == []


async def test_other_content_is_refused_before_it_is_read(hub: Hub, service: Service, key: Key) -> None:
    token = await hub.token("alice", [ACCESS])
    for content, kind, status in [
        (b"{", "application/json", 400),
        (b"\xff\xfe\x00", "application/json", 400),
        (b"[" * 50_000, "application/json", 400),
        (f'{{"public_key":"{key.line}"}}'.encode(), "text/plain", 415),
        (f'{{"public_key":"{key.line}"}}'.encode(), "application/x-www-form-urlencoded", 415),
        (b'{"public_key":"' + b"A" * (1 << 20) + b'"}', "application/json", 413),
    ]:
        answer = await service.request("POST", "/certificates", token, content=content, headers={"Content-Type": kind})
        assert answer.status_code == status, (kind, answer.text)
        assert answer.json()["error_description"]
        assert "Traceback" not in answer.text


async def test_private_keys_and_bad_keys_are_refused_with_a_sentence(hub: Hub, service: Service) -> None:
    await hub.start_server("alice")
    token = await hub.token("alice", [ACCESS])
    private = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    weak = asyncssh.generate_private_key("ssh-rsa", key_size=1024).export_public_key().decode()
    for line, says in [
        (private, "make a new one"),
        (weak, "3072"),
        ("", "one line"),
        ("\n\n", "one line"),
        ("ssh-ed25519 AAAA", "not accepted"),
        ("ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABB", "damaged"),
    ]:
        assert says in refused(await ask(service, token, Key(line)), 400, "bad_key")
    assert "PRIVATE" not in service.audit.getvalue()


# -- list and revoke ----------------------------------------------------------------------------------------------


async def test_own_certificates_are_listed_and_revoked_by_a_token(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice", "gpu")
    token = await hub.token("alice", [ACCESS])
    made = (await ask(service, token, key)).json()
    answer = await service.request("GET", "/certificates", token)
    assert answer.headers["cache-control"] == "no-store"
    (listed,) = answer.json()["certificates"]
    assert listed == {
        "serial": made["serial"],
        "fingerprint": fingerprint(key.line),
        "principals": made["principals"],
        "valid_after": made["valid_after"],
        "valid_before": made["valid_before"],
        "servers": made["servers"],
    }
    for _ in range(2):
        answer = await service.request("DELETE", f"/certificates/{made['serial']}", token)
        assert answer.status_code == 204
    assert (await service.request("GET", "/certificates", token)).json() == {"certificates": []}
    assert len(service.events("revoked")) == 1
    revocations = service.services.roster.state().body["revocations"]
    assert revocations["serials"] == [made["serial"]]


async def test_nobody_sees_or_revokes_what_belongs_to_others(hub: Hub, service: Service, key: Key) -> None:
    await hub.start_server("alice")
    made = (await ask(service, await hub.token("alice", [ACCESS]), key)).json()
    for user in ("bob", "admin"):
        token = await hub.token(user, [ACCESS])
        assert (await service.request("GET", "/certificates", token)).json() == {"certificates": []}
        refused(await service.request("DELETE", f"/certificates/{made['serial']}", token), 403, "not_yours")
    assert service.events("revoked") == []
    assert [line["reason"] for line in service.events("request_refused")] == ["not_yours", "not_yours"]


async def test_a_refusal_before_anything_is_asked_leaves_one_audit_line(hub: Hub, service: Service) -> None:
    await hub.start_server("alice")
    person, server = await hub.token("alice", [ACCESS]), await hub.server_token("alice")
    for method, path, token, reason in (
        ("GET", "/certificates", None, "invalid_token"),
        ("GET", "/servers", server, "wrong_token"),
        ("GET", "/sessions?everybody=true", person, "not_permitted"),
        ("DELETE", "/sessions/none", person, "not_yours"),
        ("GET", "/servers/none/progress", person, "no_server"),
        ("POST", "/enrolments", None, "invalid_token"),
    ):
        before = len(service.events())
        body = {"host_key": "x", "ssh_port": 40222, "key_port": 40080, "unix_user": "x"} if method == "POST" else None
        answer = await service.request(method, path, token, **({"json": body} if body else {}))
        assert answer.status_code >= 400, answer.text
        (line,) = service.events()[before:]
        assert (line["audit"], line["reason"], line["peer"]) == ("request_refused", reason, "127.0.0.1")


@pytest.mark.parametrize("serial", ["0", "1", "-1", "x", "1e9", "%20", "9" * 19, "9" * 30, "0123", "१"])
async def test_serials_that_do_not_exist_are_nobodys(hub: Hub, service: Service, serial: str) -> None:
    token = await hub.token("alice", [ACCESS])
    refused(await service.request("DELETE", f"/certificates/{serial}", token), 403, "not_yours")


async def test_an_admin_revokes_anybodys_by_the_browser_with_the_form_token(
    hub: Hub, service: Service, key: Key
) -> None:
    await hub.start_server("alice")
    made = (await ask(service, await hub.token("alice", [ACCESS]), key)).json()
    path = f"/certificates/{made['serial']}"
    async with Person(service) as bob, Person(service) as admin:
        token = form(await bob.log_in("bob"), "/logout").fields["form_token"]
        refused(await bob.client.delete(path, headers={"X-Form-Token": token}), 403, "not_yours")
        token = form(await admin.log_in("admin"), "/logout").fields["form_token"]
        refused(await admin.client.delete(path), 403, "not_permitted")
        refused(await admin.client.delete(path, headers={"X-Form-Token": "x"}), 403, "not_permitted")
        foreign = {"X-Form-Token": token, "Origin": "https://evil.example"}
        refused(await admin.client.delete(path, headers=foreign), 403, "not_permitted")
        assert service.events("revoked") == []
        assert (await admin.client.delete(path, headers={"X-Form-Token": token})).status_code == 204
    (line,) = service.events("revoked")
    assert (line["by"], line["reason"]) == ("admin", "by an administrator")


async def test_a_bad_token_is_not_forgiven_because_of_a_good_session(hub: Hub, service: Service) -> None:
    async with Person(service) as person:
        await person.log_in("alice")
        assert (await person.client.get("/certificates")).status_code == 200
        answer = await person.client.get("/certificates", headers={"Authorization": "token garbage"})
    refused(answer, 401, "invalid_token")


# -- what a stranger reads ----------------------------------------------------------------------------------------


async def test_the_openapi_text_explains_certificates(service: Service) -> None:
    told = (await service.request("GET", "/openapi.json")).json()
    assert {"/certificates", "/certificates/{serial}"} <= set(told["paths"])
    for path in ("/certificates", "/certificates/{serial}"):
        for operation in told["paths"][path].values():
            assert operation["summary"]
            assert operation["description"]
            assert operation["security"]
            assert "4XX" in operation["responses"]
            assert "422" not in operation["responses"]
    assert "/login" not in told["paths"]
    scheme = told["components"]["securitySchemes"]["JupyterHub token"]
    assert "access:services!service=" in scheme["description"]
    wanted = told["components"]["schemas"]["CertificateWanted"]
    assert wanted["additionalProperties"] is False
    assert all(field["description"] for field in wanted["properties"].values())
