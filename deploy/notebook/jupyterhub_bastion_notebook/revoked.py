"""Exists so that sshd refuses certificates that were revoked, and is never given a list that it cannot read.

sshd reads the list at each login. Where it is missing or damaged sshd lets nobody in at all, so there always is one, at
first an empty one, and another takes its place in one step and only after the installed OpenSSH has read it. While the
api does not answer the last list stays: the bastion has its own, so this one is the second guard, not the only one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .enrol import Krl, Refused
from .log import say
from .storage import Storage


class RevokedKeys:
    """The file of sshd's `RevokedKeys`."""

    def __init__(self, storage: Storage, host_key: Path) -> None:
        """`host_key` is a key that no list names: with it a list is tried out."""
        self._storage = storage
        self._host_key = host_key
        self._said = ""
        self.path = storage.path / "revoked_keys"
        if not self.path.exists():  # a container that was restarted has the last one
            storage.write("revoked_keys", b"")
        self._content = self.path.read_bytes()
        self.tag = ""
        """That of the list in use, as the api calls it."""

    def take(self, answer: Krl | Refused) -> None:
        """Put the api's list in place. What goes wrong is said once, and leaves the last list.

        For the event loop's own thread: elsewhere another would collect the end of the process that is asked here.
        """
        said = self._take(answer)
        if said and said != self._said:
            say(said)
        self._said = said

    def restore(self) -> None:
        """Put the list in use back where somebody removed it: not an empty one. Raises OSError."""
        if not self.path.exists():
            self._storage.write("revoked_keys", self._content)

    def _take(self, answer: Krl | Refused) -> str:
        if isinstance(answer, Refused):
            # An api of before these lists has none: nothing that anybody could mend here.
            older = answer.code in ("not_found", "404")
            return "" if older else f"Which certificates are revoked could not be asked: {answer.sentence}"
        if answer.tag and answer.tag == self.tag:
            return ""
        try:
            self._storage.make_again()
            fresh = self._storage.write("revoked_keys.fetched", answer.content)
            if not self._is_readable(fresh):
                return "The api's list of revoked certificates cannot be read by this OpenSSH, so the last one stays."
            fresh.replace(self.path)
        except (OSError, subprocess.TimeoutExpired) as problem:
            return f"The list of revoked certificates cannot be kept ({type(problem).__name__}), so the last one stays."
        self.tag, self._content = answer.tag, answer.content
        return ""

    def _is_readable(self, path: Path) -> bool:
        keygen = shutil.which("ssh-keygen")
        if keygen is None:
            return False
        done = subprocess.run(
            [keygen, "-Q", "-f", os.fspath(path), os.fspath(self._host_key)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        # Its word as well as its status: a status that somebody else collected reads as 0.
        return done.returncode == 0 and done.stdout.rstrip().endswith(b": ok")
