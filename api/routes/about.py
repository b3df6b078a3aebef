"""What a client has to know before anybody has logged in: addresses, names and what this site offers."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response as PlainResponse

from api.client_files import hubssh
from api.services import Injected

CACHED = "public, max-age=60"

router = APIRouter(tags=["trust"])


class BastionAddress(BaseModel):
    """Where ssh connects to."""

    hosts: list[str] = Field(examples=[["ssh.example.org"]], description="The first is the one to use.")
    port: int = Field(examples=[2222])
    jump_login: str = Field(examples=["jump"], description="The login name for `ssh -J`.")


class Features(BaseModel):
    """What this site offers."""

    device: bool = Field(description="`POST /device`.")
    start: bool = Field(description="People may start and stop their servers here.")
    interactive: bool = Field(description="ssh without a certificate is asked to log in with a browser.")


class About(BaseModel):
    """This service."""

    public_url: str = Field(examples=["https://ssh.example.org"])
    hub_url: str = Field(examples=["https://hub.example.org"])
    zone: str = Field(examples=["hub"], description="Servers are called `alice+gpu.hub`.")
    time: int = Field(description="Seconds since the epoch, as this service has them.")
    bastion: BastionAddress
    unix_user: str = Field(examples=["jovyan"], description="Whoever servers run as, for `ssh -J`.")
    features: Features


@router.get("/about", summary="Addresses, names and what is offered here")
async def get_about(services: Injected, response: Response) -> About:
    """For clients; nothing here is secret, and nothing depends on who asks."""
    response.headers["Cache-Control"] = CACHED
    settings = services.settings
    bastion = settings.bastion
    return About(
        public_url=settings.public_url,
        hub_url=settings.hub.url,
        zone=settings.zone,
        time=int(services.now()),
        bastion=BastionAddress(hosts=list(bastion.hosts), port=bastion.port, jump_login=bastion.jump_login),
        unix_user=settings.pods.unix_user,
        features=Features(
            device=settings.logins.device,
            start=settings.servers.start,
            interactive=settings.logins.holds_connections,
        ),
    )


@router.get(
    "/hubssh",
    summary="The command line client",
    response_class=PlainResponse,
    responses={200: {"content": {"text/x-python": {}}, "description": "A program for Python 3.9 or newer."}},
)
async def get_hubssh(request: Request) -> Response:
    """One file that needs nothing but Python: `curl -fsS …/hubssh -o hubssh && chmod +x hubssh`."""
    file = hubssh()
    if file is None:
        raise HTTPException(404)
    headers = {"Cache-Control": "public, max-age=300", "ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type="text/x-python; charset=utf-8", headers=headers)
