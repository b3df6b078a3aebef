"""Accept connections, within bounds: what is not authenticated yet is counted, in all and per address.

A connection over the bound gets one line and is closed, before it costs a key exchange. (OpenSSH's MaxStartups drops
at random; here the bound per address comes first, so that one flooding address does not take everybody's room.)
"""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bastion.relay.front import ClientLink, Front
from bastion.server import Door, House

_FULL = b"Too many connections that have not logged in yet. Try again in a minute.\r\n"


@dataclass(slots=True)
class Waiting:
    """Connections that have not authenticated yet."""

    most: int
    most_per_address: int
    turned_away: int = 0
    _now: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return self._now.total()

    def enter(self, address: str) -> bool:
        """Whether there is room for one more from `address`; it is counted until `leave`."""
        block = _block(address)
        if self._now.total() >= self.most or self._now[block] >= self.most_per_address:
            self.turned_away += 1
            return False
        self._now[block] += 1
        return True

    def leave(self, address: str) -> None:
        """It has authenticated, or is gone."""
        block = _block(address)
        self._now[block] -= 1
        if self._now[block] <= 0:
            del self._now[block]


def _block(address: str) -> str:
    """One IPv4 address, or the /64 that an IPv6 customer gets whole."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class TurnedAway(asyncio.Protocol):
    """One line, and the end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say why, close."""
        if isinstance(transport, asyncio.Transport):
            transport.write(_FULL)
            transport.close()


class Gate(asyncio.Protocol):
    """The first protocol of a connection: it knows the peer's address before SSH begins, and steps aside.

    `asyncio` asks for a protocol before it tells the address; so the decision is made here, in `connection_made`.
    """

    def __init__(self, waiting: Waiting, ssh: Callable[[], asyncio.Protocol]) -> None:
        self._waiting = waiting
        self._ssh = ssh

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection to SSH, or turn it away."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("SSH needs a stream")
        name = transport.get_extra_info("peername")
        address = str(name[0]) if name else ""
        protocol = self._ssh() if self._waiting.enter(address) else TurnedAway()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def front_of(house: House, waiting: Waiting) -> Callable[[ClientLink], Front]:
    """What makes the front of each connection: a door that leaves the waiting room when it opens or closes."""
    return lambda link: _Watched(house, link, waiting)


class _Watched(Door):
    """A door that counts as waiting until it has authenticated or is gone."""

    def __init__(self, house: House, link: ClientLink, waiting: Waiting) -> None:
        super().__init__(house, link)
        self._waiting: Waiting | None = waiting

    def authenticated(self, login: str, blob: bytes) -> None:
        """In: no longer waiting."""
        self._leave()
        super().authenticated(login, blob)

    def closed(self, exc: Exception | None) -> None:
        """Gone: no longer waiting."""
        self._leave()
        super().closed(exc)

    def _leave(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.leave(self._link.peer[0])
