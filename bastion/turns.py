"""Logins take turns, so that a flood of them delays neither those who are in nor those who come from elsewhere.

A key exchange costs milliseconds of processor, and the event loop has one processor. If every login were served as soon
as its bytes arrive, three hundred at once would make each round of the loop a quarter of a second long: a keystroke
of somebody who is in waits for a whole round, and a new login needs several. Therefore what has not logged in yet is
served here, a few milliseconds in each round and then everybody else again:

- by sites (an IPv4 address, or an IPv6 /48, of which one customer may have every /64), the one first that has had the
  fewest turns for *other* connections than the one whose turn it is. So a login from where there is no flood goes first
  with each of its steps, from however many addresses a flood comes; turns are forgotten when somebody of the site gets
  in, and after a minute;
- of sites that have had as many, whoever is nearest to the end of the login, then whoever has waited longest;
- within a site its addresses by turns, and within an address whoever came first, since those who are nearly in should
  not wait for those who begin.

Nobody is refused here, and where nothing waits nobody notices. A step is a function, called in its turn, or a task that
goes on in its turn (`wait`). What a task does is not seen here, so its turn is the last of a round.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from bastion.lobby import site_of

BUDGET_SECONDS = 0.003
"""What logins may take of one round of the event loop; one step is always taken, however long."""

LOGIN_STEPS = 16
"""Turns of one connection that are no burden of its site: more than a login needs. Who goes on after that is as those
who begin again and again."""

REMEMBER_SECONDS = 60.0
MAX_REMEMBERED = 20_000
"""Sites whose turns are remembered."""

Step = Callable[[], None]
_Key = tuple[int, int, int]


@dataclass(slots=True)
class _Site:
    """The steps that wait at one site, by address; `key` is its place in the order, the least first."""

    waiting: OrderedDict[str, list[tuple[int, int, int, Step]]] = field(default_factory=OrderedDict)
    key: _Key | None = None


class Turns:
    """Steps that wait, by site and address. Not thread-safe: one event loop owns it."""

    def __init__(self, budget: float = BUDGET_SECONDS, clock: Callable[[], float] = time.perf_counter) -> None:
        self._budget = budget
        self._clock = clock
        self._sites: dict[str, _Site] = {}
        self._order: list[tuple[_Key, str]] = []
        self._had: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._wishes = count()
        self._count = 0
        self._running = False
        self._woke = False

    def __len__(self) -> int:
        """How many steps wait."""
        return self._count

    def want(self, address: str, number: int, step: Step, taken: int = 0) -> None:
        """Have `step` called soon. `number` says who came first at an address, `taken` how many turns that connection
        has had before."""
        name = site_of(address)
        site = self._sites.setdefault(name, _Site())
        heappush(site.waiting.setdefault(address, []), (number, next(self._wishes), taken, step))
        self._count += 1
        self._line_up(name, site)
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._round)

    async def wait(self, address: str, number: int, taken: int = 0) -> None:
        """Return when it is this one's turn. Whoever is cancelled meanwhile takes nobody's turn."""
        turn = asyncio.get_running_loop().create_future()
        self.want(address, number, lambda: self._wake(turn), taken)
        await turn

    def arrived(self, address: str) -> None:
        """Somebody from there has logged in: what the site has had was no flood, or not only."""
        self._had.pop(site_of(address), None)

    def _wake(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            turn.set_result(None)
            self._woke = True

    def _round(self) -> None:
        self._woke = False
        end = self._clock() + self._budget
        try:
            while self._sites:
                self._next()
                if self._woke or self._clock() >= end:
                    break
        finally:  # whatever a step does, the others get theirs
            self._running = bool(self._sites)
            if self._running:
                asyncio.get_running_loop().call_soon(self._round)

    def _next(self) -> None:
        while True:
            key, name = heappop(self._order)
            site = self._sites.get(name)
            if site is not None and site.key == key:  # else its place is another by now
                break
        address, steps = site.waiting.popitem(last=False)
        *_, step = heappop(steps)
        self._count -= 1
        self._note(name)
        if steps:
            site.waiting[address] = steps
        if site.waiting:
            site.key = None
            self._line_up(name, site)
        else:
            del self._sites[name]
        step()

    def _line_up(self, name: str, site: _Site) -> None:
        """Give the site the place of the step that is its next."""
        _, wish, taken, _ = next(iter(site.waiting.values()))[0]
        key = (max(self._turns_of(name) - min(taken, LOGIN_STEPS), 0), -min(taken, LOGIN_STEPS), wish)
        if site.key is None or key < site.key:
            site.key = key
            heappush(self._order, (key, name))

    def _turns_of(self, name: str) -> int:
        turns, at = self._had.get(name, (0, 0.0))
        return turns if self._clock() - at < REMEMBER_SECONDS else 0

    def _note(self, name: str) -> None:
        turns = self._turns_of(name) + 1
        self._had.pop(name, None)
        self._had[name] = (turns, self._clock())
        if len(self._had) > MAX_REMEMBERED:
            self._had.popitem(last=False)
