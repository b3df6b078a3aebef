"""One's own live SSH sessions, and those in one's own servers: to see them, and to end them.

For people with a token made for this service, a browser session or the proof that they hold a certificate.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

from api import desk, live
from api.edge import JsonRoute
from api.errors import Refused
from api.front import FrontDoor
from api.proof import Holder
from api.routes.who import FORM_TOKEN_HEADER, asker, taker
from api.sender import peer_of
from api.services import Injected, Services
from api.session import Session
from api.sightings import LiveSession
from ca.audit import RequestRefused
from ca.claims import TokenOwner
from ca.errors import Reason, Refusal
from ca.sessions import NAME_LENGTH

_ADMINISTRATORS = Refusal(
    Reason.NOT_PERMITTED, "Everybody's sessions are for administrators, in a browser that is logged in here."
)


class SshSession(BaseModel):
    """A session that lives: an `ssh` of yours, or somebody's in a server of yours."""

    id: Annotated[str, Field(examples=["9f86d081884c7d659a2feaa0c55ad015"])]
    user: Annotated[
        str, Field(examples=["alice"], description="Who: the JupyterHub user, or `key:SHA256:…` for a plain key.")
    ]
    server: Annotated[
        str | None, Field(examples=["alice/gpu"], description="Null: a jump connection that leads nowhere yet.")
    ]
    login: Annotated[str | None, Field(examples=["alice+gpu"])]
    peer: Annotated[str, Field(examples=["192.0.2.7"], description="The client's address.")]
    mode: Annotated[str, Field(examples=["direct"], description="`direct`, or `jump` for `ssh -J`.")]
    how: Annotated[str, Field(examples=["certificate"], description="With what they came in.")]
    since: Annotated[int, Field(examples=[1826900000], description="Seconds since the epoch.")]
    received: Annotated[int, Field(examples=[2048], description="Bytes from the client.")]
    sent: Annotated[int, Field(examples=[65536], description="Bytes to the client.")]
    ending: Annotated[bool, Field(description="Somebody has ended it, and it is about to go.")]


class SshSessions(BaseModel):
    """Live sessions, the oldest first. They are at most some seconds old, counts of bytes up to twenty."""

    sessions: list[SshSession]


router = APIRouter(tags=["sessions"], route_class=JsonRoute)


@router.get("/sessions", summary="List your live SSH sessions")
async def own(
    request: Request,
    services: Injected,
    response: Response,
    who: Annotated[TokenOwner | Session | Holder, Depends(asker)],
    everybody: Annotated[bool, Query(description="Everybody's: for administrators with a browser session.")] = False,
) -> SshSessions:
    """Those that you opened, and those of others in servers of yours."""
    response.headers["Cache-Control"] = "no-store"
    if everybody:
        if not (isinstance(who, Session) and await desk.still_admin(services, who)):
            peer = peer_of(request, services.settings.listen.trusted_proxies)
            services.audit(RequestRefused(route="/sessions", reason=_ADMINISTRATORS.reason, peer=peer))
            raise Refused(_ADMINISTRATORS)
        found = await live.everybodys(services)
    else:
        found = await live.seen_by(services, who.user)
    return SshSessions(sessions=[_shown(services, one) for one in found])


@router.delete(
    "/sessions/{id}",
    status_code=204,
    summary="End a live SSH session",
    response_description="It is cut within a second or two; who opened it reads that it was ended.",
)
async def end(
    id: Annotated[str, PathParameter(max_length=NAME_LENGTH, examples=["9f86d081884c7d659a2feaa0c55ad015"])],  # noqa: A002
    request: Request,
    services: Injected,
    front: FrontDoor,
    who: Annotated[TokenOwner | Session | Holder, Depends(taker)],
) -> Response:
    """One of your own, or anybody's in a server of yours. Administrators may end every session, with a browser session
    and its form token in the header `X-Form-Token`. It revokes nothing: with a certificate that still counts the
    person can come in again."""
    peer = peer_of(request, services.settings.listen.trusted_proxies)
    anybodys = False
    if isinstance(who, Session):
        refusal = front.sessions.judge_form(who, request.headers.get(FORM_TOKEN_HEADER, ""), request.headers)
        if refusal is not None:
            services.audit(RequestRefused(route="/sessions", reason=refusal.reason, peer=peer))
            raise Refused(refusal)
        anybodys = not await live.is_of(services, id, who.user) and await desk.still_admin(services, who)
    refusal = await live.end(services, id, who.user, anybodys=anybodys, peer=peer)
    if refusal is not None:
        raise Refused(refusal)
    return Response(status_code=204)


def _shown(services: Services, session: LiveSession) -> SshSession:
    told = session.told
    return SshSession(
        id=session.name,
        user=told.identity,
        server=None if session.server is None else str(session.server),
        login=None if session.server is None else session.server.login,
        peer=told.peer,
        mode=told.mode,
        how=told.how,
        since=int(told.since),
        received=told.received,
        sent=told.sent,
        ending=live.ending(services, session),
    )
