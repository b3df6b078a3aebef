"""Replies in the order of the questions.

SSH requests carry no number: a reply belongs to the oldest request that has none (RFC 4254 sections 4 and 5.4). A relay
that refuses one request itself while an earlier one is still on its way to the pod must hold its "no" back until
the pod has answered, or the client takes it for the answer to the other.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

Reply = TypeVar("Reply")


class _Open:
    """The type of a slot's value before its answer came."""


_OPEN: Final = _Open()


class Slot(Generic[Reply]):
    """The place of one question's reply."""

    __slots__ = ("_queue", "_reply")

    def __init__(self, queue: "Answers[Reply]") -> None:
        self._queue = queue
        self._reply: Reply | _Open = _OPEN

    @property
    def reply(self) -> Reply | _Open:
        """What was answered."""
        return self._reply

    def answer(self, reply: Reply) -> None:
        """Give the reply. It is sent when every earlier question has its own. A second one is ignored."""
        if self._reply is _OPEN:
            self._reply = reply
            self._queue.flush()


class Answers(Generic[Reply]):
    """The replies that one peer waits for."""

    __slots__ = ("_send", "_waiting")

    def __init__(self, send: Callable[[Reply], None]) -> None:
        self._send = send
        self._waiting: deque[Slot[Reply]] = deque()

    def __len__(self) -> int:
        """How many questions have no reply sent yet."""
        return len(self._waiting)

    def question(self) -> Slot[Reply]:
        """Take the next place."""
        slot: Slot[Reply] = Slot(self)
        self._waiting.append(slot)
        return slot

    def flush(self) -> None:
        """Send what is answered at the head of the queue."""
        while self._waiting:
            reply = self._waiting[0].reply
            if isinstance(reply, _Open):
                return
            self._waiting.popleft()
            self._send(reply)
