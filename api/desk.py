"""The counter at which people get, see and revoke their certificates: the same for the page and for scripts.

It puts the pieces in their order and decides nothing itself. A token or a session says who somebody is; it is
never the source of what runs. That is asked from JupyterHub with the service's own token, for each page view and
each certificate, so that a token with few scopes earns exactly as much as one with many, and a user who is gone
earns nothing.

Everything here raises `HubUnavailable` and `StoreUnavailable` when those are away.
"""

import re
from dataclasses import dataclass, replace

from api import issue, renewals
from api.errors import HubUnavailable, TokenRefused
from api.hub import Model
from api.pace import Kind
from api.records import BrowserLogin, instances_in
from api.services import Services
from api.session import Session
from api.store import CertificateRecord
from ca.audit import RequestRefused
from ca.claims import Claims, TokenKind, TokenOwner, judge_token
from ca.errors import MalformedClaims, MalformedKey, Reason, Refusal
from ca.keys import PublicKey, parse_public_key
from ca.names import Instance, Server, login_candidates, parse_principal
from ca.policy import CertificateRequest
from ca.signer import Signed

_SERIAL = re.compile(r"[1-9][0-9]{0,18}")
_GONE = Refusal(Reason.NOT_A_USER, "JupyterHub does not know you any more. Log in there again.")
_NOT_THERE = Refusal(
    Reason.NOT_YOURS, "You have no certificate with this serial number. The list of yours shows their numbers."
)
_NOT_THIS_KEY = Refusal(
    Reason.NOT_YOURS,
    "With a key you revoke the certificates of that key. For your others, log in with a browser and use the page.",
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody sent to get a certificate, unverified. `server` as people type it; empty means all."""

    public_key: str
    server: str | None = None
    lifetime: int | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate for `key` that may be handed out, and the runs that it names."""

    signed: Signed
    key: PublicKey
    instances: tuple[Instance, ...]


async def token_owner(services: Services, token: str, peer: str | None) -> TokenOwner | Refusal:
    """Whose JupyterHub token this is, and for what it counts here. Raises `TokenRefused`, and `Refused` where too many
    are looked at."""
    try:
        return judge_token(await services.strangers.whose(token, peer), services.settings.service_name)
    except MalformedClaims as error:
        raise HubUnavailable(str(error)) from None


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who came through our own OAuth login. `made` is when JupyterHub made that user, in its own words."""

    user: str
    admin: bool
    made: str


async def login_owner(services: Services, access_token: str) -> Visitor | Refusal:
    """Who came through our own OAuth login, and whether JupyterHub calls them an admin.

    Only the token of such a login may say "browser"; it is read here and dropped.
    """
    try:
        model = await services.hub.whose_token(access_token)
        owner = judge_token(model, services.settings.service_name)
    except (TokenRefused, MalformedClaims):
        raise HubUnavailable("JupyterHub does not answer for the login that it just made.") from None
    if isinstance(owner, Refusal):
        return owner
    if owner.kind is not TokenKind.ACCESS:
        return Refusal(Reason.WRONG_TOKEN, "JupyterHub let you in, but not to this service. Ask the administrator.")
    known = await services.hub.user(owner.user)  # the token of the login may not see when its user was made
    return _GONE if known is None else Visitor(owner.user, model.get("admin") is True, issue.made_at(known))


async def session_claims(services: Services, session: Session) -> Claims | Refusal:
    """What runs that somebody at a browser may ask for. Whether an admin still is one is asked again."""
    model = await _same_user(services, session)
    if model is None:
        return _GONE
    return await issue.claims_for(
        services,
        TokenOwner(session.user, TokenKind.BROWSER),
        admin=session.admin and model.get("admin") is True,
        until=session.ends_at,
    )


async def is_gone(services: Services, session: Session, *, without_hub: bool = False) -> Refusal | None:
    """Why a browser counts for nobody any more: its user is gone, or the name was given to somebody else since.

    `without_hub`: for what takes something back. An absent JupyterHub says neither, and must not keep people from it.
    """
    try:
        return _GONE if await _same_user(services, session) is None else None
    except HubUnavailable:
        if without_hub:
            return None
        raise


async def still_admin(services: Services, session: Session) -> bool:
    """Whether JupyterHub called this browser's user an admin at login, and does so now."""
    if not session.admin:
        return False
    model = await _same_user(services, session)
    return model is not None and model.get("admin") is True


async def for_session(services: Services, session: Session, wish: Wish, peer: str | None) -> Issued | Refusal:
    """A certificate for somebody at a browser. It ends when the session would, at the latest."""
    if slowed := slow_down(services, session.user, "page", peer):
        return slowed
    key = read_key(wish.public_key)
    claims = key if isinstance(key, Refusal) else await session_claims(services, session)
    login = BrowserLogin(at=session.at, ends_at=session.ends_at, made=session.made)
    return await _get(services, session.user, "page", key, claims, wish, peer, login)


async def for_token(services: Services, owner: TokenOwner, wish: Wish, peer: str | None) -> Issued | Refusal:
    """A certificate for whoever showed a JupyterHub token that counts here."""
    if slowed := slow_down(services, owner.user, owner.kind.value, peer):
        return slowed
    key = read_key(wish.public_key)
    claims = key if isinstance(key, Refusal) else await issue.claims_for(services, owner)
    return await _get(services, owner.user, owner.kind.value, key, claims, wish, peer)


def slow_down(services: Services, user: str, how: str, peer: str | None) -> Refusal | None:
    """Count one wish for a certificate, before JupyterHub is asked for it. A refusal for who asks too often."""
    too_fast = services.pace.take(Kind.CERTIFICATES, user)
    if too_fast is None:
        return None
    if too_fast.first:
        issue.refused(services, too_fast.refusal, user, how, peer)
    return too_fast.refusal


async def own_certificates(services: Services, user: str) -> tuple[CertificateRecord, ...]:
    """The user's certificates that still count, the newest first, each with what it opens still."""
    records = await services.store.certificates_of(user, services.now())
    revoked = services.store.snapshot.revocations
    counting = (one for one in records if not revoked.refuses(one.serial, one.user, instances_of(one)))
    return tuple(
        replace(one, principals=tuple(it.principal for it in revoked.living(one.serial, one.user, instances_of(one))))
        for one in counting
    )


async def revoke(
    services: Services,
    serial: str,
    by: str,
    *,
    peer: str | None,
    route: str,
    why: str | None = None,
    of_key: str | None = None,
    admin: Session | None = None,
) -> Refusal | None:
    """This certificate counts no more, and sessions opened with it are cut. Doing it twice changes nothing.

    Those that were renewed from it go with it: somebody who stole the key may have been the one who renewed it.
    `route` and `why` are for the audit log. `of_key`: who asks has proven to hold the key of that fingerprint, and
    nothing more, so other keys' certificates are not theirs to take away. `admin`: the browser of somebody who may be
    an admin, who may revoke what belongs to others. JupyterHub is asked for nothing else.
    """
    record = await services.store.certificate(int(serial)) if _SERIAL.fullmatch(serial) else None
    if record is None or record.kind != "user":
        return _not_revoked(services, _NOT_THERE, route, peer)
    if record.user != by and not (admin is not None and await still_admin(services, admin)):
        return _not_revoked(services, _NOT_THERE, route, peer)
    if of_key is not None and record.fingerprint != of_key:
        return _not_revoked(services, _NOT_THIS_KEY, route, peer)
    why = why or ("by its owner" if record.user == by else "by an administrator")
    if record.serial not in services.store.snapshot.revocations.serials:
        await issue.revoke_serial(services, record.serial, by, why, peer)
    # Asked when it is revoked, since until then it may be renewed.
    for one in await renewals.renewed_from(services.store, record, services.now_ms()):
        if one.serial in services.store.snapshot.revocations.serials:
            continue
        await issue.revoke_serial(services, one.serial, by, f"{why}, with the one it was renewed from", peer)
    return None


def chosen_servers(typed: str | None, claims: Claims) -> tuple[Server, ...] | Refusal | None:
    """The one server that somebody typed, None for all of them. Which spelling is meant is known by what runs."""
    if not typed:
        return None
    candidates = login_candidates(typed)
    running = {one.server for one in claims.running}
    matching = tuple(server for server in candidates if server in running)
    if len(matching) > 1:
        exact = " or ".join(server.login for server in matching)
        return Refusal(Reason.AMBIGUOUS_SERVER, f"That can mean more than one of your servers: write {exact}.")
    if not candidates:
        return Refusal(Reason.BAD_NAME, "That is not the name of a server. Write it like alice or alice+gpu.")
    return matching or candidates[:1]


def read_key(text: str) -> PublicKey | Refusal:
    """The one public key that somebody sent."""
    try:
        return parse_public_key(text)
    except MalformedKey as error:
        return Refusal(Reason.BAD_KEY, str(error))


def instances_of(record: CertificateRecord) -> tuple[Instance, ...]:
    """The runs that a recorded certificate names."""
    return instances_in(record.principals)


async def _same_user(services: Services, session: Session) -> Model | None:
    """JupyterHub's model of the user that logged in. None when that user is gone, and also when the name was given
    to somebody else since, who must not inherit a browser."""
    model = await services.hub.user(session.user)
    return model if model is not None and issue.made_at(model) == session.made else None


async def _get(
    services: Services,
    user: str,
    how: str,
    key: PublicKey | Refusal,
    claims: Claims | Refusal,
    wish: Wish,
    peer: str | None,
    login: BrowserLogin | None = None,
) -> Issued | Refusal:
    if isinstance(key, Refusal):
        return _refused(services, key, user, how, peer)
    if isinstance(claims, Refusal):
        return _refused(services, claims, user, how, peer, key)
    servers = chosen_servers(wish.server, claims)
    if isinstance(servers, Refusal):
        return _refused(services, servers, user, how, peer, key)
    request = CertificateRequest(key=key, servers=servers, lifetime=wish.lifetime, peer=peer)
    signed = await issue.issue(services, request, claims, how, peer, login)
    if isinstance(signed, Refusal):
        return signed
    return Issued(signed, key, tuple(parse_principal(principal) for principal in signed.principals))


def _not_revoked(services: Services, refusal: Refusal, route: str, peer: str | None) -> Refusal:
    services.audit(RequestRefused(route=route, reason=refusal.reason, peer=peer))
    return refusal


def _refused(
    services: Services, refusal: Refusal, user: str, how: str, peer: str | None, key: PublicKey | None = None
) -> Refusal:
    issue.refused(services, refusal, user, how, peer, key.fingerprint if key else None)
    return refusal
