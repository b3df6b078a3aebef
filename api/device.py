"""Logging in at one place for another (RFC 8628): a client without a browser, and somebody at one who vouches for it.

    client   begin ──────────────> codes           bound to one public key; nothing is decided
    browser  describe, approve ──> approved        whoever has a session here, for a certificate of their own
    client   collect ────────────> certificate     decided, recorded and signed at this moment, once

What JupyterHub said when somebody clicked is not what counts: it is asked again when the certificate is made. The
certificate rests on the approver's browser login: it ends when that does, and never opens what only an administrator
may enter, since that is asked for by name on the page.

Anybody can begin a login and send its link to somebody else. What stands against that: the page says where the client
is, has the code typed whenever that is not where the browser is, and warns when the key was another user's.

Everything here raises `HubUnavailable` and `StoreUnavailable` when those are away; then nothing was decided.
"""

from dataclasses import dataclass, replace
from functools import partial

from api import desk, issue, logins, prospect, servers, starting
from api.desk import Issued
from api.guesses import Guesses
from api.logins import Begun, Bounds, Kind, Login, NewLogin, State, TooFast
from api.records import BrowserLogin
from api.servers import Person
from api.services import Services
from api.session import Session
from api.starting import Waiting
from ca.audit import DeviceLoginApproved, DeviceLoginBegun, DeviceLoginDenied, DeviceLoginRefused
from ca.errors import Reason, Refusal
from ca.names import Instance, Server, parse_principal

_UNKNOWN = Refusal(Reason.INVALID_GRANT, "This login is not known here, or it was begun long ago. Log in again.")
_SPENT = Refusal(Reason.INVALID_GRANT, "This login was used already. Log in again.")
_EXPIRED = Refusal(Reason.EXPIRED_TOKEN, "Nobody approved this login in time. Log in again.")
_TOO_LATE = Refusal(Reason.EXPIRED_TOKEN, "The approval of this login was not used in time. Log in again.")
_DENIED = Refusal(Reason.ACCESS_DENIED, "This login was denied in the browser.")
_REVOKED = Refusal(Reason.ACCESS_DENIED, "What you were given was revoked after this login was approved. Log in again.")
_NO_SUCH_CODE = Refusal(
    Reason.WRONG_CODE, "No login waits with this code. Compare it with what your terminal shows; codes last 10 minutes."
)
_DECIDED = Refusal(Reason.WRONG_CODE, "This login has been decided already, or its time is up. Begin it anew.")
_NOT_TYPED = Refusal(Reason.WRONG_CODE, "That is not the code of this login. Type the code that your terminal shows.")


@dataclass(frozen=True, slots=True)
class Collected:
    """A certificate that may be handed out, whose it is, and until when (seconds) it can be renewed."""

    issued: Issued
    user: str
    renew_until: int


@dataclass(frozen=True, slots=True)
class Described:
    """A login as its approval page shows it.

    `opens` is what the certificate would open at this moment and `until` its end in seconds. Where there would be
    none, `starts` is the server that approving would start, or `problem` says why. `must_type`: the code has to be
    typed, since the two addresses differ or the key is `anothers`.
    """

    login: Login
    must_type: bool
    anothers: bool
    opens: tuple[Instance, ...] = ()
    until: int = 0
    starts: Server | None = None
    problem: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Browser:
    """Whoever sits at a browser, and its address. `typed` is the code as that person typed it, "" where not.

    `hidden`: there is a proxy in between that is not known here, so that the address is of no worth.
    """

    session: Session
    peer: str | None
    typed: str = ""
    hidden: bool = False

    def is_at(self, address: str | None) -> bool:
        """Whether this browser's address is known, and is that one."""
        return address is not None and address == self.peer and not self.hidden


