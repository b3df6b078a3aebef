"""Logins by people who have shown no key: they are told an address, approve in a browser, and the connection goes on.

Each is a login of the api's device flow, for a key that is made here, and whose private half is thrown away at once:
nobody has to prove it, since the connection that waits *is* the holder. What comes back is a certificate like any
other, to be judged like any other.

However many wait, the api is asked one question at a time, at first each second: which of these are decided.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import asyncssh

from bastion.authority import AuthorityError, AuthorityRefused, AuthorityUnavailable, BegunLogin, Fetched
from ca.certificate import blob_of, decode
from ca.errors import Malformed, Reason, Refusal
from ca.keys import PublicKey, parse_key_blob
from ca.names import login_candidates

ASK_SECONDS = 1.0
"""Between two questions which logins are decided, and between two tries after an outage."""

_AT_ONCE = 8
"""Requests of people who wait that the api gets at once; those of people with certificates do not queue behind them."""

_IN_ONE_QUESTION = 500

_SLOWER, _LONGEST_PAUSE = 30.0, 5.0
"""Most people decide soon: the pause is a thirtieth of the time since the last login was begun, up to so many seconds.
Strangers who only wait then cost the api little, in its log as well."""

_REASONS = frozenset(Reason)

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Desk(Protocol):
    """The api's part: `bastion.authority.LoginDesk`."""

    async def begin(self, key: PublicKey, server: str | None, peer: str) -> BegunLogin:
        """A new login."""
        ...

    async def decided(self, ids: Sequence[str]) -> frozenset[str]:
        """Those that nobody can decide any more."""
        ...

    async def certificate(self, login_id: str) -> Fetched:
        """The certificate of an approved login, or how far it is."""
        ...

    async def give_up(self, login_id: str) -> None:
        """Nobody waits for it any more."""
        ...


@dataclass(frozen=True, slots=True)
class News:
    """How far an approved login is whose server starts. Somebody else's text."""

    text: str


@dataclass(slots=True, eq=False)
class Waiting:
    """A login that waits, for at most `seconds` from its beginning: whoever waits for it keeps the time."""

    begun: BegunLogin
    key: PublicKey = field(repr=False)
    seconds: float
    decided: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    told: str = ""
    """The last news of it."""


