"""For clients without a browser: begin a login, and fetch its certificate when somebody approved it (RFC 8628).

Nobody is authenticated here: the public key comes from a stranger until a person with a session vouches for it, and
the device code is the only thing that the certificate is handed out for. It travels in bodies, never in an address.

Requests are forms, as the RFC has them, or JSON. Whoever accepts only `text/plain` gets lines that a shell can use.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from api import desk, device
from api.edge import wants_text
from api.errors import Refused
from api.front import FrontDoor
from api.logins import LIFETIME, PAUSE, Begun, Kind, NewLogin, TooFast
from api.routes.certificates import MAX_LIFETIME, RenewableCertificate, renewable
from api.sender import peer_of
from api.services import Injected, Services
from api.session import judge_origin
from api.starting import Waiting
from ca.audit import RequestRefused
from ca.errors import Reason, Refusal
from ca.keys import PublicKey

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
MAX_FIELDS = 20
FORM = "application/x-www-form-urlencoded"
_NOT_FOR_CACHES = {"Cache-Control": "no-store", "Pragma": "no-cache"}

router = APIRouter(prefix="/device", tags=["device login"])


_OFF = Refusal(Reason.NOT_PERMITTED, "Logging in by another device is switched off here.")


def _demand_on(request: Request, services: Services) -> None:
    if not services.settings.logins.device:
        raise Refused(device.refused(services, _OFF, None, _peer(request, services)))


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("that holds characters that cannot be shown")
    return text


Shown = Annotated[str, AfterValidator(_printable)]


class LoginWanted(BaseModel):
    """What the certificate will be for. Parameters that are not known are passed over, as OAuth has it."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [{"public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…", "host_name": "laptop"}]
        },
    )

    public_key: Annotated[str, Field(max_length=32768, description="One line, as in a `.pub` file.")]
    host_name: Annotated[
        Shown | None, Field(max_length=64, description="How the client's machine is called, for the approval page.")
    ] = None
    server: Annotated[
        Shown | None,
        Field(
            max_length=600,
            description="One server, by its login name. The certificate is for it alone; with `start` it says what to "
            "start, and the certificate is for all that run then, unless `only` is set. Left out: all that run.",
        ),
    ] = None
    lifetime: Annotated[int | None, Field(ge=1, le=MAX_LIFETIME, description="Seconds; the site's limit holds.")] = None
    start: Annotated[
        bool, Field(description="Start the server when the login is approved, where the site lets people do that.")
    ] = False
    only: Annotated[
        bool, Field(description="With `start`: a certificate for `server` alone. Without `start` it is that anyway.")
    ] = False


class LoginBegun(BaseModel):
    """RFC 8628 section 3.2."""

    device_code: Annotated[str, Field(description="A secret: the certificate is handed out for it.")]
    user_code: Annotated[str, Field(examples=["BCDF-GHJK"])]
    verification_uri: Annotated[str, Field(examples=["https://ssh.example.org/activate"])]
    verification_uri_complete: Annotated[str, Field(examples=["https://ssh.example.org/activate?code=BCDF-GHJK"])]
    expires_in: Annotated[int, Field(examples=[600])]
    interval: Annotated[int, Field(examples=[2], description="Seconds between two questions, at least.")]


class CodeShown(BaseModel):
    """RFC 8628 section 3.4."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"device_code": "…"}]})

    device_code: Annotated[str, Field(max_length=256)]
    grant_type: Annotated[str, Field(max_length=256, examples=[GRANT_TYPE], description="May be left out.")] = (
        GRANT_TYPE
    )


class Progress(BaseModel):
    """How far a server is that starts."""

    percent: int | None
    message: str


class NotYet(BaseModel):
    """RFC 8628 section 3.5, and this service's own reasons."""

    error: Annotated[str, Field(examples=["authorization_pending"])]
    error_description: str
    interval: Annotated[int | None, Field(description="With `slow_down`: the pause from now on.")] = None
    progress: Annotated[Progress | None, Field(description="While a server starts that was asked for.")] = None


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """How the request is described: the same fields as a form or as JSON."""
    schema = {"schema": model.model_json_schema()}
    return {"requestBody": {"required": True, "content": {FORM: schema, "application/json": schema}}}


