"""The CA's private keys as files: made once, rotated in one step, refused when others can read them.

Each CA (user, host, hop) is a folder with `current`, `next`, their `.pub` files, and after the first rotation
`previous.pub`. `user` is a symbolic link to `user.1`, `user.2`, …: a rotation writes the next folder whole and then
replaces the link, so that a crash leaves the old keys or the new ones, never a mixture. The private key of
`previous` is not kept: nothing signs with it any more. Whoever makes or rotates keys holds a lock; readers need none.
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from ca.errors import KeyFileError, MalformedKey
from ca.keys import PublicKey, parse_public_key

NAMES = ("user", "host", "hop")


@dataclass(frozen=True, slots=True)
class AuthorityKeys:
    """One CA: the private key that signs now, and every public key that is trusted now.

    `generation` is the folder that they were read from: another one after every rotation.
    """

    signing: asyncssh.SSHKey = field(repr=False)
    current: PublicKey
    public: tuple[PublicKey, ...]
    generation: str


def open_authority(directory: Path, name: str, group: int | None) -> AuthorityKeys:
    """Read a CA's keys, making them if there are none. Raises `KeyFileError` with a sentence.

    `group` is the one group that may read the files (a pod's fsGroup), or None for nobody.
    """
    link = directory / name
    if not link.exists():
        if link.is_symlink():
            raise KeyFileError(f"{link} points to a folder that is gone. Restore it from a backup.")
        try:
            _make_first(directory, name)
        except OSError as error:
            raise KeyFileError(f"The keys of the {name} CA cannot be made in {directory}: {error.strerror}.") from None
    while True:
        folder = link.resolve()
        try:
            return _read_authority(folder, group)
        except KeyFileError:
            if link.resolve() == folder:
                raise
            # A rotation took the folder away while it was read: the link leads to the next one by now.


def _read_authority(folder: Path, group: int | None) -> AuthorityKeys:
    signing = read_private(folder / "current", group)
    following = read_private(folder / "next", group)
    public = [_read_public(folder / "current.pub"), _read_public(folder / "next.pub")]
    for part, key, shown in (("current", signing, public[0]), ("next", following, public[1])):
        if shown.blob != key.public_data:
            raise KeyFileError(f"{folder / part}.pub is not the public key of {folder / part}.")
    if (folder / "previous.pub").exists():
        public.append(_read_public(folder / "previous.pub"))
    return AuthorityKeys(signing=signing, current=public[0], public=tuple(public), generation=str(folder))


def rotate(directory: Path, name: str, group: int | None) -> AuthorityKeys:
    """Next becomes current, current becomes previous, a new next is made. Nobody who was trusted is refused."""
    if name not in NAMES:
        raise KeyFileError(f"There is no CA named {name!r}: say one of {', '.join(NAMES)}.")
    open_authority(directory, name, group)
    link = directory / name
    if not link.is_symlink() or not _numbered(name, str(link.readlink())):
        raise KeyFileError(f"{link} is managed from outside (it is no link of ours): rotate it there.")
    try:
        with _alone(directory):
            _make_next(directory, name, group)
    except OSError as error:
        raise KeyFileError(f"The {name} CA cannot be rotated in {directory}: {error.strerror}.") from None
    return open_authority(directory, name, group)


def read_private(path: Path, group: int | None) -> asyncssh.SSHKey:
    """A private key that nobody else can read. Raises `KeyFileError`; the text never holds key material."""
    check_private(path, group)
    try:
        key = asyncssh.import_private_key(path.read_bytes())
    except (OSError, asyncssh.KeyImportError):
        raise KeyFileError(f"{path} is not an unencrypted OpenSSH private key.") from None
    if key.algorithm != b"ssh-ed25519":
        raise KeyFileError(f"{path} is not an ed25519 key.")
    return key


def check_private(path: Path, group: int | None) -> None:
    """Refuse a secret file that another user owns (root may: mounted Secrets are root's), or that others, or a group
    that is not `group`, can read or write."""
    try:
        status = path.stat()
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{path} is not a regular file.")
    if status.st_uid not in {0, os.geteuid()}:
        raise KeyFileError(f"{path} belongs to another user, who could replace it. Run: chown $(id -u) {path}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o007:
        raise KeyFileError(f"{path} can be read or written by others (mode {mode:04o}). Run: chmod 600 {path}")
    if mode & 0o070 and (status.st_gid != group or mode & 0o030):
        raise KeyFileError(f"{path} can be read or written by its group (mode {mode:04o}). Run: chmod 600 {path}")


def _read_public(path: Path) -> PublicKey:
    try:
        return parse_public_key(path.read_bytes(), algorithms=frozenset({"ssh-ed25519"}))
    except (OSError, MalformedKey):
        raise KeyFileError(f"{path} is not an ed25519 public key.") from None


def _make_first(directory: Path, name: str) -> None:
    """Two processes may start at once on one folder: the second waits for the first, and finds the link made."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(directory):
        link = directory / name
        if link.exists():
            return
        # Whole folders without a link are the work of a start that died at the last step, or of a restored backup
        # that lost its links: either way keys that must not be thrown away.
        whole = [folder for folder in _folders(directory, name) if (folder / "next.pub").exists()]
        if len(whole) > 1:
            raise KeyFileError(f"{link} is gone, and there are several folders it may have led to: make it again.")
        folder = whole[0] if whole else _new_folder(directory, name, 1)
        if not whole:
            for part in ("current", "next"):
                _write_pair(folder, part, asyncssh.generate_private_key("ssh-ed25519"))
            _sync(folder)
        link.symlink_to(folder.name)
        _sync(directory)


def _make_next(directory: Path, name: str, group: int | None) -> None:
    link = directory / name
    old_folder = link.resolve()
    old = _read_authority(old_folder, group)
    folder = _new_folder(directory, name, _number(old_folder) + 1)
    _write_pair(folder, "current", read_private(old_folder / "next", group))
    _write(folder / "previous.pub", f"{old.current.line}\n".encode(), 0o644)
    _write_pair(folder, "next", asyncssh.generate_private_key("ssh-ed25519"))
    _sync(folder)
    temporary = directory / f".{name}.link"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    temporary.replace(link)
    _sync(directory)
    for other in _folders(directory, name):
        if other != folder:
            _remove(other)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Only one process at a time, however many there are; the lock ends with its holder, by SIGKILL too."""
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _numbered(name: str, folder: str) -> bool:
    return re.fullmatch(re.escape(name) + r"\.[0-9]{1,9}", folder) is not None


def _number(folder: Path) -> int:
    return int(folder.name.rpartition(".")[2])


def _folders(directory: Path, name: str) -> tuple[Path, ...]:
    """Every generation of a CA's keys that is there, half-written ones too."""
    return tuple(sorted(one for one in directory.iterdir() if _numbered(name, one.name)))


def _new_folder(directory: Path, name: str, number: int) -> Path:
    """A new private folder `name.number`; what a crashed process left there is not trusted and is removed."""
    folder = directory / f"{name}.{number}"
    if folder.exists():
        _remove(folder)
    folder.mkdir(mode=0o700)
    return folder


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def _write_pair(folder: Path, part: str, key: asyncssh.SSHKey) -> None:
    _write(folder / part, key.export_private_key("openssh"), 0o600)
    public = parse_public_key(key.export_public_key("openssh"))
    _write(folder / f"{part}.pub", f"{public.line}\n".encode(), 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """A file is only kept over a power failure once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
