"""Exists because sshd hands no environment on: an SSH session must see what a notebook terminal sees.

The notebook server's variables travel in one `SetEnv` line of the 0600 sshd configuration. Observed on OpenSSH 9.2:
only the first `SetEnv` directive counts, so it must be one line; double quotes and backslashes protect everything but
line breaks; a configuration above 256 KiB, one variable of 128 KiB, or 1,000 variables make *every* session fail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

LARGEST_TOTAL = 192 * 1024
"""Bytes of the whole line; sshd passes its configuration on in messages of at most 256 KiB."""
LARGEST_VARIABLE = 128 * 1024 - 1024
"""Bytes of one `NAME=value`; Linux starts no program with a longer one (MAX_ARG_STRLEN)."""
MOST_VARIABLES = 900
"""sshd ends a session with 1,000 (MAX_ENV); it and the client add a few of their own."""

# What describes one session, terminal, desktop or unit rather than the server.
_SESSION_ONLY = frozenset(
    b"PWD OLDPWD SHLVL _ TERM COLUMNS LINES WINDOWID DISPLAY WAYLAND_DISPLAY XAUTHORITY TMUX TMUX_PANE STY "
    b"NOTIFY_SOCKET INVOCATION_ID JOURNAL_STREAM MAIL PS1".split()
)
# Kubernetes adds about seven of these for each service of the namespace: with many services they go first.
_SERVICE_LINK = re.compile(rb"_SERVICE_(HOST|PORT(_.*)?)$|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_.*)?)?$")
_SESSION_PREFIXES = (b"SSH_", b"SUDO_", b"XDG_SESSION_")


@dataclass(frozen=True)
class Carried:
    """The `SetEnv` line (empty when there is nothing to carry) and what could not be carried: names, never values."""

    line: bytes = field(repr=False)
    left_out: tuple[tuple[str, str], ...]
    """(name, why)"""


def carry(environ: Mapping[bytes, bytes], *, escapes: bool, total: int = LARGEST_TOTAL) -> Carried:
    """Choose and quote the variables that SSH sessions get.

    `escapes`: this sshd understands backslashes inside quotes (OpenSSH ≥ 8.7); older ones cannot carry a double quote.
    When it is too much, Kubernetes' service links stay behind, then the largest variables.
    """
    words: list[tuple[bytes, bytes]] = []
    left_out: list[tuple[str, str]] = []
    for name, value in environ.items():
        if not name or name in _SESSION_ONLY or name.startswith(_SESSION_PREFIXES):
            continue
        why = _obstacle(name, value, escapes=escapes)
        if why:
            left_out.append((name.decode("utf-8", "replace"), why))
        else:
            words.append((name, _quote(name + b"=" + value, escapes=escapes)))
    kept: list[tuple[bytes, bytes]] = []
    room = total - len(b"SetEnv\n")
    for name, word in sorted(words, key=lambda pair: (bool(_SERVICE_LINK.search(pair[0])), len(pair[1]))):
        room -= len(word) + 1
        if room < 0 or len(kept) == MOST_VARIABLES:
            left_out.append((name.decode("utf-8", "replace"), "the whole environment is too large for sshd"))
        else:
            kept.append((name, word))
    line = b"SetEnv " + b" ".join(word for _, word in sorted(kept)) + b"\n" if kept else b""
    return Carried(line=line, left_out=tuple(left_out))


def _obstacle(name: bytes, value: bytes, *, escapes: bool) -> str:
    text = name + value
    if b"\n" in text:
        return "it holds a line break"
    if not escapes and b'"' in text:
        return "it holds a double quote, which this old sshd cannot read"
    if len(text) > LARGEST_VARIABLE:
        return "it is too large"
    return ""


def _quote(word: bytes, *, escapes: bool) -> bytes:
    if escapes:
        word = word.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"' + word + b'"'