@router.post(
    "",
    summary="Begin a login that somebody approves in a browser",
    response_model=LoginBegun,
    openapi_extra=_body(LoginWanted),
)
async def post_device(request: Request, services: Injected, front: FrontDoor) -> Response:
    """Show `user_code` and `verification_uri_complete` to the person, and poll `/device/token` meanwhile."""
    _demand_on(request, services)
    wanted, peer = await _read(request, LoginWanted), _peer(request, services)
    elsewhere = judge_origin(request.headers, front.sessions.origin)
    if elsewhere is not None:  # another site's page must not begin logins from the addresses of its visitors
        services.audit(RequestRefused(route="/device", reason=elsewhere.reason, peer=peer))
        raise Refused(elsewhere)
    key = desk.read_key(wanted.public_key)
    if isinstance(key, Refusal):
        raise Refused(device.refused(services, key, None, peer))
    new = _login_for(wanted, key, None if services.proxies.hides(request) else peer)
    async with services.pollers.turn(peer):
        begun = await device.begin(services, new, peer)
    if isinstance(begun, Refusal):
        raise Refused(begun)
    return _answer(request, begun_fields(services, begun))


@router.post(
    "/token",
    summary="Fetch the certificate of a login that was approved",
    response_model=RenewableCertificate,
    responses={400: {"model": NotYet, "description": "Not yet, or not at all; `error` says which."}},
    openapi_extra=_body(CodeShown),
)
async def post_token(request: Request, services: Injected) -> Response:
    """`authorization_pending`: ask again after the interval. `slow_down`: after a longer one. Everything else is the
    end of this login. The certificate is decided at this moment, and a code works once."""
    _demand_on(request, services)
    shown = await _read(request, CodeShown)
    if shown.grant_type != GRANT_TYPE:
        return _not_yet(request, "unsupported_grant_type", f"The only grant type here is {GRANT_TYPE}.")
    peer = _peer(request, services)
    async with services.pollers.turn(peer):
        collected = await device.collect(services, shown.device_code, peer)
    if isinstance(collected, TooFast):
        sentence = f"Ask every {collected.pause} seconds, not more often."
        return _not_yet(request, "slow_down", sentence, interval=collected.pause)
    if isinstance(collected, Waiting):
        return _pending(request, collected)
    if isinstance(collected, Refusal):
        return _not_yet(request, collected.reason, collected.sentence)
    if wants_text(request):
        return PlainTextResponse(f"{collected.issued.signed.line}\n", headers=_NOT_FOR_CACHES)
    return _answer(request, renewable(collected, services.settings.zone).model_dump())


def _login_for(wanted: LoginWanted, key: PublicKey, address: str | None) -> NewLogin:
    return NewLogin(
        Kind.DEVICE,
        key,
        address,
        host_name=wanted.host_name or None,
        server=wanted.server or None,
        lifetime=wanted.lifetime,
        start=wanted.start,
        only=wanted.only or not wanted.start,
    )


def begun_fields(services: Services, begun: Begun) -> dict[str, Any]:
    """What a client is told of a login that it began. Every address is made from the settings."""
    page = f"{services.settings.public_url}/activate"
    return LoginBegun(
        device_code=begun.device_code,
        user_code=begun.user_code,
        verification_uri=page,
        verification_uri_complete=f"{page}?code={begun.user_code}",
        expires_in=LIFETIME,
        interval=PAUSE,
    ).model_dump()


def _pending(request: Request, waiting: Waiting) -> Response:
    progress = {"percent": waiting.percent, "message": waiting.message} if waiting.message else None
    sentence = waiting.message or "Nobody has approved this login yet."
    return _not_yet(request, "authorization_pending", sentence, progress=progress)


def _not_yet(request: Request, code: str, sentence: str, **more: Any) -> Response:
    fields = {"error": code, "error_description": sentence, **{k: v for k, v in more.items() if v is not None}}
    return _answer(request, fields, 400)


def _answer(request: Request, fields: Mapping[str, Any], status: int = 200) -> Response:
    """JSON, or a line `name=value` for each plain field: such a line is a form, too, when it is sent back."""
    if not wants_text(request):
        return JSONResponse(fields, status, _NOT_FOR_CACHES)
    lines = (f"{name}={value}\n" for name, value in fields.items() if not isinstance(value, dict | list))
    return PlainTextResponse("".join(lines), status, _NOT_FOR_CACHES)


Model = TypeVar("Model", bound=BaseModel)


async def _read(request: Request, model: type[Model]) -> Model:
    """The fields of a form or of a JSON object. Raises what `api.app` answers with 400 and 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (FORM, "application/json"):
        raise HTTPException(415)
    body = await request.body()
    try:
        fields = _json(body) if kind == "application/json" else _form(body)
        return model.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RequestValidationError([{"loc": ("body",), "type": "json_invalid", "msg": ""}]) from None


def _form(body: bytes) -> Mapping[str, str]:
    """Each field once (RFC 6749 section 3.1). An empty one counts as left out."""
    try:
        pairs = parse_qsl(body.decode("utf-8"), max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        pairs = []
    return {} if len(dict(pairs)) != len(pairs) else dict(pairs)


def _peer(request: Request, services: Services) -> str | None:
    return peer_of(request, services.settings.listen.trusted_proxies)
