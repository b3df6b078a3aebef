"""For pods: enrol, withdraw, and notice that enrolments were lost."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.edge import JsonRoute
from api.enrol import EnrolledPod, Wish, enrol, withdraw
from api.errors import Refused
from api.sender import bearer, peer_of
from api.services import Injected, Services
from ca.audit import RequestRefused
from ca.errors import Reason, Refusal

router = APIRouter(prefix="/enrolments", tags=["enrolments"], route_class=JsonRoute)

Port = Annotated[int, Field(ge=1, le=65535, strict=True)]


class EnrolmentRequest(BaseModel):
    """What the SSH side of a notebook server tells about itself."""

    model_config = ConfigDict(extra="forbid", strict=True)

    host_key: str = Field(
        max_length=16384, description="The SSH host key's public line.", examples=["ssh-ed25519 AAAAC3Nza…"]
    )
    ssh_port: Port = Field(description="Where its sshd listens.", examples=[40222])
    key_port: Port = Field(description="Where it answers `GET /publickey`.", examples=[8080])
    unix_user: str = Field(max_length=64, description="The user that its sshd lets in.", examples=["jovyan"])


class EnrolmentAnswer(BaseModel):
    """What its sshd needs."""

    owner: str = Field(description="JupyterHub name of the server's owner.")
    server: str = Field(description="Name of the server; empty for the default one.")
    login: str = Field(description="Login name for `ssh`: `alice` or `alice+gpu`.")
    host_name: str = Field(description="The name in the host certificate: `alice+gpu.hub`.")
    instance: str = Field(description="This run: JupyterHub's start time in microseconds since the epoch, as text.")
    principal: str = Field(description="The one principal that sshd has to accept.")
    host_certificate: str = Field(description="The certificate line for the host key.")
    valid_before: int = Field(description="When the host certificate ends, in seconds since the epoch.")
    user_ca: list[str] = Field(description="CA keys that sign people.")
    hop_ca: list[str] = Field(description="CA keys that sign the bastion.")
    epoch: str = Field(description="Changes when enrolments were lost; compare with `GET /enrolments/epoch`.")
    withdraw_token: str = Field(description="For `DELETE /enrolments` at the end. Keep it secret.")


class Epoch(BaseModel):
    """Whether enrolments still are what they were."""

    epoch: str = Field(description="Opaque. When it changes, enrol again.")
    krl: str = Field(description="Changes when `GET /krl` does; empty while there is none.")


@router.post("", summary="Enrol a notebook server for SSH")
async def post_enrolment(request: Request, services: Injected, body: EnrolmentRequest) -> EnrolmentAnswer:
    """Authorise with the server's own `JUPYTERHUB_API_TOKEN`; the token says which server enrols.

    The first host key of a run of a server stays: another one is answered with 409 `host_key_conflict`. The same
    key may enrol again, to get a new certificate or to tell new ports. 409 `server_not_running` means that
    JupyterHub does not list the server yet: try again.
    """
    wish = Wish(
        host_key=body.host_key,
        ssh_port=body.ssh_port,
        key_port=body.key_port,
        unix_user=body.unix_user,
        address=peer_of(request, services.settings.listen.trusted_proxies),
    )
    pod = await enrol(services, _token(request, services), wish)
    if isinstance(pod, Refusal):
        raise Refused(pod)
    return _answer(services, pod)


@router.delete("", status_code=204, summary="Withdraw an enrolment", response_class=Response)
async def delete_enrolment(request: Request, services: Injected) -> Response:
    """Authorise with the `withdraw_token` of the enrolment. Works without JupyterHub, and as often as you like."""
    peer = peer_of(request, services.settings.listen.trusted_proxies)
    if not await withdraw(services, _token(request, services), peer):
        raise _refused(request, services, Refusal(Reason.INVALID_TOKEN, "No enrolment has this withdraw token."))
    return Response(status_code=204)


@router.get("/epoch", summary="Notice that enrolments were lost")
async def get_epoch(services: Injected) -> Epoch:
    """Cheap, and open to anyone: poll it, and enrol again when it changes."""
    return Epoch(epoch=services.store.snapshot.meta.epoch, krl=await services.krl.tag())


def _token(request: Request, services: Services) -> str:
    try:
        return bearer(request)
    except Refused as error:
        raise _refused(request, services, error.refusal) from None


def _refused(request: Request, services: Services, refusal: Refusal) -> Refused:
    peer = peer_of(request, services.settings.listen.trusted_proxies)
    services.audit(RequestRefused(route="/enrolments", reason=refusal.reason, peer=peer))
    return Refused(refusal)


def _answer(services: Services, pod: EnrolledPod) -> EnrolmentAnswer:
    instance = pod.enrolment.instance
    server = instance.server
    public = services.signer.public
    return EnrolmentAnswer(
        owner=server.owner,
        server=server.name,
        login=server.login,
        host_name=server.host_name(services.settings.zone),
        instance=str(instance.id),
        principal=instance.principal,
        host_certificate=pod.host_certificate.line,
        valid_before=pod.host_certificate.valid_before,
        user_ca=[key.line for key in public.user],
        hop_ca=[key.line for key in public.hop],
        epoch=services.store.snapshot.meta.epoch,
        withdraw_token=pod.withdraw_token,
    )
