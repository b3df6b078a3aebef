"""The CA's private keys as files: made once, rotated in one step, refused when others can read them.

Each CA (user, host, hop) is a folder with `current`, `next`, their `.pub` files, and after the first rotation
`previous.pub`. `user` is a symbolic link to `user.1`, `user.2`, …: a rotation writes the next folder whole and then
replaces the link, so that a crash leaves the old keys or the new ones, never a mixture. The private key of
`previous` is not kept: nothing signs with it any more.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from ca.errors import KeyFileError, MalformedKey
from ca.keys import PublicKey, parse_public_key

NAMES = ("user", "host", "hop")


@dataclass(frozen=True, slots=True)
class AuthorityKeys:
    """One CA: the private key that signs now, and every public key that is trusted now."""

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
        _make_first(directory, name)
    generation = str(link.readlink()) if link.is_symlink() else name
    folder = link.resolve()
    signing = read_private(folder / "current", group)
    read_private(folder / "next", group)
    public = [_read_public(folder / "current.pub"), _read_public(folder / "next.pub")]
    if public[0].blob != signing.public_data:
        raise KeyFileError(f"{folder / 'current.pub'} is not the public key of {folder / 'current'}.")
    if (folder / "previous.pub").exists():
        public.append(_read_public(folder / "previous.pub"))
    return AuthorityKeys(signing=signing, current=public[0], public=tuple(public), generation=generation)


def rotate(directory: Path, name: str, group: int | None) -> AuthorityKeys:
    """Next becomes current, current becomes previous, a new next is made. Nobody who was trusted is refused."""
    if name not in NAMES:
        raise KeyFileError(f"There is no CA named {name!r}: say one of {', '.join(NAMES)}.")
    link = directory / name
    old = open_authority(directory, name, group)
    if not link.is_symlink():
        raise KeyFileError(f"{link} is managed from outside (it is no link of ours): rotate it there.")
    folder = _new_folder(directory, name, int(link.readlink().name.rpartition(".")[2]) + 1)
    _write_pair(folder, "current", read_private(link.resolve() / "next", group))
    _write_pair(folder, "next", asyncssh.generate_private_key("ssh-ed25519"))
    _write(folder / "previous.pub", f"{old.current.line}\n".encode(), 0o644)
    _sync(folder)
    temporary = directory / f".{name}.link"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name)
    old_folder = link.resolve()
    temporary.replace(link)
    _sync(directory)
    _remove(old_folder.iterdir(), old_folder)
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
    """Refuse a secret file that others, or a group that is not `group`, can read or write."""
    try:
        status = path.stat()
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{path} is not a regular file.")
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
    """Two processes may start at once on one folder: the link is made once, and the loser reads the winner's."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = _new_folder(directory, name, 1, unique=True)
    for part in ("current", "next"):
        _write_pair(folder, part, asyncssh.generate_private_key("ssh-ed25519"))
    _sync(folder)
    try:
        (directory / name).symlink_to(folder.name)
    except FileExistsError:
        _remove(folder.iterdir(), folder)
    _sync(directory)


def _new_folder(directory: Path, name: str, number: int, *, unique: bool = False) -> Path:
    """A new private folder `name.number`; what a crashed rotation left there is not trusted and is removed."""
    folder = directory / (f"{name}.{os.getpid()}.{number}" if unique else f"{name}.{number}")
    if folder.exists():
        _remove(folder.iterdir(), folder)
    folder.mkdir(mode=0o700)
    return folder


def _remove(files: Iterable[Path], folder: Path) -> None:
    for file in files:
        file.unlink()
    with suppress(FileNotFoundError):
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
