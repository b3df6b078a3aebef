"""What every page for people needs: its session, its form, and a page for what goes wrong.

Refusals and outages become pages with a sentence and a next step, here and nowhere else.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.errors import Refused, Unavailable, status_of
from api.front import Front, front_of
from api.pages import Step
from api.sender import peer_of
from api.services import Services
from api.session import Session
from ca.audit import RequestRefused
from ca.errors import Reason, Refusal

MAX_FIELDS = 10
MAX_FIELD_BYTES = 65536

_LOG_IN = Refusal(Reason.INVALID_TOKEN, "You are not logged in here, or your session has ended. Log in again.")
_NOT_A_FORM = Refusal(Reason.NOT_PERMITTED, "This form cannot be read. Reload the page and send it again.")
_TITLES = {401: "Please log in", 403: "That did not work", 404: "Not found", 503: "Not available at the moment"}


class Page(APIRoute):
    """A route for people: what goes wrong becomes a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def answer_with_a_page(request: Request) -> Response:
            try:
                return await answer(request)
            except Refused as error:
                return _problem(request, status_of(error.refusal), error.refusal.sentence)
            except Unavailable as error:
                return _problem(request, 503, str(error))

        return answer_with_a_page


def session_of(request: Request, front: Front) -> Session:
    """Whose browser this is. Raises `Refused`."""
    session = front.sessions.read(request.cookies)
    if session is None:
        raise Refused(_LOG_IN)
    return session


async def form_of(
    request: Request, services: Services, front: Front, session: Session, *, max_files: int = 0
) -> FormData:
    """The fields of a form that this session's own page sent. Raises `Refused`, which is audited."""
    try:
        form = await request.form(max_files=max_files, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
    except HTTPException:
        raise Refused(_NOT_A_FORM) from None
    refusal = front.sessions.judge_form(session, field(form, "form_token"), request.headers)
    if refusal is not None:
        services.audit(
            RequestRefused(route=request.url.path, reason=refusal.reason, peer=asked_from(request, services))
        )
        await form.close()
        raise Refused(refusal)
    return form


def field(form: FormData, name: str) -> str:
    """What a form has in a field; "" where there is nothing, or a file."""
    value = form.get(name)
    return value if isinstance(value, str) else ""


async def text_of_file(form: FormData, name: str) -> str:
    """The text of a small file in a form, which is closed; "" where there is none. What is no text is nobody's key."""
    value = form.get(name)
    if isinstance(value, str) or value is None:
        return ""
    content = await value.read(MAX_FIELD_BYTES)
    await form.close()
    return content.decode("utf-8", "replace").strip()


def _problem(request: Request, status: int, sentence: str) -> Response:
    front = front_of(request)
    session = front.sessions.read(request.cookies)
    steps = () if session else (Step("Log in", f"{front.pages.site}/login"),)
    response = front.pages.problem(_TITLES.get(status, "That did not work"), sentence, status, session, *steps)
    if status == 503:
        response.headers["Retry-After"] = "10"
    return response


def asked_from(request: Request, services: Services) -> str | None:
    """The address of whoever sent this, None where it is not known."""
    return peer_of(request, services.settings.listen.trusted_proxies)
