"""One round of questions to the pods: to which, and what it has found so far."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from bastion.directory.table import Found, Pod
from bastion.pubkeys.fetches import Identity
from ca.names import Server


class RunningPods(Protocol):
    """The part of a directory that the cache needs."""

    def find(self, server: Server) -> Found:
        """The pod that runs `server`."""
        ...

    def running(self) -> tuple[Pod, ...]:
        """Every pod that `find` would give."""
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What a refresh found: pods that answered, keys in them, pods that did not answer."""

    pods: int
    keys: int
    failed: int


@dataclass(slots=True, eq=False)
class Refresh:
    """Under way while pods of it are `waiting`; `done` then says what they answered. `full`: a rebuild."""

    full: bool
    waiting: set[Identity]
    done: asyncio.Future[Counts]
    pods: int = 0
    keys: int = 0
    failed: int = 0

    @property
    def counts(self) -> Counts:
        """What they have answered so far."""
        return Counts(self.pods, self.keys, self.failed)
