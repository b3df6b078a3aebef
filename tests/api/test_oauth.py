"""Why: the login is the root of every certificate; here our side of OAuth meets JupyterHub's own."""

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from starlette.responses import Response

from api.oauth import STATE_LIFETIME, Arrival, Login, OAuthClient, next_path, read_token_answer
from api.session import Cookies
from ca.claims import TokenKind, TokenOwner, judge_token
from ca.errors import Reason, Refusal
from tests.api.test_browser_session import Clock, set_cookies
from tests.support.hub import Hub, no_tls

Stored = dict[str, str]


def client_of(hub: Hub, secret: str | None = None, redirect_uri: str | None = None) -> OAuthClient:
    return OAuthClient(
        authorize_url=f"{hub.hub_url}/api/oauth2/authorize",
        token_url=f"{hub.api_url}/oauth2/token",
        client_id=hub.client_id,
        client_secret=hub.service_token if secret is None else secret,
        redirect_uri=redirect_uri or f"{hub.public_url}/oauth_callback",
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=no_tls(), trust_env=False) as client:
        yield client


@pytest.fixture
def login(hub: Hub, http: httpx.AsyncClient, clock: Clock) -> Login:
    return Login(client_of(hub), Cookies(b"k" * 32, hub.public_url), http, clock)


def begun(login: Login, wanted: str = "/", cookies: Stored | None = None) -> tuple[str, Stored]:
    """Where the browser is sent, and the cookies that it then holds."""
    url, remember = login.begin(cookies or {}, wanted)
    response = Response()
    remember(response)
    return url, set_cookies(response)


async def sent_back(hub: Hub, url: str, user: str = "alice") -> Stored:
    """What JupyterHub sends to our callback once `user` logged in there."""
    browser = await hub.login(user)
    try:
        answer = await browser.get(url, follow_redirects=False)
    finally:
        await browser.aclose()
    place = urlsplit(answer.headers["location"])
    assert place.path == "/oauth_callback"
    return dict(parse_qsl(place.query))


async def test_a_login_through_the_hubs_own_form_tells_who_it_is(hub: Hub, login: Login) -> None:
    url, cookies = begun(login, "/activate?code=ABCD")
    arrival = await login.finish(await sent_back(hub, url), cookies)
    assert isinstance(arrival, Arrival)
    assert arrival.next == "/activate?code=ABCD"
    model = (await hub.request("GET", "/user", token=arrival.access_token)).json()
    assert judge_token(model, hub.service) == TokenOwner("alice", TokenKind.ACCESS)
    assert arrival.access_token not in repr(arrival)


async def test_the_request_asks_with_state_and_pkce(login: Login, hub: Hub) -> None:
    url, _ = begun(login)
    asked = parse_qs(urlsplit(url).query)
    assert asked["response_type"] == ["code"]
    assert asked["client_id"] == ["service-ssh"]
    assert asked["redirect_uri"] == [f"{hub.public_url}/oauth_callback"]
    assert asked["code_challenge_method"] == ["S256"]
    assert len(asked["code_challenge"][0]) == 43
    assert len(asked["state"][0]) >= 32


async def test_jupyterhub_6_gives_no_token_for_a_code_with_another_verifier(
    hub: Hub, login: Login, http: httpx.AsyncClient, clock: Clock
) -> None:
    if hub.release == "5.5":
        pytest.skip("JupyterHub 5.5 knows no PKCE and ignores it")
    url, cookies = begun(login)
    parameters = await sent_back(hub, url)
    # Another key signs and derives otherwise: the cookie is signed anew, the verifier stays another one.
    thief = Login(client_of(hub), Cookies(b"x" * 32, hub.public_url), http, clock)
    pending = Cookies(b"k" * 32, hub.public_url).read(cookies, "login")
    response = Response()
    Cookies(b"x" * 32, hub.public_url).write(response, "login", pending, 600)
    refusal = await thief.finish(parameters, set_cookies(response))
    assert isinstance(refusal, Refusal)
    assert isinstance(await login.finish(parameters, cookies), Arrival)


