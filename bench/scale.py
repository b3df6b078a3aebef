"""Why: the published table needs enough rounds to show its spread; a developer needs an answer within a minute."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. Times are in seconds."""

    rounds: int
    bulk_bytes: int
    logins: int
    """`ssh host true` of one round."""
    connects: int
    """Connections of one round of parallel connects."""
    crowds: tuple[int, ...]
    """Numbers of sessions at which memory and latency are looked at; the goals are for the last."""
    memory_rounds: int
    typing: float
    """How long one round of keystrokes lasts."""
    small_files: int
    stops: int
    outages: int
    """Times that the Kubernetes API goes away, in each of its ways."""


FULL = Scale(
    rounds=5,
    bulk_bytes=512 << 20,
    logins=8,
    connects=100,
    crowds=(10, 100, 1000),
    memory_rounds=5,
    typing=4.0,
    small_files=10_000,
    stops=60,
    outages=3,
)
QUICK = Scale(
    rounds=2,
    bulk_bytes=128 << 20,
    logins=3,
    connects=30,
    crowds=(10, 50),
    memory_rounds=1,
    typing=2.0,
    small_files=300,
    stops=10,
    outages=1,
)