async def begin(services: Services, new: NewLogin, peer: str | None) -> Begun | Refusal:
    """A login that waits. `peer` is who asks; for an ssh connection that is the bastion's word for its client."""
    limits = services.settings.logins
    bounds = Bounds(in_all=limits.waiting, of_network=limits.waiting_per_address)
    begun = await logins.begin(services.store, new, services.now_ms(), bounds)
    if isinstance(begun, Refusal):
        return refused(services, begun, None, peer, new)
    services.audit(
        DeviceLoginBegun(peer=peer, kind=new.kind, fingerprint=new.key.fingerprint, server=_server_shown(new))
    )
    return begun


async def describe(services: Services, guesses: Guesses, browser: Browser, code: str) -> Described | Refusal:
    """The login with this code, for whoever is asked to approve it. A wrong code counts as a guess."""
    login = await _find(services, guesses, browser, code)
    return login if isinstance(login, Refusal) else await _described(services, browser, login)


async def approve(services: Services, guesses: Guesses, browser: Browser, code: str) -> Described | Refusal:
    """Give the waiting client a certificate of this person. With a `problem` in the answer it was not given one."""
    login = await _find(services, guesses, browser, code)
    if isinstance(login, Refusal):
        return login
    described = await _described(services, browser, login)
    user = browser.session.user
    if described.must_type and logins.read_code(browser.typed) != login.user_code:
        guesses.wrong(browser.session)
        return replace(described, problem=refused(services, _NOT_TYPED, user, browser.peer, login.wanted))
    if described.problem is not None:
        refused(services, described.problem, user, browser.peer, login.wanted)
        return described
    if slowed := desk.slow_down(services, user, str(login.wanted.kind), browser.peer):
        return slowed
    rests_on = _rests_on(browser.session)
    if described.starts is not None:
        started = await servers.start(services, Person(user, rests_on.made), described.starts.login, browser.peer)
        if isinstance(started, Refusal):
            return replace(described, problem=started)
    if not await logins.approve(services.store, login, user, rests_on, services.now_ms()):
        return refused(services, _DECIDED, user, browser.peer, login.wanted)
    wanted = login.wanted
    services.audit(
        DeviceLoginApproved(
            peer=browser.peer,
            user=user,
            kind=wanted.kind,
            fingerprint=wanted.key.fingerprint,
            client=wanted.address,
        )
    )
    return described


async def deny(services: Services, guesses: Guesses, browser: Browser, code: str) -> Login | Refusal:
    """Send the waiting client away. Whoever has the code may: it is nothing that anybody could gain by."""
    login = await _find(services, guesses, browser, code)
    if isinstance(login, Refusal):
        return login
    user, wanted = browser.session.user, login.wanted
    if not await logins.deny(services.store, login, user, services.now_ms()):
        return refused(services, _DECIDED, user, browser.peer, wanted)
    services.audit(
        DeviceLoginDenied(
            peer=browser.peer,
            user=user,
            kind=wanted.kind,
            fingerprint=wanted.key.fingerprint,
            client=wanted.address,
        )
    )
    return login


async def collect(
    services: Services, device_code: str, peer: str | None, kind: Kind = Kind.DEVICE
) -> Collected | Waiting | TooFast | Refusal:
    """The certificate of an approved login. `peer` is the client's address; of an ssh connection that is known.

    A refusal here is the end of the login; `Unavailable` is not.
    """
    login = await logins.poll(services.store, device_code, kind, services.now_ms())
    if isinstance(login, TooFast):
        return login
    if login is None:
        return refused(services, _UNKNOWN, None, peer)
    if kind is Kind.INTERACTIVE:
        peer = login.wanted.address
    standing = _standing(services, login)
    if standing is _DENIED:  # whoever denied it has left the audit line
        return standing
    if isinstance(standing, Refusal):
        return refused(services, standing, login.user, peer, login.wanted)
    if standing is None or login.user is None or login.browser is None:
        return Waiting()
    return await _issue(services, login, login.user, login.browser, peer)


