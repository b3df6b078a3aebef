"""Tokens of people whom nobody knows yet, asked of JupyterHub without getting in the way of what is known.

Anybody may send a token, and only JupyterHub can say whose it is. So these questions have connections of their own: the
list of servers that run, on which bastions rest, is asked through others. Few are asked at once, few of them for one
network, so that many tokens of one sender wait for each other and not for everybody; and a token that JupyterHub has
just refused is not asked about again. What it accepted is never remembered: a token may end at any moment.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable

from api.errors import TokenRefused
from api.hub import HubClient, Model
from api.lines import Line, Room

ROOM = Room(at_once=16, of_network=4, waiting=256, waiting_of_network=64)
"""A class that starts its servers at once has to fit."""
REMEMBER_SECONDS = 30.0
MAX_REMEMBERED = 10_000


class Strangers:
    """The questions. `hub` is a client for nothing else; `clock` gives seconds."""

    def __init__(self, hub: HubClient, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._clock = clock
        self._line = Line(ROOM, "tokens")
        self._refused: OrderedDict[bytes, float] = OrderedDict()

    async def whose(self, token: str, address: str | None) -> Model:
        """As `HubClient.whose_token`, for a sender at `address`. Raises `Refused` where too many wait already."""
        name = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        if self._clock() - self._refused.get(name, float("-inf")) < REMEMBER_SECONDS:
            raise TokenRefused
        async with self._line.turn(address):
            try:
                return await self._hub.whose_token(token)
            except TokenRefused:
                self._remember(name)
                raise

    def _remember(self, name: bytes) -> None:
        self._refused[name] = self._clock()
        self._refused.move_to_end(name)
        while len(self._refused) > MAX_REMEMBERED:
            self._refused.popitem(last=False)
