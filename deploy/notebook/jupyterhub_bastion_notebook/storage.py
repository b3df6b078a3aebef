"""Exists because a host key and an environment full of secrets need a folder that is private, and better not on disk.

The folder has a name that stays the same for one server, because a restarted container is the same instance to the
api and must show the same host key. A name that can be guessed can be occupied: what is not a real folder of our own
that only we may enter is never used, and a lock tells a dying predecessor's folder from one that is free.

Kubernetes makes an `emptyDir` without the sticky bit, also the one in memory that many mount as /dev/shm. There whoever
else may write, such as another container of the pod, could move our folder away at any time and put one in its place
that sshd would obey. So sshd's files are elsewhere then, and /dev/shm has nothing but a spare host key for a restarted
container, which is read and written through the open folder and never by its path.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_HOST_KEY = ("host_key", "host_key.pub")
_SHARED = Path("/dev/shm")  # noqa: S108 - the checks in _bases and _claim are what makes it safe


@dataclass
class Storage:
    """A folder of ours, mode 0700, locked for as long as this process lives."""

    path: Path
    lock: int
    """The open folder."""
    spare: Storage | None = None
    """Where the host key is kept for a restarted container; None: here."""

    def write(self, name: str, content: bytes) -> Path:
        """Replace a file at once or not at all; mode 0600. The path."""
        fresh = f".{name}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=self.lock)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(fresh, flags, 0o600, dir_fd=self.lock), "wb") as stream:
            stream.write(content)
        os.replace(fresh, name, src_dir_fd=self.lock, dst_dir_fd=self.lock)
        return self.path / name

    def read(self, name: str) -> bytes:
        """What a file holds. Raises OSError."""
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.lock), "rb") as stream:
            return stream.read()

    def is_ours(self) -> bool:
        """Whether the path still leads to the folder that we have locked."""
        try:
            return os.path.samestat(os.fstat(self.lock), self.path.lstat())
        except OSError:
            return False

    def make_again(self) -> None:
        """Make the folder anew, empty, when somebody has removed it. Raises OSError."""
        if self.is_ours():
            return
        again = _claim(self.path, os.getuid())
        if again is None:
            raise OSError(f"the folder {self.path} is gone and cannot be made again")
        os.close(self.lock)
        self.lock = again.lock

    def remove(self, *, keep_host_key: bool) -> None:
        """Delete the folder, or everything in it but the host key. Somebody else's in its place is left alone, and so
        is the spare."""
        if not self.is_ours():
            return
        if not keep_host_key or self.spare is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        for entry in self.path.iterdir():
            if entry.name not in _HOST_KEY:
                entry.unlink()


def open_storage(key: str, environ: Mapping[str, str]) -> Storage:
    """The folder for the server named by `key`: in memory where the system has such a place. Raises OSError."""
    uid = os.getuid()
    name = f"notebook-ssh-{uid}-{key}"
    for base in _bases(environ, uid):
        storage = _claim(base / name, uid)
        if storage is not None:
            return storage
        with contextlib.suppress(OSError):
            return _locked(Path(tempfile.mkdtemp(prefix=f"notebook-ssh-{uid}-", dir=base)))
    storage = _locked(Path(tempfile.mkdtemp(prefix=f"notebook-ssh-{uid}-")))
    if environ.get("KUBERNETES_SERVICE_HOST"):
        storage.spare = _claim(_SHARED / name, uid)
    return storage


def _bases(environ: Mapping[str, str], uid: int) -> list[Path]:
    bases = []
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and _private(Path(runtime), uid):
        bases.append(Path(runtime))
    with contextlib.suppress(OSError):
        state = _SHARED.lstat()
        # Without the sticky bit anybody could move our folder away and put another in its place.
        if stat.S_ISDIR(state.st_mode) and state.st_mode & stat.S_ISVTX and os.access(_SHARED, os.W_OK | os.X_OK):
            bases.append(_SHARED)
    return bases


def _private(path: Path, uid: int) -> bool:
    try:
        state = path.lstat()
    except OSError:
        return False
    return _is_private(state, uid)


def _is_private(state: os.stat_result, uid: int) -> bool:
    return stat.S_ISDIR(state.st_mode) and state.st_uid == uid and not state.st_mode & 0o077


def _claim(path: Path, uid: int) -> Storage | None:
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if not _private(path, uid):
            return None
        storage = _locked(path)
    except OSError:  # not ours, or its owner is still there
        return None
    # The predecessor removed it just before it let go; or it was moved away before we opened it.
    if not storage.is_ours() or not _is_private(os.fstat(storage.lock), uid):
        os.close(storage.lock)
        return None
    return storage


def _locked(path: Path) -> Storage:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return Storage(path=path, lock=lock)
