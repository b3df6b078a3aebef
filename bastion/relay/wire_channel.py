"""One end of a relayed channel: a channel number on one connection.

Two legs, one on the client's connection and one on the pod's, are each other's `far` end; what arrives at one leaves by
the other in the same call, in order and as the bytes that came. A leg stores nothing: flow control is that of the
two ends (`credit`). The far end can also be a TCP connection (`tunnel`).

This is part of the room that touches asyncssh's internals (see `wire`): asyncssh calls the methods of a
channel that it finds in its table.
"""

# ruff: noqa: ARG002 - both ends of a channel answer the same calls, whether they need every argument or not

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from asyncssh.connection import SSHConnection
from asyncssh.constants import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
)
from asyncssh.logging import SSHLogger
from asyncssh.misc import ProtocolError
from asyncssh.packet import SSHPacket

from bastion.relay.answers import Answers, Slot
from bastion.relay.far import NOWHERE
from bastion.relay.meanings import Opened
from bastion.relay.wire_speech import Speech


class Owner(Protocol):
    """The connection of a leg, as far as a leg needs it."""

    def wish(self, leg: Leg, name: bytes, payload: bytes, slot: Slot[int] | None) -> None:
        """The peer asks for something on the channel: decide, and pass it on or answer it."""

    def forget(self, leg: Leg) -> None:
        """The leg is over."""

    def losing(self) -> None:
        """The connection is over; its channels are told one by one after this."""

    def reached(self, limit: str) -> None:
        """A bound of this name was reached."""

    def begun(self, leg: Leg) -> None:
        """The peer's channel is open."""

    def hold_for_answers(self) -> None:
        """As many requests as may are without an answer."""

    def release_for_answers(self) -> None:
        """One of them has it."""


