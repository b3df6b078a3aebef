"""What the api is told of this process: who is here, and which servers are used. And whom it wants to go.

Nothing waits for a report and none is needed: an api that is away hears everything later, since each report says all
that there is.

*Sessions* are told when somebody came or went, not more often than every two seconds, and every twenty seconds as a
sign of life. *Activity* is told every minute or so: the servers that were used since the last time (`bastion.usage`).
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from bastion.authority import AuthorityError, Pace
from bastion.inside import Inside
from bastion.registry import Line, Registry
from bastion.usage import Usage
from ca.errors import Reason, Refusal
from ca.sessions import public_name

APART = 2.0
"""Seconds between two reports of sessions, at least."""

EACH = 0.001
"""Seconds for each session between two reports: five thousand are 1.4 MB and some 30 ms of this process' time."""

ALIVE = 20.0
"""Seconds after which they are repeated."""

MAX_SESSIONS = 5000
"""Sessions in one report, and servers in one of activity; the api takes no more."""

_FAREWELL = 1.0
_AFTER_FAILURE = Pace(first=2 * APART, most=ALIVE)

_log = logging.getLogger(__name__)


class Teller(Protocol):
    """The part of the authority that this needs."""

    async def post(self, path: str, question: Mapping[str, object]) -> object:
        """See `bastion.authority.client.Authority.post`."""
        ...


class Reports:
    """Told by the registry of who comes and goes; `run()` tells the api, and `heed()` does what it wants."""

    def __init__(self, teller: Teller, wall: Callable[[], float]) -> None:
        self._teller = teller
        self._wall = wall
        self._process = secrets.token_hex(16)
        self._changed = asyncio.Event()
        self._present = False
        self._usage = Usage()
        self._ended: frozenset[str] = frozenset()

    # what the registry says

    def came(self) -> None:
        """Somebody is here now."""
        self._changed.set()

    def went(self, line: Line) -> None:
        """Somebody is not any more; what was moved since the last look counts."""
        self._usage.went(line, self._wall())
        self._changed.set()

    # what the api says

    def heed(self, ended: Mapping[str, str], registry: Registry[Inside]) -> None:
        """Cut the sessions that somebody ended since the last word. `ended`: by whom, by public name."""
        new = ended.keys() - self._ended
        self._ended = frozenset(ended)
        if new:
            told = registry.revise(lambda session: self._judge(session, {name: ended[name] for name in new}))
            if told:
                _log.info("%d sessions were ended by hand", told)

    def _judge(self, session: Inside, ended: Mapping[str, str]) -> Refusal | None:
        about = session.about
        by = ended.get(public_name(self._process, about.name))
        if by is None:
            return None
        if by == about.user:
            return Refusal(Reason.REVOKED, "You ended this session in the browser.")
        if about.instance is not None and by == about.instance.server.owner:
            return Refusal(Reason.REVOKED, f"The owner of {about.instance.server} ended this session.")
        return Refusal(Reason.REVOKED, "An administrator ended this session.")

    # what the api is told

    async def run(self, registry: Registry[Inside], activity_interval: float) -> None:
        """For ever, until cancelled. `activity_interval` is in seconds, 0 for never."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell_sessions(registry))
            if activity_interval > 0:
                tasks.create_task(self._tell_activity(registry, activity_interval))

    async def farewell(self) -> None:
        """Nobody is here any more. Said once and briefly: an api that does not hear it finds out by itself."""
        if self._present:
            with suppress(AuthorityError, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._teller.post("/internal/sessions", {"bastion": self._process, "sessions": []})

    async def _tell_sessions(self, registry: Registry[Inside]) -> None:
        failures = 0
        while True:
            self._changed.clear()
            sessions = listed(registry.sessions())
            if sessions or self._present:
                self._present = True
                report = {"bastion": self._process, "sessions": sessions}
                heard = await self._tell("/internal/sessions", report, failures)
                failures = 0 if heard else failures + 1
                self._present = bool(sessions) or not heard
            pause = _AFTER_FAILURE.pause(failures) if failures else max(APART, len(sessions) * EACH)
            await asyncio.sleep(pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(0 if failures else ALIVE - pause):
                    await self._changed.wait()

    async def _tell_activity(self, registry: Registry[Inside], interval: float) -> None:
        failures = 0
        while True:
            await asyncio.sleep(interval)
            for line in registry.sessions():
                self._usage.look(line, self._wall())
            used = dict(list(self._usage.used.items())[:MAX_SESSIONS])
            if not used:
                continue
            servers = [{"login": one.server.login, "instance": str(one.id), "at": at} for one, at in used.items()]
            heard = await self._tell("/internal/activity", {"servers": servers}, failures)
            failures = 0 if heard else failures + 1
            if heard:
                self._usage.told(used)

    async def _tell(self, path: str, report: Mapping[str, object], failures: int) -> bool:
        try:
            await self._teller.post(path, report)
        except AuthorityError as error:
            if not failures:
                _log.warning("%s was not heard: %s", path, error)
            return False
        if failures:
            _log.info("%s is heard again", path)
        return True


def listed(lines: Iterable[Line]) -> list[dict[str, object]]:
    """The sessions as the api takes them. A jump connection is left out while its tunnels speak for it."""
    lines = list(lines)
    tunnelled = {line.about.name.partition(".")[0] for line in lines if "." in line.about.name}
    return [_row(line) for line in lines if line.about.name not in tunnelled][:MAX_SESSIONS]


def _row(line: Line) -> dict[str, object]:
    about = line.about
    return {
        "id": about.name,
        "user": about.user,
        "identity": about.identity,
        "login": None if about.instance is None else about.instance.server.login,
        "instance": None if about.instance is None else str(about.instance.id),
        "serial": None if about.serial is None else str(about.serial),
        "mode": about.mode,
        "how": about.how,
        "peer": about.peer[:64],
        "since": about.since,
        "received": line.received,
        "sent": line.sent,
    }
