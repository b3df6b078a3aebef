"""From the settings to the bounds that rooms keep: whose bounds are divided among workers, and whose are not.

Every worker counts for itself. A bound on the whole is divided, so that the machine is not asked for more than was
meant. A bound on one address, user or connection is not: the kernel may give all of a user's connections to one worker.
"""

from collections.abc import Callable

from bastion.lobby import LobbyLimits
from bastion.registry import Limits
from bastion.relay.limits import RelayLimits
from bastion.settings import Settings
from bastion.surroundings import Room, make_room_for
from bastion.waitingroom import WaitingLimits


def relay_limits(settings: Settings, hit: Callable[[str], None]) -> RelayLimits:
    """What one connection may take. `hit` counts."""
    limits, login = settings.limits, settings.login
    return RelayLimits(
        signed_attempts=login.attempts,
        probes=login.probes,
        login_seconds=login.grace,
        channels=limits.channels,
        sessions=limits.sessions,
        window=limits.window,
        buffered=limits.buffered,
        deferred=limits.deferred,
        unanswered=limits.unanswered,
        rekey_bytes=limits.rekey_bytes,
        rekey_seconds=limits.rekey_seconds,
        keepalive_seconds=limits.keepalive,
        keepalive_count=limits.keepalive_count,
        hit=hit,
    )


def room_for(settings: Settings) -> Room:
    """One process's share of connections and tunnels, and no more than it has descriptors for."""
    limits, workers = settings.limits, settings.workers
    return make_room_for(max(limits.connections // workers, 1), max(limits.tunnels // workers, 1))


def lobby_limits(settings: Settings, room: Room) -> LobbyLimits:
    """What one process lets in: its share of the bounds on the whole, with `room` for connections."""
    limits, workers = settings.limits, settings.workers
    start = max(limits.unauthenticated_start // workers, 1)
    return LobbyLimits(
        start=start,
        rate=limits.unauthenticated_rate,
        full=max(limits.unauthenticated_full // workers, start + 1),
        per_address=limits.unauthenticated_per_address,
        connections=room.connections,
        connections_per_address=limits.connections_per_address,
    )


def waiting_limits(settings: Settings, room: Room) -> WaitingLimits:
    """Who may wait for a browser in one process: never more than half of its connections, so that whoever has a
    certificate finds the other half."""
    limits, workers = settings.limits, settings.workers
    return WaitingLimits(
        total=max(min(limits.interactive // workers, room.connections // 2), 1),
        per_address=limits.interactive_per_address,
        seconds=settings.login.interactive_seconds,
    )


def session_limits(settings: Settings, room: Room) -> Limits:
    """What one process keeps: a session for each connection, and one for each tunnel."""
    return Limits(total=room.connections + room.tunnels, per_user=settings.limits.connections_per_user)
