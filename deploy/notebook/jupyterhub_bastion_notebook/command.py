"""Exists so that JupyterHub signals the notebook server itself: this process becomes the server, SSH is its child.

the pid that JupyterHub knows:  this program ── exec ──> jupyterhub-singleuser
                                      └── fork ──> supervisor ──> sshd ──> sessions
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .log import say
from .settings import Settings, SettingsError, read
from .supervisor import supervise


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns a status only when there is neither a server to become nor SSH to run."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        settings = read(given, os.environ)
    except SettingsError as problem:
        say(f"{problem} SSH stays off.")
        # Somebody wants to work: a wrong setting of ours must not keep their notebook from starting.
        settings = Settings(enabled=False, command=tuple(given[given.index("--") + 1 :]) if "--" in given else ())
        if not settings.command:
            return 2
    if settings.enabled and not settings.command:
        supervise(settings, parent=None)
    if settings.enabled:
        _fork_supervisor(settings)
    if settings.command:
        _become(settings.command)
    say("SSH is not enabled (SSH_BASTION_ENABLE is not 1) and there is no COMMAND to become: nothing to do.")
    return 0


def _fork_supervisor(settings: Settings) -> None:
    server = os.getpid()
    try:
        if os.fork() != 0:
            return
    except OSError as problem:
        say(f"SSH stays off: no process could be made ({problem.strerror}).")
        return
    try:
        # A session of its own: a Ctrl-C in the server's terminal is the server's business.
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        _close_descriptors()
        supervise(settings, parent=server)
    finally:
        os._exit(1)


def _close_descriptors() -> None:
    """Close all but the standard ones: whatever the server's parent waits for the end of must not be held open here."""
    try:
        # Not number after number up to the limit: that can be a thousand million, and what was opened before the
        # limit became smaller is above it.
        numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    except OSError:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        return
    for number in numbers:
        if number > 2:
            with contextlib.suppress(OSError):  # the one that the list was read through is closed already
                os.close(number)


def _become(command: Sequence[str]) -> NoReturn:
    # Python ignores these; an ignored signal stays ignored through exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - the whole point
    except OSError as problem:
        say(f"{command[0]} could not be started: {problem.strerror}.")
        os._exit(127)
