"""One end of a relayed channel: a channel number on one connection.

Two legs, one on the client's connection and one on the pod's, are each other's `far` end; what arrives at one leaves by
the other in the same call, in order and as the bytes that came. A leg stores nothing: flow control is that of the
two ends (`credit`). The far end can also be a TCP connection (`tunnel`).

This is part of the room that touches asyncssh's internals (see `wire`): asyncssh calls the methods of a
channel that it finds in its table.
"""

# ruff: noqa: ARG002 - both ends of a channel answer the same calls, whether they need every argument or not

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from asyncssh.connection import SSHConnection
from asyncssh.constants import (
    EXTENDED_DATA_STDERR,
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
)
from asyncssh.logging import SSHLogger
from asyncssh.misc import ProtocolError
from asyncssh.packet import Boolean, SSHPacket, SSHPacketHandler, String, UInt32

from bastion.relay.answers import Answers, Slot
from bastion.relay.credit import Credit
from bastion.relay.front import ChannelOpen


class Far(Protocol):
    """Where a leg's traffic goes: another leg, or a tunnel's TCP connection."""

    def data(self, kind: int, size: int, body: bytes) -> None:
        """`size` bytes of (extended) data; `body` is the packet after the channel number."""

    def widen(self, more: int) -> None:
        """The near end's peer takes `more` bytes."""

    def eof(self) -> None:
        """The near end's peer sends no more data."""

    def request(self, name: bytes, payload: bytes, slot: Slot[int] | None) -> None:
        """A channel request to pass on; the reply goes into `slot` when one is wanted."""

    def close(self) -> None:
        """The near end's peer closed the channel, or is gone."""

    def opened(self, window: int, packet: int, extra: bytes) -> None:
        """The channel was confirmed at the near end."""

    def refused(self, code: int, text: str, language: str) -> None:
        """The channel was refused at the near end."""

    def speak(self, wanted: int) -> int:
        """How many bytes of our own may go to the near end's peer now."""


class Nowhere:
    """The far end of a channel that no longer has one."""

    def data(self, kind: int, size: int, body: bytes) -> None: ...
    def widen(self, more: int) -> None: ...
    def eof(self) -> None: ...
    def request(self, name: bytes, payload: bytes, slot: Slot[int] | None) -> None: ...
    def close(self) -> None: ...
    def opened(self, window: int, packet: int, extra: bytes) -> None: ...
    def refused(self, code: int, text: str, language: str) -> None: ...
    def speak(self, wanted: int) -> int:
        return 0


NOWHERE = Nowhere()


class Owner(Protocol):
    """The connection of a leg, as far as a leg needs it."""

    def wish(self, leg: Leg, name: bytes, payload: bytes, slot: Slot[int] | None) -> None:
        """The peer asks for something on the channel: decide, and pass it on or answer it."""

    def forget(self, leg: Leg) -> None:
        """The leg is over."""

    def losing(self) -> None:
        """The connection is over; its channels are told one by one after this."""


