"""Accept connections, within bounds: each has a place in the lobby before it costs a key exchange.

A connection comes here first, because `asyncio` asks for a protocol before it tells the address. This one learns the
address, from the socket or, behind a proxy that was configured, from the header it sends, asks the lobby, and
steps aside for SSH.
"""

import asyncio
import ipaddress
import struct
from collections import Counter
from dataclasses import dataclass, field

import asyncssh

from bastion.lobby import Bound, Lobby, Ticket
from bastion.proxyprotocol import Header, Misread, read_header
from bastion.relay.front import ClientLink
from bastion.relay.wire import Entrance
from bastion.relay.wire_options import VERSION
from bastion.server import Door, House

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SENTENCES = {
    Bound.CONNECTIONS: "This bastion has no room for more connections. Try again later.",
    Bound.CONNECTIONS_PER_ADDRESS: "Too many connections from your address. Close some and try again.",
}

FAREWELL_SECONDS = 2.0
"""How long somebody who is turned away may take to read why."""

_FAREWELLS = 64
"""How many may be doing so at once; more are cut without a word, so that a flood costs no descriptors."""

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
    logged in.
    """

    lobby: Lobby
    entrance: Entrance
    house: House
    proxies: Proxies = field(default_factory=Proxies)
    refused: Counter[str] = field(default_factory=Counter)
    farewells: int = 0
    abandoned: Counter[str] = field(default_factory=Counter)

    def gate(self) -> "Gate":
        """The protocol of a new connection: give this to `loop.create_server`."""
        return Gate(self)


class Gate(asyncio.Protocol):
    """The first protocol of a connection. It is gone as soon as SSH has begun."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._ticket: Ticket | None = None
        self._transport: asyncio.Transport | None = None
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
            self._step_aside(None, b"")

    def data_received(self, data: bytes) -> None:
        """A piece of a proxy's header. Nothing else is read here: whoever was turned away is not listened to."""
        if self._timer is None or self._leaving:
            return
        self._header += data
        read = read_header(self._header)
        if isinstance(read, Misread):
            self._end("proxy_header")
        elif read is not None:
            self._arrived(read)

    def connection_lost(self, exc: Exception | None) -> None:
        """It went before SSH began."""
        del exc
        self._stop_timer()
        if self._leaving:
            self._leaving = False
            self._hall.farewells -= 1
        if self._ticket is not None:
            self._ticket.leave()

    def _arrived(self, header: Header) -> None:
        self._stop_timer()
        if header.source is not None and self._ticket is not None:
            refused = self._hall.lobby.move(self._ticket, header.source[0])
            if refused is not None:
                self._turn_away(refused)
                return
        self._step_aside(header.source, self._header[header.size :])

    def _step_aside(self, peer: tuple[str, int] | None, early: bytes) -> None:
        transport, ticket = self._transport, self._ticket
        if transport is None or ticket is None:
            return
        protocol = self._hall.entrance(lambda link: Watched(self._hall, link, ticket), peer)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if early:
            protocol.data_received(early)

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

    def __init__(self, hall: Hall, link: ClientLink, ticket: Ticket) -> None:
        super().__init__(hall.house, link)
        self._hall = hall
        self._ticket = ticket

    def authenticated(self, login: str, blob: bytes) -> None:
        """In: makes room for nobody any more."""
        self._ticket.admitted()
        super().authenticated(login, blob)

    def closed(self, exc: Exception | None) -> None:
        """Gone."""
        if self._ticket.waiting:
            self._hall.abandoned[_why(self._ticket, exc)] += 1
        self._ticket.leave()
        super().closed(exc)


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
