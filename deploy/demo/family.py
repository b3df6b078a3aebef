"""Why: the demo leaves nothing behind, however it ends: Ctrl-C, a closed terminal, SIGTERM, even SIGKILL of one part.

    keeper (this terminal) ── forks ──> stage (a session of its own) ──> hub, api, bastion ──> servers, sshd, sessions

Both adopt the orphans below them (Linux calls it a subreaper), so whichever of the two survives finds every process
and ends it. The keeper hears the terminal and passes it on; the stage ends when the keeper does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[1] / "notebook"))
from jupyterhub_bastion_notebook import children  # one place knows how Linux ties processes together

LAUNCHER = children.__file__
"""`LAUNCHER PARENT COMMAND...` becomes COMMAND, which the kernel kills when PARENT ends."""
_TERMINATING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE = 5.0
"""Seconds that processes get to end by themselves, once the orderly way is over."""


def run_and_leave_nothing(play: Callable[[Path], int]) -> int:
    """Call `play` with a private, empty folder in a child process; clean up after it. The status of `play`."""
    if os.environ.get("MAKELEVEL") and not children.die_with(os.getppid(), signal.SIGTERM):
        print("This system does not tell when make is killed.", file=sys.stderr)
    children.adopt_orphans()
    folder = Path(tempfile.mkdtemp(prefix="jupyterhub-bastion-demo-"))
    keeper = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINATING)
    stage = os.fork()
    if stage == 0:
        os.setsid()
        children.die_with(keeper, signal.SIGTERM)
        children.adopt_orphans()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERMINATING)
        _leave(play, folder)

    def pass_on(_number: int, _frame: FrameType | None) -> None:
        os.kill(stage, signal.SIGTERM)

    for number in _TERMINATING:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERMINATING)
    _, status = os.waitpid(stage, 0)
    _clear(folder)
    return abs(os.waitstatus_to_exitcode(status))


def _leave(play: Callable[[Path], int], folder: Path) -> None:
    """The child's whole life: it must never return into its parent's code."""
    status = 1
    try:
        status = play(folder)
    except BaseException:  # noqa: BLE001 - the root of this process
        traceback.print_exc()
    finally:
        _clear(folder)
        with contextlib.suppress(OSError):  # the terminal may be gone
            sys.stdout.flush()
        os._exit(status)


def _clear(folder: Path) -> None:
    """End every process below this one, then remove the folder."""
    children.end_all(None, _GRACE)
    shutil.rmtree(folder, ignore_errors=True)
