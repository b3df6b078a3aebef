"""Learn from JupyterHub who is at the browser, so that nobody types a password here.

The flow is OAuth's authorization code (RFC 6749 section 4.1) with state and PKCE (RFC 7636, S256):

    browser ─ GET /login ──────────> here        a state is signed into this browser's cookie
            ─ GET authorize ───────> JupyterHub  logs in there, agrees
            ─ GET /oauth_callback ─> here        the state must be this browser's, fresh and unused
    here    ─ POST token ──────────> JupyterHub  code + our secret + verifier -> access token
            ─ GET user ────────────> JupyterHub  whose token is it; then the token is thrown away

JupyterHub 6 checks the PKCE verifier; 5.5 ignores both parameters. It takes the client's secret in the body
only (`client_secret_post`). The verifier is derived from the state with the cookie key, so it is never stored.
A state that was used is remembered by this process until it would have expired; behind that, JupyterHub
accepts a code once.

Authlib writes the protocol's messages; the HTTP client is ours, so that time-outs and trust are those of every
other call to JupyterHub.
"""

import base64
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from starlette.responses import Response

from api.session import Clock, Cookies
from ca.errors import Reason, Refusal

STATE_LIFETIME = 600
"""Seconds between `GET /login` and the callback."""

_MAX_PENDING = 4
"""Logins begun at the same time in one browser (tabs); the oldest gives way."""
_MAX_USED = 100_000
_MAX_PARAMETER = 2048

_SEGMENT = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
_PATH = re.compile(rf"/(?:{_SEGMENT}(?:/{_SEGMENT})*/?)?(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?")
_NEVER_NEXT = ("/login", "/logout", "/oauth_callback")

_NOT_STARTED_HERE = Refusal(
    Reason.NOT_PERMITTED,
    "This login was not started in this browser, was used already, or took longer than 10 minutes. Log in again.",
)
_NO_CODE = Refusal(Reason.NOT_PERMITTED, "JupyterHub's answer was incomplete. Log in again.")
_DENIED = Refusal(
    Reason.NOT_PERMITTED,
    "JupyterHub was not allowed to tell us who you are, so you are not logged in here. "
    "Log in again and agree when JupyterHub asks.",
)
_MISCONFIGURED = Refusal(
    Reason.UNAVAILABLE,
    "JupyterHub does not accept this service's settings, so nobody can log in. "
    "Tell the administrator to compare the service's name, token, scopes and redirect address in JupyterHub "
    "with those here.",
)
_SPENT = Refusal(Reason.NOT_PERMITTED, "This login was used already or took too long. Log in again.")
_UNREACHABLE = Refusal(Reason.UNAVAILABLE, "JupyterHub cannot be reached at the moment. Try again in a minute.")


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """How this service stands in JupyterHub's list of services."""

    authorize_url: str
    """As the browser reaches it: `https://hub.example.org/hub/api/oauth2/authorize`."""
    token_url: str
    """As this process reaches it: `http://hub:8081/hub/api/oauth2/token`."""
    client_id: str
    """`service-<name>`."""
    client_secret: str = field(repr=False)
    redirect_uri: str
    """`public_url` and `/oauth_callback`: never from a request's Host header."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An access token fresh from JupyterHub, and the page to show next. The token is read once and dropped."""

    access_token: str = field(repr=False)
    next: str


