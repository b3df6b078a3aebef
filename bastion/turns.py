"""Logins take turns, so that a flood of them delays neither those who are in nor those who come from elsewhere.

A key exchange costs milliseconds of processor, and the event loop has one processor. If every login were served as soon
as its bytes arrive, three hundred at once would make each round of the loop a quarter of a second long: a keystroke
of somebody who is in waits for a whole round, and a new login needs several. Therefore what has not logged in yet is
served here, a few milliseconds in each round and then everybody else again; addresses by turns, and within an address
whoever came first, since those who are nearly in should not wait for those who begin.

A step is a function, called in its turn, or a task that goes on in its turn (`wait`). What a task does is not seen
here, so its turn is the last of a round.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

BUDGET_SECONDS = 0.003
"""What logins may take of one round of the event loop; one step is always taken, however long."""

Step = Callable[[], None]


class Turns:
    """Steps that wait, by address. Not thread-safe: one event loop owns it."""

    def __init__(self, budget: float = BUDGET_SECONDS, clock: Callable[[], float] = time.perf_counter) -> None:
        self._budget = budget
        self._clock = clock
        self._waiting: OrderedDict[str, list[tuple[int, int, Step]]] = OrderedDict()
        self._wishes = count()
        self._count = 0
        self._running = False
        self._woke = False

    def __len__(self) -> int:
        """How many steps wait."""
        return self._count

    def want(self, address: str, number: int, step: Step) -> None:
        """Have `step` called soon. `number` says who came first at an address."""
        heappush(self._waiting.setdefault(address, []), (number, next(self._wishes), step))
        self._count += 1
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._round)

    async def wait(self, address: str, number: int) -> None:
        """Return when it is this one's turn. Whoever is cancelled meanwhile takes nobody's turn."""
        turn = asyncio.get_running_loop().create_future()
        self.want(address, number, lambda: self._wake(turn))
        await turn

    def _wake(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            turn.set_result(None)
            self._woke = True

    def _round(self) -> None:
        self._woke = False
        end = self._clock() + self._budget
        try:
            while self._waiting:
                self._next()
                if self._woke or self._clock() >= end:
                    break
        finally:  # whatever a step does, the others get theirs
            self._running = bool(self._waiting)
            if self._running:
                asyncio.get_running_loop().call_soon(self._round)

    def _next(self) -> None:
        address, steps = self._waiting.popitem(last=False)
        *_, step = heappop(steps)
        self._count -= 1
        if steps:
            self._waiting[address] = steps
        step()
