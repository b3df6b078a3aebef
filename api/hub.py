"""The one door to JupyterHub's REST API. Everything that can go wrong out there becomes one of two errors.

`TokenRefused`: JupyterHub itself said that the token it was shown is not good. `HubUnavailable`: anything else
that is no answer: no connection, a time-out, a proxy's error page, a login redirect, JSON that is none. An
absent hub means *unknown*: nothing in here ever turns it into "stopped" or "not found".

Tokens travel in the `Authorization` header only, and appear in no error, no repr and no log line.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from api.errors import HubUnavailable, TokenRefused

MAX_ANSWER = 16 << 20
"""Bytes of one answer; a page of 100 users takes about 200 KB."""

PAGE = 100
MAX_PAGES = 2000

_PAGINATED = "application/jupyterhub-pagination+json"
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")

Model = Mapping[str, Any]
"""A JSON object as JupyterHub sent it: unverified, to be read by `ca.claims` and `api.roster` only."""


class HubClient:
    """JupyterHub's REST API, asked with this service's own token unless a token is being judged."""

    def __init__(self, api_url: str, token: str, *, timeout: float = 5.0) -> None:
        self._token = token
        # trust_env off: a proxy variable must not send our token elsewhere, nor a .netrc replace it.
        self._client = httpx.AsyncClient(
            base_url=api_url.rstrip("/") + "/",
            timeout=httpx.Timeout(timeout),
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=8),
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": "jupyterhub-bastion"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        await self._client.aclose()

    async def whose_token(self, token: str) -> Model:
        """The user model that JupyterHub shows to `token`, its `scopes` included (`GET /user`).

        Judge it by its scopes: a token that somebody captured still names its owner. Raises `TokenRefused` and
        `HubUnavailable`.
        """
        if not _TOKEN.fullmatch(token):
            raise TokenRefused
        status, answer = await self._get("user", token)
        if status in (401, 403, 404):
            raise TokenRefused
        return _object(status, answer)

    async def user(self, name: str, *, stopped: bool = False) -> Model | None:
        """The user called exactly `name`, active servers included; None when JupyterHub has no such user.

        `stopped`: those that do not run are listed too, if they were started or made ever.
        """
        path = f"users/{segment(name)}" + ("?include_stopped_servers=1" if stopped else "")
        status, answer = await self._get(path, self._token)
        if status == 404:
            return None
        model = _object(status, answer)
        if model.get("name") != name:
            raise HubUnavailable("JupyterHub answered with another user than the one asked for.")
        return model

    async def shared_with(self, name: str) -> tuple[Model, ...]:
        """The shares that give `name` something of somebody else's (`GET /users/{name}/shared`).

        Empty where JupyterHub has no sharing or this service may not read it: then nothing is shared for SSH.
        """
        return await self.shares_of(name) or ()

    async def active_servers(self) -> tuple[Model, ...]:
        """The model of every user with an active server: one that runs, starts or stops at this moment."""
        try:
            return await self._pages("users", {"state": "active"})
        except _NotGiven:
            raise HubUnavailable(
                "JupyterHub does not let this service list users: give it the scopes list:users and read:servers."
            ) from None

    async def tell_activity(self, name: str, servers: Mapping[str, float]) -> None:
        """These servers of the user called `name` were used, at seconds since the epoch (`POST …/activity`).

        A user or a server that is gone is passed over in silence. Raises `HubUnavailable`.
        """
        moments = {
            server: {"last_activity": datetime.fromtimestamp(at, UTC).isoformat()} for server, at in servers.items()
        }
        try:
            answer = await self._client.post(
                f"users/{segment(name)}/activity",
                json={"servers": moments},
                headers={"Authorization": f"token {self._token}"},
            )
        except (httpx.HTTPError, httpx.InvalidURL):
            raise HubUnavailable("JupyterHub cannot be reached.") from None
        if answer.status_code == 403:
            raise HubUnavailable("JupyterHub takes no activity from this service: give it the scope users:activity.")
        if answer.status_code not in (200, 204, 400, 404):
            raise HubUnavailable(f"JupyterHub cannot answer at the moment (HTTP {answer.status_code}).")

    async def shares_of(self, name: str) -> tuple[Model, ...] | None:
        """As `shared_with`, but None where JupyterHub does not tell: then nothing is known of shares."""
        try:
            return await self._pages(f"users/{segment(name)}/shared", {})
        except _NotGiven:
            return None

    async def _pages(self, path: str, query: Mapping[str, str]) -> tuple[Model, ...]:
        items: list[Model] = []
        offset = 0
        for _ in range(MAX_PAGES):
            page = {**query, "limit": str(PAGE), "offset": str(offset)}
            status, answer = await self._get(path, self._token, page)
            if status in (403, 404):
                raise _NotGiven
            if status == 200 and isinstance(answer, list):  # a hub that knows no pagination sends all at once
                return tuple(_object(200, item) for item in answer)
            body = _object(status, answer)
            found, pagination = body.get("items"), body.get("_pagination")
            if not isinstance(found, list) or not isinstance(pagination, dict):
                raise HubUnavailable("JupyterHub's list has no items.")
            items.extend(_object(200, item) for item in found)
            following = pagination.get("next")
            if following is None:
                return tuple(items)
            further = following.get("offset") if isinstance(following, dict) else None
            if not isinstance(further, int) or further <= offset:
                raise HubUnavailable("JupyterHub's list does not say where it goes on.")
            offset = further
        raise HubUnavailable("JupyterHub's list does not end.")

    async def _get(self, path: str, token: str, query: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of one GET: 200, or a 4xx that JupyterHub itself sent. Anything else raises."""
        headers = {"Authorization": f"token {token}", "Accept": f"{_PAGINATED}, application/json"}
        if query is None:
            headers["Accept"] = "application/json"
        try:
            async with self._client.stream("GET", path, params=query, headers=headers) as response:
                status = response.status_code
                body = await bounded(response)
        except httpx.TimeoutException:
            raise HubUnavailable("JupyterHub did not answer in time.") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise HubUnavailable("JupyterHub cannot be reached.") from None
        if status not in (200, 401, 403, 404):
            raise HubUnavailable(f"JupyterHub cannot answer at the moment (HTTP {status}).")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise HubUnavailable("What answers at JupyterHub's address is not JupyterHub.") from None
        # A proxy has 403 and 404 pages too. JupyterHub's own say their status in JSON.
        if status != 200 and (not isinstance(answer, dict) or answer.get("status") != status):
            raise HubUnavailable("What answers at JupyterHub's address is not JupyterHub.")
        if token is self._token and status == 401:
            raise HubUnavailable("JupyterHub does not accept this service's own token.")
        return status, answer


class _NotGiven(Exception):
    """JupyterHub answered 403 or 404 to a list."""


async def bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise HubUnavailable("JupyterHub's answer is too long.")
    return bytes(body)


def _object(status: int, answer: Any) -> Model:
    if status == 403:
        raise HubUnavailable("JupyterHub does not let this service read users: give it the scope read:servers.")
    if status != 200 or not isinstance(answer, dict):
        raise HubUnavailable("JupyterHub's answer is not what its documentation says.")
    return answer


def segment(name: str) -> str:
    """`name` as one segment of a path. A user may be called `..`, which a URL would swallow."""
    return quote(name, safe="", errors="replace").replace(".", "%2E")
