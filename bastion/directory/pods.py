"""The directory in Kubernetes: every pod with SSH that runs, seen by listing once and watching from there on.

The watch leads, since it tells a stop in milliseconds, also one that JupyterHub learns of half a minute later. For
each namespace, for ever:

    list, page by page ──> compare with what was known, tell the differences
      │ ^
      │ └── after a pause ── anything but a proper end: 410, a broken or silent connection, what is no JSON
      v
    watch for `watch_seconds` ──> each event is told at once ──> its proper end: watch on from there

An end before its time, without an event, says nothing of the pods: some proxy's empty answer looks just like it. So it
is no news, and after a few in a row comes a list, which is right or fails.

So a stop that happened while nobody listened is told by the next list, and a connection that was cut without a word is
noticed when the watch should have ended. Times, after the API is there again: the longest pause, and one list. For a
silent cut: `watch_seconds`, the margin, and one list. Until then nothing is guessed: the last word stays and grows
old, and past `max_age` nobody new is let in.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from bastion.directory.lookup import LookUp
from bastion.directory.podapi import Event, HistoryGone, Kind, KubeError, PodApi
from bastion.directory.podspec import USUAL, Judged, PodRules, Unusable, read_pod, uid_of
from bastion.directory.table import Ambiguous, Change, Pod, Started
from ca.names import Instance

SLICE = 100
"""Pods that are taken in, one after the other, before others have their turn."""

EARLY_ENDS = 3
"""Watches in a row that may end early and without an event before a list is asked for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses after failures, in seconds: from `first` doubling to `most`, half of each by chance."""

    first: float = 0.2
    most: float = 10.0

    def pause(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        longest: float = min(self.most, self.first * 2.0 ** min(failures - 1, 16))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


@dataclass(slots=True)
class Mirror:
    """What is known of one namespace (None: of all), by the pods' uid. `heard_at` is in monotonic seconds."""

    namespace: str | None
    pods: dict[str, Pod] = field(default_factory=dict)
    unusable: dict[str, Unusable] = field(default_factory=dict)
    heard_at: float | None = None
    failures: int = 0

    @property
    def where(self) -> str:
        """For the log."""
        return "all namespaces" if self.namespace is None else f"namespace {self.namespace}"


