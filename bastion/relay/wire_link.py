"""What the client's connection and the pod's have in common: opening channels across, and backpressure.

asyncssh ignores its transports' word that they are full, and keeps what it may not send during a key exchange without
a bound. So a connection that is full, or stuck in a key exchange, holds the reading of whatever feeds it.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from asyncssh.connection import SSHConnection
from asyncssh.constants import (
    MSG_CHANNEL_OPEN,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    MSG_USERAUTH_LAST,
    OPEN_CONNECT_FAILED,
)
from asyncssh.misc import ProtocolError
from asyncssh.packet import SSHPacket, SSHPacketLogger

from bastion.relay.answers import Answers, Slot
from bastion.relay.front import ChannelOpen, RelayRefused
from bastion.relay.limits import RelayLimits
from bastion.relay.requests import opened, shown
from bastion.relay.wire_channel import Leg
from bastion.relay.wire_cipher import Workbench
from bastion.relay.wire_hotpath import HotPath

DISCONNECT_BY_APPLICATION = 11


@dataclass(frozen=True, slots=True)
class OpenFailure:
    """A channel that is not opened: code of RFC 4254 section 5.1, and the text for the person."""

    code: int
    text: str


_ENDING = OpenFailure(OPEN_CONNECT_FAILED, "the connection is ending")


@dataclass(frozen=True, slots=True)
class Offered:
    """What the peer said of a channel that it wants: its number, the window and packet size that it takes."""

    sender: int
    kind: bytes
    window: int
    packet: int
    payload: bytes


class Feeder(Protocol):
    """Something whose bytes go into a connection, and that can be told to wait."""

    def hold(self) -> None: ...
    def release(self) -> None: ...


GlobalReply = bytes | None
"""The payload of a success, or None for a failure."""


class Link(HotPath):
    """One of the two connections. Subclasses decide; this moves."""

    limits: RelayLimits
    _tcp: asyncio.Transport | None = None

    def set_up(self, limits: RelayLimits, bench: Workbench) -> None:
        """Own state; before asyncssh's constructor, which may call back."""
        self.limits = limits
        self.bench = bench
        self.legs: dict[int, Leg] = {}
        self._received = self._sent = 0
        self.ending = False
        self._muted = False
        self._full = False
        self._holds = 0
        self._deferred_bytes = 0
        self._holding_for_kex: list[Feeder] = []
        self._held_feeders: list[Feeder] = []
        self._global_replies: Answers[GlobalReply] = Answers(self._send_global_reply)

    # what subclasses say

    def feeders(self) -> list[Feeder]:
        """Whatever writes into this connection."""
        raise NotImplementedError

    async def across(self) -> Link:
        """The other connection. Raises `RelayRefused`."""
        raise NotImplementedError

    def judge_open(self, asked: ChannelOpen, kind: bytes) -> OpenFailure | Callable[[Leg, Offered], Awaitable[None]]:
        """Whether the peer may have that channel, and how it is made."""
        raise NotImplementedError

    def wish(self, leg: Leg, name: bytes, payload: bytes, slot: Slot[int] | None) -> None:
        """The peer asks for something on a channel."""
        raise NotImplementedError

    def judge_global(self, name: bytes, payload: bytes, slot: Slot[GlobalReply] | None) -> None:
        """The peer asks for something of the connection."""
        raise NotImplementedError

    # channels

    def make_leg(self, asked: ChannelOpen | None) -> Leg:
        """A new channel number on this connection."""
        leg = Leg(
            self, self, asked, cap=self.limits.window, packet=self.limits.packet, unanswered=self.limits.unanswered
        )
        self.legs[leg.number] = leg
        return leg

    def losing(self) -> None:
        """The connection is over, and its channels are about to hear it."""

    def forget(self, leg: Leg) -> None:
        """The channel is over."""
        if self.legs.pop(leg.number, None) is not None:
            self._received += leg.received
            self._sent += leg.sent

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes of channel data from and to the peer so far."""
        live = list(self.legs.values())
        return self._received + sum(leg.received for leg in live), self._sent + sum(leg.sent for leg in live)

    def _process_channel_open(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        kind = packet.get_string()
        sender, window, size = packet.get_uint32(), packet.get_uint32(), packet.get_uint32()
        payload = packet.get_remaining_payload()
        if size == 0:
            raise ProtocolError("Invalid maximum packet size")
        asked = ChannelOpen(sender, shown(kind), opened(kind, payload), payload)
        way = (
            OpenFailure(OPEN_CONNECT_FAILED, "the connection is ending")
            if self.ending
            else self.judge_open(asked, kind)
        )
        if isinstance(way, OpenFailure):
            self.send_channel_open_failure(sender, way.code, way.text, "en")
            return
        leg = self.make_leg(asked)
        leg.remote = sender
        self.create_task(way(leg, Offered(sender, kind, window, size, payload)))

    async def open_across(self, leg: Leg, offered: Offered) -> None:
        """Open the peer's channel on the other connection, verbatim; it is confirmed when that one is."""
        try:
            other = await self.across()
        except RelayRefused as refused:
            leg.refused(OPEN_CONNECT_FAILED, refused.sentence, "en")
            return
        if leg.gone or other.is_gone:
            leg.refused(OPEN_CONNECT_FAILED, "the connection was lost", "en")
            return
        far = other.make_leg(None)
        leg.far, far.far = far, leg
        far.ask_open(offered.kind, offered.window, offered.packet, offered.payload)

    # global requests

    def _process_global_request(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        name = packet.get_string()
        want_reply = packet.get_boolean()
        if want_reply and len(self._global_replies) >= self.limits.unanswered:
            raise ProtocolError("Too many unanswered global requests")
        slot = self._global_replies.question() if want_reply else None
        self.judge_global(name, packet.get_remaining_payload(), slot)

    async def ask_global(self, name: bytes, payload: bytes, *, want_reply: bool) -> GlobalReply:
        """Pass a global request to this connection's peer, and wait for its reply where one is wanted."""
        if not want_reply:
            self._send_global_request(name, payload)
            return None
        kind, packet = await self._make_global_request(name, payload)
        return packet.get_remaining_payload() if kind == MSG_REQUEST_SUCCESS else None

    def _send_global_reply(self, reply: GlobalReply) -> None:
        if reply is None:
            self.send_packet(MSG_REQUEST_FAILURE)
        else:
            self.send_packet(MSG_REQUEST_SUCCESS, reply)

    # backpressure

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport: asyncssh forgets it before it has closed it."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("SSH needs a stream")
        self._tcp = transport
        transport.set_write_buffer_limits(high=self.limits.buffered)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """The transport holds as much as it may: whatever feeds this connection waits."""
        if not self._full:
            self._full = True
            self.limits.hit("buffered")
            self._held_feeders = self.feeders()
            for feeder in self._held_feeders:
                feeder.hold()

    def resume_writing(self) -> None:
        """It has room again."""
        self._full = False
        held, self._held_feeders = self._held_feeders, []
        for feeder in held:
            feeder.release()

    @property
    def full(self) -> bool:
        """Whether a new feeder must begin by waiting."""
        return self._full

    def hold_with(self, feeder: Feeder) -> None:
        """A feeder that began while this connection is full."""
        if self._full:
            self._held_feeders.append(feeder)
            feeder.hold()

    def hold(self) -> None:
        """Stop reading from the peer. Its silence is then ours, so it is not asked whether it is there."""
        self._holds += 1
        if self._holds == 1 and self._tcp is not None:
            self._tcp.pause_reading()
            self.set_keepalive(0)

    def release(self) -> None:
        """Read again when nobody else holds."""
        self._holds -= 1
        if self._holds == 0 and self._tcp is not None:
            self._tcp.resume_reading()
            if not self.is_gone:
                self.set_keepalive(self.limits.keepalive_seconds)

    @property
    def in_key_exchange(self) -> bool:
        """Whether packets wait for new keys."""
        return not self._kex_complete

    def send_packet(self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None) -> None:
        """Send, or keep until a key exchange is over; what is kept is counted and bounded."""
        if self._muted or pkttype == MSG_IGNORE:
            # asyncssh sends an empty one before every packet, against attacks on CBC, which is not offered here.
            return
        super().send_packet(pkttype, *args, handler=handler)
        if not self._kex_complete and pkttype > MSG_USERAUTH_LAST:
            self._deferred_bytes += sum(map(len, args))
            if self._deferred_bytes > self.limits.deferred:
                self.limits.hit("deferred")
                self.abort()
            elif self._deferred_bytes > self.limits.buffered and not self._holding_for_kex:
                # A feeder that exchanges keys itself must be read, or the two would wait for each other.
                self._holding_for_kex = [
                    feeder for feeder in self.feeders() if not (isinstance(feeder, Link) and feeder.in_key_exchange)
                ]
                for feeder in self._holding_for_kex:
                    feeder.hold()

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        """The key exchange is over on our side: what was kept has been sent."""
        super().send_newkeys(k, h)
        self._deferred_bytes = 0
        self._release_after_kex()

    def _release_after_kex(self) -> None:
        held, self._holding_for_kex = self._holding_for_kex, []
        for feeder in held:
            feeder.release()

    def let_go(self) -> None:
        """This connection is over: whatever waits for it is released."""
        self.resume_writing()
        self._release_after_kex()
        if self._holds > 0 and self._tcp is not None:
            self._tcp.resume_reading()

    # the end

    def hang_up(self, sentence: str) -> None:
        """Say the last message, let it be sent, and cut the connection when the peer has closed or time is up."""
        if self.is_gone or self._muted or self._tcp is None:
            return
        self.ending = True
        self._send_disconnect(DISCONNECT_BY_APPLICATION, sentence, "en")
        self._muted = True
        self.flush()
        if self._tcp.can_write_eof() and not self._tcp.is_closing():
            self._tcp.write_eof()
        self._tcp.resume_reading()
        self._loop.call_later(self.limits.farewell / 2, self.abort)

    def log_sent_packet(self, pkttype: int, pktid: int | None, packet: bytes | SSHPacket, note: str = "") -> None:
        """Nothing: contents are not logged, and formatting each packet costs."""

    def log_received_packet(self, pkttype: int, pktid: int | None, packet: bytes | SSHPacket, note: str = "") -> None:
        """Nothing, as above."""

    _packet_handlers = {  # noqa: RUF012 - asyncssh's own shape
        **SSHConnection._packet_handlers,
        MSG_CHANNEL_OPEN: _process_channel_open,
        MSG_GLOBAL_REQUEST: _process_global_request,
    }
