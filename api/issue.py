"""From claims and a key to a certificate: the same few lines for page, token, device and renewal.

    decide ─> record ─> sign ─> audit ─> hand out

The record is committed before the certificate leaves, and every refusal leaves one audit line.
"""

from collections.abc import Awaitable, Callable

from api.errors import HubUnavailable
from api.hub import Model
from api.records import AS_ADMIN, BrowserLogin
from api.roster import running_in
from api.services import Services
from api.store import CertificateRecord
from ca.audit import CertificateIssued, CertificateRefused, Revoked
from ca.claims import Claims, Running, TokenKind, TokenOwner, build_claims, shared_servers
from ca.errors import MalformedClaims, Reason, Refusal
from ca.names import Server
from ca.policy import CertificateRequest, Grant, decide
from ca.revocation import SERIAL_RANDOM_BITS
from ca.signer import Signed

Keep = Callable[[CertificateRecord], Awaitable[Refusal | None]]
"""Commits a record, or says why it must not be."""

_GONE = Refusal(Reason.NOT_A_USER, "JupyterHub does not know you any more. Log in there again.")


async def claims_for(
    services: Services,
    owner: TokenOwner,
    *,
    admin: bool = False,
    until: float | None = None,
    made: str | None = None,
) -> Claims | Refusal:
    """Everything that JupyterHub says of `owner` at this moment, asked with our own token.

    `admin` is JupyterHub's word at a browser login, and counts for nothing else. `until` is when the login ends, and
    `made` when JupyterHub had made the user that logged in: somebody who was given the name since gets nothing.
    Raises `HubUnavailable`.
    """
    model = await services.hub.user(owner.user)
    if model is None or made not in (None, made_at(model)):
        return _GONE
    try:
        return build_claims(
            owner,
            model,
            shared=await _shared(services, owner),
            admin=admin,
            administered=await _administered(services, owner, admin),
            until=until,
        )
    except MalformedClaims as error:
        raise HubUnavailable(str(error)) from None


async def issue(
    services: Services,
    request: CertificateRequest,
    claims: Claims,
    how: str,
    peer: str | None,
    login: BrowserLogin | None = None,
    keep: Keep | None = None,
) -> Signed | Refusal:
    """Decide, record, sign, audit. `how` is the way the request came ("page", "token", …), `peer` its address.

    `login` is the browser login that it rests on, where there is one; such a certificate can be renewed. `keep`
    commits the record where that has a condition, which must still hold at that moment.

    Raises `StoreUnavailable`: then nothing was issued.
    """
    random_bits = services.random_bits(SERIAL_RANDOM_BITS)
    grant = decide(request, claims, services.rules, services.now(), random_bits)
    if isinstance(grant, Refusal):
        refused(services, grant, claims.user, how, peer, request.key.fingerprint)
        return grant
    record = _record_of(grant, how, peer, services.now_ms(), login)
    if keep is None:
        await services.store.record(record)
    elif (refusal := await keep(record)) is not None:
        refused(services, refusal, claims.user, how, peer, request.key.fingerprint)
        return refusal
    signed = services.signer.sign_user(grant)
    services.audit(
        CertificateIssued(
            peer=peer,
            user=grant.user,
            serial=str(grant.serial),
            fingerprint=grant.key.fingerprint,
            principals=signed.principals,
            extensions=signed.extensions,
            valid_before=grant.valid_before,
            how=how,
            as_admin=grant.as_admin,
        )
    )
    return signed


def refused(
    services: Services, refusal: Refusal, user: str | None, how: str, peer: str | None, fingerprint: str | None = None
) -> None:
    """The audit line of a request that got no certificate. For whoever refuses before `issue` is reached."""
    services.audit(CertificateRefused(peer=peer, user=user, reason=refusal.reason, how=how, fingerprint=fingerprint))


def made_at(model: Model) -> str:
    """When JupyterHub made this user, as it writes it; "" where this service may not read that (`read:users`)."""
    made = model.get("created")
    return made if isinstance(made, str) else ""


async def revoke_serial(services: Services, serial: int, by: str, why: str, peer: str | None = None) -> None:
    """One certificate stops counting; the bastions hear it at once. Raises `StoreUnavailable`."""
    await services.store.revoke_serial(serial, by, why, services.now_ms())
    await services.roster.publish()
    services.audit(Revoked(peer=peer, by=by, reason=why, serial=str(serial)))


async def revoke_user(services: Services, user: str, by: str, why: str, peer: str | None = None) -> None:
    """Everything that `user` was given until now stops counting. Raises `StoreUnavailable`."""
    await services.store.revoke_user(user, by, why, services.now_ms())
    await services.roster.publish()
    services.audit(Revoked(peer=peer, by=by, reason=why, user=user))


async def revoke_server(services: Services, server: Server, by: str, why: str, peer: str | None = None) -> None:
    """No certificate issued until now opens `server` any more. Raises `StoreUnavailable`."""
    await services.store.revoke_server(server, by, why, services.now_ms())
    await services.roster.publish()
    services.audit(Revoked(peer=peer, by=by, reason=why, server=str(server)))


async def revoke_share(services: Services, user: str, server: Server, by: str, why: str) -> None:
    """Nothing that `user` was given until now opens `server` any more. Raises `StoreUnavailable`."""
    await services.store.revoke_share(user, server, by, why, services.now_ms())
    await services.roster.publish()
    services.audit(Revoked(peer=None, by=by, reason=why, user=user, server=str(server)))


async def _shared(services: Services, owner: TokenOwner) -> tuple[Running, ...]:
    """Running servers that somebody shared with `owner` for SSH. A server's own token opens that server only."""
    if owner.kind is TokenKind.SERVER:
        return ()
    shared = shared_servers(await services.hub.shared_with(owner.user), services.settings.connect_scope)
    found: list[Running] = []
    for name in sorted({server.owner for server in shared}):
        model = await services.hub.user(name)
        found += [one for one in running_in([model] if model else []).values() if one.server in shared]
    return tuple(found)


async def _administered(services: Services, owner: TokenOwner, admin: bool) -> tuple[Running, ...]:
    if not (admin and services.rules.admin_ssh and owner.kind is TokenKind.BROWSER):
        return ()
    return tuple(running_in(await services.hub.active_servers()).values())


def _record_of(grant: Grant, how: str, peer: str | None, now_ms: int, login: BrowserLogin | None) -> CertificateRecord:
    return CertificateRecord(
        serial=grant.serial,
        kind="user",
        user=grant.user,
        fingerprint=grant.key.fingerprint,
        principals=tuple(one.principal for one in grant.instances),
        valid_after=grant.valid_after,
        valid_before=grant.valid_before,
        issued_at=now_ms,
        how=f"{how}{AS_ADMIN}" if grant.as_admin else how,
        address=peer,
        login_at=login.at if login else None,
        user_made=login.made if login else None,
    )
