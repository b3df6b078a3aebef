"""A login that waits for a browser, as a value: what was asked for, how it stands, and the code that people type."""

import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import RowMapping

from api.records import BrowserLogin
from ca.keys import PublicKey, parse_public_key

ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""RFC 8628 section 6.1: no vowels, so no words; nothing that looks like something else."""
_LETTERS = 8


class Kind(StrEnum):
    """Who waits: a client that polls, or an ssh connection that is held open at a bastion."""

    DEVICE = "device"
    INTERACTIVE = "interactive"


class State(StrEnum):
    """Where a login stands. It never goes back."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    TAKEN = "taken"


@dataclass(frozen=True, slots=True)
class NewLogin:
    """What a client asks for, checked. `address` is the client's; `server` stands as it was typed.

    `only`: the certificate is for `server` alone, where one is given; else that server has to run, and the certificate
    is for everything that does.
    """

    kind: Kind
    key: PublicKey
    address: str | None
    host_name: str | None = None
    server: str | None = None
    lifetime: int | None = None
    start: bool = False
    only: bool = True


@dataclass(frozen=True, slots=True)
class Begun:
    """The two codes of a login that was begun. The device code is told to the client and to nobody else."""

    device_code: str = field(repr=False)
    user_code: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Login:
    """A login as it stands. Moments are milliseconds since the epoch.

    `user` and `browser` are who decided it, and the browser login of whoever approved.
    """

    id: str = field(repr=False)
    user_code: str
    wanted: NewLogin
    created_at: int
    expires_at: int
    pause: int
    state: State
    decided_at: int | None = None
    user: str | None = None
    browser: BrowserLogin | None = None

    def is_over(self, now_ms: int) -> bool:
        """Whether its time is up: nobody may approve it any more, or fetch its certificate."""
        return now_ms >= self.expires_at


@dataclass(frozen=True, slots=True)
class TooFast:
    """A client asked again too soon; from now on it has to leave `pause` seconds."""

    pause: int


def new_code() -> str:
    """A code for people to type: 20^8 possibilities."""
    return _shown("".join(secrets.choice(ALPHABET) for _ in range(_LETTERS)))


def read_code(typed: str) -> str | None:
    """The code that somebody typed, in its one spelling; None for what can be no code. Case and dashes are free."""
    letters = re.sub(r"[\s-]", "", typed[:64]).upper()
    return _shown(letters) if len(letters) == _LETTERS and set(letters) <= set(ALPHABET) else None


def _shown(letters: str) -> str:
    return f"{letters[:4]}-{letters[4:]}"


def login_of(row: RowMapping | None) -> Login | None:
    """A login from its row, if there is one."""
    if row is None:
        return None
    wanted = NewLogin(
        kind=Kind(row["kind"]),
        key=parse_public_key(row["public_key"]),
        address=row["address"],
        host_name=row["host_name"],
        server=row["server"],
        lifetime=row["lifetime"],
        start=row["start"],
        only=row["only"] is not False,
    )
    approved = row["login_at"] is not None
    return Login(
        id=row["device_sha256"],
        user_code=row["user_code"],
        wanted=wanted,
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        pause=row["pause"],
        state=State(row["state"]),
        decided_at=row["decided_at"],
        user=row["user"],
        browser=BrowserLogin(row["login_at"], row["login_ends_at"], row["user_made"] or "") if approved else None,
    )