class Leg(Speech):
    """A channel of `connection`; `owner` is the same object, in our own words."""

    __slots__ = ("_got_close", "_got_eof", "_owner", "_replies", "ended", "received")

    def __init__(
        self,
        connection: SSHConnection,
        owner: Owner,
        opened: type[Opened] | None,
        *,
        cap: int,
        packet: int,
        unanswered: int,
    ) -> None:
        self._owner = owner
        self.received = 0
        self.ended: Callable[[], None] | None = None
        self._replies: Answers[int] = Answers(self._send_reply, unanswered, owner)
        self._got_eof = self._got_close = False
        super().__init__(connection, opened, cap=cap, packet=packet)

    # what asyncssh calls

    @property
    def logger(self) -> SSHLogger:
        """Where asyncssh's packet code would log; nothing is logged here, contents least of all."""
        return self.connection.logger

    def log_sent_packet(self, pkttype: int, pktid: int | None, packet: bytes | SSHPacket, note: str = "") -> None:
        """Nothing: contents are not logged, and formatting each packet costs."""

    def log_received_packet(self, pkttype: int, pktid: int | None, packet: bytes | SSHPacket, note: str = "") -> None:
        """Nothing, as above."""

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool:
        """A packet for this channel; the channel number has been read."""
        if not self.open or self._got_close:
            raise ProtocolError("Channel not open")
        body = packet.get_remaining_payload()
        if pkttype == MSG_CHANNEL_DATA:
            self.got_data(pkttype, body, 4)
        elif pkttype == MSG_CHANNEL_WINDOW_ADJUST:
            self.far.widen(_only_number(body))
        elif pkttype == MSG_CHANNEL_EXTENDED_DATA:
            self.got_data(pkttype, body, 8)
        elif pkttype == MSG_CHANNEL_REQUEST:
            self._got_request(packet)
        elif pkttype in {MSG_CHANNEL_SUCCESS, MSG_CHANNEL_FAILURE}:
            self._got_reply(pkttype)
        elif pkttype == MSG_CHANNEL_EOF:
            self._got_eof = True
            self.far.eof()
        elif pkttype == MSG_CHANNEL_CLOSE:
            self._got_close = True
            self.far.close()
            self.over_if_closed()
        else:
            return False
        return True

    def process_open_confirmation(self, send_chan: int, send_window: int, send_pktsize: int, packet: SSHPacket) -> None:
        """The peer confirmed the channel that `ask_open` asked for."""
        if self.open or self.remote is not None:
            raise ProtocolError("Channel not being opened")
        self.remote = send_chan
        self.open = True
        if self.far is NOWHERE:
            self.close()
            return
        self.far.opened(send_window, send_pktsize, packet.get_remaining_payload())

    def process_open_failure(self, code: int, reason: str, lang: str) -> None:
        """The peer refused it."""
        if self.open or self.remote is not None:
            raise ProtocolError("Channel not being opened")
        far, self.far = self.far, NOWHERE
        self.over()
        far.refused(code, reason, lang)

    def process_connection_close(self, exc: Exception | None) -> None:
        """The connection of this leg is over."""
        self._owner.losing()
        far, self.far = self.far, NOWHERE
        opening = not self.open
        self._sent_close = True
        self.over()
        if opening:
            far.refused(2, "the connection was lost", "en")
        else:
            far.close()

    def opened(self, window: int, packet: int, extra: bytes) -> None:
        """The far end takes `window` bytes: confirm the channel to the peer that asked for it."""
        super().opened(window, packet, extra)
        if self.open:
            self._owner.begun(self)

    # what arrived from the peer

    @property
    def listens(self) -> bool:
        """Whether the peer may say anything on this channel."""
        return self.open and not self._got_close

    def take(self, size: int) -> bool:
        """Count data that the peer may send now, and that the caller passes on. False: it may not."""
        if not self.open or self._got_close or self._got_eof or not self._inbound.spend(size):
            return False
        self.received += size
        return True

    @property
    def writable(self) -> bool:
        """Whether data for the peer would be sent."""
        return self.remote is not None and not self.gone and not self._sent_close

    def grant_due(self) -> None:
        """Let the peer send more, when it has used much of what it may."""
        more = self._inbound.due()
        if more:
            self.grant(more)

    def got_data(self, kind: int, body: bytes, head: int) -> None:
        """Data of `kind`; its length is the last number of the `head` bytes before it."""
        size = len(body) - head
        if size < 0 or int.from_bytes(body[head - 4 : head], "big") != size:
            raise ProtocolError("Malformed channel data")
        if self._got_eof:
            raise ProtocolError("Channel not open for sending")
        if not self._inbound.spend(size):
            raise ProtocolError("Window exceeded")
        self.received += size
        self.far.data(kind, size, body)
        self.grant_due()

    def _got_request(self, packet: SSHPacket) -> None:
        name = packet.get_string()
        want_reply = packet.get_boolean()
        slot = self._replies.question() if want_reply and not self._sent_close else None
        self._owner.wish(self, name, packet.get_remaining_payload(), slot)

    def _got_reply(self, pkttype: int) -> None:
        if not self._asked:
            raise ProtocolError("Unexpected channel response")
        self._asked.popleft().answer(pkttype)

    def _send_reply(self, pkttype: int) -> None:
        if not self._sent_close:
            self._tell(pkttype)

    def capped(self) -> None:
        """More was offered than this relay lets anybody send at once."""
        self._owner.reached("window")

    # the end

    def close(self) -> None:
        """Close the channel towards the peer, which gets no replies after that."""
        super().close()
        if self._sent_close:
            self._replies.abandon()

    def over_if_closed(self) -> None:
        """Both sides have closed it."""
        if self._got_close and self._sent_close:
            self.over()

    def over(self) -> None:
        """The channel's number may be used again."""
        if not self.gone:
            self.gone = True
            self.connection.remove_channel(self.number)
            self._owner.forget(self)
            self._replies.abandon()
            ended, self.ended = self.ended, None
            if ended is not None:
                ended()


def _only_number(body: bytes) -> int:
    if len(body) != 4:
        raise ProtocolError("Malformed window adjustment")
    return int.from_bytes(body, "big")
