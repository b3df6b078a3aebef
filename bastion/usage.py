"""Which servers are used: those whose sessions have moved data since somebody looked last.

Data is what goes through channels; keepalives, rekeys and window adjustments are none. In jump mode the bastion cannot
look inside a tunnel, where an idle connection's keepalives pass, so a tunnel counts while it carries more than those
would be.
"""

from collections.abc import Mapping

from bastion.admission import Mode
from bastion.registry import Line
from ca.names import Instance

QUIET = 64.0
"""Bytes a second that a tunnel may carry and count as idle: a keepalive and its answer are about 150 bytes."""

BURST = 1024.0
"""What it may carry between two looks however close they are."""


class Usage:
    """Looks at the lines of the registry. Times are seconds since the epoch."""

    def __init__(self) -> None:
        self._carried: dict[int, tuple[int, float]] = {}
        self._used: dict[Instance, float] = {}

    @property
    def used(self) -> Mapping[Instance, float]:
        """The runs that were used, and when that was seen, as far as nobody has been told yet."""
        return self._used

    def look(self, line: Line, now: float) -> None:
        """See what a session has moved since the last look, or since it began."""
        instance, carried = line.about.instance, line.received + line.sent
        if instance is None:
            return
        before, looked = self._carried.get(line.id, (0, line.about.since))
        self._carried[line.id] = carried, now
        quiet = max(QUIET * (now - looked), BURST) if line.about.mode == Mode.JUMP else 0
        if carried - before > quiet:
            self._used[instance] = now

    def went(self, line: Line, now: float) -> None:
        """A session is over: look once more, and forget it."""
        self.look(line, now)
        self._carried.pop(line.id, None)

    def told(self, told: Mapping[Instance, float]) -> None:
        """These are known now; what was used since then is not."""
        self._used = {one: at for one, at in self._used.items() if at > told.get(one, 0.0)}
