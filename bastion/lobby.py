"""Who may be at the door: every TCP connection is counted here, and those that have not logged in make room.

OpenSSH's MaxStartups turns newcomers away, at random between two numbers and all of them above the second. Under a
flood that keeps everybody out with the same chance, the person who has a right to enter among them, for as long
as the flood lasts. Here a newcomer is let in, and the connection that has waited longest at the address with most of
them is dropped instead:

- a flood from one address, or a few, only ever pushes out its own: nobody else's is ever from the heaviest address.
  An IPv6 /48, of which one customer may have every /64, is weighed as a whole, and its heaviest /64 makes room;
- somebody behind the *same* address gets in as well: a login takes tenths of a second, and to push it out the flood
  has to bring hundreds of new connections in that time, where OpenSSH would be full until the login grace is over;
- nobody is punished later for having been loud: a class behind one NAT shares its address with whoever is in it.
  That is why there is nothing like PerSourcePenalties either.

The three numbers are those of MaxStartups, start:rate:full, with that meaning: below `start` waiting connections nobody
is dropped; from there on each newcomer has one dropped with a chance of `rate` percent, which grows to certainty at
`full`. So there are never more than `full`. An address with `per_address` waiting ones makes room by itself.

People who are in are never dropped for newcomers. So a newcomer is turned away in two cases only: this process, or the
address, has as many connections as it may have in all, and none of them is still waiting to make room.
"""

import ipaddress
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class LobbyLimits:
    """The bounds; see the module. `per_address` and `connections_per_address` count an IPv6 /64 as one address."""

    start: int = 600
    rate: int = 30
    full: int = 1200
    per_address: int = 600
    connections: int = 5000
    connections_per_address: int = 2000


class Bound(StrEnum):
    """Which bound was reached: the names of the settings."""

    START = "unauthenticated_start"
    FULL = "unauthenticated_full"
    PER_ADDRESS = "unauthenticated_per_address"
    CONNECTIONS = "connections"
    CONNECTIONS_PER_ADDRESS = "connections_per_address"


class Ticket:
    """One TCP connection's place. `waiting` until it is in, or gone."""

    __slots__ = ("_lobby", "block", "drop", "dropped_for", "gone", "number", "waiting")

    def __init__(self, lobby: "Lobby", number: int, block: str, drop: Callable[[], None]) -> None:
        self._lobby = lobby
        self.number = number
        self.block = block
        self.drop = drop
        self.waiting = True
        self.gone = False
        self.dropped_for: Bound | None = None

    def admitted(self) -> None:
        """It has logged in: from now on it makes room for nobody."""
        self._lobby._no_longer_waits(self)

    def leave(self) -> None:
        """It is over. Does nothing the second time."""
        self._lobby._forget(self)


