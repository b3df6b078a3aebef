"""A new certificate for whoever holds the key of one that still counts, without a browser.

It opens no more than the old one: those of its very runs of servers that run still, and that JupyterHub still gives to
this user. And it ends at the latest a day after the browser login that the first of them rests on, so that a key that
was stolen with its certificate is worth a day and not for ever.
"""

from api import desk, issue, renewals
from api.desk import Issued
from api.device import Collected, renew_until
from api.proof import Holder
from api.records import BrowserLogin, CertificateRecord, instances_in
from api.renewals import RENEWED
from api.services import Services
from ca.claims import Claims, Running, TokenKind, TokenOwner, Via
from ca.errors import Reason, Refusal
from ca.names import Instance, parse_principal, quote
from ca.policy import CertificateRequest

_OFF = Refusal(Reason.NOT_PERMITTED, "Certificates are not renewed here. Log in again: hubssh login")
_NO_LOGIN = Refusal(
    Reason.NOT_PERMITTED,
    "This certificate was got with a token, not with a browser login, so it cannot be renewed. Ask for a new one.",
)
_REVOKED = Refusal(Reason.REVOKED, "This certificate was revoked. Log in again: hubssh login")


async def renew(services: Services, holder: Holder, lifetime: int | None, peer: str | None) -> Collected | Refusal:
    """A certificate like the one that `holder` has. Raises `HubUnavailable` and `StoreUnavailable`."""
    if slowed := desk.slow_down(services, holder.user, RENEWED, peer):
        return slowed
    login = _login(services, holder)
    if isinstance(login, Refusal):
        return _refused(services, login, holder, peer)
    owner = TokenOwner(holder.user, TokenKind.BROWSER)
    claims = await issue.claims_for(services, owner, until=login.ends_at, made=login.made)
    if isinstance(claims, Refusal):
        return _refused(services, claims, holder, peer)
    kept = still_running(_living(services, holder), claims)
    if isinstance(kept, Refusal):
        return _refused(services, kept, holder, peer)
    request = CertificateRequest(holder.key, tuple(one.server for one in kept), lifetime, peer)

    async def keep(record: CertificateRecord) -> Refusal | None:
        return await renewals.keep(services.store, holder.record, record, services.now_ms())

    signed = await issue.issue(services, request, claims, RENEWED, peer, login, keep)
    if isinstance(signed, Refusal):
        return signed
    instances = tuple(parse_principal(principal) for principal in signed.principals)
    return Collected(Issued(signed, holder.key, instances), holder.user, login.ends_at)


def still_running(named: tuple[Instance, ...], claims: Claims) -> tuple[Instance, ...] | Refusal:
    """Those of the runs in a certificate that its user may enter now; why there is none."""
    now = {one.server: one for one in claims.running if one.via is not Via.ADMIN}
    kept = tuple(one for one in named if one.server in now and now[one.server].instance == one)
    ready = tuple(one for one in kept if now[one.server].ready)
    if ready:
        return ready
    if not named:
        return _REVOKED
    return _why_not(named[0], now.get(named[0].server), claims.user)


def _why_not(one: Instance, now: Running | None, user: str) -> Refusal:
    server = one.server
    if now is None and server.owner != user:
        return Refusal(Reason.SERVER_STOPPED, f"The server {server} has stopped, or is not shared with you any more.")
    if now is None or (now.instance == one and now.pending == "stop"):
        start = f"hubssh start {_as_word(server.name)}".rstrip()
        return Refusal(Reason.SERVER_STOPPED, f"Your server {server} is stopped: {start}")
    if now.instance != one:
        return Refusal(Reason.SERVER_RESTARTED, f"The server {server} was restarted: hubssh login")
    return Refusal(Reason.SERVER_NOT_RUNNING, f"The server {server} is not ready. Try again in a moment.")


def _as_word(name: str) -> str:
    """A server's name as every shell takes it, in our grammar: the sentence is pasted. zsh expands a first `=`."""
    word = quote(name)
    return f'"{word}"' if word.startswith("=") else word


def _login(services: Services, holder: Holder) -> BrowserLogin | Refusal:
    """The browser login that the certificate rests on, which a new one may rest on, too."""
    record, settings = holder.record, services.settings.certificates
    if not settings.renew_for:
        return _OFF
    if record.login_at is None or record.user_made is None:
        return _NO_LOGIN
    login = BrowserLogin(at=record.login_at, ends_at=record.login_at + settings.renew_for, made=record.user_made)
    if services.now() >= renew_until(services, login):
        hours = settings.renew_for // 3600
        return Refusal(Reason.EXPIRED, f"Your last login in the browser was {hours} hours ago: hubssh login")
    return login


def _living(services: Services, holder: Holder) -> tuple[Instance, ...]:
    """The runs that the certificate names and that nobody revoked since."""
    revocations = services.store.snapshot.revocations
    record = holder.record
    return revocations.living(record.serial, record.user, instances_in(record.principals))


def _refused(services: Services, refusal: Refusal, holder: Holder, peer: str | None) -> Refusal:
    issue.refused(services, refusal, holder.user, RENEWED, peer, holder.key.fingerprint)
    return refusal
