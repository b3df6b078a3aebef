"""JupyterHub's servers from the outside: starting them, stopping them, and listening while one starts.

Apart from `api.hub`, with connections of its own: a start takes as long as it takes, and a hundred people who watch
theirs must not use up the connections by which certificates are decided. A listener for whom none is left hears
nothing, and asks `api.hub` what runs instead.

JupyterHub sends a start's answer only when the server is up or ten seconds have passed, so its answer is not waited
for: whoever asked looks at the server's state. No answer in time is no answer, neither yes nor no.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from api.errors import HubUnavailable
from api.hub import bounded, segment

MAX_LISTENERS = 24
"""Starts that are listened to at the same time."""

MAX_LINE = 65536
START_SECONDS = 2.0
"""How long a start's answer is waited for; what is refused, is refused at once."""

_SILENCE = 30.0
"""Seconds: JupyterHub sends an empty line every eight."""


@dataclass(frozen=True, slots=True)
class Said:
    """JupyterHub's answer to a change: its HTTP status, and its own words for people, where it had some."""

    status: int
    words: str = ""

    @property
    def done(self) -> bool:
        """Whether JupyterHub does what it was told."""
        return self.status in (201, 202, 204)


@dataclass(frozen=True, slots=True)
class News:
    """One event of a start. `percent` is the spawner's guess, `words` are its own. After `over` there are no more."""

    percent: int | None
    words: str
    over: bool = False
    failed: bool = False


class HubServers:
    """JupyterHub's routes for servers, asked with this service's own token (scopes start:servers, delete:servers)."""

    def __init__(self, api_url: str, token: str, *, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._listeners = asyncio.Semaphore(MAX_LISTENERS)
        # trust_env off: a proxy variable must not send our token elsewhere, nor a .netrc replace it.
        self._client = httpx.AsyncClient(
            base_url=api_url.rstrip("/") + "/",
            timeout=httpx.Timeout(timeout),
            limits=httpx.Limits(max_connections=2 * MAX_LISTENERS, max_keepalive_connections=4),
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": "jupyterhub-bastion", "Authorization": f"token {token}"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def start(self, owner: str, name: str, options: Mapping[str, object]) -> Said | None:
        """Start a server with these `user_options`; None when JupyterHub has not answered yet.

        The options replace those of the last run: JupyterHub keeps nothing of them.
        Raises `HubUnavailable` when nobody answers, or not JupyterHub.
        """
        timeout = httpx.Timeout(self._timeout, read=START_SECONDS)
        try:
            return await self._change("POST", _path(owner, name), timeout, dict(options))
        except httpx.ReadTimeout:
            return None

    async def stop(self, owner: str, name: str) -> Said | None:
        """Stop a server; None when JupyterHub has not answered yet. Raises `HubUnavailable`."""
        try:
            return await self._change("DELETE", _path(owner, name), httpx.Timeout(self._timeout), None)
        except httpx.ReadTimeout:
            return None

    async def listen(self, owner: str, name: str) -> AsyncGenerator[News, None]:
        """What JupyterHub says while this server starts, from the beginning; ends with `over`, or when it has no more
        to say, which includes that nobody answers: it is news, and means nothing by its absence."""
        if self._listeners.locked():
            return
        timeout = httpx.Timeout(self._timeout, read=_SILENCE)
        path = f"{_path(owner, name)}/progress"
        headers = {"Accept": "text/event-stream"}
        async with self._listeners:
            try:
                async with self._client.stream("GET", path, headers=headers, timeout=timeout) as response:
                    if response.status_code != 200:
                        return
                    async for line in _lines(response):
                        if (news := _news(line)) is not None:
                            yield news
                            if news.over:
                                return
            except httpx.HTTPError:
                return

    async def _change(self, method: str, path: str, timeout: httpx.Timeout, body: Any) -> Said:
        try:
            async with self._client.stream(method, path, json=body, timeout=timeout) as response:
                status, raw = response.status_code, await bounded(response)
        except httpx.ReadTimeout:
            raise
        except httpx.TimeoutException:
            raise HubUnavailable("JupyterHub did not answer in time.") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise HubUnavailable("JupyterHub cannot be reached.") from None
        if status in (201, 202, 204):
            return Said(status)
        return Said(status, _words(status, raw))


def _path(owner: str, name: str) -> str:
    return f"users/{segment(owner)}/" + (f"servers/{segment(name)}" if name else "server")


def _words(status: int, raw: bytes) -> str:
    """JupyterHub's own words for an error. Raises `HubUnavailable` for what JupyterHub did not write."""
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    # A proxy has 403, 404 and 500 pages too. JupyterHub's own say their status in JSON.
    if not isinstance(answer, dict) or answer.get("status") != status:
        raise HubUnavailable(f"JupyterHub cannot answer at the moment (HTTP {status}).")
    words = plain(answer.get("message"))
    if status == 401 or (status == 403 and "scope" in words):
        raise HubUnavailable(
            "JupyterHub does not let this service start and stop servers. Its administrator has to give it the scope "
            "`servers`: configure(..., start_servers=True)."
        )
    return words


def plain(text: object, longest: int = 300) -> str:
    """Words that come from a spawner, fit to stand in a sentence: one line, printable, not too long."""
    shown = " ".join(text.split()) if isinstance(text, str) else ""
    return "".join(char for char in shown if char.isprintable())[:longest]


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The lines of a stream, as they come. One that does not end ends the stream."""
    held = b""
    async for chunk in response.aiter_bytes():
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(held) > MAX_LINE:
            return


def _news(line: bytes) -> News | None:
    """One line of JupyterHub's event stream: `data: {"progress": 50, "message": "…"}`."""
    if not line.startswith(b"data:"):
        return None
    try:
        event = json.loads(line[5:])
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    progress, failed = event.get("progress"), event.get("failed") is True
    percent = int(progress) if isinstance(progress, int | float) and 0 <= progress <= 100 else None
    return News(percent, plain(event.get("message")), over=failed or event.get("ready") is True, failed=failed)
