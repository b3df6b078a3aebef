"""The page on which somebody with a browser lets a client in that has none.

Nothing happens by opening it: a link may come from anybody. It says who asks and from where, in words of ours; what
the client says of itself is shown as such. Approving is a form with this session's token, sent from this page.
"""

from dataclasses import replace
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from api import device, logins
from api.commands import in_words
from api.device import Browser, Described
from api.errors import status_of
from api.front import Front, FrontDoor
from api.logins import Kind
from api.routes.forms import Page, asked_from, field, form_of, session_of
from api.services import Injected, Services
from ca.errors import Reason, Refusal

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/activate")
async def show(request: Request, services: Injected, front: FrontDoor) -> Response:
    """The login with the code of the link, or a field for a code. Whoever is not logged in does that first."""
    code = logins.read_code(request.query_params.get("code", "")) or ""
    session = front.sessions.read(request.cookies)
    if session is None:
        here = f"/activate?code={code}" if code else "/activate"
        return RedirectResponse(f"{front.pages.site}/login?next={quote(here, safe='')}", 303)
    browser = Browser(session, asked_from(request, services), hidden=services.proxies.hides(request))
    if not request.query_params.get("code"):
        return _enter(front, browser)
    return await _show(services, front, browser, code)


@router.post("/activate")
async def decide(request: Request, services: Injected, front: FrontDoor) -> Response:
    """A code that was typed, or what somebody decided."""
    session = session_of(request, front)
    form = await form_of(request, services, front, session)
    code, typed = field(form, "code"), field(form, "typed")
    browser = Browser(session, asked_from(request, services), typed, services.proxies.hides(request))
    match field(form, "then"):
        case "approve":
            return await _approve(services, front, browser, code)
        case "deny":
            denied = await device.deny(services, front.guesses, browser, code)
            if isinstance(denied, Refusal):
                return _enter(front, browser, denied)
            return front.pages.page("activated", session, approved=False, wanted=denied.wanted, starts=None)
        case _:
            return await _show(services, front, replace(browser, typed=code), code)


async def _approve(services: Services, front: Front, browser: Browser, code: str) -> Response:
    answer = await device.approve(services, front.guesses, browser, code)
    if isinstance(answer, Refusal):
        return _enter(front, browser, answer)
    if answer.problem is not None:
        return _login(services, front, browser, answer)
    return front.pages.page(
        "activated", browser.session, approved=True, wanted=answer.login.wanted, starts=answer.starts
    )


async def _show(services: Services, front: Front, browser: Browser, code: str) -> Response:
    described = await device.describe(services, front.guesses, browser, code)
    if isinstance(described, Refusal):
        return _enter(front, browser, described)
    return _login(services, front, browser, described)


def _enter(front: Front, browser: Browser, problem: Refusal | None = None) -> Response:
    """The field for a code."""
    sentence = problem.sentence if problem else None
    return front.pages.page("activate", browser.session, status_of(problem) if problem else 200, problem=sentence)


def _login(services: Services, front: Front, browser: Browser, described: Described) -> Response:
    """One login, with all that is known of it."""
    login, problem = described.login, described.problem
    wrong = problem is not None and problem.reason is Reason.WRONG_CODE
    return front.pages.page(
        "approve",
        browser.session,
        status_of(problem) if wrong and problem else 200,
        code=login.user_code,
        typed=browser.typed if logins.read_code(browser.typed) == login.user_code else "",
        wanted=login.wanted,
        interactive=login.wanted.kind is Kind.INTERACTIVE,
        here=None if browser.hidden else browser.peer,
        hidden=browser.hidden,
        elsewhere=not browser.is_at(login.wanted.address),
        must_type=described.must_type,
        anothers=described.anothers,
        asked_at=login.created_at / 1000,
        left=in_words(login.expires_at / 1000 - services.now()),
        opens=[str(one.server) for one in described.opens],
        until=described.until,
        starts=str(described.starts) if described.starts else None,
        wrong=problem.sentence if wrong and problem else None,
        problem=problem.sentence if problem and not wrong else None,
    )
