"""What somebody who started a server reads while it starts: how far it is, in the spawner's words, and how it ended.

Two sources are heard at once. JupyterHub's own event stream has the words; a proxy before JupyterHub may hold it back
until the end, so the server's state is asked as well, about once a second, and that decides. A server is ready for us
only when its pod takes SSH connections; one that runs and does not say so in `SSH_SECONDS` runs without SSH.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from api import servers
from api.errors import HubUnavailable
from api.hubservers import News
from api.servers import Person, Seen, State
from api.services import Services
from ca.errors import Refusal
from ca.names import Instance, Server

SSH_SECONDS = 20.0
"""How long a ready server may take to show its SSH."""

YOUNG_SECONDS = 120.0
"""How long after its start a server without SSH is still believed to be on its way, by a page that watches it."""

LONGEST = 900.0
"""Seconds that one watcher is served; whoever still waits then asks again."""

_GLANCE, _WHY = 0.4, 2.0
"""Seconds that a single look waits for JupyterHub's latest words, and for why a start failed."""

_SETTLE = 0.05
_QUESTIONS = 20
"""How often JupyterHub is asked in a second at most, for all who watch: a class that begins must not slow its hub."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How a start stands. `percent` is None where the spawner does not say; `over` means that nothing more comes."""

    state: State
    percent: int | None
    message: str
    ssh: bool | None = None
    over: bool = False
    failed: bool = False


class _Ear:
    """Hears JupyterHub's stream in a task of its own and keeps the last that was said."""

    def __init__(self, services: Services, server: Server) -> None:
        self.last: News | None = None
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._hear(services, server))

    async def _hear(self, services: Services, server: Server) -> None:
        try:
            async with aclosing(services.hub_servers.listen(server.owner, server.name)) as stream:
                async for news in stream:
                    self.last = news
                    self._changed.set()
        finally:
            self._changed.set()

    async def wait(self, seconds: float) -> bool:
        """Until something was said, or for `seconds`. What was said before comes in one go: the last of it counts."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
                await asyncio.sleep(_SETTLE)
        except TimeoutError:
            pass
        heard = self._changed.is_set()
        self._changed.clear()
        return heard

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


async def watch(services: Services, who: Person, server: Server) -> AsyncGenerator[Progress, None]:
    """Each change until the start is over. JupyterHub's outages are waited out. Raises `StoreUnavailable`."""
    loop = asyncio.get_running_loop()
    began, ready_at = loop.time(), None
    told: Progress | None = None
    ear = _Ear(services, server)
    try:
        while loop.time() - began < LONGEST and not services.roster.closed:
            now = await _now(services, who, server)
            if isinstance(now, Seen) and now.state is State.RUNNING and ready_at is None:
                ready_at = loop.time()
            waited = 0.0 if ready_at is None else loop.time() - ready_at
            if isinstance(now, Seen) and now.state is State.STOPPED and not (ear.last and ear.last.over):
                await ear.wait(1.0)  # why it failed is said a moment later
            progress = judge(now, ear.last, waited)
            if progress != told:
                told = progress
                yield progress
            if progress.over:
                return
            await _pause(services, server, ear)
    finally:
        await ear.close()


async def glance(services: Services, who: Person, server: Server) -> Progress:
    """How a start stands at this moment. Raises `StoreUnavailable`."""
    now = await _now(services, who, server)
    if isinstance(now, Seen) and now.state in (State.RUNNING, State.STOPPING):
        return judge(now, None, SSH_SECONDS if now.ssh else 0.0)
    ear = _Ear(services, server)
    try:
        await ear.wait(_WHY if isinstance(now, Seen) and now.state is State.STOPPED else _GLANCE)
        return judge(now, ear.last, 0.0)
    finally:
        await ear.close()


def judge(now: Seen | Refusal | str, last: News | None, ready_for: float) -> Progress:
    """What to tell, from the server's state (or why it is not known), the last news, and how long it has been ready.

    The state decides; the news gives words to it.
    """
    percent, words = (last.percent, last.words) if last else (None, "")
    if isinstance(now, Refusal):
        return Progress(State.STOPPED, None, now.sentence, over=True, failed=True)
    if isinstance(now, str):
        return Progress(State.STARTING, percent, now)
    if now.state is State.RUNNING and now.ssh:
        return Progress(State.RUNNING, 100, f"{now.server} is ready.", ssh=True, over=True)
    if now.state is State.RUNNING and ready_for >= SSH_SECONDS:
        return Progress(State.RUNNING, 100, f"{now.server} runs, but without SSH.", ssh=False, over=True)
    if now.state is State.RUNNING:
        return Progress(State.STARTING, 95, "The server runs; waiting for its SSH.")
    if now.state is State.STARTING:
        # "Ready" is said only by the state: the hub's last word may come a moment before it.
        return Progress(State.STARTING, percent if not (last and last.over) else 95, words or "Starting the server.")
    if now.state is State.STOPPING:
        return Progress(State.STOPPING, None, f"{now.server} is stopping.")
    why = words if last and last.failed else f"{now.server} is not running."
    return Progress(State.STOPPED, None, why, over=True, failed=bool(last and last.failed))


def pause_between(watchers: int) -> float:
    """Seconds between two questions to JupyterHub about one start, with so many people watching theirs."""
    return max(1.0, watchers / _QUESTIONS)


async def _pause(services: Services, server: Server, ear: _Ear) -> None:
    """Until it is time to ask again, or there is reason to: news of the start, or the pod is there."""
    loop = asyncio.get_running_loop()
    until, listed = loop.time() + pause_between(services.watchers.size), _listed(services, server)
    while loop.time() < until and not services.roster.closed:
        if await ear.wait(min(1.0, until - loop.time())) or _listed(services, server) != listed:
            return


def _listed(services: Services, server: Server) -> frozenset[Instance]:
    """The runs of a server whose pods take SSH connections, as the roster knows without asking."""
    return frozenset(one.instance for one in services.store.snapshot.enrolments if one.server == server)


async def _now(services: Services, who: Person, server: Server) -> Seen | Refusal | str:
    try:
        return await servers.look(services, who, server.login)
    except HubUnavailable as error:
        return str(error)