class PodDirectory(LookUp):
    """A `Directory` fed by Kubernetes while `run` runs."""

    def __init__(
        self,
        api: PodApi,
        rules: PodRules,
        selector: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
        watch_seconds: int = 30,
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        """`rules.namespaces` are watched one by one; a pattern among them means one watch over all namespaces, of
        which the others are left out. `settled` is called when one was listed for the first time."""
        super().__init__()
        self._api = api
        self._rules = rules
        self._selector = selector
        self._clock = clock
        self._backoff = Backoff() if backoff is None else backoff
        self._watch_seconds = watch_seconds
        self._settled = settled
        self.lists = 0
        patterns = any("*" in one for one in rules.namespaces)
        self._mirrors = [Mirror(None)] if patterns else [Mirror(one) for one in dict.fromkeys(rules.namespaces)]

    async def run(self) -> None:
        """List and watch, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for mirror in self._mirrors:
                tasks.create_task(self._follow(mirror), name=f"pods of {mirror.where}")

    # --- what the rest of the bastion asks

    @property
    def heard_at(self) -> float | None:
        """When Kubernetes was last heard, in the namespace where that is longest ago; None: not in all of them yet."""
        heard = [mirror.heard_at for mirror in self._mirrors if mirror.heard_at is not None]
        return min(heard) if len(heard) == len(self._mirrors) else None

    async def lost(self, instance: Instance) -> bool:
        """Nothing: whether a pod is gone is Kubernetes' to say, and it says it sooner than a broken connection."""
        del instance
        return False

    @property
    def unusable(self) -> Counter[str]:
        """How many pods of ours are not offered, by reason, the usual ones aside: worth an alert."""
        broken = (one.why for mirror in self._mirrors for one in mirror.unusable.values())
        return Counter(str(why) for why in broken if why not in USUAL)

    # --- how it is kept true

    async def _follow(self, mirror: Mirror) -> None:
        while True:
            try:
                await self._watch(mirror, await self._list(mirror))
                continue
            except HistoryGone:
                _log.info("pods of %s: the history is gone, listing anew", mirror.where)
                mirror.failures += 1
                if mirror.failures == 1:
                    continue
            except KubeError as error:
                self._failed(mirror, str(error))
            await asyncio.sleep(self._backoff.pause(mirror.failures))

    async def _list(self, mirror: Mirror) -> str:
        """Take a whole list; the version to watch from. Raises `KubeError`: then nothing has changed."""
        asked_at = self._clock()
        judged: dict[str, Judged] = {}
        page = await self._api.page(mirror.namespace, self._selector)
        while True:
            judged |= {uid_of(raw): read_pod(raw, self._rules) for raw in page.pods}
            if not page.more:
                break
            page = await self._api.page(mirror.namespace, self._selector, page.more)
        self.lists += 1
        for uids in _slices([uid for uid in (*mirror.pods, *mirror.unusable) if uid not in judged]):
            self._tell(change for uid in uids for change in self._forget(mirror, uid))
            await asyncio.sleep(0)
        for uids in _slices(list(judged)):
            self._tell(change for uid in uids for change in self._take(mirror, uid, judged[uid]))
            await asyncio.sleep(0)
        first, mirror.heard_at = mirror.heard_at is None, asked_at
        if first:
            self._settled()
        if self.heard_at is not None:
            self.heard.set()
        return page.version

    async def _watch(self, mirror: Mirror, version: str) -> None:
        """Take every event, until a list is wanted. Raises `KubeError`."""
        early = 0
        while early < EARLY_ENDS:
            began, count = self._clock(), 0
            async with aclosing(
                self._api.events(mirror.namespace, self._selector, version, self._watch_seconds)
            ) as events:
                async for event in events:
                    version = event.version
                    self._heard(mirror)
                    self._tell(self._heed(mirror, event))
                    count += 1
                    if count % SLICE == 0:
                        await asyncio.sleep(0)
            if self._clock() - began >= self._watch_seconds / 2:
                self._heard(mirror)
            elif count == 0:
                early += 1
                self._failed(mirror, "the Kubernetes API ended a watch early, without a word")
                await asyncio.sleep(self._backoff.pause(mirror.failures))
                continue
            early = 0

    def _failed(self, mirror: Mirror, why: str) -> None:
        mirror.failures += 1
        _log.log(logging.WARNING if mirror.failures == 1 else logging.INFO, "%s: %s", mirror.where, why)

    def _heard(self, mirror: Mirror) -> None:
        mirror.heard_at = self._clock()
        if mirror.failures:
            _log.info("%s: heard again", mirror.where)
            mirror.failures = 0

    def _heed(self, mirror: Mirror, event: Event) -> list[Change]:
        if event.kind is Kind.BOOKMARK:
            return []
        uid = uid_of(event.pod)
        if event.kind is Kind.DELETED:  # also what does not match the selector any more
            return self._forget(mirror, uid)
        return self._take(mirror, uid, read_pod(event.pod, self._rules))

    def _take(self, mirror: Mirror, uid: str, judged: Judged) -> list[Change]:
        """What was said of one pod. One that was never ready is not offered; one that was, stays."""
        before = mirror.unusable.get(uid)
        old = mirror.pods.get(uid)
        changes: list[Change] = []
        if old is None or not isinstance(judged, Pod) or old.identity != judged.identity:
            changes += self._forget(mirror, uid)
        if isinstance(judged, Unusable):
            mirror.unusable[uid] = judged
            if judged != before and judged.why not in USUAL:
                _log.error("%s: the pod with uid %a is not offered: %s", mirror.where, uid, judged.why)
        elif isinstance(judged, Pod) and (judged.ready or old is not None):
            mirror.pods[uid] = judged
            changes += self._table.put(judged)
        return changes

    def _forget(self, mirror: Mirror, uid: str) -> list[Change]:
        mirror.unusable.pop(uid, None)
        known = mirror.pods.pop(uid, None)
        return [] if known is None else self._table.remove(known)

    def _tell(self, changes: Iterable[Change]) -> list[Change]:
        told = super()._tell(changes)
        for change in told:
            if isinstance(change, Started) and isinstance(found := self._table.find(change.pod.server), Ambiguous):
                names = ", ".join(name for pod in found.pods for name in pod.names)
                _log.error("server %s: none of its pods is used, since there are several: %s", change.pod.server, names)
        return told


def _slices(uids: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(uids), SLICE):
        yield uids[begin : begin + SLICE]
