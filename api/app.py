"""The HTTP apps: public, for pods alone, and internal for the bastion. Made from `Services`, never at import.

Here, once, errors become HTTP: a `Refusal` its status and sentence, an outage 503 with Retry-After, input that
cannot be read 400. Nobody ever sees a traceback, and every error has the same two fields.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from api.edge import Edge, problem
from api.errors import Refused, StoreUnavailable, TokenRefused, Unavailable, status_of
from api.forwarded import Forwarded
from api.front import Front
from api.routes import held, internal, operate, pods, reports
from api.services import Services
from ca.errors import Malformed, Reason, Refusal

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5

DESCRIPTION = """
SSH into JupyterHub servers, with certificates that end when the server does.

* **Certificates**: send a public key and a JupyterHub token, get an SSH certificate for your running servers.
* **Enrolments**: a notebook server tells its SSH host key, and learns whom to trust.
* **Trust**: the public keys and configuration lines that SSH clients need.

Every error is JSON with a stable code and a sentence for a person:
`{"error": "server_not_running", "error_description": "You have no running server alice/gpu. …"}`.
An answer 503 means that something is away for the moment; nothing was done, and `Retry-After` says when to try again.
"""


class Problem(BaseModel):
    """Why a request was not answered with what it asked for."""

    error: str = Field(description="A stable code, for programs.", examples=["not_yours"])
    error_description: str = Field(description="What happened and what to do next, for people.")


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "The request is refused, and the sentence says why."},
    503: {"model": Problem, "description": "JupyterHub or the database is away; nothing was done. Try again."},
}
"""For `responses=` of every JSON route."""


def create_app(services: Services, front: Front | None = None, routers: Iterable[APIRouter] = ()) -> ASGIApp:
    """The public app: trust material, enrolments, and what `routers` add. Those for people need a `front`."""
    app = _app(services, "jupyterhub-bastion", (operate.router, pods.router, *routers))
    app.state.front = front
    return _edge(services, Forwarded(app, services.settings.pods.networks), "public")


def create_pods_app(services: Services) -> ASGIApp:
    """The app behind the pods' own port: trust material and enrolments. The sender is whoever connected."""
    app = _app(services, "jupyterhub-bastion, for pods", (operate.router, pods.router))
    return _edge(services, Forwarded(app, None), "pods")


def _edge(services: Services, app: ASGIApp, port: str) -> ASGIApp:
    return Edge(
        app,
        port=port,
        max_body=services.settings.listen.max_body,
        https=services.settings.public_url.startswith("https://"),
        metrics=services.metrics,
    )


def create_internal_app(services: Services, secret: bytes) -> ASGIApp:
    """The app behind the second port; everything but `/metrics` and `/healthz` asks for `secret`."""
    routers = (internal.router, internal.metrics_router, held.router, reports.router)
    app = _app(services, "jupyterhub-bastion, internal", routers)
    app.state.secret = secret
    return Edge(
        app,
        port="internal",
        max_body=1 << 18,
        https=False,
        metrics=services.metrics,
        longer=reports.LONG_BODIES,
    )


def refusal_answer(refusal: Refusal) -> JSONResponse:
    """A refusal as HTTP."""
    status = status_of(refusal)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status in (429, 503):
        headers["Retry-After"] = str(refusal.retry_after or RETRY_SECONDS)
    return problem(status, refusal.reason, refusal.sentence, headers)


def _app(services: Services, title: str, routers: Sequence[APIRouter]) -> FastAPI:
    app = FastAPI(
        title=title,
        version="1",
        description=DESCRIPTION,
        docs_url=None,  # it would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # such redirects are made from the Host header
        responses=ERRORS,
    )
    app.state.services = services
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(TokenRefused, _on_token_refused)
    app.add_exception_handler(Unavailable, _on_unavailable)
    app.add_exception_handler(Malformed, _on_malformed)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)
    for router in routers:
        app.include_router(router)
    return app


async def _on_refused(_request: Request, error: Exception) -> Response:
    return refusal_answer(error.refusal) if isinstance(error, Refused) else _bug()


async def _on_token_refused(_request: Request, error: Exception) -> Response:
    return refusal_answer(Refusal(Reason.INVALID_TOKEN, str(error)))


async def _on_unavailable(_request: Request, error: Exception) -> Response:
    code = error.code if isinstance(error, Unavailable) else "unavailable"
    headers = {"Retry-After": str(RETRY_SECONDS)}
    if isinstance(error, StoreUnavailable):
        headers["Connection"] = "close"  # the next try may reach a replica that can read the database
    return problem(503, code, str(error), headers)


async def _on_malformed(_request: Request, error: Exception) -> Response:
    return problem(400, "bad_request", str(error))


async def _on_invalid(_request: Request, error: Exception) -> Response:
    said = error.errors() if isinstance(error, RequestValidationError) else ()
    return problem(400, "bad_request", " ".join(_sentence(one) for one in said[:5]) or "The request cannot be read.")


async def _on_http(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code, sentence = {
        400: ("bad_request", "The request cannot be read."),
        404: ("not_found", "There is nothing at this address."),
        405: ("method_not_allowed", "This address does not take this method."),
        415: ("unsupported_media_type", "Send a form or JSON, and say in Content-Type which."),
    }.get(status, ("error", "The request cannot be answered."))
    headers = error.headers if isinstance(error, HTTPException) else None
    return problem(status, code, sentence, dict(headers) if headers else None)


async def _on_bug(_request: Request, _error: Exception) -> Response:
    return _bug()


def _bug() -> Response:
    return problem(500, "internal_error", "Something went wrong here. The administrator finds the reason in the log.")


def _sentence(error: Any) -> str:
    """One thing that is wrong with a body. What was sent is not repeated but for the field's name, shortened."""
    where = ".".join(str(part) for part in error.get("loc", ())[1:])[:64]
    kind = error.get("type")
    if kind == "json_invalid":
        return "The body is not JSON."
    shown = where.encode("ascii", "backslashreplace").decode() if where.isprintable() else "a field"
    if kind == "extra_forbidden":
        return f"{shown}: there is no such field."
    if kind == "missing" and not where:
        return "The body is missing."
    said = str(error.get("msg", "not acceptable"))
    return f"{shown or 'The body'}: {said[:1].lower()}{said[1:200]}."
