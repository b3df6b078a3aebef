"""Exists so that nothing outlives the notebook server: not sshd, not a session, not a daemon that a session left.

Linux offers three things for it: a signal when the parent dies, being the parent of orphans ("subreaper"), and /proc.
Elsewhere all of this does what it can. The file is also a program of its own: `children.py PARENT COMMAND...` becomes
COMMAND, which is killed when PARENT dies. That is done in a fresh process because code between fork and exec of a
process with threads may hang. sshd's *sessions* cannot be tied that way (the kernel forgets the wish at each fork): if
the supervisor itself is killed with SIGKILL its listener dies with it, and running sessions end with the container.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_SET_PDEATHSIG = 1  # linux/prctl.h
_SET_CHILD_SUBREAPER = 36


def die_with(parent: int, number: int) -> bool:
    """Ask for signal `number` when `parent`, our parent process, ends.

    True when that works. Leaves through SystemExit when the parent has already ended: the wish would come too late.
    """
    works = _prctl(_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise SystemExit(0)
    return works


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose own parent ends. True when that works."""
    return _prctl(_SET_CHILD_SUBREAPER, 1)


def reap() -> dict[int, int]:
    """Collect every child that has ended: pid -> wait status."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = status
    return ended


def descendants(root: int) -> frozenset[int]:
    """The living processes below `root`, zombies left out; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting.extend(below)
    return frozenset(found)


def until_childless(parent: int, limit: float) -> None:
    """Wait until `parent` has no descendants any more, at most `limit` seconds."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        reap()
        if not descendants(parent):
            return
        time.sleep(0.02)


def end_all(listener: int | None, grace: float, limit: float = 10.0) -> int:
    """End every descendant: politely, and after `grace` seconds for certain. How many are left after `limit` seconds.

    `listener`: sshd's pid, which takes SIGHUP as "start anew".
    """
    if listener is not None and not Path("/proc/self/stat").exists():
        _signal([listener], signal.SIGTERM)  # No list of processes here: at least the one we know.
    asked: set[int] = set()

    def ask(pids: frozenset[int]) -> None:
        new = pids - asked
        asked.update(new)
        _signal(new, signal.SIGTERM)
        # Interactive shells ignore SIGTERM; a stopped process must be woken to hear anything.
        _signal(new - {listener}, signal.SIGHUP)
        _signal(new, signal.SIGCONT)

    if _until_none(ask, grace):
        return 0
    _until_none(lambda pids: _signal(pids, signal.SIGKILL), limit)
    return len(descendants(os.getpid()))


def _until_none(act: Callable[[frozenset[int]], None], limit: float) -> bool:
    deadline = time.monotonic() + limit
    while True:
        if _childless():
            return True
        if time.monotonic() > deadline:
            return False
        act(descendants(os.getpid()))
        time.sleep(0.02)


def _childless() -> bool:
    """Collect who has ended; True when the kernel knows of no other child, orphans that came to us included.

    An empty list from /proc does not say that: when a process dies while the list is read, its child is read with a
    parent that is gone.
    """
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _processes() -> Iterable[tuple[int, int]]:
    """(pid, parent's pid) of every process that is not a zombie."""
    with contextlib.suppress(OSError):
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                # proc(5): the name in brackets may hold anything, so count from the last bracket.
                state, parent = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    yield int(entry.name), int(parent)


def _prctl(option: int, value: int) -> bool:
    try:
        function = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    return int(function(option, ctypes.c_ulong(value), 0, 0, 0)) == 0


def _main(arguments: list[str]) -> None:
    die_with(int(arguments[0]), signal.SIGKILL)
    os.execv(arguments[1], arguments[1:])  # noqa: S606 - a fixed program, no shell


if __name__ == "__main__":
    _main(sys.argv[1:])
