"""For anyone: the public trust material. For operators: is it alive, is it ready."""

from email.utils import formatdate
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, PlainTextResponse, Response

from api.client_files import Reach, authority_lines, known_hosts, ssh_config
from api.edge import problem
from api.errors import Refused
from api.services import Injected
from ca.errors import MalformedName, Reason, Refusal
from ca.names import parse_login

router = APIRouter()


class ConfigAsked(BaseModel):
    """What differs from person to person; nothing of it is looked up."""

    server: list[Annotated[str, Field(max_length=1000)]] = Field(
        [], max_length=100, description="Login names of servers, for the lists of editors."
    )
    key: str | None = Field(
        None, max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="The file of the key in `~/.ssh`."
    )
    user: str | None = Field(
        None, max_length=32, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="Whoever these servers run as."
    )
    mode: Literal["jump", "direct"] = Field(
        "jump", description="`direct` for whom jump mode is closed; then servers have to be named."
    )


@router.get("/ca.pub", tags=["trust"], summary="Keys that sign people", response_class=PlainTextResponse)
async def get_ca(services: Injected) -> str:
    """The public keys of the user CA, as `TrustedUserCAKeys` of an sshd reads them."""
    return authority_lines(services.signer.public.user)


@router.get("/known_hosts", tags=["trust"], summary="Whom SSH clients trust", response_class=PlainTextResponse)
async def get_known_hosts(services: Injected) -> str:
    """`@cert-authority` lines for `~/.ssh/known_hosts`: no host-key question is asked ever again."""
    settings = services.settings
    return known_hosts(settings.bastion, settings.zone, services.signer.public.host)


@router.get(
    "/ssh_config",
    tags=["trust"],
    summary="Settings for SSH clients",
    response_class=PlainTextResponse,
    responses={400: {"content": {"application/json": {}}, "description": "That is no name; the sentence says why."}},
)
async def get_ssh_config(services: Injected, asked: Annotated[ConfigAsked, Query()]) -> str:
    """A file to `Include` in `~/.ssh/config`."""
    settings = services.settings
    try:
        servers = tuple(parse_login(login) for login in dict.fromkeys(asked.server))
    except MalformedName as error:
        raise Refused(Refusal(Reason.BAD_NAME, str(error))) from None
    reach = Reach(servers, asked.key, asked.mode == "direct", asked.user)
    return ssh_config(settings.bastion, settings.zone, settings.pods.unix_user, settings.public_url, reach)


@router.get(
    "/krl",
    tags=["trust"],
    summary="What is revoked, for OpenSSH",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "A KRL, for `RevokedKeys` of an sshd."},
        304: {"description": "It is still the one of your `If-None-Match`."},
    },
)
async def get_krl(request: Request, services: Injected) -> Response:
    """The revoked user certificates in OpenSSH's own format: `ssh-keygen -Q -f krl id-cert.pub` asks it. Keep the last
    one while this is unavailable, and replace it in one step: an sshd without its list lets nobody in."""
    published = await services.krl.published()
    headers = {
        "ETag": f'W/"{published.tag}"',
        "Last-Modified": formatdate(published.made_at, usegmt=True),
        "Cache-Control": "no-cache",
    }
    if _is_known(request, published.tag):
        return Response(status_code=304, headers=headers)
    return Response(published.content, media_type="application/octet-stream", headers=headers)


@router.get("/healthz", tags=["operators"], summary="Alive", response_class=PlainTextResponse)
async def get_health() -> str:
    """Answers while the process does."""
    return "ok\n"


@router.get("/readyz", tags=["operators"], summary="Ready: keys and database", response_model=None)
async def get_ready(services: Injected) -> Response:
    """Ready means that certificates can be signed and recorded. JupyterHub's state is a metric and no part of it."""
    trouble = services.keys.problem or services.store.problem
    if trouble is not None:
        return problem(503, "not_ready", trouble)
    return JSONResponse({"ready": True})


def _is_known(request: Request, tag: str) -> bool:
    """RFC 9110 section 13.1.2: whether the client has it already. `If-Modified-Since` is left alone: the moments of
    several replicas do not tell which list is the newer one."""
    tags = request.headers.get("if-none-match", "")
    return any(one.strip().removeprefix("W/") in ("*", f'"{tag}"') for one in tags.split(","))
