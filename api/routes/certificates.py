"""Certificates for scripts, CI jobs and notebooks: a JupyterHub token instead of a browser.

A browser session may use these routes too, with its form token in a header, so that another site's page cannot; and
so may whoever proves to hold the key of a certificate.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import PlainTextResponse

from api import desk
from api.desk import Issued, Wish
from api.device import Collected
from api.edge import JsonRoute, wants_text
from api.errors import Refused
from api.front import FrontDoor
from api.proof import Holder
from api.routes.who import FORM_TOKEN_HEADER, asker, taker, token_owner
from api.sender import peer_of
from api.services import Injected, Services
from api.session import Session
from api.store import CertificateRecord
from ca.audit import RequestRefused
from ca.claims import TokenOwner
from ca.errors import Refusal
from ca.names import Instance, Server

MAX_LIFETIME = (1 << 31) - 1
"""Seconds that may be asked for: what the database can remember of a login."""


class CertificateWanted(BaseModel):
    """What to put into the certificate."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI… alice@laptop", "server": "alice+gpu"},
            ]
        },
    )

    public_key: Annotated[
        str,
        Field(
            max_length=32768,
            description="One line, as in a `.pub` file: ed25519, ecdsa, a security key, or RSA from 3072 bits.",
        ),
    ]
    server: Annotated[
        str | None,
        Field(
            max_length=2048,
            description="One server, by its login name (`alice`, `alice+gpu`). Left out: every server that you may "
            "enter and that runs now.",
        ),
    ] = None
    lifetime: Annotated[
        int | None,
        Field(ge=1, le=MAX_LIFETIME, description="Seconds. The site's limit is not exceeded. Left out: that limit."),
    ] = None


class NamedServer(BaseModel):
    """A server that the certificate opens while it keeps running."""

    owner: Annotated[str, Field(examples=["alice"])]
    name: Annotated[str, Field(examples=["gpu"], description="Empty for the default server.")]
    login: Annotated[str, Field(examples=["alice+gpu"], description="What stands before `@` in `ssh alice+gpu@…`.")]
    host_name: Annotated[str, Field(examples=["alice+gpu.hub"], description="Its name behind `ssh -J`.")]


class Certificate(BaseModel):
    """A user certificate. Save `certificate` next to the key, as `<key>-cert.pub`."""

    certificate: Annotated[str, Field(examples=["ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQ…"])]
    serial: Annotated[str, Field(examples=["1916478223745024000"], description="Text: it has more than 53 bits.")]
    key_id: Annotated[str, Field(examples=["alice"], description="The JupyterHub user.")]
    principals: Annotated[list[str], Field(examples=[["alice/gpu:1763766746279903"]])]
    valid_after: Annotated[int, Field(examples=[1826900000], description="Seconds since the epoch.")]
    valid_before: Annotated[int, Field(examples=[1826943200], description="Seconds since the epoch.")]
    extensions: Annotated[list[str], Field(examples=[["permit-pty", "permit-port-forwarding"]])]
    servers: list[NamedServer]


class RenewableCertificate(Certificate):
    """A certificate that rests on a browser login. While its servers run it can be renewed with the key alone."""

    user: Annotated[str, Field(examples=["alice"], description="The JupyterHub user.")]
    renew_until: Annotated[
        int, Field(examples=[1826986400], description="Seconds since the epoch; from then on: log in again.")
    ]


class CertificateSummary(BaseModel):
    """A certificate that still counts. Its text is not kept."""

    serial: Annotated[str, Field(examples=["1916478223745024000"])]
    fingerprint: Annotated[str, Field(examples=["SHA256:…"], description="Of the key that was certified.")]
    principals: list[str]
    valid_after: int
    valid_before: int
    servers: list[NamedServer]


class CertificateList(BaseModel):
    """Your certificates that have neither expired nor been revoked, the newest first."""

    certificates: list[CertificateSummary]


router = APIRouter(tags=["certificates"], route_class=JsonRoute)


