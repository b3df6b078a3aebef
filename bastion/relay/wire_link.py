"""What the client's connection and the pod's have in common: opening channels across, and ending.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from asyncssh.connection import SSHConnection
from asyncssh.constants import (
    MSG_CHANNEL_OPEN,
    MSG_GLOBAL_REQUEST,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    OPEN_CONNECT_FAILED,
    OPEN_RESOURCE_SHORTAGE,
)
from asyncssh.misc import ConnectionLost, ProtocolError
from asyncssh.packet import SSHPacket

from bastion.relay.answers import Answers, Slot
from bastion.relay.front import ChannelOpen, RelayRefused
from bastion.relay.limits import RelayLimits
from bastion.relay.meanings import Opened
from bastion.relay.requests import opened, shown
from bastion.relay.silence import was_silence
from bastion.relay.wire_channel import Leg
from bastion.relay.wire_cipher import Workbench
from bastion.relay.wire_pressure import Pressure

DISCONNECT_BY_APPLICATION = 11


@dataclass(frozen=True, slots=True)
class OpenFailure:
    """A channel that is not opened: code of RFC 4254 section 5.1, and the text for the person."""

    code: int
    text: str


_ENDING = OpenFailure(OPEN_CONNECT_FAILED, "the connection is ending")
MOST_ASKED = 4096
"""Bytes that an open or a global request may take to say what it wants, which is kept while the pod is dialled: a host
name has at most 255, the path of a socket 108."""
_TOO_LONG = OpenFailure(OPEN_RESOURCE_SHORTAGE, f"at most {MOST_ASKED} bytes may say what a channel is for")


@dataclass(frozen=True, slots=True)
class Offered:
    """What the peer said of a channel that it wants: its number, the window and packet size that it takes."""

    sender: int
    kind: bytes
    window: int
    packet: int
    payload: bytes


GlobalReply = bytes | None
"""The payload of a success, or None for a failure."""


class Link(Pressure):
    """One of the two connections. Subclasses decide; this moves."""

    def set_up(self, limits: RelayLimits, bench: Workbench) -> None:
        """Own state; before asyncssh's constructor, which may call back."""
        self.set_up_pressure(limits)
        self.bench = bench
        self.legs: dict[int, Leg] = {}
        self._received = self._sent = 0
        self.ending = False
        self._muted = False
        self._waiting_for_answers = 0
        self._patience: asyncio.TimerHandle | None = None
        self._global_replies: Answers[GlobalReply] = Answers(self._send_global_reply, limits.unanswered, self)

    # what subclasses say

    async def across(self) -> Link:
        """The other connection. Raises `RelayRefused`."""
        raise NotImplementedError

    def judge_open(self, asked: ChannelOpen, kind: bytes) -> OpenFailure | Callable[[Leg, Offered], Awaitable[None]]:
        """Whether the peer may have that channel, and how it is made."""
        raise NotImplementedError

    def wish(self, leg: Leg, name: bytes, payload: bytes, slot: Slot[int] | None) -> None:
        """The peer asks for something on a channel."""
        raise NotImplementedError

    def judge_global(self, name: bytes, payload: bytes, slot: Slot[GlobalReply]) -> None:
        """The peer asks for something of the connection. The slot is answered, whether that is sent or not."""
        raise NotImplementedError

    # channels

    def make_leg(self, asked: type[Opened] | None) -> Leg:
        """A new channel number on this connection; for what, where its peer asked for it."""
        leg = Leg(
            self, self, asked, cap=self.limits.window, packet=self.limits.packet, unanswered=self.limits.unanswered
        )
        self.legs[leg.number] = leg
        return leg

    def reached(self, limit: str) -> None:
        """A bound of this name was reached, on this connection or one of its channels."""
        self.limits.hit(limit)

    def begun(self, leg: Leg) -> None:
        """The peer's channel is open."""

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
        if self.ending or len(payload) > MOST_ASKED:
            way: OpenFailure | Callable[[Leg, Offered], Awaitable[None]] = _ENDING if self.ending else _TOO_LONG
        else:
            asked = ChannelOpen(sender, shown(kind), opened(kind, payload), payload)
            way = self.judge_open(asked, kind)
        if isinstance(way, OpenFailure):
            self.send_channel_open_failure(sender, way.code, way.text, "en")
            return
        leg = self.make_leg(type(asked.meaning))
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
        payload = packet.get_remaining_payload()
        slot = self._global_replies.question(wanted=want_reply)
        if len(payload) > MOST_ASKED:
            slot.answer(None)
        else:
            self.judge_global(name, payload, slot)

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

    def hold_for_answers(self) -> None:
        """As many requests as may are without an answer: the peer may ask on when one of them has it."""
        self._waiting_for_answers += 1
        if self._patience is None and self.limits.keepalive_seconds:
            seconds = self.limits.keepalive_seconds * (self.limits.keepalive_count + 1)
            self._patience = self._loop.call_later(seconds, self._unanswered)
        self.limits.hit("unanswered")
        self.hold()

    def release_for_answers(self) -> None:
        """One has it."""
        self._waiting_for_answers -= 1
        if not self._waiting_for_answers:
            self._lose_patience()
        self.release()

    def _unanswered(self) -> None:
        self.connection_lost(ConnectionLost("Too many requests have no answer"))

    def _lose_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    # the end

    def count_silence(self, exc: Exception | None) -> None:
        """Count an end that came of a peer that was gone."""
        if was_silence(exc):
            self.limits.hit("keepalive_count")

    def let_go(self) -> None:
        """This connection is over: nothing is waited for."""
        self._lose_patience()
        super().let_go()

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
