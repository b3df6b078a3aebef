"""Why: whatever is sent, the answer is a 4xx with a sentence, and nobody sees a traceback or another's address."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import structlog
from fastapi import APIRouter
from starlette.requests import Request

from api.app import create_app
from api.errors import Refused
from api.sender import THROUGH_PROXY, UnknownProxies, bearer, peer_of
from tests.support.ports import Ports, new_key

JSON = {"Content-Type": "application/json"}


def request(peer: str | None, **headers: str | list[str]) -> Request:
    raw = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    client = None if peer is None else (peer, 5)
    return Request({"type": "http", "headers": raw, "client": client})


TRUSTED = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "told", "address"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["127.0.0.1"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["127.0.0.1, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["127.0.0.1", "192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["127.0.0.1, garbage"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["::ffff:192.0.2.7"], "192.0.2.7"),
        ("fd00::1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("nonsense", ["192.0.2.7"], None),
        (None, ["192.0.2.7"], None),
    ],
)
def test_forwarded_addresses_count_only_as_far_as_trusted_proxies_wrote_them(
    peer: str | None, told: list[str], address: str | None
) -> None:
    assert peer_of(request(peer, x_forwarded_for=told), TRUSTED) == address


@pytest.mark.parametrize(
    ("peer", "headers", "hidden"),
    [
        ("192.0.2.1", {}, False),
        ("192.0.2.1", {"x_forwarded_for": "192.0.2.7"}, True),
        ("192.0.2.1", {"forwarded": "for=192.0.2.7"}, True),
        ("10.0.0.1", {"x_forwarded_for": "192.0.2.7", "forwarded": "for=192.0.2.7"}, False),
        ("::ffff:10.0.0.1", {"x_forwarded_for": "192.0.2.7"}, False),
        (None, {"x_forwarded_for": "192.0.2.7"}, False),
    ],
)
def test_a_proxy_that_nobody_named_hides_who_is_behind_it(
    peer: str | None, headers: dict[str, str | list[str]], hidden: bool
) -> None:
    assert UnknownProxies(TRUSTED, lambda: None).hides(request(peer, **headers)) is hidden


def test_the_log_says_once_what_to_set_for_a_proxy_and_every_request_counts() -> None:
    counted: list[None] = []
    proxies = UnknownProxies(TRUSTED, lambda: counted.append(None))
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            proxies.hides(request("192.0.2.1", x_forwarded_for="192.0.2.7"))
    assert len(counted) == 3
    (line,) = lines
    assert (line["event"], line["address"]) == ("unknown_proxy", "192.0.2.1")
    assert "SSH_API_LISTEN_TRUSTED_PROXIES" in line["note"]


@pytest.mark.parametrize(
    ("told", "address"),
    [
        (["192.0.2.7"], "192.0.2.7"),
        (["127.0.0.1, 192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7, 127.0.0.1"], "127.0.0.1"),
        (["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        (["192.0.2.7, garbage"], None),
        ([], None),
    ],
)
def test_what_came_through_the_socket_of_the_proxy_was_sent_by_whom_the_proxy_wrote_last(
    told: list[str], address: str | None
) -> None:
    through = request(None, x_forwarded_for=told)
    through.scope[THROUGH_PROXY] = True
    assert peer_of(through, TRUSTED) == address


@pytest.mark.parametrize("header", ["token abc", "Token abc", "Bearer abc", "bearer  abc "])
def test_both_words_before_a_token_are_known(header: str) -> None:
    assert bearer(request(None, authorization=header)) == "abc"


@pytest.mark.parametrize("header", ["", "abc", "Basic YTpi", "token", "token a b", "token ünï", "token " + "x" * 5000])
def test_anything_else_is_no_token(header: str) -> None:
    with pytest.raises(Refused):
        bearer(request(None, authorization=header))


def is_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error", "error_description"}
    assert "Traceback" not in answer.text
    assert answer.json()["error_description"].endswith(".")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"null", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"{}", 400),
        (b"\xff\xfe\x00", 400),
        (b"[" * 60_000, 400),
        (b'{"host_key": NaN}', 400),
        (b'{"host_key": 1' + b"0" * 5000 + b"}", 400),
        (b" " * 65_537, 413),
        (b"x" * 1_000_000, 413),
    ],
)
async def test_a_body_that_cannot_be_read_gets_a_sentence(lone: Ports, body: bytes, status: int) -> None:
    is_problem(await lone.public("POST", "/enrolments", "x", content=body, headers=JSON), status)


async def test_a_long_body_without_a_length_is_refused_as_well(lone: Ports) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    is_problem(await lone.public("POST", "/enrolments", "x", content=pieces(), headers=JSON), 413)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
)
async def test_another_content_type_is_refused(lone: Ports, kind: str) -> None:
    headers = {"Content-Type": kind}
    is_problem(await lone.public("POST", "/enrolments", "x", content=b"{}", headers=headers), 415)


@pytest.mark.parametrize("path", ["/nothing", "/enrolments/", "/enrolments/epoch/x", "//", "/%2e%2e", "/docs", "/a,b"])
async def test_an_unknown_address_is_not_found_and_redirects_nowhere(lone: Ports, path: str) -> None:
    is_problem(await lone.public("GET", path), 404)


async def test_another_method_is_not_allowed(lone: Ports) -> None:
    answer = await lone.public("PUT", "/enrolments", json={})
    is_problem(answer, 405)
    assert answer.headers["allow"]


async def test_a_bug_of_ours_is_no_traceback_for_them(lone: Ports) -> None:
    router = APIRouter()

    @router.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("a secret")

    transport = httpx.ASGITransport(create_app(lone.services, routers=[router]), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        answer = await client.get("/bug")
    is_problem(answer, 500)
    assert "secret" not in answer.text


async def test_every_answer_carries_the_headers_that_browsers_heed(lone: Ports) -> None:
    for path in ("/healthz", "/nothing", "/ca.pub"):
        headers = (await lone.public("GET", path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in headers


async def test_the_database_being_away_is_said_until_it_is_back(lone: Ports, tmp_path: Path) -> None:
    assert (await lone.public("GET", "/readyz")).json() == {"ready": True}
    (tmp_path / "state" / "api.sqlite").unlink()
    is_problem(await lone.public("GET", "/readyz"), 503)
    assert (await lone.public("GET", "/healthz")).status_code == 200
    await lone.services.roster.read_store()
    assert (await lone.public("GET", "/readyz")).status_code == 200


async def test_key_files_that_went_bad_are_said_until_they_are_good(lone: Ports, tmp_path: Path) -> None:
    key = next(path for path in (tmp_path / "state" / "keys").rglob("current") if path.is_file())
    key.chmod(0o644)
    assert lone.services.keys.look() is False
    is_problem(await lone.public("GET", "/readyz"), 503)
    key.chmod(0o600)
    lone.services.keys.look()
    assert (await lone.public("GET", "/readyz")).status_code == 200


async def test_a_stranger_understands_the_openapi_text(lone: Ports) -> None:
    text = (await lone.public("GET", "/openapi.json")).json()
    for path, methods in text["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert len(operation["description"]) > 20, where
            assert {"4XX", "503"} <= set(operation["responses"]), where
            assert "422" not in operation["responses"], where
    for name, schema in text["components"]["schemas"].items():
        assert schema.get("description"), name


async def test_what_was_sent_is_not_repeated_but_for_a_fields_name(lone: Ports) -> None:
    body = json.dumps({"host_key": "secret", "ssh_port": "secret", "<b>\n": "secret"})
    answer = await lone.public("POST", "/enrolments", "x", content=body, headers=JSON)
    is_problem(answer, 400)
    assert "secret" not in answer.text


async def test_known_hosts_and_the_client_configuration_are_what_openssh_reads(lone: Ports) -> None:
    trust = (await lone.public("GET", "/known_hosts")).text.splitlines()
    keys = lone.services.signer.public.host
    assert [line.split()[2:] for line in trust] == [key.line.split() for key in keys]
    assert trust[0].startswith("@cert-authority [127.0.0.1]:2222,[localhost]:2222,*.hub,[*.hub]:* ssh-ed25519 ")
    assert (await lone.public("GET", "/ca.pub")).text.splitlines() == [
        key.line for key in lone.services.signer.public.user
    ]
    assert new_key() not in trust


@pytest.mark.parametrize(
    "query",
    ["server=no%20login", "server=a%0AProxyCommand", "key=..%2Fkey", "key=a%0Ab", "key=", "user=a%20b", "mode=other"],
)
async def test_nothing_but_names_gets_into_the_client_configuration(lone: Ports, query: str) -> None:
    answer = await lone.public("GET", f"/ssh_config?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
