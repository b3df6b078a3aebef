"""What the bastion was last told about CA keys and revocations, kept over a restart.

A bastion that is started while the api is down must neither forget what is revoked nor refuse everybody. So
each good answer is written to its state directory, and read back with the age it has by the wall clock: a file
that is too old is then refused like a list that has not been heard of for too long. A file from the future
says nothing about its age, and one that others can write says nothing at all: both are left alone.
"""

import asyncio
import json
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from bastion.authority.errors import AuthorityUnavailable
from bastion.authority.state import (
    Word,
    read_mark,
    read_raw_keys,
    read_revocations,
    read_trust,
    read_zone,
    write_raw_keys,
    write_revocations,
    write_trust,
)
from bastion.files import replace_file

FILE = "authority.json"
REWRITE_SECONDS = 30.0
"""How old the age on disk may be while nothing changes."""

_SKEW_SECONDS = 60.0
_MAX_BYTES = 64 << 20

_log = logging.getLogger(__name__)


class AuthorityStore:
    """One file in the bastion's state directory, mode 0600: it names users and what was revoked."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._path = directory / FILE
        self._clock = clock
        self._wall = wall
        self._kept: tuple[object, float] | None = None

    async def keep(self, word: Word) -> bool:
        """Write `word` if it says something new, or if the age on disk is getting old. Whether it was written.

        Raises `OSError` if the state directory cannot be written.
        """
        content = (word.zone, word.trust, word.revocations, word.raw_keys)
        if self._kept is not None and self._kept[0] == content and word.heard_at - self._kept[1] < REWRITE_SECONDS:
            return False
        heard = self._wall() - (self._clock() - word.heard_at)
        text = json.dumps(
            {
                "heard": heard,
                "zone": word.zone,
                "trust": write_trust(word.trust),
                "revocations": write_revocations(word.revocations),
                "raw_keys": write_raw_keys(word.raw_keys),
                "mark": word.mark,
            }
        )
        await asyncio.to_thread(replace_file, self._path, text.encode())
        self._kept = (content, word.heard_at)
        return True

    def load(self) -> Word | None:
        """What was kept, with its age; None if there is nothing, or nothing that may be believed."""
        try:
            body = _read(self._path)
            if body is None:
                return None
            age = self._wall() - _number(body.get("heard"))
            word = Word(
                zone=read_zone(body.get("zone")),
                trust=read_trust(body.get("trust")),
                revocations=read_revocations(body.get("revocations")),
                heard_at=self._clock() - max(age, 0.0),
                raw_keys=read_raw_keys(body.get("raw_keys")),
                mark=read_mark(body.get("mark", 0)),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError, AuthorityUnavailable) as error:
            _log.warning("%s cannot be used: %s", self._path, error)
            return None
        if age < -_SKEW_SECONDS:
            _log.warning("%s is from the future: its age is unknown, so it is not used", self._path)
            return None
        return word


def _number(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw < float("inf"):
        raise ValueError("it does not say when it was written")
    return float(raw)


def _read(path: Path) -> dict[str, object] | None:
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            _log.warning("%s can be written by others, so it is not used", path)
            return None
        raw = file.read(_MAX_BYTES + 1)
    if len(raw) > _MAX_BYTES:
        raise ValueError("it is too long")
    body: object = json.loads(raw)
    if not isinstance(body, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - a file's content, not a caller's mistake
    return body
