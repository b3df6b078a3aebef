"""How many people watch a server start, so that those who watch leave connections for those who work."""

from collections.abc import Iterator
from contextlib import contextmanager

from ca.errors import Reason, Refusal

MAX_WATCHERS = 200
MAX_WATCHERS_EACH = 6

_FULL = Refusal(Reason.TOO_MANY, "Too many starts are being watched at the moment. Reload the page to see the state.")


class Watchers:
    """Counts them."""

    def __init__(self) -> None:
        self._each: dict[str, int] = {}

    @property
    def size(self) -> int:
        """How many watch now."""
        return sum(self._each.values())

    def refuse(self, user: str) -> Refusal | None:
        """Why `user` may not watch one more; None when there is room."""
        full = self.size >= MAX_WATCHERS or self._each.get(user, 0) >= MAX_WATCHERS_EACH
        return _FULL if full else None

    @contextmanager
    def watching(self, user: str) -> Iterator[None]:
        """`user` watches inside."""
        self._each[user] = self._each.get(user, 0) + 1
        try:
            yield
        finally:
            self._each[user] -= 1
            if not self._each[user]:
                del self._each[user]
