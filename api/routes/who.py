"""Who asks: a JupyterHub token, a browser session, or a proof of possession. Routes take one of these dependencies.

Whose token counts for what is `ca.claims`' word, and what a proof is worth `api.proof`'s; here they only arrive. Every
refusal is audited here.
"""

from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader

from api import desk, issue
from api.errors import HubUnavailable, Refused, TokenRefused
from api.front import Front, FrontDoor
from api.proof import Holder, is_gone, is_proof, judge
from api.proof import Request as Signed
from api.sender import bearer, peer_of
from api.services import Injected, Services
from api.session import Session
from ca.audit import RequestRefused
from ca.claims import TokenKind, TokenOwner
from ca.errors import Reason, Refusal

FORM_TOKEN_HEADER = "X-Form-Token"  # noqa: S105 - the name of a header

_NO_TOKEN = Refusal(
    Reason.INVALID_TOKEN, "Send a JupyterHub token in the Authorization header, or log in with a browser first."
)
_PERSONS_ONLY = Refusal(
    Reason.WRONG_TOKEN,
    "A server's own token gets certificates for that server, and nothing else. Use a token made for this service.",
)

_authorization = APIKeyHeader(
    name="Authorization",
    scheme_name="JupyterHub token",
    description=(
        "`token <token>` or `Bearer <token>`, with a token that JupyterHub made. It must hold the scope "
        "`access:services!service=<name of this service>`, or be a server's own `JUPYTERHUB_API_TOKEN`, which is "
        "good for that server alone. Where it is said, a proof of possession (`SSHSIG …`, see the renewal of "
        "certificates) counts as well."
    ),
    auto_error=False,
)


async def token_owner(
    request: Request, services: Injected, _shown: Annotated[str | None, Depends(_authorization)]
) -> TokenOwner:
    """Whoever showed a JupyterHub token that counts here. Raises `TokenRefused` and `Refused`, both audited."""
    peer = _peer(request, services)
    try:
        owner = await desk.token_owner(services, bearer(request), peer)
    except TokenRefused:
        issue.refused(services, _NO_TOKEN, None, "token", peer)
        raise
    except Refused as error:
        issue.refused(services, error.refusal, None, "token", peer)
        raise
    if isinstance(owner, Refusal):
        issue.refused(services, owner, None, "token", peer)
        raise Refused(owner)
    return owner


async def token_or_session(
    request: Request,
    services: Injected,
    front: FrontDoor,
    authorization: Annotated[str | None, Depends(_authorization)],
) -> TokenOwner | Session:
    """A person, by a token made for this service or by a browser session. A header, if there is one, decides.

    Whose name was given to somebody else since the login gets nothing for the cookie.
    """
    return await _person(request, services, front, authorization)


async def person_taking(
    request: Request,
    services: Injected,
    front: FrontDoor,
    authorization: Annotated[str | None, Depends(_authorization)],
) -> TokenOwner | Session:
    """The same, for what takes something back: while JupyterHub is away the cookie counts, since that must not wait."""
    return await _person(request, services, front, authorization, without_hub=True)


async def asker(
    request: Request,
    services: Injected,
    front: FrontDoor,
    authorization: Annotated[str | None, Depends(_authorization)],
) -> TokenOwner | Session | Holder:
    """As `token_or_session`, or whoever proves to hold the key of a certificate (`api.proof`)."""
    if authorization is not None and is_proof(authorization):
        return await holder(request, services, await prover(request, services, authorization))
    return await token_or_session(request, services, front, authorization)


async def taker(
    request: Request,
    services: Injected,
    front: FrontDoor,
    authorization: Annotated[str | None, Depends(_authorization)],
) -> TokenOwner | Session | Holder:
    """As `person_taking`, or whoever proves to hold the key of a certificate."""
    if authorization is not None and is_proof(authorization):
        found = await prover(request, services, authorization)
        with suppress(HubUnavailable):
            return await holder(request, services, found)
        return found
    return await person_taking(request, services, front, authorization)


async def prover(
    request: Request, services: Injected, authorization: Annotated[str | None, Depends(_authorization)]
) -> Holder:
    """Whoever proves to hold the key of a certificate that counts. Refusals are audited.

    The certificate's user may be gone meanwhile: for whatever does not ask JupyterHub for that, take `holder`.
    """
    signed = Signed(request.method, _on_the_wire(request), await request.body())
    found = await judge(services, authorization or "", signed)
    if isinstance(found, Refusal):
        raise _proof_refused(request, services, found)
    return found


async def holder(request: Request, services: Injected, found: Annotated[Holder, Depends(prover)]) -> Holder:
    """The same, if JupyterHub has that very user still."""
    gone = await is_gone(services, found)
    if gone is not None:
        raise _proof_refused(request, services, gone)
    return found


async def _person(
    request: Request, services: Services, front: Front, authorization: str | None, *, without_hub: bool = False
) -> TokenOwner | Session:
    if authorization is None:
        session = front.sessions.read(request.cookies)
        if session is None:
            raise _refused(request, services, _NO_TOKEN)
        gone = await desk.is_gone(services, session, without_hub=without_hub)
        if gone is not None:
            raise _refused(request, services, gone)
        return session
    owner = await token_owner(request, services, authorization)
    if owner.kind is not TokenKind.ACCESS:
        raise _refused(request, services, _PERSONS_ONLY)
    return owner


def _proof_refused(request: Request, services: Services, refusal: Refusal) -> Refused:
    services.audit(RequestRefused(route="proof", reason=refusal.reason, peer=_peer(request, services)))
    return Refused(refusal)


def _refused(request: Request, services: Services, refusal: Refusal) -> Refused:
    route = request.scope["route"].path if "route" in request.scope else request.url.path
    services.audit(RequestRefused(route=route, reason=refusal.reason, peer=_peer(request, services)))
    return Refused(refusal)


def _on_the_wire(request: Request) -> str:
    """Path and query as they were sent, before anything was decoded."""
    path: bytes = request.scope.get("raw_path") or request.url.path.encode("utf-8")
    query: bytes = request.scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")


def _peer(request: Request, services: Services) -> str | None:
    return peer_of(request, services.settings.listen.trusted_proxies)
