"""What the bastion needs of the machine it runs on: a folder of its own, a log to append to, enough descriptors."""

import logging
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ca.errors import BastionError

_SPARE = 256
"""Descriptors for everything but connections: the api, key fetches, logs."""

_LEAST = 16
"""Connections, and tunnels, that are let in however few descriptors there are."""

_log = logging.getLogger(__name__)


def private_directory(path: Path) -> None:
    """Make the state directory where it is missing. Raises `BastionError` with a sentence."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise BastionError(
            f"The state directory {path} cannot be used ({error.strerror}): set BASTION_STATE_DIRECTORY."
        ) from None


def audit_stream(path: Path | None) -> TextIO:
    """Where audit lines go. Each line is one `write`, so that several processes may append to one file or pipe.

    Raises `BastionError`.
    """
    if path is None:
        return sys.stdout
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    except OSError as error:
        raise BastionError(f"The audit file {path} cannot be written: {error.strerror}.") from None
    return os.fdopen(number, "a", encoding="utf-8")


def cpuinfo() -> str:
    """What the kernel says of the processor; "" where it says nothing."""
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Room:
    """For how many connections and tunnels there are descriptors."""

    connections: int
    tunnels: int


def make_room_for(connections: int, tunnels: int) -> Room:
    """Raise the limit of open files for so many: each connection may have one to a pod, and so has each tunnel.

    Without descriptors the kernel would let connections wait unanswered; a bound that is known refuses them in words.
    Where there are not enough, both bounds shrink alike.
    """
    wanted = 2 * connections + tunnels + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return Room(connections, tunnels)
    share = max(soft - _SPARE, 0) / (wanted - _SPARE)
    room = Room(*(min(max(int(one * share), _LEAST), one) for one in (connections, tunnels)))
    _log.warning(
        "only %d open files are allowed: at most %d connections and %d tunnels, not %d and %d "
        "(raise LimitNOFILE or `ulimit -Hn`)",
        soft,
        room.connections,
        room.tunnels,
        connections,
        tunnels,
    )
    return room
