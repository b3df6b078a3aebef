"""Why: "nothing is left behind" is a comparison of counts, so this asks a `counted_bastion` for them."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from bastion.admin import ask
from tests.support.system import System

_LIMIT = 90.0
_MODULE = "tests.clients.counted_bastion"


@dataclass(frozen=True)
class Counts:
    """What a bastion holds at one moment."""

    tasks: int
    objects: dict[str, int]
    descriptors: list[str]
    rss: int
    """Bytes."""

    def beyond(self, other: Counts) -> dict[str, object]:
        """What this holds that `other` does not; memory is not compared."""
        more = {
            "tasks": max(0, self.tasks - other.tasks),
            "objects": {kind: number for kind, number in self.objects.items() if number > other.objects[kind]},
            "descriptors": sorted((Counter(self.descriptors) - Counter(other.descriptors)).elements()),
        }
        return {name: value for name, value in more.items() if value}


def make_countable(system: System) -> None:
    """Before it starts: the bastion will count itself when asked."""
    system.bastion.arguments = ["-m", _MODULE, *system.bastion.arguments[2:]]
    system.bastion.environment = {**system.bastion.environment, "COUNTS_OF_BASTION": str(_place(system))}


def count(system: System) -> Counts:
    """Ask now."""
    assert system.bastion.running is not None
    place = _place(system)
    place.unlink(missing_ok=True)
    system.bastion.running.send_signal(signal.SIGUSR1)
    system.wait("the bastion to count", place.exists, system.bastion)
    counts = Counts(**json.loads(place.read_text()))
    # Connections to the api are kept for a while and made anew, as many as are just needed.
    to_api = f"tcp {system.internal_port}"
    return replace(counts, descriptors=[one for one in counts.descriptors if one != to_api])


async def live_sessions(system: System) -> list[Any]:
    """What `python -m bastion sessions` shows, asked without starting a process."""
    answer = await ask(system.bastion_state / "admin.sock", {"command": "sessions"})
    sessions = answer["sessions"]
    assert isinstance(sessions, list)
    return sessions


async def quiet(system: System, like: Counts | None = None) -> Counts:
    """What is held once every connection is over, and no more than `like`. Fails, saying what, if that never comes."""
    with anyio.fail_after(_LIMIT):
        while await live_sessions(system):
            await anyio.sleep(0.02)
    count(system)  # the connection that asked is closed before the second
    end = time.monotonic() + _LIMIT
    while True:
        counts = count(system)
        left = {kind: number for kind, number in counts.objects.items() if number}
        more = counts.beyond(like) if like is not None else {}
        if not left and not more:
            return counts
        assert time.monotonic() < end, (left, more)
        await anyio.sleep(0.05)


def errors_in_log(system: System) -> list[str]:
    """Lines of the bastion's log that tell of something unhandled."""
    signs = (
        "Traceback",
        "Uncaught",
        "never retrieved",
        "never awaited",
        '"level": "error"',
        '"level": "critical"',
    )
    lines = system.bastion.log.read_text(errors="replace").splitlines()
    return [line for line in lines if any(sign in line for sign in signs)]


def _place(system: System) -> Path:
    return system.folder / "counts.json"
