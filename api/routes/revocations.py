"""For owners and administrators: end certificates before their time, one, a user's or a server's."""

from typing import Annotated, Self

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from api import desk
from api.edge import JsonRoute
from api.errors import Refused
from api.front import FrontDoor
from api.pace import Kind
from api.revoke import MAX_WHY, Revoker, read_server, read_user, revoke
from api.routes.who import FORM_TOKEN_HEADER, person_taking
from api.sender import peer_of
from api.services import Injected, Services
from api.session import Session
from ca.audit import RequestRefused
from ca.claims import TokenOwner
from ca.errors import Refusal
from ca.names import Server

router = APIRouter(tags=["certificates"], route_class=JsonRoute)


class RevocationWanted(BaseModel):
    """Exactly one of `serial`, `user` and `server`."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"server": "alice+gpu", "why": "shared no more"}]}
    )

    serial: Annotated[str | None, Field(max_length=32, description="One certificate.")] = None
    user: Annotated[str | None, Field(max_length=255, description="Everything that this user was given until now.")] = (
        None
    )
    server: Annotated[
        str | None,
        Field(max_length=1024, description="By its login name: every way into it that was given until now."),
    ] = None
    why: Annotated[str | None, Field(max_length=MAX_WHY, description="For the audit log.")] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(one is not None for one in (self.serial, self.user, self.server)) != 1:
            raise ValueError("say exactly one of serial, user and server")
        if self.why is not None and not self.why.isprintable():
            raise ValueError("why is one line of text")
        return self


@router.post(
    "/revocations",
    status_code=204,
    summary="Revoke a certificate, a user's certificates, or a server's",
    response_class=Response,
    response_description="It is stored: nothing that was issued until now counts, and sessions are cut.",
)
async def create(
    wanted: RevocationWanted,
    request: Request,
    services: Injected,
    front: FrontDoor,
    who: Annotated[TokenOwner | Session, Depends(person_taking)],
) -> Response:
    """Your own certificates, all that you were given, or a server of yours, for everybody who may enter it. New
    certificates can be had at once. Administrators may revoke anybody's, with a browser session.

    A browser session sends its form token in the header `X-Form-Token`.
    """
    peer = peer_of(request, services.settings.listen.trusted_proxies)
    if isinstance(who, Session):
        refusal = front.sessions.judge_form(who, request.headers.get(FORM_TOKEN_HEADER, ""), request.headers)
        if refusal is not None:
            _refuse(services, refusal, peer)
    if too_fast := services.pace.take(Kind.REVOCATIONS, who.user):
        _refuse(services, too_fast.refusal, peer, audited=too_fast.first)
    refused = await _revoke(services, wanted, who, peer)
    if refused is not None:
        raise Refused(refused)
    return Response(status_code=204)


async def _revoke(
    services: Services, wanted: RevocationWanted, who: TokenOwner | Session, peer: str | None
) -> Refusal | None:
    """Only where it is another's, JupyterHub is asked whether an administrator still is one."""
    admin = who if isinstance(who, Session) else None
    if wanted.serial is not None:
        return await desk.revoke(
            services, wanted.serial, who.user, peer=peer, route="/revocations", why=wanted.why, admin=admin
        )
    what = read_user(wanted.user) if wanted.user is not None else read_server(wanted.server or "", who.user)
    if isinstance(what, Refusal):
        return what
    owner = what.owner if isinstance(what, Server) else what
    anybodys = owner != who.user and admin is not None and await desk.still_admin(services, admin)
    return await revoke(services, what, Revoker(who.user, anybodys, peer), wanted.why)


def _refuse(services: Services, refusal: Refusal, peer: str | None, *, audited: bool = True) -> None:
    if audited:
        services.audit(RequestRefused(route="/revocations", reason=refusal.reason, peer=peer))
    raise Refused(refusal)
