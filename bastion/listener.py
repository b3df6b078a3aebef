"""Accept connections, within bounds: each has a place in the lobby before it costs a key exchange.

A connection comes here first, because `asyncio` asks for a protocol before it tells the address. The gate learns the
address, from the socket or, behind a proxy that was configured, from the header it sends, and asks the lobby. Until the
connection has logged in, what it says goes through the gate, a turn at a time; then the gate steps aside.
"""

import asyncio
import struct

from bastion.hall import Hall, Watched
from bastion.lobby import Bound, Ticket
from bastion.proxyprotocol import Header, Misread, read_header
from bastion.relay.wire import ClientSide
from bastion.relay.wire_options import VERSION

_SENTENCES = {
    Bound.CONNECTIONS: "This bastion has no room for more connections. Try again later.",
    Bound.CONNECTIONS_PER_ADDRESS: "Too many connections from your address. Close some and try again.",
}

FAREWELL_SECONDS = 2.0
"""How long somebody who is turned away may take to read why."""

_FAREWELLS = 64
"""How many may be doing so at once; more are cut without a word, so that a flood costs no descriptors."""

_MOST_WAITING = 64 << 10
"""Bytes of somebody who has not logged in that wait for a turn before no more is read."""

_DISCONNECT, _TOO_MANY_CONNECTIONS = 1, 12


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
        self._turns = 0
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
        if self._ticket is not None:
            self._hall.turns.arrived(self._ticket.block)
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
            self._hall.turns.want(self._ticket.block, self._ticket.number, self._turn, self._turns)
            self._turns += 1

    def _turn(self) -> None:
        """Begin SSH, or go on with it."""
        self._queued = False
        transport, ticket = self._transport, self._ticket
        if self._over or transport is None or ticket is None or transport.is_closing():
            return
        if self._ssh is None:
            self._ssh = self._hall.entrance(lambda link: Watched(self._hall, link, ticket, self.logged_in), self._peer)
            self._ssh.own_turn = self._own_turn
            self._ssh.connection_made(transport)
        self._pass_on(transport, self._ssh)

    async def _own_turn(self) -> None:
        """For SSH to wait, before it does what costs much."""
        if self._ticket is not None:
            self._turns += 1
            await self._hall.turns.wait(self._ticket.block, self._ticket.number, self._turns - 1)

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


def disconnect(sentence: str) -> bytes:
    """An SSH server's first line and its last message (RFC 4253 sections 4.2, 6, 11.1), which OpenSSH's client shows:
    a line of text before it would be shown to nobody."""
    text = sentence.encode("ascii", "replace")
    message = struct.pack(">BII", _DISCONNECT, _TOO_MANY_CONNECTIONS, len(text)) + text + struct.pack(">I2s", 2, b"en")
    padding = 4 + -(len(message) + 9) % 8
    packet = struct.pack(">IB", len(message) + 1 + padding, padding) + message + bytes(padding)
    return f"SSH-2.0-{VERSION}\r\n".encode("ascii") + packet
