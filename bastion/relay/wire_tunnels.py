"""Jump mode: channels of the client's connection that lead to TCP connections of the bastion's.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_CONNECT_FAILED, OPEN_RESOURCE_SHORTAGE

from bastion.relay.front import Tunnel
from bastion.relay.sentences import printable
from bastion.relay.tunnel import LEAST_PACKET, TunnelEnd
from bastion.relay.wire_channel import Leg
from bastion.relay.wire_link import Link, Offered


class HeldTunnel:
    """One tunnel in the front's hands."""

    def __init__(self, leg: Leg, carried_alone: Callable[[Leg], bool]) -> None:
        self._leg = leg
        self._carried_alone = carried_alone
        self.unreachable = False
        self.end: TunnelEnd | None = None

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes from and to the client so far."""
        return self._leg.received, self._leg.sent

    @property
    def left(self) -> bool:
        """Whether the server ended it, or never took it."""
        return self.unreachable if self.end is None else self.end.left

    @property
    def alone(self) -> bool:
        """Whether it is open, and its connection is in use for nothing else."""
        return self.end is not None and self._carried_alone(self._leg)

    def close(self, sentence: str) -> None:
        """Cut it, or have its open fail."""
        if self.end is not None:
            self.end.abort()
        else:
            self._leg.refused(OPEN_CONNECT_FAILED, printable(sentence), "en")


class Tunnels(Link):
    """The part of the client's connection that makes and keeps them."""

    tunnels: set[TunnelEnd]

    async def open_tunnel(self, leg: Leg, offered: Offered, target: Tunnel) -> None:
        """Connect to the target, and join the channel that the client asked for with it."""
        leg.ended = target.ended
        if offered.packet < LEAST_PACKET:
            leg.refused(OPEN_RESOURCE_SHORTAGE, f"a tunnel takes packets of {LEAST_PACKET} bytes at least", "en")
            return
        held = HeldTunnel(leg, self.carries_only)
        refusal = await target.prepare(held) if target.prepare is not None else None
        if refusal is not None:
            leg.refused(OPEN_ADMINISTRATIVELY_PROHIBITED, refusal.sentence, "en")
            return
        if self._too_late_for(leg):
            return
        end = TunnelEnd(
            leg,
            offered=offered.window,
            packet=min(offered.packet, self.limits.packet),
            window=self.limits.window,
            buffered=self.limits.buffered,
            silence=self.limits.keepalive_seconds,
            questions=self.limits.keepalive_count,
            ended=self._tunnel_over,
        )
        try:
            async with asyncio.timeout(self.limits.dial_seconds):
                await self._loop.create_connection(lambda: end, target.address, target.port)
        except OSError:  # TimeoutError is one
            held.unreachable = True
            leg.refused(OPEN_CONNECT_FAILED, "the server's SSH port does not answer", "en")
            return
        if self._too_late_for(leg):
            end.abort()
            return
        leg.far = held.end = end
        self.tunnels.add(end)
        self.hold_with(end)
        end.start()

    def carries_only(self, leg: Leg) -> bool:
        """Whether nothing but this tunnel is in use here. What was cut in the same moment is not."""
        cut = {end for end in self.tunnels if end.was_cut}
        return all(one is leg or not one.writable or one.far in cut for one in self.legs.values())

    def _tunnel_over(self, end: TunnelEnd) -> None:
        self.tunnels.discard(end)
        self.count_silence(end.problem)

    def _too_late_for(self, leg: Leg) -> bool:
        if leg.gone or self.ending:
            leg.refused(OPEN_CONNECT_FAILED, "the connection is ending", "en")
            return True
        return False