class Lobby:
    """All connections of this process. Not thread-safe: one event loop owns it."""

    def __init__(
        self,
        limits: LobbyLimits,
        *,
        hit: Callable[[str], None] = lambda _: None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`hit` is told the name of each bound that is reached; `chance` gives numbers in [0, 1)."""
        self._limits = limits
        self._hit = hit
        self._chance = chance
        self._all: Counter[str] = Counter()
        self._waiting: dict[str, dict[Ticket, None]] = {}
        self._waiting_count = 0
        self._sites: Counter[str] = Counter()
        self._emptied: list[Callable[[], None]] = []
        self.accepted = 0

    def __len__(self) -> int:
        """Every connection."""
        return self._all.total()

    @property
    def waiting(self) -> int:
        """Connections that have not logged in yet."""
        return self._waiting_count

    @property
    def addresses_waiting(self) -> int:
        """How many addresses those come from."""
        return len(self._waiting)

    def enter(self, address: str, drop: Callable[[], None]) -> Ticket | Bound:
        """A place for a connection from `address`, or the bound that stands in the way.

        `drop` is called when the connection has to make room for another, or to go with all the others.
        """
        block = block_of(address)
        refused = self._make_room(block)
        if refused is not None:
            self._hit(refused)
            return refused
        self.accepted += 1
        ticket = Ticket(self, self.accepted, block, drop)
        self._count(ticket)
        return ticket

    def move(self, ticket: Ticket, address: str) -> Bound | None:
        """A proxy told the connection's true address: count it there. It is gone when a bound is in the way."""
        if ticket.gone:
            return None
        self._uncount(ticket)
        ticket.block = block_of(address)
        refused = self._make_room(ticket.block)
        if refused is not None:
            ticket.gone = True
            self._hit(refused)
            self._look_around()
            return refused
        self._count(ticket)
        return None

    def when_empty(self, call: Callable[[], None]) -> None:
        """Call this once, as soon as there is no connection."""
        self._emptied.append(call)
        self._look_around()

    def clear(self) -> None:
        """Drop every connection that has not logged in yet. None of them makes room: each leaves when it is over."""
        for ticket in [ticket for of_block in self._waiting.values() for ticket in of_block]:
            ticket.drop()

    def _make_room(self, block: str) -> Bound | None:
        limits = self._limits
        here = len(self._waiting.get(block, ()))
        if self._all[block] >= limits.connections_per_address:
            if not here:
                return Bound.CONNECTIONS_PER_ADDRESS
            self._drop_oldest(block, Bound.CONNECTIONS_PER_ADDRESS)
        elif here >= limits.per_address:
            self._drop_oldest(block, Bound.PER_ADDRESS)
        elif len(self) >= limits.connections:
            if not self._waiting:
                return Bound.CONNECTIONS
            self._drop_oldest(self._heaviest(), Bound.CONNECTIONS)
        elif self._waiting_count >= limits.start and self._chance() < self._crowding():
            full = self._waiting_count >= limits.full
            self._drop_oldest(self._heaviest(), Bound.FULL if full else Bound.START)
        return None

    def _crowding(self) -> float:
        """The chance, 0 to 1, that a newcomer has a waiting connection dropped."""
        limits = self._limits
        if self._waiting_count >= limits.full:
            return 1.0
        rate = limits.rate / 100
        return rate + (1 - rate) * (self._waiting_count - limits.start) / (limits.full - limits.start)

    def _heaviest(self) -> str:
        """At the site with most waiting connections the address with most; of several such, the one whose first has
        waited longest."""
        return max(
            self._waiting,
            key=lambda block: (
                self._sites[site_of(block)],
                len(self._waiting[block]),
                -next(iter(self._waiting[block])).number,
            ),
        )

    def _drop_oldest(self, block: str, why: Bound) -> None:
        ticket = next(iter(self._waiting[block]))
        ticket.dropped_for = why
        self._hit(why)
        self._forget(ticket)
        ticket.drop()

    def _count(self, ticket: Ticket) -> None:
        self._all[ticket.block] += 1
        self._waiting.setdefault(ticket.block, {})[ticket] = None
        self._waiting_count += 1
        self._sites[site_of(ticket.block)] += 1

    def _uncount(self, ticket: Ticket) -> None:
        self._no_longer_waits(ticket)
        ticket.waiting = True
        self._all[ticket.block] -= 1
        if not self._all[ticket.block]:
            del self._all[ticket.block]

    def _no_longer_waits(self, ticket: Ticket) -> None:
        if not ticket.waiting or ticket.gone:
            return
        ticket.waiting = False
        self._waiting_count -= 1
        site = site_of(ticket.block)
        self._sites[site] -= 1
        if not self._sites[site]:
            del self._sites[site]
        of_block = self._waiting[ticket.block]
        del of_block[ticket]
        if not of_block:
            del self._waiting[ticket.block]

    def _forget(self, ticket: Ticket) -> None:
        if ticket.gone:
            return
        waiting = ticket.waiting
        self._uncount(ticket)
        ticket.waiting, ticket.gone = waiting, True
        self._look_around()

    def _look_around(self) -> None:
        if not self._all:
            calls, self._emptied = self._emptied, []
            for call in calls:
                call()


def block_of(address: str) -> str:
    """What counts as one address: an IPv4 address, also inside an IPv6 one, or the /64 that an IPv6 customer has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


@lru_cache(maxsize=8192)
def site_of(block: str) -> str:
    """What may be one customer's with many addresses: the /48 of an IPv6 block; anything else is a site by itself."""
    if not block.endswith("/64"):
        return block
    return str(ipaddress.ip_network(block).supernet(new_prefix=48))
