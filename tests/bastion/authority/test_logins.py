"""Why: what the api says of a login goes onto somebody's terminal and into a question for a certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bastion.authority import Authority, AuthorityRefused, AuthorityUnavailable, Fetched, LoginDesk, Secret
from tests.bastion.authority.states import state
from tests.support.internal_api import SECRET, InternalApi, internal_api
from tests.support.pods import key

BEGUN = {
    "id": "0123456789abcdef0123456789abcdef",
    "user_code": "BCDF-GHJK",
    "verification_uri": "https://ssh.example.org/activate",
    "verification_uri_complete": "https://ssh.example.org/activate?code=BCDF-GHJK",
    "expires_in": 600,
}


@pytest.fixture
async def api() -> AsyncIterator[InternalApi]:
    async with internal_api(state()) as made:
        yield made


@pytest.fixture
async def desk(api: InternalApi) -> AsyncIterator[LoginDesk]:
    authority = Authority(api.url, Secret(SECRET))
    yield LoginDesk(authority)
    await authority.aclose()


async def test_a_login_is_begun_with_what_the_api_needs_and_no_more(api: InternalApi, desk: LoginDesk) -> None:
    api.answers["/internal/logins"] = (200, BEGUN)
    begun = await desk.begin(key(1), "alice", "192.0.2.7")
    assert (begun.id, begun.code, begun.seconds) == (BEGUN["id"], "BCDF-GHJK", 600.0)
    assert begun.page == BEGUN["verification_uri_complete"]
    assert api.requests[-1] == (
        "POST",
        "/internal/logins",
        {"public_key": key(1).line, "server": "alice", "peer": "192.0.2.7"},
    )
    assert str(BEGUN["id"]) not in repr(begun)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": ""},
        {"id": 7},
        {"id": "a/b" * 10},
        {"user_code": "bcdf"},
        {"user_code": "BCDF\x1b[2J"},
        {"verification_uri_complete": "javascript:alert(1)"},
        {"verification_uri_complete": "https://ssh.example.org/\x1b]0;title\x07"},
        {"verification_uri_complete": "https://ssh.example.org/ space"},
        {"verification_uri_complete": "https://ssh.example.org/ünï"},
        {"verification_uri_complete": "https://" + "x" * 500},
        {"expires_in": 0},
        {"expires_in": True},
        {"expires_in": "600"},
        {"expires_in": 1 << 40},
    ],
    ids="-".join,
)
async def test_what_cannot_be_shown_or_used_is_no_login(api: InternalApi, desk: LoginDesk, wrong: Any) -> None:
    api.answers["/internal/logins"] = (200, {**BEGUN, **wrong})
    with pytest.raises(AuthorityUnavailable):
        await desk.begin(key(1), None, "192.0.2.7")


async def test_only_what_was_asked_about_is_decided(api: InternalApi, desk: LoginDesk) -> None:
    api.answers["/internal/logins/decided"] = (200, {"decided": ["a", "b", 7, None]})
    assert await desk.decided(["a", "c"]) == {"a"}
    api.answers["/internal/logins/decided"] = (200, {"decided": "a"})
    with pytest.raises(AuthorityUnavailable):
        await desk.decided(["a"])


@pytest.mark.parametrize(
    ("answer", "fetched"),
    [
        ({"certificate": None}, Fetched(None)),
        ({"certificate": None, "message": "x" * 300}, Fetched(None, "x" * 200)),
        ({"certificate": None, "message": 7}, Fetched(None)),
        ({"certificate": "a line", "message": None}, Fetched("a line")),
    ],
)
async def test_a_certificate_or_how_far_it_is(api: InternalApi, desk: LoginDesk, answer: Any, fetched: Fetched) -> None:
    api.answers["/internal/logins/certificate"] = (200, answer)
    assert await desk.certificate("id") == fetched


async def test_refusals_are_told_from_outages(api: InternalApi, desk: LoginDesk) -> None:
    denied = {"error": "access_denied", "error_description": "This login was denied in the browser."}
    api.answers["/internal/logins/certificate"] = (400, denied)
    with pytest.raises(AuthorityRefused) as refused:
        await desk.certificate("id")
    assert (refused.value.code, refused.value.sentence) == ("access_denied", denied["error_description"])
    for answer in ((503, denied), (200, {"certificate": 7}), (200, ["a list"]), (500, {})):
        api.answers["/internal/logins/certificate"] = answer
        with pytest.raises(AuthorityUnavailable):
            await desk.certificate("id")
