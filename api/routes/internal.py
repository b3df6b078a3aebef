"""For the bastion, on a port of its own behind a shared secret: what runs, who counts, and hop certificates."""

import hmac
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import PlainTextResponse, Response

from api.edge import JsonRoute
from api.enrol import host_certificate
from api.errors import Refused
from api.hop import HopWish, hop_certificate
from api.metrics import CONTENT_TYPE
from api.sender import peer_of, plain_address
from api.services import Injected, services_of
from ca.audit import RequestRefused
from ca.errors import MalformedKey, Reason, Refusal
from ca.keys import HOST_ALGORITHMS, parse_public_key

MAX_WAIT = 60.0

MAX_MARK = 1 << 60
"""Far beyond any number of writes, and so that one more still fits into the database."""


class GuardedRoute(JsonRoute):
    """A route that looks at nothing in a request before it has seen the shared secret."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind the secret."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            demand_secret(request)
            return await handle(request)

        return guarded


def demand_secret(request: Request) -> None:
    """Raise `Refused` for whoever does not know the secret. Compared in constant time, as bytes."""
    secret: bytes = request.app.state.secret
    kind, _, shown = request.headers.get("authorization", "").partition(" ")
    good = hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), secret)
    if kind.lower() != "bearer" or not good:
        event = RequestRefused(peer=peer_of(request, ()), route=request.url.path, reason=Reason.INVALID_TOKEN)
        services_of(request).audit(event)
        raise Refused(Refusal(Reason.INVALID_TOKEN, "This port is for the bastion: send the shared secret."))


router = APIRouter(prefix="/internal", tags=["internal"], route_class=GuardedRoute)
metrics_router = APIRouter(tags=["operators"])


class HopRequest(BaseModel):
    """What the bastion asks for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    login: str = Field(max_length=2048, description="Login name of the server.", examples=["alice+gpu"])
    instance: str = Field(max_length=20, description="The run of it.")
    public_key: str = Field(max_length=16384, description="The bastion's own key for this connection.")
    certificate: str | None = Field(None, max_length=131072, description="The user's certificate line.")
    raw_key: str | None = Field(None, max_length=64, description="Fingerprint of a key from `authorized_keys`.")
    peer: str | None = Field(None, max_length=64, description="The user's address, for source-address checks.")


class HostRequest(BaseModel):
    """The bastion's own host key."""

    model_config = ConfigDict(extra="forbid", strict=True)

    public_key: str = Field(max_length=16384, description="The public line of the host key.")


class CertificateAnswer(BaseModel):
    """A certificate and its end, in seconds since the epoch."""

    certificate: str
    valid_before: int


@router.get("/state", summary="What the bastion has to know; a long poll")
async def get_state(
    services: Injected,
    version: Annotated[str, Query(max_length=128)] = "",
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 0,
    mark: Annotated[int, Query(ge=0, le=MAX_MARK, description="The highest mark that was ever answered.")] = 0,
) -> dict[str, Any]:
    """Answers at once when `version` is not the current one, else on the first change or after `wait` seconds.

    503 while the database is away and others may write to it: what they revoke is not heard of here, so the bastion
    must ask another replica, and what it knows must grow old.
    """
    if mark > services.store.snapshot.meta.high_water:
        await services.store.seen(mark, services.now_ms())
        await services.roster.publish()
    state = await services.roster.wait(version, wait)
    return {
        "version": state.version,
        "heard_seconds_ago": services.roster.heard_seconds_ago,
        "mark": services.store.snapshot.meta.high_water,
        **state.body,
    }


@router.post("/hop-certificates", summary="A certificate for one pod and one user")
async def post_hop(services: Injected, body: HopRequest) -> CertificateAnswer:
    """Exactly one of `certificate` and `raw_key`. The user's certificate is examined here again."""
    signed = await hop_certificate(
        services,
        HopWish(
            login=body.login,
            instance=body.instance,
            public_key=body.public_key,
            certificate=body.certificate,
            raw_key=body.raw_key,
            peer=plain_address(body.peer or ""),
        ),
    )
    if isinstance(signed, Refusal):
        raise Refused(signed)
    return CertificateAnswer(certificate=signed.line, valid_before=signed.valid_before)


@router.post("/host-certificates", summary="A host certificate for the bastion")
async def post_host(services: Injected, body: HostRequest) -> CertificateAnswer:
    """Its names come from the settings, and from nowhere else."""
    try:
        key = parse_public_key(body.public_key, algorithms=HOST_ALGORITHMS)
    except MalformedKey as error:
        raise Refused(Refusal(Reason.BAD_KEY, str(error))) from None
    signed = await host_certificate(services, key, "bastion", services.settings.bastion.hosts)
    return CertificateAnswer(certificate=signed.line, valid_before=signed.valid_before)


@metrics_router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def get_metrics(services: Injected) -> Response:
    """No secret: the port is not for strangers, and nothing here names anybody."""
    return Response(services.metrics.text(), media_type=CONTENT_TYPE)


@metrics_router.get("/healthz", summary="Alive", response_class=PlainTextResponse)
async def get_health() -> str:
    """Answers while the process does."""
    return "ok\n"
