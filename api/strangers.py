"""Tokens of people whom nobody knows yet, asked of JupyterHub without getting in the way of what is known.

Anybody may send a token, and only JupyterHub can say whose it is. So these questions have connections of their own: the
list of servers that run, on which bastions rest, is asked through others. Few are asked at once, few of them for one
network, so that many tokens of one sender wait for each other and not for everybody; and a token that JupyterHub has
just refused is not asked about again. What it accepted is never remembered: a token may end at any moment.
"""

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from api.errors import Refused, TokenRefused
from api.hub import HubClient, Model
from api.networks import network_of, wide_network_of
from ca.errors import Reason, Refusal

CONNECTIONS = 16
"""Questions at once."""
OF_NETWORK = 4
"""Of these for one network: an IPv4 address, or an IPv6 /48."""
WAITING = 256
WAITING_OF_NETWORK = 64
"""How many may wait for their turn, and of one network. A class that starts its servers at once has to fit."""
REMEMBER_SECONDS = 30.0
MAX_REMEMBERED = 10_000
RETRY_SECONDS = 5

_TOO_MANY = Refusal(
    Reason.TOO_MANY, "Too many tokens from your address are looked at. Try again in some seconds.", RETRY_SECONDS
)
_BUSY = Refusal(
    Reason.UNAVAILABLE, "Too many tokens are looked at at the moment. Try again in some seconds.", RETRY_SECONDS
)


class Strangers:
    """The questions. `hub` is a client for nothing else; `clock` gives seconds."""

    def __init__(self, hub: HubClient, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._clock = clock
        self._all = asyncio.Semaphore(CONNECTIONS)
        self._of: dict[str, asyncio.Semaphore] = {}
        self._here: Counter[str] = Counter()
        self._refused: OrderedDict[bytes, float] = OrderedDict()

    async def whose(self, token: str, address: str | None) -> Model:
        """As `HubClient.whose_token`, for a sender at `address`. Raises `Refused` where too many wait already."""
        name = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        if self._clock() - self._refused.get(name, float("-inf")) < REMEMBER_SECONDS:
            raise TokenRefused
        async with self._turn(wide_network_of(network_of(address))):
            try:
                return await self._hub.whose_token(token)
            except TokenRefused:
                self._remember(name)
                raise

    @asynccontextmanager
    async def _turn(self, network: str) -> AsyncIterator[None]:
        if self._here[network] >= OF_NETWORK + WAITING_OF_NETWORK:
            raise Refused(_TOO_MANY)
        if self._here.total() >= CONNECTIONS + WAITING:
            raise Refused(_BUSY)
        mine = self._of.setdefault(network, asyncio.Semaphore(OF_NETWORK))
        self._here[network] += 1
        try:
            async with mine, self._all:
                yield
        finally:
            self._here[network] -= 1
            if not self._here[network]:
                del self._here[network], self._of[network]

    def _remember(self, name: bytes) -> None:
        self._refused[name] = self._clock()
        self._refused.move_to_end(name)
        while len(self._refused) > MAX_REMEMBERED:
            self._refused.popitem(last=False)
