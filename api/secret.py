"""The secret that the api shares with the bastion: a file, made at first start, readable by its owner only."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from ca.errors import KeyFileError
from ca.keyfiles import check_private

_BYTES = 32


def open_secret(path: Path, group: int | None) -> bytes:
    """The secret in `path`, made if there is none. Raises `KeyFileError` if it is unreadable, public or too short.

    Written beside and then linked, so that a crash or a second process never leaves half a secret.
    """
    if not path.exists():
        _make(path)
    check_private(path, group)
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}.") from None
    if len(secret) < _BYTES or not secret.isascii():
        raise KeyFileError(f"{path} is too short for a secret. Remove it, and a new one is made.")
    return secret


def _make(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{secrets.token_urlsafe(_BYTES)}\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
    except OSError as error:
        raise KeyFileError(f"The secret {path} cannot be made: {error.strerror}.") from None
