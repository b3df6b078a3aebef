"""Tells JupyterHub which servers are used over SSH, so that nothing stops them as idle.

Bastions say which runs moved data. That is believed only of a run that is enrolled and ready at this moment, so that a
bastion cannot keep anything else alive; what it says of time counts no later than now. JupyterHub is told in the
background: a hub that is slow or away delays nothing, and what it did not hear it hears with the next report.
"""

import asyncio
from collections.abc import Iterable, Mapping

import structlog

from api.errors import HubUnavailable
from api.hub import HubClient
from api.roster import Roster
from ca.names import Instance

log = structlog.get_logger(__name__)

OLDEST = 3600.0
"""Seconds after which a report is of no use to JupyterHub."""

APART = 1.0
"""Seconds between two words about the same run, however many bastions speak of it."""

_AT_ONCE = 4
"""Users that JupyterHub is told of at the same time."""


class Activity:
    """What JupyterHub is to be told, and the task that does (`run`). `on` False: nothing."""

    def __init__(self, hub: HubClient, roster: Roster, *, on: bool) -> None:
        self._hub = hub
        self._roster = roster
        self._on = on
        self._waiting: dict[Instance, float] = {}
        self._told: dict[Instance, float] = {}
        self._noted = asyncio.Event()
        self._trouble = ""

    def note(self, used: Iterable[tuple[str, int, float]], now: float) -> int:
        """Take a report: login name, instance, and when it was used. How many of them count."""
        if not self._on:
            return 0
        runs = {(one.server.login, one.instance.id): one.instance for one in self._roster.listed}
        self._told = {one: at for one, at in self._told.items() if (one.server.login, one.id) in runs}
        heard = 0
        for login, number, said in used:
            instance, at = runs.get((login, number)), min(said, now)
            if instance is None or at < now - OLDEST:
                continue
            heard += 1
            if at - self._told.get(instance, 0.0) >= APART:
                self._waiting[instance] = max(at, self._waiting.get(instance, 0.0))
        if self._waiting:
            self._noted.set()
        return heard

    async def run(self) -> None:
        """For ever, until cancelled."""
        while True:
            await self._noted.wait()
            self._noted.clear()
            try:
                await self.tell()
            except Exception:  # the root of a task: one bad report must not end the telling
                log.exception("activity_not_told")

    async def tell(self) -> None:
        """Tell what waits. What cannot be told is dropped: the next report says it again."""
        waiting, self._waiting = self._waiting, {}
        of_owner: dict[str, dict[Instance, float]] = {}
        for instance, at in waiting.items():
            of_owner.setdefault(instance.server.owner, {})[instance] = at
        places = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for owner, servers in of_owner.items():
                tasks.create_task(self._tell_of(owner, servers, places))

    async def _tell_of(self, owner: str, servers: Mapping[Instance, float], places: asyncio.Semaphore) -> None:
        async with places:
            try:
                await self._hub.tell_activity(owner, {one.server.name: at for one, at in servers.items()})
            except HubUnavailable as error:
                if self._trouble != str(error):  # once, not once a minute for each user
                    log.warning("activity_not_heard", why=str(error))
                self._trouble = str(error)
                return
        self._trouble = ""
        self._told.update(servers)
