"""Why: what a bastion leaves behind is inside its process, so the tests run one that counts itself when asked.

It is the bastion, plus one signal: SIGUSR1 collects garbage and writes what is left to the file in COUNTS_OF_BASTION.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

from bastion.__main__ import main as bastion

COUNTED = (
    "ClientSide",
    "PodSide",
    "Leg",
    "Door",
    "Gate",
    "Watched",
    "Ticket",
    "Passage",
    "TunnelEnd",
    "HeldTunnel",
    "Registration",
)
"""The kinds of object that belong to one connection or channel."""


def main() -> int:
    """`python -m tests.clients.counted_bastion serve`."""
    place = Path(os.environ["COUNTS_OF_BASTION"])

    def count(number: int, frame: FrameType | None) -> None:
        del number, frame
        gc.collect()
        kinds = Counter(type(one).__name__ for one in gc.get_objects())
        status = Path("/proc/self/status").read_text()
        counts = {
            "tasks": len(asyncio.all_tasks()),
            "objects": {kind: kinds[kind] for kind in COUNTED},
            "descriptors": sorted(_descriptors()),
            "rss": int(status.split("VmRSS:")[1].split()[0]) << 10,
        }
        place.with_suffix(".new").write_text(json.dumps(counts))
        place.with_suffix(".new").rename(place)

    signal.signal(signal.SIGUSR1, count)
    return bastion(sys.argv[1:])


def _descriptors() -> Iterator[str]:
    """What each file descriptor is: "tcp PORT" for a connection to that port, else "socket", "pipe" or a path."""
    ports = dict(_ports())
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            name = str(one.readlink())
            yield ports.get(name, name.split(":", maxsplit=1)[0])


def _ports() -> Iterator[tuple[str, str]]:
    for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        yield f"socket:[{fields[9]}]", f"tcp {int(fields[2].split(':')[1], 16)}"


if __name__ == "__main__":
    sys.exit(main())