class Login:
    """Browser logins by JupyterHub's OAuth."""

    def __init__(self, client: OAuthClient, cookies: Cookies, http: httpx.AsyncClient, clock: Clock) -> None:
        self._client = client
        self._cookies = cookies
        self._http = http
        self._clock = clock
        self._used: dict[str, float] = {}

    def begin(self, cookies: Mapping[str, str], wanted: str) -> tuple[str, Callable[[Response], None]]:
        """Where to send the browser, and what writes this login's state on that response."""
        state = secrets.token_urlsafe(24)
        pending = [*self._pending(cookies), [state, next_path(wanted), int(self._clock())]][-_MAX_PENDING:]
        url = prepare_grant_uri(
            self._client.authorize_url,
            client_id=self._client.client_id,
            response_type="code",
            redirect_uri=self._client.redirect_uri,
            state=state,
            code_challenge=create_s256_code_challenge(self._verifier(state)),
            code_challenge_method="S256",
        )
        return str(url), lambda response: self._cookies.write(response, "login", pending, STATE_LIFETIME)

    async def finish(self, parameters: Mapping[str, str], cookies: Mapping[str, str]) -> Arrival | Refusal:
        """Trade what JupyterHub sent through the browser for an access token. Each state works once."""
        state = parameters.get("state", "")
        wanted = self._take(state, cookies)
        if wanted is None:
            return _NOT_STARTED_HERE
        if error := parameters.get("error"):
            return _DENIED if error == "access_denied" else _MISCONFIGURED
        code = parameters.get("code", "")
        if not code or len(code) > _MAX_PARAMETER:
            return _NO_CODE
        token = await self._trade(code, self._verifier(state))
        return token if isinstance(token, Refusal) else Arrival(access_token=token, next=wanted)

    def forget(self, response: Response, cookies: Mapping[str, str], state: str) -> None:
        """Take the login with this state away from the browser; those begun in other tabs stay."""
        others = [entry for entry in self._pending(cookies) if entry[0] != state]
        if others:
            self._cookies.write(response, "login", others, STATE_LIFETIME)
        else:
            self._cookies.drop(response, "login")

    def _take(self, state: str, cookies: Mapping[str, str]) -> str | None:
        """The page that the login with this state wanted, exactly once."""
        for known, wanted, _at in self._pending(cookies):
            if not hmac.compare_digest(known.encode(), state.encode("utf-8", "replace")):
                continue
            return next_path(wanted) if self._use(known) else None
        return None

    def _use(self, state: str) -> bool:
        """Whether this is the first use of `state`. The memory is bounded; JupyterHub takes a code once anyway."""
        now = self._clock()
        while self._used and (len(self._used) >= _MAX_USED or next(iter(self._used.values())) <= now):
            del self._used[next(iter(self._used))]
        if state in self._used:
            return False
        self._used[state] = now + STATE_LIFETIME
        return True

    def _pending(self, cookies: Mapping[str, str]) -> list[Any]:
        oldest = self._clock() - STATE_LIFETIME
        value = self._cookies.read(cookies, "login")
        return [entry for entry in value if entry[2] > oldest] if isinstance(value, list) else []

    def _verifier(self, state: str) -> str:
        return base64.urlsafe_b64encode(self._cookies.derive("pkce", state)).decode("ascii").rstrip("=")

    async def _trade(self, code: str, verifier: str) -> str | Refusal:
        """RFC 6749 section 4.1.3."""
        client = self._client
        body = prepare_token_request(
            "authorization_code", "", redirect_uri=client.redirect_uri, code=code, code_verifier=verifier
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        proof = ClientAuth(client.client_id, client.client_secret, "client_secret_post")
        url, headers, body = proof.prepare("POST", client.token_url, headers, body)
        try:
            answer = await self._http.post(url, content=body, headers=headers)
            told = answer.json()
        except (httpx.HTTPError, ValueError):
            return _UNREACHABLE
        return read_token_answer(answer.status_code, told)


def read_token_answer(status: int, told: Any) -> str | Refusal:
    """The access token in the answer of JupyterHub's token endpoint (RFC 6749 sections 5.1 and 5.2)."""
    if not isinstance(told, dict) or status >= 500:
        return _UNREACHABLE
    if status == 200:
        token = told.get("access_token")
        bearer = str(told.get("token_type", "")).lower() == "bearer"
        return token if isinstance(token, str) and token and bearer else _UNREACHABLE
    return _SPENT if told.get("error") == "invalid_grant" else _MISCONFIGURED


def next_path(wanted: str) -> str:
    """`wanted` if it is a plain path of this site, else `/`.

    Browsers read `//evil`, `/\\evil` and `/<tab>/evil` as another site, and drop control characters, so only
    what is known to be harmless passes; nothing is decoded or repaired.
    """
    if len(wanted) > _MAX_PARAMETER or not _PATH.fullmatch(wanted):
        return "/"
    return "/" if wanted.partition("?")[0].rstrip("/") in _NEVER_NEXT else wanted
