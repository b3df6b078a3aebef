"""The audit lines that strangers can cause: bounded, and what was left out is counted and said.

Every refusal leaves a line. But anybody on the internet can be refused as often as he likes, and a log that is full of
that hides the rest and fills the disk. So of refusals in which nobody is named there are so many for one network and
one kind, and so many in all; the next line says how many were left out before it. Metrics count them all.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from api.networks import network_of, wide_network_of
from ca.audit import Event, RefusalsLeftOut

WINDOW_SECONDS = 600.0
OF_NETWORK = 300
IN_ALL = 3000
MAX_COUNTED = 10_000


def is_anonymous(event: Event) -> bool:
    """Whether this is a refusal that names nobody."""
    return hasattr(event, "reason") and getattr(event, "user", None) is None and event.name in _REFUSALS


_REFUSALS = frozenset(
    {"request_refused", "certificate_refused", "enrolment_refused", "device_login_refused", "login_refused"}
)


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float
    out: int = 0

    def take(self, now: float, limit: int) -> bool:
        self.left = min(float(limit), self.left + max(now - self.at, 0.0) * limit / WINDOW_SECONDS)
        self.at = now
        if self.left < 1:
            self.out += 1
            return False
        self.left -= 1
        return True


class Quiet:
    """Passes events on to `write`, but for those of strangers that are too many. `clock` gives seconds."""

    def __init__(self, write: Callable[[Event], None], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        self._all = _Bucket(float(IN_ALL), clock())
        self._of: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()

    def write(self, event: Event) -> None:
        """Write `event`, or count it as left out."""
        if not is_anonymous(event):
            self._write(event)
            return
        now = self._clock()
        mine = self._bucket(event, now)
        if not mine.take(now, OF_NETWORK) or not self._all.take(now, IN_ALL):
            return
        for bucket, peer in ((mine, event.peer), (self._all, None)):
            if bucket.out:
                self._write(RefusalsLeftOut(peer=peer, count=bucket.out))
                bucket.out = 0
        self._write(event)

    def _bucket(self, event: Event, now: float) -> _Bucket:
        key = (event.name, wide_network_of(network_of(event.peer)))
        bucket = self._of.pop(key, None) or _Bucket(float(OF_NETWORK), now)
        self._of[key] = bucket
        while len(self._of) > MAX_COUNTED:
            _, gone = self._of.popitem(last=False)
            self._all.out += gone.out
        return bucket
