"""The live sessions, and the one place where they are cut.

A session that slips in between a check and its registration would outlive its server. So admission is asked
once more in the very step that registers: `register` takes the check as a function and calls it without
waiting in between, and whatever stops afterwards finds the session in the list.

A session is whatever has to end when a pod does: the connection itself in direct mode; in jump mode the
connection (which has no pod) and each tunnel to a pod for itself.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from ca.errors import Reason, Refusal
from ca.names import Instance, Server

CLOSE_SECONDS = 5.0
"""How long one session may take to say its sentence and close before it is aborted."""

_CLOSING_AT_ONCE = 256

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a session when it begins. `since` is in seconds since the epoch.

    `user` is the JupyterHub user of a certificate, None for a raw key; `serial` likewise. `instance` is the
    run it is connected to; None for a jump connection, whose tunnels are sessions of their own. `how` is with what
    somebody came in. `name` is unique: a connection's stands in its audit lines, and a tunnel has it in front of a
    dot and a number.
    """

    identity: str
    user: str | None
    serial: int | None
    login: str
    instance: Instance | None
    mode: str
    peer: str
    since: float
    how: str = ""
    name: str = ""


class Session(Protocol):
    """What the registry needs of a session."""

    @property
    def about(self) -> About:
        """Who it is and where it goes; never changes."""
        ...

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes from and to the client so far."""
        ...

    def tell(self, sentence: str) -> None:
        """Show the sentence if there is somewhere to show it; the session goes on. Must not wait or raise."""
        ...

    async def close(self, sentence: str) -> None:
        """Say the sentence and close. Ends when the connection is closed."""
        ...

    def abort(self) -> None:
        """Drop the connection without a word. Must not wait or raise."""
        ...


S = TypeVar("S", bound=Session)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sessions may live at once."""

    total: int = 5000
    per_user: int = 100


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the list of sessions, for the operator."""

    id: int
    about: About
    received: int
    sent: int
    ending: bool


@dataclass(slots=True, eq=False)
class Registration(Generic[S]):
    """A session's place in the registry; leave it with `release`, or use it in a `with`."""

    id: int
    session: S
    _registry: "Registry[S]"
    ending: bool = False

    def release(self) -> None:
        """The session is over. Does nothing the second time."""
        self._registry._forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Registry(Generic[S]):
    """Every live session of this process. Not thread-safe: one event loop owns it."""

    def __init__(
        self,
        limits: Limits,
        *,
        close_seconds: float = CLOSE_SECONDS,
        hit: Callable[[str], None] = lambda _: None,
        came: Callable[[], None] = lambda: None,
        went: Callable[[Line], None] = lambda _: None,
    ) -> None:
        """`hit` is told the name of each limit that refuses somebody: `connections_per_user`, or `tunnels`, since the
        listener bounds connections and only tunnels fill the rest of the total. `came` is called after each session
        that is listed, `went` with the last line of each that no longer is; they must neither wait nor raise."""
        self._limits = limits
        self._hit = hit
        self._came = came
        self._went = went
        self._close_seconds = close_seconds
        self._live: dict[int, Registration[S]] = {}
        self._by_server: dict[Server, set[int]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._next_id = 1
        self._closing: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_CLOSING_AT_ONCE)
        self._empty = asyncio.Event()
        self._empty.set()
        self._draining: str | None = None

    def __len__(self) -> int:
        return len(self._live)

    def register(self, session: S, still_valid: Callable[[], Refusal | None]) -> Registration[S] | Refusal:
        """Check the limits, ask `still_valid` once more and list the session, in one step.

        `still_valid` returns the refusal if admission would no longer be given now. It must not wait.
        """
        if self._draining is not None:
            return Refusal(Reason.UNAVAILABLE, self._draining)
        about = session.about
        if len(self._live) >= self._limits.total:
            self._hit("tunnels")
            return Refusal(Reason.TOO_MANY, "The bastion has no room for more sessions. Try again later.")
        counted = _counted_for(about)
        if any(self._counts[one] >= self._limits.per_user for one in counted):
            self._hit("connections_per_user")
            return Refusal(Reason.TOO_MANY, "You have too many sessions open. Close one and try again.")
        if (refusal := still_valid()) is not None:
            return refusal
        registration = Registration(self._next_id, session, self)
        self._next_id += 1
        self._live[registration.id] = registration
        if about.instance is not None:
            self._by_server.setdefault(about.instance.server, set()).add(registration.id)
        self._counts.update(counted)
        self._empty.clear()
        self._came()
        return registration

    def sessions(self) -> tuple[Line, ...]:
        """What lives now, oldest first."""
        return tuple(_line(one) for one in self._live.values())

    def cut(self, which: Server | Instance, why: str) -> int:
        """End every session of a server, or of one run of it. Returns how many were told to end."""
        server = which if isinstance(which, Server) else which.server
        found = [self._live[one] for one in self._by_server.get(server, ())]
        if isinstance(which, Instance):
            found = [one for one in found if one.session.about.instance == which]
        return self._end((one, why) for one in found)

    def cut_serials(self, serials: frozenset[int], why: str) -> int:
        """End every session that came in with one of these certificates."""
        return self._end((one, why) for one in self._all() if one.session.about.serial in serials)

    def cut_user(self, user: str, why: str) -> int:
        """End every session of a certificate's user."""
        return self._end((one, why) for one in self._all() if one.session.about.user == user)

    def cut_session(self, number: int, why: str) -> int:
        """End one session by the number that `sessions` shows."""
        one = self._live.get(number)
        return self._end([(one, why)]) if one is not None else 0

    def revise(self, judge: Callable[[S], Refusal | None]) -> int:
        """Ask `judge` about every session and end those it refuses, each with its refusal's sentence."""
        judged = [(one, judge(one.session)) for one in self._all()]
        return self._end((one, refusal.sentence) for one, refusal in judged if refusal is not None)

    async def drain(self, sentence: str, seconds: float, farewell: str) -> int:
        """Shut down: take nobody new, tell everyone `sentence`, wait up to `seconds`, close the rest.

        Those that are still there read `farewell`. Returns how many had to be closed.
        """
        self._draining = sentence
        for one in self._all():
            one.session.tell(sentence)
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            pass
        ended = self._end((one, farewell) for one in self._all())
        await self.settled()
        return ended

    async def settled(self) -> None:
        """Wait until every cut so far is carried out."""
        while self._closing:
            await asyncio.wait(set(self._closing))

    def _all(self) -> list[Registration[S]]:
        return list(self._live.values())

    def _end(self, these: Iterable[tuple[Registration[S], str]]) -> int:
        told = 0
        for one, why in list(these):
            if one.ending:
                continue
            one.ending = True
            told += 1
            task = asyncio.get_running_loop().create_task(self._close(one, why), name=f"end session {one.id}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return told

    async def _close(self, one: Registration[S], why: str) -> None:
        """Root of the task that ends one session: whatever goes wrong in it, the connection goes."""
        try:
            async with self._slots, asyncio.timeout(self._close_seconds):
                await one.session.close(why)
        except TimeoutError:
            _log.info("session %d did not close in time and was aborted", one.id)
        except Exception:  # noqa: BLE001 - the root of a task
            _log.exception("session %d could not be closed and was aborted", one.id)
        finally:
            one.session.abort()
            one.release()

    def _forget(self, one: Registration[S]) -> None:
        if self._live.pop(one.id, None) is None:
            return
        about = one.session.about
        if about.instance is not None:
            of_server = self._by_server[about.instance.server]
            of_server.discard(one.id)
            if not of_server:
                del self._by_server[about.instance.server]
        for counted in _counted_for(about):
            self._counts[counted] -= 1
            if not self._counts[counted]:
                del self._counts[counted]
        if not self._live:
            self._empty.set()
        self._went(_line(one))


def _counted_for(about: About) -> tuple[tuple[str, str], ...]:
    """Whose limit a session counts for: its user's or its key's; and where a raw key opens a server, also that of all
    raw keys into the servers of that owner, who could list any number of them."""
    whose = ("identity", about.identity)
    if about.user is not None or about.instance is None:
        return (whose,)
    return (whose, ("raw keys into servers of", about.instance.server.owner))


def _line(one: Registration[S]) -> Line:
    return Line(one.id, one.session.about, *one.session.transferred, one.ending)
