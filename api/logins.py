"""Logins that wait for a browser (RFC 8628), so that a client without one gets a certificate.

One row each, from begun to taken. Every step is one UPDATE with its condition in it: of two who take the same step
at once one wins, also when they ask two replicas. The device code, which is what the certificate is handed out for,
is kept as a hash only. The user code is short and no secret: it says which login is meant, and whoever approves it
gives away a certificate of their own.

Rows wait ten minutes for a browser and ten more for their client; the store forgets them after a day.
"""

import hashlib
import ipaddress
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping, and_, exists, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from api import tables
from api.records import BrowserLogin, CertificateRecord, columns_of
from api.store import Store
from ca.errors import Reason, Refusal
from ca.keys import PublicKey, parse_public_key

LIFETIME = 600
"""Seconds that a login waits for somebody to approve it, and then again for its client to fetch the certificate."""

PAUSE = 2
"""Seconds that a client leaves between two questions (`interval` of RFC 8628)."""
PAUSE_GROWS = 5
LONGEST_PAUSE = 30
_EARLY_MS = 500
"""By how much a question may come too early: clients' clocks and networks are no metronomes."""

MAX_PENDING_OF_NETWORK = 100
"""Logins that wait for one address (IPv6: one /64); a class behind one NAT has to fit."""
MAX_PENDING = 10_000

ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""RFC 8628 section 6.1: no vowels, so no words; nothing that looks like something else."""
_CODE_LETTERS = 8
_TRIES = 3

_SPENT = Refusal(Reason.INVALID_GRANT, "This login was used already. Log in again.")
_TOO_MANY = Refusal(
    Reason.TOO_MANY,
    "Too many logins wait for a browser at the moment. Finish one of yours, or try again in 10 minutes.",
)

_table = tables.logins


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
    """What a client asks for, checked. `address` is the client's; `server` stands as it was typed."""

    kind: Kind
    key: PublicKey
    address: str | None
    host_name: str | None = None
    server: str | None = None
    lifetime: int | None = None
    start: bool = False


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