class BrowserLogins:
    """All such logins of this process. `run()` has to run for them to be decided."""

    def __init__(
        self,
        desk: Desk,
        *,
        enabled: bool,
        jump_names: frozenset[str],
        jumps: bool = False,
        seconds: float,
        ask_seconds: float = ASK_SECONDS,
    ) -> None:
        """`enabled`: the operator's word; `jumps`: for jump logins as well. `seconds`: how long a login waits at most;
        the api may say less."""
        self._desk = desk
        self._enabled = enabled
        self._jump_names = jump_names
        self._jumps = jumps
        self._seconds = seconds
        self._ask_seconds = ask_seconds
        self._waiting: dict[str, Waiting] = {}
        self._somebody = asyncio.Event()
        self._last_begun = 0.0
        self._counter = asyncio.Semaphore(_AT_ONCE)
        self._chores: set[asyncio.Task[Any]] = set()
        self.permitted = False
        """The api's word: false before the first, and where its device flow is off."""

    def __len__(self) -> int:
        """Logins that wait."""
        return len(self._waiting)

    @property
    def offered(self) -> bool:
        """Whether people may log in so."""
        return self._enabled and self.permitted

    def offered_to(self, login: str) -> bool:
        """Whether somebody may log in so by this name."""
        return self.offered and (self._jumps or login not in self._jump_names)

    async def begin(self, login: str, peer: str) -> Waiting | Refusal:
        """A login for somebody at `peer` who wants to be let in as `login`."""
        if not self.offered_to(login):
            return Refusal(Reason.NOT_PERMITTED, "Logging in with a browser is switched off here.")
        jumps = login in self._jump_names
        if not jumps and not login_candidates(login):
            return Refusal(Reason.BAD_NAME, "That is not the name of a server. Write it like alice or alice+gpu.")
        key = parse_key_blob(asyncssh.generate_private_key("ssh-ed25519").public_data)
        # Not cancelled with the connection: what the api has begun by then has to be given up.
        asking = self._on_its_own(self._ask_for_one(key, None if jumps else login, peer), "begin a browser login")
        try:
            begun = await asyncio.shield(asking)
        except AuthorityError as error:
            return _refusal(error)
        except asyncio.CancelledError:
            asking.add_done_callback(self._nobody_waits)
            raise
        waiting = Waiting(begun, key, min(self._seconds, begun.seconds))
        self._waiting[begun.id] = waiting
        self._last_begun = asyncio.get_running_loop().time()
        self._somebody.set()
        return waiting

    async def outcome(self, waiting: Waiting) -> bytes | News | Refusal:
        """Wait until somebody has decided: the certificate (wire format) for this login's key, or why there is none.

        `News` on the way to it, each once: then ask again.
        """
        try:
            while True:
                await waiting.decided.wait()
                fetched = await self._fetch(waiting)
                if isinstance(fetched, Refusal):
                    return fetched
                if fetched.certificate is not None:
                    return _certificate_for(waiting.key, fetched.certificate)
                waiting.decided.clear()
                if fetched.message not in ("", waiting.told):
                    waiting.told = fetched.message
                    return News(fetched.message)
        except AuthorityUnavailable as error:
            _log.warning("a browser login: %s", error.detail)
            return _refusal(error)

    def leave(self, waiting: Waiting, *, taken: bool) -> None:
        """Nobody waits here any more; a login that was not `taken` can then not be approved either."""
        if self._waiting.pop(waiting.begun.id, None) is None:
            return
        if not self._waiting:
            self._somebody.clear()
        if not taken:
            self._give_up(waiting.begun.id)

    async def settled(self) -> None:
        """Wait until the api was told of all that nobody waits for any more."""
        while self._chores:
            await asyncio.wait(set(self._chores))

    async def run(self) -> None:
        """For ever: ask which logins are decided, while somebody waits."""
        while True:
            await self._somebody.wait()
            quiet = asyncio.get_running_loop().time() - self._last_begun
            await asyncio.sleep(min(max(self._ask_seconds, quiet / _SLOWER), _LONGEST_PAUSE))
            ids = [one for one, waiting in self._waiting.items() if not waiting.decided.is_set()]
            for at in range(0, len(ids), _IN_ONE_QUESTION):
                await self._ask_about(ids[at : at + _IN_ONE_QUESTION])

    async def _ask_about(self, ids: Sequence[str]) -> None:
        try:
            decided = await self._desk.decided(ids)
        except AuthorityError as error:
            _log.info("which browser logins are decided is not known: %s", error)
            return
        for one in decided:
            if (waiting := self._waiting.get(one)) is not None:
                waiting.decided.set()

    async def _ask_for_one(self, key: PublicKey, server: str | None, peer: str) -> BegunLogin:
        async with self._counter:
            return await self._desk.begin(key, server, peer)

    async def _fetch(self, waiting: Waiting) -> Fetched | Refusal:
        """The certificate. An outage is waited out: the login stays approved for a while."""
        while True:
            try:
                async with self._counter:
                    return await self._desk.certificate(waiting.begun.id)
            except AuthorityRefused as error:
                return _refusal(error)
            except AuthorityUnavailable as error:
                _log.info("the certificate of a browser login: %s", error.detail)
                await asyncio.sleep(self._ask_seconds)

    def _nobody_waits(self, asking: asyncio.Task[BegunLogin]) -> None:
        """The connection went while its login was begun."""
        if not asking.cancelled() and asking.exception() is None:
            self._give_up(asking.result().id)

    def _give_up(self, login_id: str) -> None:
        self._on_its_own(self._tell(login_id), "give up a browser login")

    def _on_its_own(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """A task that no connection ends with it."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    async def _tell(self, login_id: str) -> None:
        try:
            async with self._counter:
                await self._desk.give_up(login_id)
        except AuthorityError as error:
            _log.info("a browser login could not be given up, and ends by itself: %s", error)


def _certificate_for(key: PublicKey, line: str) -> bytes:
    """The certificate of this line. Raises `AuthorityUnavailable` when it is none, or for another key."""
    try:
        blob = blob_of(line)
        certified = decode(blob).key_blob
    except Malformed:
        raise AuthorityUnavailable("the api's certificate cannot be read") from None
    if certified != key.blob:
        raise AuthorityUnavailable("the api's certificate is for another key")
    return blob


def _refusal(error: AuthorityError) -> Refusal:
    if isinstance(error, AuthorityRefused) and error.code in _REASONS:
        return Refusal(Reason(error.code), error.sentence)
    return Refusal(Reason.UNAVAILABLE, error.sentence)
