"""For the bastion: logins with a browser for ssh connections that it holds open meanwhile (keyboard-interactive).

The bastion speaks for its clients' addresses and for a key that it made for one connection; it cannot approve
anything. The id of a login is what its certificate is handed out for, so it travels in bodies and never in an address.
"""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api import desk, device, held
from api.device import Collected
from api.errors import Refused
from api.logins import LIFETIME, Kind, NewLogin
from api.routes.internal import GuardedRoute
from api.sender import plain_address
from api.services import Injected, Services
from api.starting import Waiting
from ca.errors import Reason, Refusal

MAX_IDS = 1000

_OFF = Refusal(Reason.NOT_PERMITTED, "Logging in with a browser is switched off here.")
_JUMP_OFF = Refusal(
    Reason.NOT_PERMITTED, "Logging in with a browser is for one server here: connect with its login name."
)

Id = Annotated[str, Field(min_length=1, max_length=128)]


class LoginRequest(BaseModel):
    """What the bastion asks for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    public_key: str = Field(max_length=16384, description="A key that the bastion made for this one connection.")
    server: str | None = Field(
        None,
        max_length=1024,
        description="Login name as somebody typed it; left out for a jump login (where the site lets those): every "
        "server of theirs.",
        examples=["alice+gpu"],
    )
    peer: str | None = Field(None, max_length=64, description="The address of the ssh client.")


class LoginAnswer(BaseModel):
    """A login that waits: `id` is for the bastion alone, the rest is shown to the person."""

    id: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int


class IdsRequest(BaseModel):
    """Logins of this bastion."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ids: list[Id] = Field(max_length=MAX_IDS)


class DecidedAnswer(BaseModel):
    """Those that nobody can approve or deny any more."""

    decided: list[str]


class IdRequest(BaseModel):
    """One of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Id


class HeldCertificate(BaseModel):
    """The certificate; null while nobody has decided, or a server starts that was asked for."""

    certificate: str | None
    message: str | None = Field(
        default=None, description="How far the server is, where one starts; for the person to read."
    )


router = APIRouter(prefix="/internal/logins", tags=["internal"], route_class=GuardedRoute)


@router.post("", summary="Begin a login with a browser for an ssh connection")
async def post_login(services: Injected, body: LoginRequest) -> LoginAnswer:
    """The certificate will be for `server` alone, where it is given, whoever approves."""
    _demand_on(services)
    peer = plain_address(body.peer or "")
    if not body.server and not services.settings.logins.interactive_jump:
        raise Refused(device.refused(services, _JUMP_OFF, None, peer))
    key = desk.read_key(body.public_key)
    if isinstance(key, Refusal):
        raise Refused(device.refused(services, key, None, peer))
    new = NewLogin(Kind.INTERACTIVE, key, peer, server=body.server, start=body.server is not None)
    begun = await device.begin(services, new, peer)
    if isinstance(begun, Refusal):
        raise Refused(begun)
    page = f"{services.settings.public_url}/activate"
    return LoginAnswer(
        id=begun.device_code,
        user_code=begun.user_code,
        verification_uri=page,
        verification_uri_complete=f"{page}?code={begun.user_code}",
        expires_in=LIFETIME,
    )


@router.post("/decided", summary="Which of these logins are decided")
async def post_decided(services: Injected, body: IdsRequest) -> DecidedAnswer:
    """Asked once a second for all connections that wait."""
    waiting = await held.undecided(services.store, body.ids, services.now_ms())
    return DecidedAnswer(decided=[one for one in body.ids if one not in waiting])


@router.post("/certificate", summary="The certificate of a login that was approved")
async def post_certificate(services: Injected, body: IdRequest) -> HeldCertificate:
    """Decided, recorded and signed at this moment, once. A refusal is the end of the login; 503 is not."""
    _demand_on(services)
    collected = await device.collect(services, body.id, None, Kind.INTERACTIVE)
    if isinstance(collected, Refusal):
        raise Refused(collected)
    if isinstance(collected, Waiting):
        return HeldCertificate(certificate=None, message=collected.message or None)
    if not isinstance(collected, Collected):
        return HeldCertificate(certificate=None)
    return HeldCertificate(certificate=collected.issued.signed.line)


@router.post("/give-up", summary="Nobody waits for this login any more")
async def post_give_up(services: Injected, body: IdRequest) -> Response:
    """Then nobody can approve it either. Doing it twice changes nothing."""
    await held.give_up(services.store, body.id, services.now_ms())
    return Response(status_code=200, content=b"{}", media_type="application/json")


def _demand_on(services: Services) -> None:
    if not services.settings.logins.holds_connections:
        raise Refused(_OFF)
