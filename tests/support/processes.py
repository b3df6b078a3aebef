"""Why: what a test starts must end with it, whatever happens to the test, the hub or the run."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(by: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: the kernel signals the child when its parent is gone, even by SIGKILL.

    The kernel goes by the thread that forked, so a child of a worker thread, which ends sooner, is left alone.
    """
    parent = os.getpid()
    from_main = threading.current_thread() is threading.main_thread()

    def in_child() -> None:
        if not from_main:
            return
        _libc.prctl(_PR_SET_PDEATHSIG, int(by), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def marked(variable: str, value: str) -> list[int]:
    """The processes that inherited this variable: ours, whoever their parent is by now."""
    wanted = f"{variable}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _life(pid: int) -> str | None:
    """When the process with this number began, in ticks since boot: two lives of one number differ. None: none runs.

    A process that is about to end has no environment any more but still runs for a moment, so this is what tells.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else rest[18]


def end_marked(variable: str, value: str, grace: float = 10.0) -> None:
    """SIGTERM to all of them, SIGKILL to those that are there after `grace` seconds; returns when none is left."""
    lives: dict[int, str] = {}
    for by, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, grace)):
        signalled: set[int] = set()
        end = time.monotonic() + seconds
        while True:
            for pid in marked(variable, value):
                if (life := _life(pid)) is not None:
                    lives[pid] = life
            lives = {pid: life for pid, life in lives.items() if _life(pid) == life}
            for pid in lives.keys() - signalled:
                with suppress(ProcessLookupError):
                    os.kill(pid, by)
            signalled |= lives.keys()
            if not lives:
                return
            if time.monotonic() > end:
                break
            time.sleep(0.02)
