"""How often one person may ask for what costs rows, audit lines and questions to JupyterHub.

A bucket for each user and each kind of request: it holds what may come at once, and fills over `WINDOW_SECONDS`.
Whoever empties it waits, with a sentence and `Retry-After`; programs in a loop are slowed and nobody is locked out.
Each process counts for itself. Of a row of refusals only the first is an audit line, since a loop would fill the disk;
a metric counts them all.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ca.errors import Reason, Refusal

WINDOW_SECONDS = 600.0

MOST_BUCKETS = 50_000
"""Users are JupyterHub's, so their number is bounded; those whose bucket is full are forgotten first."""

Clock = Callable[[], float]
"""Seconds."""


class Kind(StrEnum):
    """What is counted, by its name in metrics."""

    CERTIFICATES = "certificates"
    ENROLMENTS = "enrolments"
    REVOCATIONS = "revocations"


@dataclass(frozen=True, slots=True)
class TooFast:
    """Not now. `first`: nothing was refused since the last that was let through."""

    refusal: Refusal
    first: bool


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float
    refusing: bool = False


class Pace:
    """Counts. `limits` say how many of a kind one user may ask for in `WINDOW_SECONDS`; 0 is no limit. `slowed` hears
    of each refusal."""

    def __init__(self, limits: Mapping[Kind, int], clock: Clock, slowed: Callable[[Kind], None]) -> None:
        self._limits = limits
        self._clock = clock
        self._slowed = slowed
        self._buckets: dict[tuple[Kind, str], _Bucket] = {}

    def take(self, kind: Kind, user: str) -> TooFast | None:
        """Count one request of `user`. None: go on."""
        limit = self._limits.get(kind, 0)
        if limit == 0:
            return None
        now = self._clock()
        bucket = self._buckets.get((kind, user))
        if bucket is None:
            self._make_room(now)
            bucket = self._buckets[kind, user] = _Bucket(float(limit), now)
        bucket.left = min(float(limit), bucket.left + max(now - bucket.at, 0.0) * limit / WINDOW_SECONDS)
        bucket.at = now
        if bucket.left >= 1:
            bucket.left -= 1
            bucket.refusing = False
            return None
        first, bucket.refusing = not bucket.refusing, True
        seconds = max(1, math.ceil((1 - bucket.left) * WINDOW_SECONDS / limit))
        sentence = f"You have asked for too many {kind} in a short time. Try again in {seconds} seconds."
        self._slowed(kind)
        return TooFast(Refusal(Reason.TOO_MANY, sentence, retry_after=seconds), first)

    def _make_room(self, now: float) -> None:
        if len(self._buckets) < MOST_BUCKETS:
            return
        kept = {key: one for key, one in self._buckets.items() if now - one.at < WINDOW_SECONDS}
        while len(kept) >= MOST_BUCKETS:
            del kept[next(iter(kept))]
        self._buckets = kept
