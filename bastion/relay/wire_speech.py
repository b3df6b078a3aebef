"""What one end of a channel says to its peer: its state, and every message that leaves.

This is part of the room that touches asyncssh's internals (see `wire`); `wire_channel` adds what arrives.
"""

from __future__ import annotations

from collections import deque

from asyncssh.connection import SSHConnection
from asyncssh.constants import (
    EXTENDED_DATA_STDERR,
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
)
from asyncssh.packet import Boolean, SSHPacketHandler, String, UInt32

from bastion.relay.answers import Slot
from bastion.relay.credit import Credit
from bastion.relay.far import NOWHERE, Far
from bastion.relay.meanings import Opened


class Speech(SSHPacketHandler):
    """A channel of `connection`, as far as it speaks. `opening` is what it is for, where the peer asked."""

    __slots__ = (
        "_asked",
        "_cap",
        "_inbound",
        "_packet",
        "_sent_close",
        "_sent_eof",
        "_told_cap",
        "connection",
        "far",
        "gone",
        "number",
        "open",
        "opening",
        "remote",
        "sent",
    )

    def __init__(self, connection: SSHConnection, opened: type[Opened] | None, *, cap: int, packet: int) -> None:
        self.connection = connection
        self._cap = cap
        self._packet = packet
        self.opening = opened
        self.far: Far = NOWHERE
        self.remote: int | None = None
        self.open = False
        self.gone = False
        self.sent = 0
        self._inbound = Credit(0, cap)
        self._asked: deque[Slot[int]] = deque()
        self._sent_eof = self._sent_close = self._told_cap = False
        self.number = connection.add_channel(self)  # type: ignore[arg-type]  # it only keeps and calls it

    def over(self) -> None:
        """Nothing can be said any more."""
        raise NotImplementedError

    def over_if_closed(self) -> None:
        """We have closed the channel: it is over when the peer has, too."""
        raise NotImplementedError

    def capped(self) -> None:
        """For the first time, the far end's peer offered more than the cap."""
        raise NotImplementedError

    def ask_open(self, kind: bytes, window: int, packet: int, payload: bytes) -> None:
        """Open this channel at the peer, on behalf of the far end, which takes `window` bytes."""
        self._grant_from(window)
        head = UInt32(self.number) + UInt32(self._inbound.granted) + UInt32(min(packet, self._packet))
        self.connection.send_packet(MSG_CHANNEL_OPEN, String(kind), head, payload, handler=self)

    def opened(self, window: int, packet: int, extra: bytes) -> None:
        """The far end takes `window` bytes: confirm the channel to the peer that asked for it."""
        if self.remote is None or self.gone:
            return
        self._grant_from(window)
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
        self.over()

    def data(self, kind: int, size: int, body: bytes) -> None:
        """Data from the far end, which has been counted there."""
        if not self._sent_close:
            self.sent += size
            self._tell(kind, body)

    def widen(self, more: int) -> None:
        """The far end's peer takes `more` bytes."""
        credit = self._inbound
        credit.widen(more)
        self.grant(credit.due())
        if credit.capped and not self._told_cap:
            self._tell_cap()

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
        self.over_if_closed()

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

    def _grant_from(self, window: int) -> None:
        self._inbound = Credit(window, self._cap)
        if self._inbound.capped:
            self._tell_cap()

    def _tell_cap(self) -> None:
        self._told_cap = True
        self.capped()

    def _tell(self, pkttype: int, *args: bytes) -> None:
        if self.remote is not None and not self.gone:
            self.connection.send_packet(pkttype, UInt32(self.remote), *args, handler=self)
