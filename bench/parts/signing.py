"""Why: deciding and checking must not cost much more than the signature that the cryptography needs anyway."""

import asyncio
import os
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.figures import at_least, ratios, spread
from bench.scale import Scale
from bench.stage import Stage
from bench.table import Result, Row

_SECONDS = 0.5
_TURNS = 5
_MESSAGE = bytes(400)
"""About as long as a certificate with one principal."""


async def measure(stage: Stage, scale: Scale) -> Result:
    """Certificates decided, signed, read back and compared per second, beside bare signatures per second."""
    return await asyncio.to_thread(_measure, stage, scale)


def _measure(stage: Stage, scale: Scale) -> Result:
    bare = Ed25519PrivateKey.generate()
    instance = stage.instance()
    os.sched_setaffinity(0, {stage.cores.served})  # of this thread, which ends with the part
    ours, theirs = [], []
    for _ in range(scale.rounds):
        one, other = 0.0, 0.0
        for _ in range(_TURNS):
            one += _rate(lambda: stage.credentials.user("alice", instance)) / _TURNS
            other += _rate(lambda: bare.sign(_MESSAGE)) / _TURNS
        ours.append(one)
        theirs.append(other)
    row = Row(
        "decide and sign a user certificate (no HTTP)",
        "/s",
        spread(ours),
        spread(theirs),
        ratios(ours, theirs),
        at_least(0.2),
        note="beside it not OpenSSH, but bare Ed25519 signatures of `cryptography`",
    )
    return Result("Signing", (row,))


def _rate(act: Callable[[], object]) -> float:
    """How often per second, over a tenth of the time that a round has."""
    done, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < _SECONDS / _TURNS:
        for _ in range(20):
            act()
        done += 20
    return done / took
