"""How often somebody may be wrong about the code of a login that waits.

A code has 20^8 possibilities, so nobody guesses one within ten minutes, even among thousands that wait; this keeps it
so for somebody who tries in crowds. Counted for each person and for each browser session, in this process: replicas
count for themselves, which multiplies nothing by a thousand.
"""

from collections.abc import Callable
from dataclasses import dataclass

from api.session import Session
from ca.errors import Reason, Refusal

WINDOW = 600
"""Seconds after the first wrong code until counting begins anew."""
OF_USER = 20
OF_SESSION = 10
_MAX_COUNTED = 100_000

_TOO_MANY = Refusal(
    Reason.TOO_MANY, "Too many wrong codes. Wait 10 minutes, begin the login anew, and type the code that it shows."
)


@dataclass(slots=True)
class _Count:
    began: float
    wrong: int = 0


class Guesses:
    """Wrong codes by person and by session. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, str], _Count] = {}

    def take(self, session: Session) -> Refusal | None:
        """Count a code that is about to be looked up; the refusal where there were too many."""
        counts = self._of(session)
        if any(count.wrong >= limit for count, limit in counts):
            return _TOO_MANY
        for count, _ in counts:
            count.wrong += 1
        return None

    def give_back(self, session: Session) -> None:
        """The code that was taken was right."""
        for count, _ in self._of(session):
            count.wrong = max(0, count.wrong - 1)

    def wrong(self, session: Session) -> None:
        """A wrong code that was not looked up."""
        for count, _ in self._of(session):
            count.wrong += 1

    def _of(self, session: Session) -> tuple[tuple[_Count, int], tuple[_Count, int]]:
        return (self._count("user", session.user), OF_USER), (self._count("session", session.id), OF_SESSION)

    def _count(self, kind: str, of: str) -> _Count:
        now = self._clock()
        count = self._counts.pop((kind, of), None)
        if count is None or not 0 <= now - count.began < WINDOW:
            count = _Count(now)
        while len(self._counts) >= _MAX_COUNTED:
            del self._counts[next(iter(self._counts))]
        self._counts[kind, of] = count
        return count