def refused(
    services: Services, refusal: Refusal, user: str | None, peer: str | None, wanted: NewLogin | None = None
) -> Refusal:
    """The audit line of a step that was not taken; gives the refusal back."""
    services.audit(
        DeviceLoginRefused(
            peer=peer,
            user=user,
            reason=refusal.reason,
            kind=wanted.kind if wanted else None,
            fingerprint=wanted.key.fingerprint if wanted else None,
        )
    )
    return refusal


def renew_until(services: Services, login: BrowserLogin) -> int:
    """Until when (seconds since the epoch) certificates that rest on `login` can be renewed."""
    return login.at + services.settings.certificates.renew_for


async def _find(services: Services, guesses: Guesses, browser: Browser, code: str) -> Login | Refusal:
    """The login with this code that can still be decided. Counted before it is looked up: guesses come in crowds."""
    session = browser.session
    too_many = guesses.take(session)
    if too_many is not None:
        return refused(services, too_many, session.user, browser.peer)
    login = await logins.by_code(services.store, code)
    if login is None:
        return refused(services, _NO_SUCH_CODE, session.user, browser.peer)
    guesses.give_back(session)
    if login.state is not State.PENDING or login.is_over(services.now_ms()):
        return refused(services, _DECIDED, session.user, browser.peer, login.wanted)
    return login


async def _described(services: Services, browser: Browser, login: Login) -> Described:
    wanted = login.wanted
    anothers = await logins.is_known_as_anothers(services.store, wanted.key.fingerprint, browser.session.user)
    must_type = anothers or not browser.is_at(wanted.address)
    user, rests_on = browser.session.user, _rests_on(browser.session)
    decided = await prospect.decided(services, login, user, rests_on, wanted.address)
    if isinstance(decided, Refusal):
        starts = await starting.would_start(services, Person(user, rests_on.made), wanted, decided)
        return Described(login, must_type, anothers, starts=starts, problem=None if starts else decided)
    return Described(login, must_type, anothers, opens=decided.instances, until=decided.valid_before)


def _standing(services: Services, login: Login) -> State | Refusal | None:
    """Whether a certificate may be made: APPROVED, not yet (None), or never."""
    over = login.is_over(services.now_ms())
    if login.state is State.DENIED:
        return _DENIED
    if login.state is State.TAKEN:
        return _SPENT
    if login.state is State.PENDING:
        return _EXPIRED if over else None
    if over:
        return _TOO_LATE
    return State.APPROVED


async def _issue(
    services: Services, login: Login, user: str, rests_on: BrowserLogin, peer: str | None
) -> Collected | Waiting | Refusal:
    wanted, how = login.wanted, str(login.wanted.kind)
    if wanted.start:
        alone = replace(login, wanted=replace(wanted, only=True))  # it waits for no other server
        decided = await prospect.decided(services, alone, user, rests_on, peer)
        waits = await starting.still_starts(services, Person(user, rests_on.made), login, decided)
        if isinstance(waits, Waiting):
            return waits
        if isinstance(waits, Refusal):
            await logins.spend(services.store, login)
            issue.refused(services, waits, user, how, peer, wanted.key.fingerprint)
            return waits
    asked = await prospect.asked(services, login, user, rests_on, peer)
    if isinstance(asked, Refusal):
        await logins.spend(services.store, login)
        issue.refused(services, asked, user, how, peer, wanted.key.fingerprint)
        return asked
    keep = partial(logins.keep, services.store, login)
    signed = await issue.issue(services, *asked, how, peer, rests_on, keep)
    if isinstance(signed, Refusal):
        await logins.spend(services.store, login)
        return signed
    instances = tuple(parse_principal(principal) for principal in signed.principals)
    return Collected(Issued(signed, wanted.key, instances), user, renew_until(services, rests_on))


def _rests_on(session: Session) -> BrowserLogin:
    return BrowserLogin(at=session.at, ends_at=session.ends_at, made=session.made)


def _server_shown(new: NewLogin) -> str | None:
    return new.server if new.server and new.server.isprintable() else None
