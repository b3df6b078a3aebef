"""Which pods list a raw key, without asking every pod on every connection.

The tiers of `bastion.pubkeys.tiers` say when pods are asked. What "then answer" means here:

* An age counts from the moment the questions went out, not from the last answer, and nothing is served that is 15 min
  old: a key that was removed inside a running pod is refused by then, and one that was added is accepted. A question
  that is under way when a rebuild begins is asked again.
* A rebuild forgets first and asks then, so while it runs the cache holds new answers only. A connection for a
  server waits until that server's pod has answered or failed, and has it asked at once, past the queue; the
  others' answers are not its business. A jump connection waits for the first pod that lists its key, and for
  the end of the refresh only if none does. Nobody waits longer than `CacheLimits.wait`.
* There is one refresh at a time. A connection that finds one under way joins it; only a rebuild that falls due
  takes the place of a fill, and those who waited for the fill then wait for the rebuild.
* "Known" is known of the login's own pod, or of any pod for a jump connection: a key that alice lists in one
  server says nothing about her other. A jump connection's answer may so be partial; ask again with the server
  when it opens a tunnel.
* An answer that is younger than a FILL's age when a REBUILD falls due, as of a pod that was asked ahead, is kept, and
  the question is owed: it is asked if the login that sets off the rebuild has a key that is not known, and else when
  the answer is 15 min old. By hand every pod is asked.
* A pod that failed is not in the cache. It is asked again by the next FILL or REBUILD, not by every connection.
* A pod is asked ahead when it becomes ready; that changes no age. One that is gone is forgotten at once, and no
  answer ever names a pod that the directory does not offer at this moment.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bastion.directory.table import Change, Moved, Pod, Started
from bastion.pubkeys.entries import Entry, Store
from bastion.pubkeys.entries import entry as entry_of
from bastion.pubkeys.fetches import Fetch, Fetched, Fetches, Identity
from bastion.pubkeys.refresh import Counts, Refresh, RunningPods
from bastion.pubkeys.tiers import Ages, Tier, tier
from ca.keys import PublicKey
from ca.names import Server

_log = logging.getLogger(__name__)

_HINTS = 8


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """`pods` and `bytes` bound the memory, `at_once` and `urgent` the connections to pods, `wait` (seconds) how
    long any answer may take."""

    pods: int = 20_000
    bytes: int = 64 << 20
    at_once: int = 64
    urgent: int = 64
    wait: float = 10.0


@dataclass(frozen=True, slots=True)
class Listing:
    """A running pod lists the key, with the options of the first line that holds it."""

    pod: Pod
    options: tuple[str, ...]


class KeyCache:
    """The tiered cache. Make it inside the event loop, tell it every change of the directory, `aclose` it."""

    def __init__(
        self,
        directory: RunningPods,
        fetch: Fetch,
        *,
        ages: Ages | None = None,
        limits: CacheLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._ages = Ages() if ages is None else ages
        self._limits = CacheLimits() if limits is None else limits
        self._clock = clock
        self._fetches = Fetches(fetch, clock, self._fetched, at_once=self._limits.at_once, urgent=self._limits.urgent)
        self._store = Store()
        self._failed: set[Identity] = set()
        self._owed: set[Identity] = set()
        self._full_at: float | None = None
        self._updated_at: float | None = None
        self._refresh: Refresh | None = None
        self._watched: dict[bytes, asyncio.Future[None]] = {}
        self.rebuilds = self.fills = 0

    async def aclose(self) -> None:
        """Stop asking. Whoever waits gets what is known."""
        self._end_refresh()
        await self._fetches.aclose()

    @property
    def counts(self) -> Counts:
        """What the cache holds now."""
        keys = sum(len(entry.options) for entry in self._store.entries.values())
        return Counts(len(self._store.entries), keys, len(self._failed))

    async def lookup(self, key: PublicKey, server: Server | None) -> tuple[Listing, ...]:
        """The running pods that list `key`: only the pod of `server`, or any pod for a jump login (None)."""
        self._begin(key.blob, server)
        try:
            async with asyncio.timeout(self._limits.wait):
                while unsettled := self._unsettled(key.blob, server):
                    await asyncio.wait(unsettled, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            _log.warning("a look-up of %s was answered before every pod was heard", key.fingerprint)
        return tuple(self._listings(key.blob, server))

    async def refresh(self) -> Counts:
        """Rebuild by hand, whatever the ages are. Every pod is asked after this call; returns what they said."""
        under_way = self._refresh
        if under_way is not None and under_way.full:
            await asyncio.wait([under_way.done])
        if self._refresh is None or not self._refresh.full:
            self._rebuild(None, youngest=0.0)
        joined = self._refresh
        if joined is None:  # there are no pods
            return Counts(0, 0, 0)
        return await asyncio.shield(joined.done)

    def heed(self, change: Change) -> None:
        """A change of the directory: ask ahead, or forget."""
        if isinstance(change, Started):
            self.prefetch(change.pod)
        elif not isinstance(change, Moved):
            self.forget(change.pod)
        elif _endpoint(change.old) != _endpoint(change.new):
            self.forget(change.old)
            self.prefetch(change.new)

    def prefetch(self, pod: Pod) -> None:
        """Ask a pod that became ready, without haste. Changes no age."""
        if self._current(pod) and pod.identity not in self._store.entries:
            self._fetches.want(pod)

    def forget(self, pod: Pod) -> None:
        """The pod is gone: so is what it said, and nobody waits for it any more."""
        self._store.drop(pod.identity)
        self._failed.discard(pod.identity)
        self._owed.discard(pod.identity)
        self._fetches.drop(pod.identity)
        self._no_longer_waits_for(pod.identity)

    def _begin(self, blob: bytes, server: Server | None) -> None:
        """Set off what the tiers ask for, and nothing else. Never waits."""
        own = self._directory.find(server) if server is not None else None
        if server is not None and not isinstance(own, Pod):
            return
        rebuilding = self._refresh is not None and self._refresh.full
        match tier(self._clock(), self._full_at, self._updated_at, self._ages):
            case Tier.REBUILD if self._refresh is None or not self._refresh.full:
                self._rebuild(blob, youngest=self._ages.partial)
                rebuilding = True
            case Tier.FILL if self._refresh is None and not any(self._listings(blob, server)):
                self._fill()
        if self._owed and not any(self._listings(blob, server)):
            self._pay([own] if isinstance(own, Pod) else self._directory.running(), everything=rebuilding)
        if isinstance(own, Pod):
            self._fetches.hurry(own.identity)

    def _unsettled(self, blob: bytes, server: Server | None) -> list[asyncio.Future[None] | asyncio.Future[Counts]]:
        """What an answer has to wait for; nothing if it can be given."""
        if any(self._listings(blob, server)):
            return []
        if server is not None:
            own = self._directory.find(server)
            pending = self._fetches.pending(own.identity) if isinstance(own, Pod) else None
            return [] if pending is None else [pending]
        if self._refresh is None:
            return []
        watch = self._watched.get(blob)
        if watch is None:
            watch = self._watched[blob] = asyncio.get_running_loop().create_future()
        return [self._refresh.done, watch]

    def _listings(self, blob: bytes, server: Server | None) -> Iterable[Listing]:
        oldest = self._clock() - self._ages.full
        for identity in sorted(self._store.listed_by.get(blob, ())):
            entry = self._store.entries[identity]
            if server is not None and entry.pod.server != server:
                continue
            current = self._current(entry.pod)
            if current is not None and entry.asked_at > oldest:
                yield Listing(current, entry.options[blob])

    def _current(self, pod: Pod) -> Pod | None:
        """The directory's pod, if it is still this one, asked at the same place."""
        found = self._directory.find(pod.server)
        return found if isinstance(found, Pod) and _endpoint(found) == _endpoint(pod) else None

    def _rebuild(self, blob: bytes | None, *, youngest: float) -> None:
        """Forget everything but answers that are younger than `youngest` seconds, and ask the other pods."""
        pods = self._directory.running()
        if not pods:
            return
        self.rebuilds += 1
        # Only an order in which to ask: where the key was listed before, and silent pods last.
        hints = sorted(self._store.listed_by.get(blob, ()))[:_HINTS] if blob is not None else []
        self._full_at = self._updated_at = self._clock()
        kept = [
            one
            for one in self._store.entries.values()
            if self._full_at - one.asked_at < youngest and self._current(one.pod)
        ]
        self._store = Store()
        for entry in kept:
            self._store.put(entry)
        self._owed = set(self._store.entries)
        self._failed &= {pod.identity for pod in pods}
        asked = [pod for pod in pods if pod.identity not in self._owed]
        self._ask(sorted(asked, key=lambda pod: pod.identity in self._failed), full=True)
        for identity in hints:
            self._fetches.hurry(identity)

    def _fill(self) -> None:
        missing = [pod for pod in self._directory.running() if pod.identity not in self._store.entries]
        if missing:
            self.fills += 1
            self._updated_at = self._clock()
            self._ask(sorted(missing, key=lambda pod: pod.identity in self._failed), full=False)

    def _pay(self, pods: Iterable[Pod], *, everything: bool) -> None:
        """Ask those of `pods` that the last rebuild left out: every one, or those whose answers count no more."""
        oldest = self._clock() - (0.0 if everything else self._ages.full)
        entries = self._store.entries
        owed = [pod for pod in pods if pod.identity in self._owed and entries[pod.identity].asked_at <= oldest]
        if not owed:
            return
        if self._refresh is None:
            self._ask(owed, full=False)
            return
        self._refresh.waiting.update(pod.identity for pod in owed)
        for pod in owed:
            self._fetches.want(pod)

    def _ask(self, pods: list[Pod], *, full: bool) -> None:
        self._end_refresh()
        if len(pods) > self._limits.pods:
            _log.error("%d pods run, the keys of %d are asked for", len(pods), self._limits.pods)
            pods = pods[: self._limits.pods]
        if not pods:
            return
        done: asyncio.Future[Counts] = asyncio.get_running_loop().create_future()
        self._refresh = Refresh(full, {pod.identity for pod in pods}, done)
        for pod in pods:
            self._fetches.want(pod, anew=full)

    def _fetched(self, fetched: Fetched) -> None:
        identity = fetched.pod.identity
        entry = entry_of(fetched) if self._current(fetched.pod) else None
        if entry is not None and not self._store.fits(entry, pods=self._limits.pods, size=self._limits.bytes):
            _log.error("the key cache is full: the keys of %s are left out", fetched.pod.instance.principal)
            entry = None
        if entry is None:
            self._failed.add(identity)
            self._owed.discard(identity)
            self._store.drop(identity)
        elif self._full_at is None or entry.asked_at >= self._full_at:
            self._failed.discard(identity)
            self._owed.discard(identity)
            self._store.put(entry)
            for blob in entry.options.keys() & self._watched.keys():
                self._watched.pop(blob).set_result(None)
        self._heard(identity, entry)

    def _heard(self, identity: Identity, entry: Entry | None) -> None:
        refresh = self._refresh
        if refresh is None or identity not in refresh.waiting:
            return
        if entry is None:
            refresh.failed += 1
        else:
            refresh.pods += 1
            refresh.keys += len(entry.options)
        self._no_longer_waits_for(identity)

    def _no_longer_waits_for(self, identity: Identity) -> None:
        if self._refresh is None:
            return
        self._refresh.waiting.discard(identity)
        if not self._refresh.waiting:
            self._end_refresh()

    def _end_refresh(self) -> None:
        refresh, self._refresh = self._refresh, None
        self._watched.clear()
        if refresh is not None:
            refresh.done.set_result(refresh.counts)


def _endpoint(pod: Pod) -> tuple[Identity, str, int]:
    return pod.identity, pod.address, pod.key_port
