"""What connections share before they are in: the lobby, the waiting room, turns, and counts of who never came through.

A connection's place is given back by its own door, which knows best what became of it: `Watched` leaves the lobby when
somebody is in, and goes to the waiting room with whoever logs in with a browser.
"""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncssh

from bastion.house import House
from bastion.lobby import Lobby, Ticket
from bastion.relay.front import ClientLink
from bastion.relay.wire import Entrance
from bastion.server import Door
from bastion.turns import Turns
from bastion.waitingroom import WaitingRoom
from ca.errors import Reason, Refusal

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MADE_ROOM = "Too many logins wait for a browser. Type your ssh command again, or log in with a certificate."
_TOO_LATE = "This login was not approved in time. Type your ssh command again for a new code."


@dataclass(frozen=True, slots=True)
class Proxies:
    """Where PROXY headers are believed, and demanded: `networks`. `seconds` is the time that one may take."""

    networks: tuple[Network, ...] = ()
    seconds: float = 5.0

    def include(self, address: str) -> bool:
        """Whether connections from there begin with a header."""
        if not self.networks:
            return False
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
        return any((mapped or parsed) in network for network in self.networks)


@dataclass(slots=True)
class Hall:
    """What every connection shares until it is in, and what became of those that never were.

    `refused` counts newcomers by what stood in the way, `abandoned` those that left or were sent away before they had
    logged in. `room` is where those wait who log in with a browser, at their `doors`; `invited` counts what became of
    them. `closed` says why nobody may begin to any more.
    """

    lobby: Lobby
    entrance: Entrance
    house: House
    room: WaitingRoom
    proxies: Proxies = field(default_factory=Proxies)
    turns: Turns = field(default_factory=Turns)
    refused: Counter[str] = field(default_factory=Counter)
    farewells: int = 0
    abandoned: Counter[str] = field(default_factory=Counter)
    invited: Counter[str] = field(default_factory=Counter)
    doors: "set[Watched]" = field(default_factory=set)
    closed: Refusal | None = None

    def close(self, why: Refusal) -> None:
        """Nobody is let in any more: those who wait for a browser are told, and so are those who would begin to."""
        self.closed = why
        for door in list(self.doors):
            door.send_home(why)


class Watched(Door):
    """A door that gives the connection's place back, and says why nobody came through it."""

    def __init__(self, hall: Hall, link: ClientLink, ticket: Ticket, logged_in: Callable[[], None]) -> None:
        super().__init__(hall.house, link)
        self._hall = hall
        self._ticket = ticket
        self._logged_in = logged_in
        self._place: Ticket | None = None
        self._late: asyncio.TimerHandle | None = None

    async def invite(self, login: str) -> str | Refusal:
        """Somebody is to log in with a browser: out of the lobby, into the waiting room."""
        place = self._hall.closed or self._hall.room.enter(self._ticket.block, self._make_room)
        if isinstance(place, Refusal):
            return self.turn_down(login, place)
        self._place = place
        try:
            text = await super().invite(login)
        except asyncio.CancelledError:
            place.leave()
            raise
        if isinstance(text, Refusal):
            self._leave_room(str(text.reason))
            return text
        if place.gone:  # it had to make room while its login was begun
            self.end_waiting(Reason.TOO_MANY, _MADE_ROOM)
            return Refusal(Reason.TOO_MANY, _MADE_ROOM)
        if self._hall.closed is not None:
            self.send_home(self._hall.closed)
            return self._hall.closed
        self._ticket.admitted()
        self._hall.doors.add(self)
        self._hall.invited["begun"] += 1
        self._late = asyncio.get_running_loop().call_later(self.waits_seconds, self._too_late)
        return text

    async def invited(self, login: str) -> bytes | str | Refusal:
        """The browser has decided."""
        outcome = await super().invited(login)
        if isinstance(outcome, Refusal):
            self._leave_room(str(outcome.reason))
        elif isinstance(outcome, bytes):
            self._hall.room.give_back(self._ticket.block)
        return outcome

    def authenticated(self, login: str, blob: bytes) -> None:
        """In: makes room for nobody any more, and waits for no turn."""
        self._ticket.admitted()
        self._leave_room("entered")
        self._logged_in()
        super().authenticated(login, blob)

    def closed(self, exc: Exception | None) -> None:
        """Gone."""
        self._leave_room("left")
        if self._ticket.waiting:
            self._hall.abandoned[_why(self._ticket, exc)] += 1
        self._ticket.leave()
        super().closed(exc)

    def send_home(self, why: Refusal) -> None:
        """Whoever waits for a browser here need not wait any longer."""
        self._leave_room(str(why.reason))
        self.end_waiting(why.reason, why.sentence)

    def _make_room(self) -> None:
        self._leave_room("made_room")
        self.end_waiting(Reason.TOO_MANY, _MADE_ROOM)

    def _too_late(self) -> None:
        self._hall.room.hit_seconds()
        self._leave_room(str(Reason.EXPIRED_TOKEN))
        self.end_waiting(Reason.EXPIRED_TOKEN, _TOO_LATE)

    def _leave_room(self, why: str) -> None:
        """Out of the waiting room, if that is where it is. Counted once."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
            self._hall.invited[why] += 1
        if self._place is not None:
            self._place.leave()
            self._place = None
        self._hall.doors.discard(self)


def _why(ticket: Ticket, exc: Exception | None) -> str:
    """Why a connection ended before it had logged in."""
    if ticket.dropped_for is not None:
        return "made_room"
    if isinstance(exc, asyncssh.ConnectionLost):
        return "grace" if "Login timeout" in str(exc) else "left"
    if isinstance(exc, asyncssh.DisconnectError):
        return "sent_away" if exc.code == asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE else "protocol"
    return "left"
