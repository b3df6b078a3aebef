"""How long a connection to either port may take to say what it wants, and to take what it is answered.

uvicorn waits for ever for the rest of a request's head, so a few thousand half-sent ones would take every file
descriptor that this process may have, from whoever cares to send them. The body is bounded by `api.edge`, and the
pause between two requests by uvicorn itself. Answers that nobody reads are the same: closing waits until they are sent.
"""

import asyncio
import socket
import struct
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 15.0
"""From the connection, or from a request's first byte, to the end of its head."""

DRAIN_SECONDS = 15.0
DRAIN_BYTES = 4096
"""Of an answer that waits for its reader, so much has to be read in so many seconds."""

_NOTHING_LINGERS = struct.pack("ii", 1, 0)


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with an end to its patience."""

    head_seconds = HEAD_SECONDS
    drain_seconds = DRAIN_SECONDS

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_timer: asyncio.TimerHandle | None = None
        self._drain_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request is expected now."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Bytes: of a head that is not complete yet, or of a request that is under way."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect()
        else:
            self._stop()

    def on_response_complete(self) -> None:
        """Answered; what came after that request, if anything, is looked at here."""
        self._stop()
        self._watch_reader()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """More waits for the reader than the transport keeps."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Enough of it was read."""
        super().resume_writing()
        self._forget_reader()
        self._watch_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._stop()
        self._forget_reader()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _stop(self) -> None:
        timer, self._head_timer = self._head_timer, None
        if timer is not None:
            timer.cancel()

    def _watch_reader(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting and self._drain_timer is None:
            self._drain_timer = self.loop.call_later(self.drain_seconds, self._look_at_reader, waiting)

    def _forget_reader(self) -> None:
        timer, self._drain_timer = self._drain_timer, None
        if timer is not None:
            timer.cancel()

    def _look_at_reader(self, before: int) -> None:
        self._drain_timer = None
        if self.transport.get_write_buffer_size() > max(before - DRAIN_BYTES, 0):
            connection = self.transport.get_extra_info("socket")
            if connection is not None:  # or the kernel would keep what is not read, and go on trying
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOTHING_LINGERS)
            self.transport.abort()
        else:
            self._watch_reader()
