"""Backpressure from one connection to whatever feeds it.

asyncssh ignores its transports' word that they are full, and keeps what it may not send during a key exchange without
a bound. So a connection that is full, or stuck in a key exchange, holds the reading of whatever feeds it.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from asyncssh.constants import MSG_IGNORE, MSG_USERAUTH_LAST
from asyncssh.packet import SSHPacketLogger

from bastion.relay.limits import RelayLimits
from bastion.relay.wire_hotpath import HotPath


class Feeder(Protocol):
    """Something whose bytes go into a connection, and that can be told to wait."""

    def hold(self) -> None: ...
    def release(self) -> None: ...


class Pressure(HotPath):
    """A connection that makes its feeders wait."""

    limits: RelayLimits
    _tcp: asyncio.Transport | None = None

    def set_up_pressure(self, limits: RelayLimits) -> None:
        """Own state; before asyncssh's constructor, which may call back."""
        self.limits = limits
        self._full = False
        self._holds = 0
        self._deferred_bytes = 0
        self._holding_for_kex: list[Feeder] = []
        self._held_feeders: list[Feeder] = []

    def feeders(self) -> list[Feeder]:
        """Whatever writes into this connection."""
        raise NotImplementedError

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
                    feeder for feeder in self.feeders() if not (isinstance(feeder, Pressure) and feeder.in_key_exchange)
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
