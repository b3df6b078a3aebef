"""Backpressure from one connection to whatever feeds it.

asyncssh ignores its transports' word that they are full, and keeps what it may not send during a key exchange without
a bound. So a connection that is full, or stuck in a key exchange, holds the reading of whatever feeds it.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from asyncssh.constants import MSG_IGNORE, MSG_USERAUTH_LAST
from asyncssh.packet import SSHPacketLogger

from bastion.relay.limits import RelayLimits
from bastion.relay.silence import notice_death
from bastion.relay.wire_hotpath import HotPath

_KEPT: Final = 256
"""What keeping a packet costs besides its bytes: many answers have none."""


class Feeder(Protocol):
    """Something whose bytes go into a connection, and that can be told to wait."""

    def hold(self) -> None: ...
    def release(self) -> None: ...


class Pressure(HotPath):
    """A connection that makes its feeders wait."""

    def set_up_pressure(self, limits: RelayLimits) -> None:
        """Own state; before asyncssh's constructor, which may call back."""
        self.limits = limits
        self._full = self._answers_pile_up = False
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
        sock = transport.get_extra_info("socket")
        if sock is not None and self.limits.keepalive_seconds:
            # SSH's own question needs a peer that is read, and one that is held is not.
            notice_death(sock, self.limits.keepalive_seconds, self.limits.keepalive_count)

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
        if self._answers_pile_up:
            self._answers_pile_up = False
            self.release()
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

    def write_out(self, data: memoryview) -> bool:
        """Write the outbox."""
        kept = super().write_out(data)
        self._weigh()
        return kept

    def _send(self, data: bytes) -> None:
        """asyncssh's way to the socket."""
        super()._send(data)
        self._weigh()

    def _weigh(self) -> None:
        """Where more waits for the peer than its feeders can have made, it is answers to what it asked: it is not
        read either until it has read those.

        Its data is no reason, or two peers that read only what they can pass on would wait for each other.
        """
        if self._full and not self._answers_pile_up and self._tcp is not None:
            most = 2 * self.limits.buffered + len(self.bench.outbox)
            if self._tcp.get_write_buffer_size() > most:
                self._answers_pile_up = True
                self.limits.hit("buffered")
                self.hold()

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
        if not self._kex_complete and pkttype > MSG_USERAUTH_LAST and not self.is_gone:
            self._deferred_bytes += _KEPT + sum(map(len, args))
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
        self.read_on()