class Leg(SSHPacketHandler):
    """A channel of `connection`; `owner` is the same object, in our own words."""

    __slots__ = (
        "_asked",
        "_cap",
        "_got_close",
        "_got_eof",
        "_inbound",
        "_owner",
        "_packet",
        "_replies",
        "_sent_close",
        "_sent_eof",
        "_unanswered",
        "connection",
        "ended",
        "far",
        "gone",
        "number",
        "open",
        "opening",
        "received",
        "remote",
        "sent",
    )

    def __init__(
        self,
        connection: SSHConnection,
        owner: Owner,
        opened: ChannelOpen | None,
        *,
        cap: int,
        packet: int,
        unanswered: int,
    ) -> None:
        self.connection = connection
        self._owner = owner
        self._cap = cap
        self._packet = packet
        self._unanswered = unanswered
        self.opening = opened
        self.far: Far = NOWHERE
        self.remote: int | None = None
        self.open = False
        self.gone = False
        self.received = self.sent = 0
        self.ended: Callable[[], None] | None = None
        self._inbound = Credit(0, cap)
        self._replies: Answers[int] = Answers(self._send_reply)
        self._asked: deque[Slot[int]] = deque()
        self._got_eof = self._got_close = self._sent_eof = self._sent_close = False
        self.number = connection.add_channel(self)  # type: ignore[arg-type]  # it only keeps and calls it

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
            self._end_if_closed()
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
        self._end()
        far.refused(code, reason, lang)

    def process_connection_close(self, exc: Exception | None) -> None:
        """The connection of this leg is over."""
        self._owner.losing()
        far, self.far = self.far, NOWHERE
        opening = not self.open
        self._sent_close = True
        self._end()
        if opening:
            far.refused(2, "the connection was lost", "en")
        else:
            far.close()

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
        if want_reply and len(self._replies) >= self._unanswered:
            raise ProtocolError("Too many unanswered channel requests")
        slot = self._replies.question() if want_reply else None
        self._owner.wish(self, name, packet.get_remaining_payload(), slot)

    def _got_reply(self, pkttype: int) -> None:
        if not self._asked:
            raise ProtocolError("Unexpected channel response")
        self._asked.popleft().answer(pkttype)

    # what goes to the peer

    def ask_open(self, kind: bytes, window: int, packet: int, payload: bytes) -> None:
        """Open this channel at the peer, on behalf of the far end, which takes `window` bytes."""
        self._inbound = Credit(window, self._cap)
        head = UInt32(self.number) + UInt32(self._inbound.granted) + UInt32(min(packet, self._packet))
        self.connection.send_packet(MSG_CHANNEL_OPEN, String(kind), head, payload, handler=self)

    def opened(self, window: int, packet: int, extra: bytes) -> None:
        """The far end takes `window` bytes: confirm the channel to the peer that asked for it."""
        if self.remote is None or self.gone:
            return
        self._inbound = Credit(window, self._cap)
        self.open = True
        size = min(packet, self._packet)
        self.connection.send_channel_open_confirmation(self.remote, self.number, self._inbound.granted, size, extra)

    def refused(self, code: int, text: str, language: str) -> None:
        """Tell the peer that asked for the channel that it cannot have it.

        Where the peer was asked by us, and has not answered yet, its answer is waited for: a number is not given up
        while the peer may still use it.
        """
        if self.remote is None:
            self.far = NOWHERE
            return
        if not self.gone:
            self.connection.send_channel_open_failure(self.remote, code, text, language)
        self._end()

    def data(self, kind: int, size: int, body: bytes) -> None:
        """Data from the far end, which has been counted there."""
        if not self._sent_close:
            self.sent += size
            self._tell(kind, body)

    def widen(self, more: int) -> None:
        """The far end's peer takes `more` bytes."""
        self._inbound.widen(more)
        self.grant(self._inbound.due())

    def grant(self, more: int) -> None:
        """Let the peer send `more` bytes."""
        if more and not self._sent_close:
            self._tell(MSG_CHANNEL_WINDOW_ADJUST, UInt32(more))

    def eof(self) -> None:
        """The far end sends no more data."""
        if not self._sent_eof and not self._sent_close:
            self._sent_eof = True
            self._tell(MSG_CHANNEL_EOF)

    def request(self, name: bytes, payload: bytes, slot: Slot[int] | None) -> None:
        """Pass a request on, as it came."""
        if self._sent_close:
            return
        if slot is not None:
            self._asked.append(slot)
        self._tell(MSG_CHANNEL_REQUEST, String(name), Boolean(slot is not None), payload)

    def close(self) -> None:
        """Close the channel towards the peer; it is over when the peer has closed it too."""
        if not self.open:
            self.far = NOWHERE
            return
        if not self._sent_close:
            self._tell(MSG_CHANNEL_CLOSE)
            self._sent_close = True
        self._end_if_closed()

    def speak(self, wanted: int) -> int:
        """How many bytes of our own may go to the far end's peer, which gave this credit."""
        return self._inbound.speak(wanted)

    def say(self, sentence: str) -> None:
        """A line on the channel's standard error, as much of it as the peer's window takes."""
        if not self.open or self._sent_eof or self._sent_close:
            return
        line = f"\r\n{sentence}\r\n".encode()
        line = line[: self.far.speak(len(line))]
        if line:
            self._tell(MSG_CHANNEL_EXTENDED_DATA, UInt32(EXTENDED_DATA_STDERR), String(line))

    def _send_reply(self, pkttype: int) -> None:
        if not self._sent_close:
            self._tell(pkttype)

    def _tell(self, pkttype: int, *args: bytes) -> None:
        if self.remote is not None and not self.gone:
            self.connection.send_packet(pkttype, UInt32(self.remote), *args, handler=self)

    def _end_if_closed(self) -> None:
        if self._got_close and self._sent_close:
            self._end()

    def _end(self) -> None:
        if not self.gone:
            self.gone = True
            self.connection.remove_channel(self.number)
            self._owner.forget(self)
            ended, self.ended = self.ended, None
            if ended is not None:
                ended()


def _only_number(body: bytes) -> int:
    if len(body) != 4:
        raise ProtocolError("Malformed window adjustment")
    return int.from_bytes(body, "big")