async def test_a_state_counts_once(hub: Hub, login: Login) -> None:
    url, cookies = begun(login)
    parameters = await sent_back(hub, url)
    assert isinstance(await login.finish(parameters, cookies), Arrival)
    again = await login.finish(parameters, cookies)
    assert isinstance(again, Refusal)
    assert again.reason is Reason.NOT_PERMITTED


async def test_jupyterhub_takes_a_code_once_even_where_the_state_was_forgotten(
    hub: Hub, login: Login, http: httpx.AsyncClient, clock: Clock
) -> None:
    url, cookies = begun(login)
    parameters = await sent_back(hub, url)
    assert isinstance(await login.finish(parameters, cookies), Arrival)
    restarted = Login(client_of(hub), Cookies(b"k" * 32, hub.public_url), http, clock)
    refusal = await restarted.finish(parameters, cookies)
    assert isinstance(refusal, Refusal)
    assert "Log in again" in refusal.sentence


async def test_another_browser_cannot_finish_a_login(hub: Hub, login: Login) -> None:
    url, _cookies = begun(login)
    _other_url, other = begun(login)
    parameters = await sent_back(hub, url)
    for cookies in ({}, other, {"bastion-login": "forged"}):
        refusal = await login.finish(parameters, cookies)
        assert isinstance(refusal, Refusal)
        assert "not started in this browser" in refusal.sentence


async def test_an_attackers_code_with_the_victims_state_gives_the_attackers_login_nothing_to_replace(
    hub: Hub, login: Login
) -> None:
    """Login CSRF: mallory (bob) sends alice's browser to the callback with his own code and state."""
    mallorys_url, _ = begun(login)
    _alices_url, alices_cookies = begun(login)
    parameters = await sent_back(hub, mallorys_url, "bob")
    assert isinstance(await login.finish(parameters, alices_cookies), Refusal)


async def test_a_login_takes_ten_minutes_at_most(hub: Hub, login: Login, clock: Clock) -> None:
    url, cookies = begun(login)
    parameters = await sent_back(hub, url)
    clock.now += STATE_LIFETIME
    assert isinstance(await login.finish(parameters, cookies), Refusal)


async def test_two_tabs_can_log_in_at_the_same_time(hub: Hub, login: Login) -> None:
    first, cookies = begun(login, "/one")
    second, cookies = begun(login, "/two", cookies)
    one = await login.finish(await sent_back(hub, first), cookies)
    two = await login.finish(await sent_back(hub, second), cookies)
    assert isinstance(one, Arrival)
    assert isinstance(two, Arrival)
    assert (one.next, two.next) == ("/one", "/two")


async def test_a_fifth_tab_pushes_out_the_first(login: Login) -> None:
    cookies: Stored = {}
    urls = []
    for _ in range(5):
        url, cookies = begun(login, "/", cookies)
        urls.append(url)
    state = parse_qs(urlsplit(urls[0]).query)["state"][0]
    assert isinstance(await login.finish({"state": state, "code": "x"}, cookies), Refusal)
    assert len(next(iter(cookies.values()))) < 3800


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("access_denied", "agree when JupyterHub asks"),
        ("invalid_scope", "administrator"),
        ("<script>", "administrator"),
    ],
)
async def test_an_error_from_the_hub_is_a_sentence_with_a_next_step(
    hub: Hub, login: Login, error: str, says: str
) -> None:
    url, cookies = begun(login)
    state = parse_qs(urlsplit(url).query)["state"][0]
    refusal = await login.finish({"state": state, "error": error, "error_description": "<b>"}, cookies)
    assert isinstance(refusal, Refusal)
    assert says in refusal.sentence
    assert "<" not in refusal.sentence


async def test_a_scope_that_the_client_may_not_have_comes_back_as_an_error(hub: Hub, login: Login) -> None:
    url, cookies = begun(login)
    refusal = await login.finish(await sent_back(hub, f"{url}&scope=admin:users"), cookies)
    assert isinstance(refusal, Refusal)


@pytest.mark.parametrize("code", ["", "wrong", "x" * 5000, "a&client_id=service-other"])
async def test_a_code_that_is_none_gives_no_login(login: Login, code: str) -> None:
    url, cookies = begun(login)
    state = parse_qs(urlsplit(url).query)["state"][0]
    assert isinstance(await login.finish({"state": state, "code": code}, cookies), Refusal)