async def begin(store: Store, new: NewLogin, now_ms: int) -> Begun | Refusal:
    """A new login. Refused when too many wait already, from this client's network or in all.

    Raises `StoreUnavailable`.
    """
    device_code, expires_at = secrets.token_urlsafe(32), now_ms + LIFETIME * 1000
    network = _network(new.address)
    for _ in range(_TRIES):  # a code that somebody has today is not given twice
        letters = "".join(secrets.choice(ALPHABET) for _ in range(_CODE_LETTERS))
        row: dict[str, Any] = {
            "device_sha256": hashed(device_code),
            "user_code": _shown(letters),
            "kind": str(new.kind),
            "public_key": new.key.line,
            "host_name": new.host_name,
            "address": new.address,
            "network": network,
            "server": new.server,
            "lifetime": new.lifetime,
            "start": new.start,
            "created_at": now_ms,
            "expires_at": expires_at,
            "pause": PAUSE,
            "state": str(State.PENDING),
        }
        waiting = (_table.c.state == str(State.PENDING)) & (_table.c.expires_at > now_ms)
        in_all = select(func.count()).select_from(_table).where(waiting).scalar_subquery()
        mine = select(func.count()).select_from(_table).where(waiting, _table.c.network == network).scalar_subquery()
        values = select(*(literal(value, _table.c[name].type).label(name) for name, value in row.items())).where(
            in_all < MAX_PENDING,
            mine < MAX_PENDING_OF_NETWORK,
            ~exists().where(_table.c.user_code == row["user_code"]),
        )
        made = insert(_table).from_select(list(row), values).returning(_table.c.user_code)
        async with store.noting() as connection:
            if (await connection.execute(made)).first() is not None:
                return Begun(device_code, row["user_code"], expires_at // 1000)
    return _TOO_MANY


async def by_code(store: Store, typed: str) -> Login | None:
    """The login that somebody means who typed this code, whatever its state. None: there is none."""
    code = read_code(typed)
    if code is None:
        return None
    async with store.reading() as connection:
        return _one((await connection.execute(select(_table).where(_table.c.user_code == code))).mappings().first())


async def approve(store: Store, login: Login, user: str, browser: BrowserLogin, now_ms: int) -> bool:
    """Give the client of this login a certificate of `user`. False: it was decided already, or its time is up."""
    values = {
        "state": str(State.APPROVED),
        "decided_at": now_ms,
        "expires_at": now_ms + LIFETIME * 1000,
        "user": user,
        "user_made": browser.made,
        "login_at": browser.at,
        "login_ends_at": browser.ends_at,
    }
    return await _decide(store, login, values, now_ms)


async def deny(store: Store, login: Login, user: str, now_ms: int) -> bool:
    """Send the client of this login away. False: it was decided already, or its time is up."""
    values = {"state": str(State.DENIED), "decided_at": now_ms, "user": user}
    return await _decide(store, login, values, now_ms)


async def poll(store: Store, device_code: str, kind: Kind, now_ms: int) -> Login | TooFast | None:
    """How the login with this device code stands. None: there is none of this kind.

    A client that does not leave its pause is told a longer one. A connection at a bastion has none: the bastion asks.
    """
    mine = (_table.c.device_sha256 == hashed(device_code)) & (_table.c.kind == str(kind))
    free = _table.c.polled_at.is_(None) | (_table.c.polled_at + _table.c.pause * 1000 <= now_ms + _EARLY_MS)
    condition = and_(mine, free) if kind is Kind.DEVICE else mine
    async with store.noting() as connection:
        asked = update(_table).where(condition).values(polled_at=now_ms).returning(*_table.c)
        found = _one((await connection.execute(asked)).mappings().first())
        if found is not None:
            return found
        longer = update(_table).where(mine, _table.c.pause < LONGEST_PAUSE).values(pause=_table.c.pause + PAUSE_GROWS)
        await connection.execute(longer)
        pause = (await connection.execute(select(_table.c.pause).where(mine))).scalar_one_or_none()
        return None if pause is None else TooFast(pause)


async def keep(store: Store, login: Login, record: CertificateRecord) -> Refusal | None:
    """Take the login and remember its certificate, in one transaction: either both or none, and only once.

    Raises `StoreUnavailable`: then the login can still be taken.
    """
    async with store.writing() as connection:
        if not await _take(connection, login):
            return _SPENT
        await connection.execute(insert(tables.certificates).values(**columns_of(record)))
        return None


async def spend(store: Store, login: Login) -> bool:
    """Take the login without a certificate, since there is none to be had. False: it was taken already."""
    async with store.noting() as connection:
        return await _take(connection, login)


async def is_known_as_anothers(store: Store, fingerprint: str, user: str) -> bool:
    """Whether somebody other than `user` was ever given a certificate for this key, as far back as we remember."""
    table = tables.certificates
    query = select(literal(1)).where(table.c.fingerprint == fingerprint, table.c.kind == "user", table.c.user != user)
    async with store.reading() as connection:
        return (await connection.execute(query.limit(1))).first() is not None


def read_code(typed: str) -> str | None:
    """The code that somebody typed, in its one spelling; None for what can be no code. Case and dashes are free."""
    letters = re.sub(r"[\s-]", "", typed[:64]).upper()
    return _shown(letters) if len(letters) == _CODE_LETTERS and set(letters) <= set(ALPHABET) else None


def hashed(device_code: str) -> str:
    """What is kept of a device code, and finds its login."""
    return hashlib.sha256(device_code.encode("utf-8", "replace")).hexdigest()


def _shown(letters: str) -> str:
    return f"{letters[:4]}-{letters[4:]}"


def _network(address: str | None) -> str:
    """What an address counts under: itself, or the /64 that one IPv6 customer has for himself."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)


async def _decide(store: Store, login: Login, values: dict[str, Any], now_ms: int) -> bool:
    pending = (_table.c.state == str(State.PENDING)) & (_table.c.expires_at > now_ms)
    decided = update(_table).where(_table.c.device_sha256 == login.id, pending).values(**values)
    async with store.noting() as connection:
        return (await connection.execute(decided.returning(_table.c.state))).first() is not None


async def _take(connection: AsyncConnection, login: Login) -> bool:
    approved = (_table.c.device_sha256 == login.id) & (_table.c.state == str(State.APPROVED))
    taken = update(_table).where(approved).values(state=str(State.TAKEN)).returning(_table.c.state)
    return (await connection.execute(taken)).first() is not None


def _one(row: RowMapping | None) -> Login | None:
    return None if row is None else _login(row)


def _login(row: RowMapping) -> Login:
    wanted = NewLogin(
        kind=Kind(row["kind"]),
        key=parse_public_key(row["public_key"]),
        address=row["address"],
        host_name=row["host_name"],
        server=row["server"],
        lifetime=row["lifetime"],
        start=row["start"],
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
