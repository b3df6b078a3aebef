"""Replies in the order of the questions.

SSH requests carry no number: a reply belongs to the oldest request that has none (RFC 4254 sections 4 and 5.4). A relay
that refuses one request itself while an earlier one is still on its way to the pod must hold its "no" back until
the pod has answered, or the client takes it for the answer to the other.

How many wait is bounded, and nobody is refused for it: OpenSSH asks for all its forwards at once, and reads on later. A
request that wants no reply takes a place as well where it waits for something, since it costs as much.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

Reply = TypeVar("Reply")


class Gate(Protocol):
    """Whoever asks, as far as it can be made to wait."""

    def hold_for_answers(self) -> None: ...
    def release_for_answers(self) -> None: ...


class _Open:
    """The type of a slot's value before its answer came."""


_OPEN: Final = _Open()


class Slot(Generic[Reply]):
    """The place of one question's reply."""

    __slots__ = ("_queue", "_reply", "wanted")

    def __init__(self, queue: "Answers[Reply]", *, wanted: bool) -> None:
        self._queue = queue
        self.wanted = wanted
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
    """The replies that one peer waits for. With `most` of them it asks nothing more until one is given."""

    __slots__ = ("_gate", "_most", "_send", "_waiting")

    def __init__(self, send: Callable[[Reply], None], most: int, gate: Gate) -> None:
        self._send = send
        self._most = most
        self._gate = gate
        self._waiting: deque[Slot[Reply]] = deque()

    def __len__(self) -> int:
        """How many questions have no reply sent yet."""
        return len(self._waiting)

    def question(self, *, wanted: bool = True) -> Slot[Reply]:
        """Take the next place. What is answered there is sent where that is wanted."""
        slot: Slot[Reply] = Slot(self, wanted=wanted)
        self._waiting.append(slot)
        if len(self._waiting) == self._most:
            self._gate.hold_for_answers()
        return slot

    def flush(self) -> None:
        """Send what is answered at the head of the queue."""
        while self._waiting:
            reply = self._waiting[0].reply
            if isinstance(reply, _Open):
                return
            slot = self._waiting.popleft()
            if slot.wanted:
                self._send(reply)
            if len(self._waiting) == self._most - 1:
                self._gate.release_for_answers()

    def abandon(self) -> None:
        """Nobody waits for these replies any more."""
        full = len(self._waiting) >= self._most
        self._waiting.clear()
        if full:
            self._gate.release_for_answers()
