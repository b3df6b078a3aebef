"""Hand every change to everyone who must know, however slow one of them is.

A consumer that falls behind must not hold up the directory, and must never lose a `Stopped`: a lost one is a
session that outlives its server. So what waits for a consumer is folded together pod by pod, which bounds it
to two changes for each pod and keeps their order:

    waiting             and then     leaves
    Started or Moved    Stopped      Stopped
    Started             Moved        Started with the new pod
    Moved(a, b)         Moved(b, c)  Moved(a, c)
    Stopped             Started      both, in this order

A consumer that reads nothing at all while pods come and go is broken: past the limit its iterator raises
`ConsumerStuck`, so that its task ends loudly.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from weakref import WeakSet

from bastion.directory.table import Change, Moved, Pod, Started, Stopped
from ca.errors import BastionError
from ca.names import Instance

MAX_WAITING = 100_000
"""Pods with changes waiting for one consumer."""


class ConsumerStuck(BastionError):
    """A consumer of directory changes has read nothing for so long that changes would be lost."""


class Subscription(AsyncIterator[Change]):
    """One consumer's changes, waiting and to come. It ends when it is forgotten or closed."""

    def __init__(self, first: Iterable[Change], limit: int) -> None:
        self._waiting: dict[tuple[Instance, str], list[Change]] = {}
        self._limit = limit
        self._stuck = False
        self._closed = False
        self._news = asyncio.Event()
        self.push(first)

    def push(self, changes: Iterable[Change]) -> None:
        """Add changes behind those that wait."""
        for change in changes:
            identity = _pod(change).identity
            if identity not in self._waiting and len(self._waiting) >= self._limit:
                self._stuck = True
                self._waiting.clear()
            if not self._stuck:
                self._waiting[identity] = fold(self._waiting.get(identity, []), change)
            self._news.set()

    def close(self) -> None:
        """No further change: the iteration ends after what waits."""
        self._closed = True
        self._news.set()

    async def __anext__(self) -> Change:
        while not self._waiting:
            if self._stuck:
                raise ConsumerStuck("A consumer of the directory's changes has stopped reading them.")
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        identity, changes = next(iter(self._waiting.items()))
        change = changes.pop(0)
        if not changes:
            del self._waiting[identity]
        return change


class FanOut:
    """The consumers of one directory."""

    def __init__(self, limit: int = MAX_WAITING) -> None:
        self._limit = limit
        self._consumers: WeakSet[Subscription] = WeakSet()

    def subscribe(self, running: Iterable[Pod]) -> Subscription:
        """A new consumer, told first of everything that runs."""
        subscription = Subscription([Started(pod) for pod in running], self._limit)
        self._consumers.add(subscription)
        return subscription

    def tell(self, changes: Iterable[Change]) -> None:
        """Hand `changes` to every consumer. Never waits."""
        changes = list(changes)
        for consumer in list(self._consumers):
            consumer.push(changes)


def fold(waiting: list[Change], change: Change) -> list[Change]:
    """What still has to be told of one pod when `change` follows `waiting` (at most two changes)."""
    stops = [before for before in waiting if isinstance(before, Stopped)][:1]
    if isinstance(change, Stopped):
        return [change]
    if isinstance(change, Started) or not waiting or isinstance(waiting[-1], Stopped):
        return [*stops, change]
    last = waiting[-1]
    if isinstance(last, Moved):
        return [Moved(last.old, change.new)]
    return [*stops, Started(change.new)]


def _pod(change: Change) -> Pod:
    return change.new if isinstance(change, Moved) else change.pod
