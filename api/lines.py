"""Lines in which strangers wait: many requests of one sender wait for each other, and not everybody for them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from api.errors import Refused
from api.networks import network_of, wide_network_of
from ca.errors import Reason, Refusal

RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Room:
    """How many are served at once and how many may wait, in all and of one network: an IPv4 address, or an IPv6 /48."""

    at_once: int
    of_network: int
    waiting: int
    waiting_of_network: int


POLLERS = Room(at_once=8, of_network=4, waiting=1024, waiting_of_network=256)
"""Logins that begin, and those that ask whether they were approved: about half of what the database takes at once."""


class Line:
    """One line. `what` is what everybody in it asks for, in the plural, for the sentences."""

    def __init__(self, room: Room, what: str) -> None:
        self._room = room
        self._too_many = Refusal(
            Reason.TOO_MANY,
            f"Too many {what} from your address are looked at. Try again in some seconds.",
            RETRY_SECONDS,
        )
        self._busy = Refusal(
            Reason.UNAVAILABLE,
            f"Too many {what} are looked at at the moment. Try again in some seconds.",
            RETRY_SECONDS,
        )
        self._all = asyncio.Semaphore(room.at_once)
        self._of: dict[str, asyncio.Semaphore] = {}
        self._here: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, address: str | None) -> AsyncIterator[None]:
        """Wait for one's turn, which ends with the block. Raises `Refused` where too many wait already."""
        room, network = self._room, wide_network_of(network_of(address))
        if self._here[network] >= room.of_network + room.waiting_of_network:
            raise Refused(self._too_many)
        if self._here.total() >= room.at_once + room.waiting:
            raise Refused(self._busy)
        mine = self._of.setdefault(network, asyncio.Semaphore(room.of_network))
        self._here[network] += 1
        try:
            async with mine, self._all:
                yield
        finally:
            self._here[network] -= 1
            if not self._here[network]:
                del self._here[network], self._of[network]
