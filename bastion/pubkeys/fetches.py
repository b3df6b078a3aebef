"""Ask many pods at once without one of them holding up another.

One fetch for each pod at a time, a bounded number in all. Whoever waits for one pod's answer has that fetch
begin at once, in a lane of its own beside the queue, so that a queue full of hanging pods delays nobody.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bastion.directory.table import Pod
from bastion.pubkeys.pod import KeysUnavailable
from ca.keys import AuthorizedKey
from ca.names import Instance

Fetch = Callable[[Pod], Awaitable[tuple[AuthorizedKey, ...]]]
"""Raises `KeysUnavailable`, and bounds its own time."""

Identity = tuple[Instance, str]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a pod answered; `keys` None if it gave nothing usable. `asked_at`: when the fetch began."""

    pod: Pod
    asked_at: float
    keys: tuple[AuthorizedKey, ...] | None


@dataclass(slots=True, eq=False)
class _Job:
    pod: Pod
    settled: asyncio.Future[None]
    task: asyncio.Task[None] | None = None
    hurried: bool = False


class Fetches:
    """The fetches under way and those that wait for their turn. `done` is called with each result."""

    def __init__(
        self, fetch: Fetch, clock: Callable[[], float], done: Callable[[Fetched], None], *, at_once: int, urgent: int
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._done = done
        self._free = at_once
        self._free_urgent = urgent
        self._jobs: dict[Identity, _Job] = {}
        self._queue: OrderedDict[Identity, _Job] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    def want(self, pod: Pod, *, anew: bool = False) -> None:
        """See that the pod is asked. `anew`: an answer to a question that was asked before now will not do."""
        job = self._jobs.get(pod.identity)
        if job is None:
            job = _Job(pod, asyncio.get_running_loop().create_future())
            self._jobs[pod.identity] = job
            self._queue[pod.identity] = job
        elif anew and job.task is not None:
            self._stop(job)
            self._queue[pod.identity] = job
            self._queue.move_to_end(pod.identity, last=not job.hurried)
        job.pod = pod
        self._pump()

    def hurry(self, identity: Identity) -> None:
        """Somebody waits for this pod: its fetch begins now, or next if even the urgent lane is full."""
        job = self._queue.get(identity)
        if job is not None:
            job.hurried = True
            self._queue.move_to_end(identity, last=False)
            self._pump()

    def pending(self, identity: Identity) -> asyncio.Future[None] | None:
        """Done when the pod's answer has been taken in, or given up; None if nothing was asked."""
        job = self._jobs.get(identity)
        return None if job is None else job.settled

    def drop(self, identity: Identity) -> None:
        """The pod is gone: stop asking."""
        job = self._jobs.pop(identity, None)
        if job is None:
            return
        self._queue.pop(identity, None)
        self._stop(job)
        job.settled.set_result(None)

    async def aclose(self) -> None:
        """Stop everything."""
        for identity in list(self._jobs):
            self.drop(identity)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pump(self) -> None:
        while self._queue:
            identity, job = next(iter(self._queue.items()))  # those that hurry stand in front
            urgent = self._free <= 0
            if urgent and not (job.hurried and self._free_urgent > 0):
                return
            del self._queue[identity]
            self._start(job, urgent=urgent)

    def _start(self, job: _Job, *, urgent: bool) -> None:
        if urgent:
            self._free_urgent -= 1
        else:
            self._free -= 1
        task = asyncio.get_running_loop().create_task(self._run(job.pod), name=f"keys of {job.pod.instance.principal}")
        job.task = task
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, urgent=urgent))

    def _stop(self, job: _Job) -> None:
        if job.task is not None:
            job.task.cancel()
            job.task = None

    def _ended(self, task: asyncio.Task[None], *, urgent: bool) -> None:
        self._tasks.discard(task)
        if urgent:
            self._free_urgent += 1
        else:
            self._free += 1
        self._pump()

    async def _run(self, pod: Pod) -> None:
        """Root of one fetch's task: whatever goes wrong is this pod's failure and nobody else's."""
        asked_at = self._clock()
        keys: tuple[AuthorizedKey, ...] | None = None
        try:
            keys = await self._fetch(pod)
        except KeysUnavailable as error:
            _log.info("no keys from %s: %s", pod.instance.principal, error)
        except Exception:  # noqa: BLE001 - the root of a task
            _log.exception("no keys from %s", pod.instance.principal)
        job = self._jobs.get(pod.identity)
        if job is None or job.task is not asyncio.current_task():
            return  # dropped, or asked anew, while this answer was on its way
        del self._jobs[pod.identity]
        self._done(Fetched(pod, asked_at, keys))
        job.settled.set_result(None)
