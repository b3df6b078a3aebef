"""Accept connections, within bounds: each has a place in the lobby before it costs a key exchange.

A connection comes here first, because `asyncio` asks for a protocol before it tells the address. The gate learns the
address, from the socket or, behind a proxy that was configured, from the header it sends, and asks the lobby. Until the
connection has logged in, what it says goes through the gate, a turn at a time; then the gate steps aside.
"""

import asyncio
import ipaddress
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import asyncssh

from bastion.lobby import Bound, Lobby, Ticket
from bastion.proxyprotocol import Header, Misread, read_header
from bastion.relay.front import ClientLink
from bastion.relay.wire import ClientSide, Entrance
from bastion.relay.wire_options import VERSION
from bastion.server import Door, House
from bastion.turns import Turns
from bastion.waitingroom import WaitingRoom
from ca.errors import Reason, Refusal

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SENTENCES = {
    Bound.CONNECTIONS: "This bastion has no room for more connections. Try again later.",
    Bound.CONNECTIONS_PER_ADDRESS: "Too many connections from your address. Close some and try again.",
}

_MADE_ROOM = "Too many logins wait for a browser. Type your ssh command again, or log in with a certificate."
_TOO_LATE = "This login was not approved in time. Type your ssh command again for a new code."

FAREWELL_SECONDS = 2.0
"""How long somebody who is turned away may take to read why."""

_FAREWELLS = 64
"""How many may be doing so at once; more are cut without a word, so that a flood costs no descriptors."""

_MOST_WAITING = 64 << 10
"""Bytes of somebody who has not logged in that wait for a turn before no more is read."""

_DISCONNECT, _TOO_MANY_CONNECTIONS = 1, 12


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
    logged in. `room` is where those wait who log in with a browser; `invited` counts what became of them.
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

    def gate(self) -> "Gate":
        """The protocol of a new connection: give this to `loop.create_server`."""
        return Gate(self)