@router.post(
    "/certificates",
    status_code=201,
    summary="Get a certificate",
    response_model=Certificate,
    response_description="The certificate, recorded here and valid while the servers that it names run.",
    responses={201: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def create(
    wanted: CertificateWanted,
    request: Request,
    services: Injected,
    owner: Annotated[TokenOwner, Depends(token_owner)],
) -> Certificate | Response:
    """Signs your SSH public key for your running servers, and those that their owners shared with you for SSH.

    The certificate names the present run of each server: when a server stops, the certificate opens it no more,
    also after it was started again. With `Accept: text/plain` the answer is the certificate's line alone.
    """
    wish = Wish(public_key=wanted.public_key, server=wanted.server, lifetime=wanted.lifetime)
    issued = await desk.for_token(services, owner, wish, _peer(request, services))
    if isinstance(issued, Refusal):
        raise Refused(issued)
    if wants_text(request):
        return PlainTextResponse(f"{issued.signed.line}\n", 201)
    return Certificate(**fields_of(issued, services.settings.zone))


@router.get("/certificates", summary="List your certificates")
async def own(
    services: Injected, response: Response, who: Annotated[TokenOwner | Session | Holder, Depends(asker)]
) -> CertificateList:
    """Your certificates that still count, with the serial numbers by which they can be revoked."""
    response.headers["Cache-Control"] = "no-store"
    records = await desk.own_certificates(services, who.user)
    zone = services.settings.zone
    return CertificateList(certificates=[_summary(record, zone) for record in records])


@router.delete(
    "/certificates/{serial}",
    status_code=204,
    summary="Revoke a certificate",
    response_description="It counts no more, and sessions that were opened with it are cut.",
)
async def revoke(
    serial: Annotated[str, PathParameter(max_length=32, examples=["1916478223745024000"])],
    request: Request,
    services: Injected,
    front: FrontDoor,
    who: Annotated[TokenOwner | Session | Holder, Depends(taker)],
) -> Response:
    """One of your own; with a proof of possession, one of the key that proves it. Administrators may revoke anybody's,
    with a browser session and its form token in the header `X-Form-Token`. Revoking twice is no error."""
    if isinstance(who, Session):
        token = request.headers.get(FORM_TOKEN_HEADER, "")
        refusal = front.sessions.judge_form(who, token, request.headers)
        if refusal is not None:
            services.audit(RequestRefused(route="/certificates", reason=refusal.reason, peer=_peer(request, services)))
            raise Refused(refusal)
    of_key = who.key.fingerprint if isinstance(who, Holder) else None
    peer = _peer(request, services)
    admin = who if isinstance(who, Session) else None
    refusal = await desk.revoke(
        services, serial, who.user, peer=peer, route="/certificates", of_key=of_key, admin=admin
    )
    if refusal is not None:
        raise Refused(refusal)
    return Response(status_code=204)


def fields_of(issued: Issued, zone: str) -> dict[str, Any]:
    """The fields of `Certificate`."""
    signed = issued.signed
    return {
        "certificate": signed.line,
        "serial": str(signed.serial),
        "key_id": signed.key_id,
        "principals": list(signed.principals),
        "valid_after": signed.valid_after,
        "valid_before": signed.valid_before,
        "extensions": list(signed.extensions),
        "servers": _named(issued.instances, zone),
    }


def renewable(collected: Collected, zone: str) -> RenewableCertificate:
    """The answer to a client that may renew."""
    fields = fields_of(collected.issued, zone)
    return RenewableCertificate(**fields, user=collected.user, renew_until=collected.renew_until)


def _summary(record: CertificateRecord, zone: str) -> CertificateSummary:
    return CertificateSummary(
        serial=str(record.serial),
        fingerprint=record.fingerprint,
        principals=list(record.principals),
        valid_after=record.valid_after,
        valid_before=record.valid_before,
        servers=_named(desk.instances_of(record), zone),
    )


def _named(instances: tuple[Instance, ...], zone: str) -> list[NamedServer]:
    servers: list[Server] = [one.server for one in instances]
    return [
        NamedServer(owner=one.owner, name=one.name, login=one.login, host_name=one.host_name(zone)) for one in servers
    ]


def _peer(request: Request, services: Services) -> str | None:
    return peer_of(request, services.settings.listen.trusted_proxies)