async def test_a_wrong_service_token_is_told_as_a_matter_for_the_administrator(
    hub: Hub, http: httpx.AsyncClient, clock: Clock
) -> None:
    login = Login(client_of(hub, secret="wrong"), Cookies(b"k" * 32, hub.public_url), http, clock)
    url, cookies = begun(login)
    refusal = await login.finish(await sent_back(hub, url), cookies)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.UNAVAILABLE
    assert "administrator" in refusal.sentence


async def test_another_redirect_address_is_not_accepted_by_the_hub(
    hub: Hub, http: httpx.AsyncClient, clock: Clock
) -> None:
    client = client_of(hub, redirect_uri="http://127.0.0.1:1/oauth_callback")
    url, _ = begun(Login(client, Cookies(b"k" * 32, hub.public_url), http, clock))
    browser = await hub.login("alice")
    answer = await browser.get(url, follow_redirects=False)
    await browser.aclose()
    assert answer.status_code == 400


async def test_a_hub_that_is_away_is_unavailable_and_not_a_no(clock: Clock, http: httpx.AsyncClient) -> None:
    client = OAuthClient("http://127.0.0.1:1/a", "http://127.0.0.1:1/t", "service-ssh", "s", "http://127.0.0.1:2/c")
    login = Login(client, Cookies(b"k" * 32, "http://127.0.0.1:2"), http, clock)
    url, cookies = begun(login)
    state = parse_qs(urlsplit(url).query)["state"][0]
    refusal = await login.finish({"state": state, "code": "x"}, cookies)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.UNAVAILABLE


def test_the_client_secret_does_not_print() -> None:
    client = OAuthClient("http://a", "http://b", "service-ssh", "very-secret", "http://c")
    assert "very-secret" not in repr(client)


@pytest.mark.parametrize(
    ("status", "told", "reason"),
    [
        (200, {}, Reason.UNAVAILABLE),
        (200, {"access_token": "t", "token_type": "mac"}, Reason.UNAVAILABLE),
        (200, {"access_token": "", "token_type": "Bearer"}, Reason.UNAVAILABLE),
        (200, {"access_token": ["t"], "token_type": "Bearer"}, Reason.UNAVAILABLE),
        (200, ["t"], Reason.UNAVAILABLE),
        (500, {"access_token": "t", "token_type": "Bearer"}, Reason.UNAVAILABLE),
        (400, {"error": "invalid_grant"}, Reason.NOT_PERMITTED),
        (401, {"error": "invalid_client"}, Reason.UNAVAILABLE),
        (403, {}, Reason.UNAVAILABLE),
    ],
)
def test_only_a_whole_token_answer_gives_a_token(status: int, told: object, reason: Reason) -> None:
    answer = read_token_answer(status, told)
    assert isinstance(answer, Refusal)
    assert answer.reason is reason


@pytest.mark.parametrize(
    "path", ["/", "/activate", "/activate/", "/a/b-c/d.txt", "/activate?code=AB-CD", "/?a=b&c=%20d"]
)
def test_a_path_of_this_site_is_kept(path: str) -> None:
    assert next_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "evil.example",
        "https://evil.example",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "\t//evil.example",
        " //evil.example",
        "/%2f/evil.example",
        "/%5cevil.example",
        "%2f%2fevil.example",
        "/.//evil.example",
        "/..//evil.example",
        "/a/..//evil.example",
        "/a//evil.example",
        "/@evil.example",
        "/:80",
        "javascript:alert(1)",
        "/a\r\nSet-Cookie: x=y",
        "/a#//evil",
        "/\u2044evil.example",
        "/é",
        "/a?b=\u2028",
        "/" + "a" * 3000,
        "/login",
        "/login?next=/",
        "/login/",
        "/logout",
        "/oauth_callback?code=x&state=y",
    ],
)
def test_a_path_that_leads_elsewhere_or_in_circles_becomes_the_first_page(path: str) -> None:
    assert next_path(path) == "/"
