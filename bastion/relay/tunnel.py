"""One `direct-tcpip` channel joined to one TCP connection: jump mode.

The bastion cannot read what goes through, so this is bytes, half-close and backpressure, and nothing else. Unlike two
joined channels, TCP says nothing about windows: bytes for the socket count as taken when its buffer has room, and
bytes for the channel that its window does not take wait here, at most one read, while the socket is not read.
"""

# ruff: noqa: ARG002 - both ends of a channel answer the same calls, whether they need every argument or not

import asyncio
from collections.abc import Callable
from typing import Protocol

from bastion.relay.answers import Slot
from bastion.relay.far import NOWHERE
from bastion.relay.silence import notice_death

_DATA = 94  # SSH_MSG_CHANNEL_DATA
_HEAD = 4  # the length before the bytes
_AT_ONCE = 64
"""Packets made in one turn of the event loop: somebody who takes small ones waits longer, and nobody else does."""
LEAST_PACKET = 1024
"""The smallest "maximum packet size" that gets a tunnel. With less, each byte of a read can be a packet, which costs
thousands of times the processor. No client that we know asks for less than 4 KiB."""


class Channel(Protocol):
    """The client's end of the channel."""

    def data(self, kind: int, size: int, body: bytes) -> None: ...
    def opened(self, window: int, packet: int, extra: bytes) -> None: ...
    def widen(self, more: int) -> None: ...
    def eof(self) -> None: ...
    def close(self) -> None: ...


class TunnelEnd(asyncio.Protocol):
    """The TCP connection, as the far end of a channel."""

    def __init__(
        self,
        channel: Channel,
        *,
        offered: int,
        packet: int,
        window: int,
        buffered: int,
        silence: float,
        questions: int,
        ended: Callable[["TunnelEnd"], None],
    ) -> None:
        """`silence` seconds without a word have the kernel ask whether the server is there, `questions` times as long
        apart, until it counts as gone; 0 never asks."""
        self._channel = channel
        self.left = False
        """Whether the server was the first to end it."""
        self.was_cut = False
        """Whether we ended it."""
        self.problem: Exception | None = None
        """With what the TCP connection ended."""
        self._on_end = ended
        self._room = offered  # what the client takes
        self._packet = max(packet, 1)
        self._window = window
        self._high = buffered
        self._silence, self._questions = silence, questions
        self._taken = 0  # bytes to be granted to the client again
        self._waiting = b""
        self._transport: asyncio.Transport | None = None
        self._next: asyncio.Handle | None = None
        self._full = self._held = self._ended = self._lost = self._got_eof = self._closed = False

    @property
    def full(self) -> bool:
        """Whether the server does not read fast enough."""
        return self._full

    @property
    def waiting(self) -> int:
        """Bytes that the client's window does not take yet."""
        return len(self._waiting)

    @property
    def buffered(self) -> int:
        """Bytes that the server has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # the socket's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; nothing is read until `start`, since the channel is not confirmed yet."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a tunnel needs a stream")
        self._transport = transport
        transport.set_write_buffer_limits(high=min(self._high, self._window))
        if self._silence:
            notice_death(transport.get_extra_info("socket"), self._silence, self._questions)
        transport.pause_reading()

    def start(self) -> None:
        """The channel may be confirmed to the client now."""
        self._channel.opened(self._window, self._packet, b"")
        self._read_or_not()

    def data_received(self, data: bytes) -> None:
        """Bytes for the client."""
        self._waiting += data
        self._flush()

    def eof_received(self) -> bool:
        """The server sends no more; the connection stays open for what the client still sends."""
        self._server_ends()
        self._flush()
        return True

    def pause_writing(self) -> None:
        """The server does not read fast enough: the client is granted nothing more."""
        self._full = True

    def resume_writing(self) -> None:
        """It does again."""
        self._full = False
        self._grant()

    def connection_lost(self, exc: Exception | None) -> None:
        """The TCP connection is over; what the client has not taken yet is still delivered."""
        self._server_ends()
        self._lost, self.problem = True, exc
        if self._closed:
            self._channel.close()
        else:
            self._flush()
        self._on_end(self)

    # the channel's side

    def data(self, kind: int, size: int, body: bytes) -> None:
        """Bytes from the client. Extended data has no meaning in a tunnel and is dropped."""
        self._taken += size
        if kind == _DATA and self._transport is not None and not self._transport.is_closing():
            self._transport.write(body[_HEAD:])
        self._grant()

    def widen(self, more: int) -> None:
        """The client takes more."""
        self._room = min(self._room + more, 0xFFFFFFFF)
        self._flush()

    def eof(self) -> None:
        """The client sends no more."""
        self._got_eof = True
        if self._transport is None or self._transport.is_closing():
            return
        if self._ended:
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()

    def request(self, name: bytes, payload: bytes, slot: Slot[int] | None) -> None:
        """A tunnel has nothing to ask for."""
        if slot is not None:
            slot.answer(100)  # SSH_MSG_CHANNEL_FAILURE

    def close(self) -> None:
        """The client closed the channel or is gone. What it sent is still written, and until that is done the channel
        keeps its place: it would not be counted any more, and what waits here would."""
        self._waiting = b""
        self._closed = True
        if self._transport is None or self._lost:
            self._channel.close()
        else:
            self._transport.close()

    def opened(self, window: int, packet: int, extra: bytes) -> None:
        """Never called: a tunnel's channel is confirmed by `start`."""

    def refused(self, code: int, text: str, language: str) -> None:
        """Never called, as above."""

    def speak(self, wanted: int) -> int:
        """A tunnel carries nothing of ours."""
        return 0

    def hold(self) -> None:
        """The client's connection is full: stop reading."""
        self._held = True
        self._read_or_not()

    def release(self) -> None:
        """It has room again."""
        self._held = False
        self._flush()

    def abort(self) -> None:
        """Cut it."""
        self.was_cut = True
        if self._transport is not None:
            self._transport.abort()

    def part(self) -> None:
        """Cut it without a word to the client, whose connection ends with a sentence: OpenSSH's leaves with its last
        channel, and reads nothing after that."""
        self._channel = NOWHERE
        self.abort()

    def _server_ends(self) -> None:
        self.left = self.left or not (self._got_eof or self._closed or self.was_cut)
        self._ended = True

    def _flush(self) -> None:
        self._pour()
        self._read_or_not()
        if self._ended and not self._waiting:
            self._channel.eof()
            if self._lost:
                self._channel.close()
            elif self._got_eof and self._transport is not None:
                self._transport.close()

    def _pour(self) -> None:
        """Give the client what it takes of what waits, and the rest in another turn."""
        view, at = memoryview(self._waiting), 0
        for _ in range(_AT_ONCE):
            size = min(len(view) - at, self._room, self._packet)
            if size == 0 or self._held:
                break
            self._room -= size
            self._channel.data(_DATA, size, b"".join((size.to_bytes(_HEAD, "big"), view[at : at + size])))
            at += size
        if at:
            self._waiting = self._waiting[at:]
        if self._waiting and self._room and not self._held and self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._next = None
        self._flush()

    def _grant(self) -> None:
        if self._taken and not self._full and self._taken >= self._window // 4:
            taken, self._taken = self._taken, 0
            self._channel.widen(taken)

    def _read_or_not(self) -> None:
        if self._transport is None or self._lost or self._ended:
            return
        if self._waiting or self._held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