class Gate(asyncio.Protocol):
    """The protocol of a connection until it has logged in."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._ticket: Ticket | None = None
        self._transport: asyncio.Transport | None = None
        self._ssh: ClientSide | None = None
        self._peer: tuple[str, int] | None = None
        self._waiting = b""
        self._queued = False
        self._over = False
        self._header = b""
        self._leaving = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection to SSH, wait for a proxy's header, or turn it away."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("SSH needs a stream")
        self._transport = transport
        name = transport.get_extra_info("peername")
        address = str(name[0]) if name else ""
        ticket = self._hall.lobby.enter(address, transport.abort)
        if isinstance(ticket, Bound):
            self._turn_away(ticket)
            return
        self._ticket = ticket
        if self._hall.proxies.include(address):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._hall.proxies.seconds, self._end, "proxy_timeout")
        else:
            self._queue()

    def data_received(self, data: bytes) -> None:
        """A piece of a proxy's header, or of a login. Whoever was turned away is not listened to."""
        if self._over or self._ticket is None:
            return
        if self._timer is None:
            self._waiting += data
            if len(self._waiting) > _MOST_WAITING and self._transport is not None:
                self._transport.pause_reading()
            self._queue()
            return
        self._header += data
        read = read_header(self._header)
        if isinstance(read, Misread):
            self._end("proxy_header")
        elif read is not None:
            self._arrived(read)

    def eof_received(self) -> None:
        """Nobody logs in who says no more: None has the connection closed."""
        if self._ssh is not None:
            self._ssh.eof_received()

    def pause_writing(self) -> None:
        """For SSH to know."""
        if self._ssh is not None:
            self._ssh.pause_writing()

    def resume_writing(self) -> None:
        """For SSH to know."""
        if self._ssh is not None:
            self._ssh.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It went before it had logged in; what it said last is of no interest."""
        self._over = True
        self._waiting = b""
        self._stop_timer()
        if self._leaving:
            self._leaving = False
            self._hall.farewells -= 1
        if self._ssh is not None:
            self._ssh.connection_lost(exc)
        elif self._ticket is not None:
            self._ticket.leave()

    def logged_in(self) -> None:
        """Step aside, as soon as SSH is done with what it is at."""
        asyncio.get_running_loop().call_soon(self._step_aside)

    def _arrived(self, header: Header) -> None:
        self._stop_timer()
        self._peer = header.source
        if header.source is not None and self._ticket is not None:
            refused = self._hall.lobby.move(self._ticket, header.source[0])
            if refused is not None:
                self._ticket = None
                self._turn_away(refused)
                return
        self._waiting = self._header[header.size :]
        self._queue()

    def _queue(self) -> None:
        if not self._queued and self._ticket is not None:
            self._queued = True
            self._hall.turns.want(self._ticket.block, self._ticket.number, self._turn)

    def _turn(self) -> None:
        """Begin SSH, or go on with it."""
        self._queued = False
        transport, ticket = self._transport, self._ticket
        if self._over or transport is None or ticket is None or transport.is_closing():
            return
        if self._ssh is None:
            self._ssh = self._hall.entrance(lambda link: Watched(self._hall, link, ticket, self.logged_in), self._peer)
            self._ssh.own_turn = lambda: self._hall.turns.wait(ticket.block, ticket.number)
            self._ssh.connection_made(transport)
        self._pass_on(transport, self._ssh)

    def _pass_on(self, transport: asyncio.Transport, ssh: ClientSide) -> None:
        waiting, self._waiting = self._waiting, b""
        if len(waiting) > _MOST_WAITING:
            transport.resume_reading()
        if waiting:
            ssh.data_received(waiting)

    def _step_aside(self) -> None:
        transport, ssh = self._transport, self._ssh
        if self._over or transport is None or ssh is None:
            return
        self._over = True
        ssh.own_turn = None
        self._pass_on(transport, ssh)
        transport.set_protocol(ssh)

    def _turn_away(self, why: Bound) -> None:
        """Say why, wait until it was read, and close."""
        self._hall.refused[why] += 1
        if self._transport is None:
            return
        if self._hall.farewells >= _FAREWELLS:
            self._transport.abort()
            return
        self._hall.farewells += 1
        self._leaving = True
        self._transport.write(disconnect(_SENTENCES.get(why, "")))
        # Closing while the client's own first line is unread would reset the connection, and ours would be lost.
        self._transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(FAREWELL_SECONDS, self._transport.abort)

    def _end(self, why: str) -> None:
        """What a proxy sent is not what was agreed: there is nobody to tell a sentence."""
        self._stop_timer()
        self._hall.refused[why] += 1
        if self._transport is not None:
            self._transport.abort()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


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
        place = self._hall.room.enter(self._ticket.block, self._make_room)
        if isinstance(place, Refusal):
            return self.turn_down(login, place)
        self._place = place
        try:
            text = await super().invite(login)
        except asyncio.CancelledError:
            place.leave()
            raise
        if isinstance(text, Refusal):
            place.leave()
            return text
        self._ticket.admitted()
        self._hall.invited["begun"] += 1
        self._late = asyncio.get_running_loop().call_later(self.waits_seconds, self._too_late)
        return text

    async def invited(self, login: str) -> bytes | str | Refusal:
        """The browser has decided."""
        outcome = await super().invited(login)
        if isinstance(outcome, Refusal):
            self._leave_room(str(outcome.reason))
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


def disconnect(sentence: str) -> bytes:
    """An SSH server's first line and its last message (RFC 4253 sections 4.2, 6, 11.1), which OpenSSH's client shows:
    a line of text before it would be shown to nobody."""
    text = sentence.encode("ascii", "replace")
    message = struct.pack(">BII", _DISCONNECT, _TOO_MANY_CONNECTIONS, len(text)) + text + struct.pack(">I2s", 2, b"en")
    padding = 4 + -(len(message) + 9) % 8
    packet = struct.pack(">IB", len(message) + 1 + padding, padding) + message + bytes(padding)
    return f"SSH-2.0-{VERSION}\r\n".encode("ascii") + packet


def _why(ticket: Ticket, exc: Exception | None) -> str:
    """Why a connection ended before it had logged in."""
    if ticket.dropped_for is not None:
        return "made_room"
    if isinstance(exc, asyncssh.ConnectionLost):
        return "grace" if "Login timeout" in str(exc) else "left"
    if isinstance(exc, asyncssh.DisconnectError):
        return "sent_away" if exc.code == asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE else "protocol"
    return "left"
