"""Why: "nothing is left behind" is a comparison of counts, so this asks a `counted_bastion` for them."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bastion.admin import ask
from tests.support.system import System

_MODULE = "tests.clients.counted_bastion"


@dataclass(frozen=True)
class Counts:
    """What a bastion holds at one moment."""

    tasks: int
    objects: dict[str, int]
    descriptors: list[str]
    rss: int
    """Bytes."""

    def without_memory(self) -> Counts:
        return replace(self, rss=0)


def make_countable(system: System) -> None:
    """Before it starts: the bastion will count itself when asked."""
    system.bastion.arguments = ["-m", _MODULE, *system.bastion.arguments[2:]]
    system.bastion.environment = {**system.bastion.environment, "BASTION_COUNTS": str(_place(system))}


def count(system: System) -> Counts:
    """Ask now."""
    assert system.bastion.running is not None
    place = _place(system)
    place.unlink(missing_ok=True)
    system.bastion.running.send_signal(signal.SIGUSR1)
    system.wait("the bastion to count", place.exists, system.bastion)
    return Counts(**json.loads(place.read_text()))


async def live_sessions(system: System) -> list[Any]:
    """What `python -m bastion sessions` shows, asked without starting a process."""
    answer = await ask(system.bastion_state / "admin.sock", {"command": "sessions"})
    sessions = answer["sessions"]
    assert isinstance(sessions, list)
    return sessions


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
