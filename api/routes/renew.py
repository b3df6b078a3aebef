"""Renewal: a certificate for one that still counts, by its key alone."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from api.edge import JsonRoute
from api.errors import Refused
from api.proof import Holder
from api.renew import renew
from api.routes.certificates import MAX_LIFETIME, RenewableCertificate, renewable
from api.routes.who import prover
from api.sender import peer_of
from api.services import Injected
from ca.errors import Refusal

router = APIRouter(tags=["certificates"], route_class=JsonRoute)


class RenewalWanted(BaseModel):
    """What the new certificate may be less than the site allows."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{}]})

    lifetime: Annotated[
        int | None,
        Field(ge=1, le=MAX_LIFETIME, description="Seconds. Left out: as long as the site and the login allow."),
    ] = None


@router.post(
    "/certificates/renew",
    status_code=201,
    summary="Renew a certificate by its key",
    response_description="A certificate for those of the same runs that run still.",
)
async def post_renewal(
    wanted: RenewalWanted, request: Request, services: Injected, who: Annotated[Holder, Depends(prover)]
) -> RenewableCertificate:
    """With a proof of possession only. Renewals end a day (or what the site sets) after the last browser login, and
    with the run of the server: after a restart somebody has to log in again.

    The proof is the header `Authorization: SSHSIG serial="…", nonce="<32 hex digits>", time="<seconds since the
    epoch>", signature="<base64>"`, with the signature that `ssh-keygen -Y sign -n jupyterhub-bastion` makes (without
    its armour) of these lines, each with a newline at its end: `jupyterhub-bastion`, the method, the whole URL, the
    serial, the nonce, the time, and the SHA-256 of the body in hexadecimal. It counts once, for a minute.
    """
    peer = peer_of(request, services.settings.listen.trusted_proxies)
    collected = await renew(services, who, wanted.lifetime, peer)
    if isinstance(collected, Refusal):
        raise Refused(collected)
    return renewable(collected, services.settings.zone)
