"""The secret that the bastion shares with the api: read from a file, shown to nobody.

It is not a key of any CA, but whoever has it can ask for hop certificates. So its file must be as private as a
key file, and the value has no `repr`, no comparison and no pickle that would show it.
"""

import os
import stat
from pathlib import Path
from typing import NoReturn

from ca.errors import KeyFileError

MIN_LENGTH = 32
_MAX_BYTES = 4096


class Secret:
    """A text that does not print. `reveal` is the only way to it."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The text itself, for the one header that carries it."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not copied or stored")


def read_secret(path: Path, *, group: int | None = None) -> Secret:
    """The secret in `path`, without the white space around it.

    Raises `KeyFileError` if others can read the file, or a group that is not `group`, or if it holds fewer than
    32 characters or anything but printable ASCII.
    """
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"The secret in {path} cannot be read: {error.strerror}.") from None
    if about.st_mode & stat.S_IRWXO or (about.st_mode & stat.S_IRWXG and about.st_gid != group):
        raise KeyFileError(f"The secret in {path} can be read by others: chmod 600 {path}")
    text = raw.decode("ascii", "replace").strip()
    if not MIN_LENGTH <= len(text) <= _MAX_BYTES or not all("!" <= char <= "~" for char in text):
        raise KeyFileError(f"The secret in {path} must be {MIN_LENGTH} or more printable characters on one line.")
    return Secret(text)
