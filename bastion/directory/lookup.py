"""What every directory answers in the same way, whatever feeds it: from one table, to everybody who asks or listens."""

import asyncio
import logging
from collections.abc import Iterable

from bastion.directory.changes import FanOut, Subscription
from bastion.directory.table import MAX_AGE, Ambiguous, Change, Found, Pod, Started, Stopped, Table
from ca.names import Server

_log = logging.getLogger(__name__)


class LookUp:
    """The half of a `Directory` that does not know where its pods come from. The other half writes `_table`, and tells
    every change that comes of it."""

    def __init__(self) -> None:
        self._table = Table()
        self._fan_out = FanOut()
        self.heard = asyncio.Event()
        """Set as soon as the source was heard for the first time: before that nothing is known of any server."""

    @property
    def heard_at(self) -> float | None:
        """When the source was last heard, in monotonic seconds; None: no list has come yet."""
        return self._table.heard_at

    def fresh(self, now: float, max_age: float = MAX_AGE) -> bool:
        """Whether the list is young enough to let anybody new in."""
        heard_at = self.heard_at
        return heard_at is not None and now - heard_at <= max_age

    def find(self, server: Server) -> Found:
        """The pod that runs `server`."""
        return self._table.find(server)

    def find_login(self, typed: str) -> Found:
        """The pod of the server that `typed` means as a login name, whatever else runs."""
        return self._table.find_login(typed)

    def by_name(self, name: str) -> Found:
        """The pod with that jump target name."""
        return self._table.by_name(name)

    def running(self) -> tuple[Pod, ...]:
        """Every pod that `find` would give."""
        return self._table.running()

    def ambiguous(self) -> tuple[Ambiguous, ...]:
        """The servers that two pods claim to run."""
        return self._table.ambiguous()

    def changes(self) -> Subscription:
        """First a `Started` for each pod that runs now, then every change."""
        return self._fan_out.subscribe(self._table.running())

    def _tell(self, changes: Iterable[Change]) -> list[Change]:
        """Log `changes` and hand them to everybody who listens."""
        changes = list(changes)
        for change in changes:
            if isinstance(change, Started | Stopped):
                _log.info("server %s %s", change.pod.instance.principal, type(change).__name__.lower())
        self._fan_out.tell(changes)
        return changes
