"""When a connection is read, and how much of what was read is worked off before others have their turn.

A read holds thousands of small packets, each of which may be answered, and all connections share one loop: so a turn
ends after a few milliseconds, and what is left waits for the next one, in front of what is still in the socket.
Whoever needs the peer to wait (`hold`) stops both.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from asyncssh.connection import SSHConnection

from bastion.relay.limits import RelayLimits

TURN: Final = 0.005
"""Seconds. A read full of bulk data takes less than one, so copies are not cut up."""


class Reading(SSHConnection):
    """A connection that can be told to wait, and that lets others go first."""

    limits: RelayLimits
    _tcp: asyncio.Transport | None = None
    _muted: bool
    _holds = 0
    turn_seconds = TURN
    _turn_begins = False
    _turn_ends = 0.0
    _rested = False
    """Whether packets that were read wait for another turn."""
    _next_turn: asyncio.Handle | None = None

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
            if self._rested:
                self._come_back()
            else:
                self._tcp.resume_reading()
            if self._transport is not None:
                self.set_keepalive(self.limits.keepalive_seconds)

    def _recv_data(self) -> None:
        """asyncssh's way into what has arrived: a turn begins."""
        self._turn_begins = True
        self._turn_ends = time.perf_counter() + self.turn_seconds
        super()._recv_data()

    def turn_is_over(self) -> bool:
        """Asked between two packets: whether what is left must wait. Each turn takes one packet at least."""
        if self._holds or self._transport is None:
            return True
        first, self._turn_begins = self._turn_begins, False
        return not first and time.perf_counter() >= self._turn_ends

    def rest(self) -> None:
        """Leave what is in `_inpbuf` for the next turn. What follows the end of the connection means nothing."""
        if self._transport is None:
            self._inpbuf = b""
            return
        if not self._rested and self._tcp is not None:
            self._rested = True
            self._tcp.pause_reading()
        if not self._holds:
            self._come_back()

    def _come_back(self) -> None:
        if self._next_turn is None:
            self._next_turn = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._next_turn = None
        if self._holds or not self._rested:
            return
        self._rested = False
        if self._transport is not None and not self._muted:
            self._work()
        if not self._rested and not self._holds and self._tcp is not None:
            self._tcp.resume_reading()

    def _work(self) -> None:
        """Work off what is in `_inpbuf`."""
        raise NotImplementedError

    def read_on(self) -> None:
        """Whatever was waited for, it is over: nobody may wait for this connection any more."""
        self._rested = False
        if self._tcp is not None:
            self._tcp.resume_reading()
