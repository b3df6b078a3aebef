"""What every request passes on its way in and out: a bound on its body, headers for its answer, a line in the log.

Plain ASGI, so that an answer is never held back, and a body that is too long is refused before it is read.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import Metrics

log = structlog.get_logger("api.access")

BODY_SECONDS = 30.0
"""How long a client may take to send a body."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""For answers that say nothing else, as pages do for themselves."""


def problem(status: int, code: str, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error in the one form that errors have here."""
    return JSONResponse({"error": code, "error_description": sentence}, status, headers)


class Edge:
    """Wraps an app. `port` is its name in logs and metrics: "public", "pods" or "internal".

    `max_body` bounds a body in bytes; `longer` are the paths that may have more.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        port: str,
        max_body: int,
        https: bool,
        metrics: Metrics,
        longer: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._port = port
        self._max_body = max_body
        self._longer = longer or {}
        self._headers = dict(_HEADERS)
        if https:
            self._headers["Strict-Transport-Security"] = "max-age=31536000"
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            body = await self._read(scope, receive)
            if isinstance(body, Response):
                await body(scope, receive, send_with_headers)
            elif body is not None:
                await self._app(scope, _replay(body, receive), send_with_headers)
        finally:
            self._metrics.answered(self._port, status)
            # The path, never the query: an OAuth code travels there.
            log.info(
                "request",
                port=self._port,
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round((time.monotonic() - began) * 1000, 1),
            )

    async def _read(self, scope: Scope, receive: Receive) -> bytes | Response | None:
        """The whole body, an answer that refuses it, or None when the client went away."""
        length = Headers(scope=scope).get("content-length", "0")
        most = self._longer.get(scope["path"], self._max_body)
        too_long = problem(413, "too_large", f"A request here has at most {most} bytes.")
        if length.isdecimal() and int(length) > most:
            return too_long
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    body += message.get("body", b"")
                    if len(body) > most:
                        return too_long
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            return problem(408, "too_slow", "The request took too long to arrive.")


def wants_text(request: Request) -> bool:
    """Whether only plain text will do, as for a shell: a line instead of JSON."""
    accepted = request.headers.get("accept", "")
    return "text/plain" in accepted and "json" not in accepted


class JsonRoute(APIRoute):
    """A route that reads JSON and says so when it gets something else."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind a look at the content type."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if self.body_field is not None and kind != "application/json":
                return problem(415, "unsupported_media_type", "Send JSON, with Content-Type: application/json.")
            return await handle(request)

        return checked


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read, once; afterwards whatever the client still says, which is that it went."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
