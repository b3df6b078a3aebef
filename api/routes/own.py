"""The buttons beside one's servers and sessions on the page: start, stop after one more question, end."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Request
from starlette.responses import RedirectResponse, Response

from api import desk, live, servers
from api.errors import Refused
from api.front import FrontDoor
from api.routes.forms import Page, asked_from, form_of, session_of
from api.servers import Person, State
from api.services import Injected
from api.session import Session
from ca.errors import Refusal
from ca.sessions import NAME_LENGTH

Login = Annotated[str, Path(max_length=2048)]

router = APIRouter(route_class=Page, include_in_schema=False)


@router.post("/servers/{login}/start")
async def start(login: Login, request: Request, services: Injected, front: FrontDoor) -> Response:
    """Start it, and back to the first page, which follows the start."""
    session = session_of(request, front)
    await form_of(request, services, front, session)
    found = await servers.start(services, _person(session), login, asked_from(request, services))
    if isinstance(found, Refusal):
        raise Refused(found)
    login = quote(found.server.login, safe="")
    return RedirectResponse(f"{front.pages.site}/?watch={login}", 303)


@router.get("/servers/{login}/stop")
async def ask_to_stop(login: Login, request: Request, services: Injected, front: FrontDoor) -> Response:
    """What stopping would end, and the button."""
    session = session_of(request, front)
    found = await servers.look(services, _person(session), login)
    if isinstance(found, Refusal):
        raise Refused(found)
    if found.state in (State.STOPPING, State.STOPPED):
        return RedirectResponse(f"{front.pages.site}/", 303)
    return front.pages.page("stop", session, label=str(found.server), login=found.server.login)


@router.post("/servers/{login}/stop")
async def stop(login: Login, request: Request, services: Injected, front: FrontDoor) -> Response:
    """Stop it, and back to the first page."""
    session = session_of(request, front)
    await form_of(request, services, front, session)
    found = await servers.stop(services, _person(session), login, asked_from(request, services))
    if isinstance(found, Refusal):
        raise Refused(found)
    return RedirectResponse(f"{front.pages.site}/?done=stopping", 303)


@router.post("/sessions/{name}/end")
async def end(
    name: Annotated[str, Path(max_length=NAME_LENGTH)], request: Request, services: Injected, front: FrontDoor
) -> Response:
    """Cut a session of one's own, or somebody's in a server of one's own."""
    session = session_of(request, front)
    await form_of(request, services, front, session)
    peer = asked_from(request, services)
    refusal = await desk.is_gone(services, session, without_hub=True)
    refusal = refusal or await live.end(services, name, session.user, anybodys=False, peer=peer)
    if refusal is not None:
        raise Refused(refusal)
    return RedirectResponse(f"{front.pages.site}/?done=ended", 303)


def _person(session: Session) -> Person:
    return Person(session.user, session.made)
