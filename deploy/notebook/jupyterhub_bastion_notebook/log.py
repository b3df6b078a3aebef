"""Exists so that everything this program says is one line, has a prefix, and cannot break a terminal or a log.

It writes beside the notebook server's own log, to the same standard error.
"""

from __future__ import annotations

import contextlib
import os

_LONGEST = 600  # characters; an answer quoted from elsewhere must not flood the server's log


def say(sentence: str) -> None:
    """Write one sentence to standard error. A log that is closed or full is no reason to end anything."""
    shown = "".join(c if c.isprintable() else "?" for c in sentence[:_LONGEST])
    with contextlib.suppress(OSError):
        os.write(2, f"[notebook-ssh] {shown}\n".encode("utf-8", "replace"))
