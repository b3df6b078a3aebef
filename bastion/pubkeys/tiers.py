"""What a connection with a raw key may set off: the rules, and nothing else.

They are a promise to the users of an older bastion, who know them from its manual:

    on a connection with a raw key                      tier     what happens
    ─────────────────────────────────────────────────   ───────  ─────────────────────────────────────────────
    ≥ 15 min since the last full rebuild began, or no   REBUILD  the whole cache is invalid: forget everything,
    rebuild yet                                                  ask every pod, then answer
    else ≥ 2 min since the last update of any kind      FILL     key known: answer; unknown: ask the pods that
    began                                                        are not in the cache, then answer
    else                                                CACHE    answer from the cache alone

    0 ── CACHE ── 2 ───── FILL ───── 4 ─ … ─ 13 ──── FILL ──── 15 ── REBUILD ──> 0
                  └─ unknown key: an update, so CACHE again for 2 min; the 15 min go on all the same

An answer that is younger than 2 min when a rebuild begins counts as one of its answers, unless the key is not in it.

What changes an age, in whole:

    event                                   full_at   updated_at
    ──────────────────────────────────────  ────────  ──────────
    a rebuild begins (REBUILD or by hand)   now       now
    a fill begins that has a pod to ask     –         now
    a fill that has no pod to ask           –         –
    a pod is asked ahead when it is ready   –         –
    a pod is forgotten                      –         –
"""

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """What a connection with a raw key may set off."""

    REBUILD = "rebuild"
    FILL = "fill"
    CACHE = "cache"


@dataclass(frozen=True, slots=True)
class Ages:
    """The two ages, in seconds."""

    full: float = 900.0
    partial: float = 120.0


def tier(now: float, full_at: float | None, updated_at: float | None, ages: Ages) -> Tier:
    """The row of the table that holds at `now`, all in seconds of one clock."""
    if full_at is None or updated_at is None or now - full_at >= ages.full:
        return Tier.REBUILD
    return Tier.FILL if now - updated_at >= ages.partial else Tier.CACHE
