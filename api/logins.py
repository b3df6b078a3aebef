"""Logins that wait for a browser (RFC 8628), so that a client without one gets a certificate.

One row each, from begun to taken. Every step is one UPDATE with its condition in it: of two who take the same step
at once one wins, also when they ask two replicas. The device code, which is what the certificate is handed out for,
is kept as a hash only. The user code is short and no secret: it says which login is meant, and whoever approves it
gives away a certificate of their own.

Rows wait ten minutes for a browser and ten more for their client; the store forgets them an hour later, since anybody
can make one.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from api import tables
from api.database import read_meta
from api.networks import WIDE_CHARACTERS, network_of, wide_network_of
from api.records import BrowserLogin, CertificateRecord, columns_of
from api.store import Store
from api.waiting import Begun, Kind, Login, NewLogin, State, TooFast, login_of, new_code, read_code
from ca.errors import Reason, Refusal

__all__ = ("Begun", "Kind", "Login", "NewLogin", "State", "TooFast", "read_code")

LIFETIME = 600
"""Seconds that a login waits for somebody to approve it, and then again for its client to fetch the certificate."""

PAUSE = 2
"""Seconds that a client leaves between two questions (`interval` of RFC 8628)."""
PAUSE_GROWS = 5
LONGEST_PAUSE = 30
_EARLY_MS = 500
"""By how much a question may come too early: clients' clocks and networks are no metronomes."""

_TRIES = 3

_SPENT = Refusal(Reason.INVALID_GRANT, "This login was used already. Log in again.")
REVOKED = Refusal(Reason.ACCESS_DENIED, "What you were given was revoked after this login was approved. Log in again.")
_TOO_MANY = Refusal(
    Reason.TOO_MANY,
    "Too many logins wait for a browser at the moment. Finish one of yours, or try again in 10 minutes.",
)

_table = tables.logins
_wide = func.substr(_table.c.network, 1, WIDE_CHARACTERS)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many logins of one kind may wait: in all, and for one address (IPv6: one /64). A class behind one NAT has to
    fit. An IPv6 /48, which is a site or whoever rents one, has five times as many."""

    in_all: int = 10_000
    of_network: int = 400

    @property
    def of_wide_network(self) -> int:
        """For one IPv6 /48."""
        return self.of_network * 5


BOUNDS = Bounds()


async def begin(store: Store, new: NewLogin, now_ms: int, bounds: Bounds = BOUNDS) -> Begun | Refusal:
    """A new login. Refused when too many wait already from this client's network. When too many wait in all, the oldest
    of the network with the most gives way, so that nobody keeps others out. Kinds are counted apart.

    Raises `StoreUnavailable`.
    """
    device_code, expires_at = secrets.token_urlsafe(32), now_ms + LIFETIME * 1000
    network = network_of(new.address)
    await _make_room(store, new.kind, now_ms, bounds)
    for _ in range(_TRIES):  # a code that somebody has today is not given twice
        row: dict[str, Any] = {
            "device_sha256": hashed(device_code),
            "user_code": new_code(),
            "kind": str(new.kind),
            "public_key": new.key.line,
            "host_name": new.host_name,
            "address": new.address,
            "network": network,
            "server": new.server,
            "lifetime": new.lifetime,
            "start": new.start,
            "only": new.only,
            "created_at": now_ms,
            "expires_at": expires_at,
            "pause": PAUSE,
            "state": str(State.PENDING),
        }
        waiting = _waiting(new.kind, now_ms)
        counted = select(func.count()).select_from(_table).where(waiting)
        mine = counted.where(_table.c.network == network).scalar_subquery()
        wide = counted.where(_wide == wide_network_of(network)).scalar_subquery()
        values = select(*(literal(value, _table.c[name].type).label(name) for name, value in row.items())).where(
            counted.scalar_subquery() < bounds.in_all,
            mine < bounds.of_network,
            wide < bounds.of_wide_network,
            ~exists().where(_table.c.user_code == row["user_code"]),
        )
        made = insert(_table).from_select(list(row), values).returning(_table.c.user_code)
        async with store.noting() as connection:
            if (await connection.execute(made)).first() is not None:
                return Begun(device_code, row["user_code"], expires_at // 1000)
        if await by_code(store, row["user_code"]) is None:
            break
    return _TOO_MANY


async def by_code(store: Store, typed: str) -> Login | None:
    """The login that somebody means who typed this code, whatever its state. None: there is none."""
    code = read_code(typed)
    if code is None:
        return None
    async with store.reading() as connection:
        return login_of((await connection.execute(select(_table).where(_table.c.user_code == code))).mappings().first())


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
        found = login_of((await connection.execute(asked)).mappings().first())
        if found is not None:
            return found
        longer = update(_table).where(mine, _table.c.pause < LONGEST_PAUSE).values(pause=_table.c.pause + PAUSE_GROWS)
        await connection.execute(longer)
        pause = (await connection.execute(select(_table.c.pause).where(mine))).scalar_one_or_none()
        return None if pause is None else TooFast(pause)


async def keep(store: Store, login: Login, record: CertificateRecord) -> Refusal | None:
    """Take the login and remember its certificate, in one transaction: either both or none, and only once.

    Revoking a user, or everybody, means what was given until then, and an approval is a certificate that was not
    fetched yet. Raises `StoreUnavailable`: then the login can still be taken.
    """
    async with store.writing() as connection:
        if not await _take(connection, login):
            return _SPENT
        if await _revoked_since(connection, login):
            return REVOKED
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


def hashed(device_code: str) -> str:
    """What is kept of a device code, and finds its login."""
    return hashlib.sha256(device_code.encode("utf-8", "replace")).hexdigest()


def _waiting(kind: Kind, now_ms: int) -> ColumnElement[bool]:
    return and_(_table.c.kind == str(kind), _table.c.state == str(State.PENDING), _table.c.expires_at > now_ms)


async def _make_room(store: Store, kind: Kind, now_ms: int, bounds: Bounds) -> None:
    """End the oldest login of the heaviest network, if all places are taken: its client is told that time is up."""
    waiting = _waiting(kind, now_ms)
    in_all = select(func.count()).select_from(_table).where(waiting)
    async with store.reading() as connection:
        if (await connection.execute(in_all)).scalar_one() < bounds.in_all:
            return
    heaviest = select(_wide).where(waiting).group_by(_wide).order_by(func.count().desc(), _wide).limit(1)
    oldest = select(_table.c.device_sha256).where(waiting, _wide == heaviest.scalar_subquery())
    oldest = oldest.order_by(_table.c.created_at, _table.c.device_sha256).limit(1)
    full = in_all.scalar_subquery() >= bounds.in_all
    ended = update(_table).where(_table.c.device_sha256 == oldest.scalar_subquery(), full)
    async with store.noting() as connection:
        await connection.execute(ended.values(expires_at=now_ms))


async def _decide(store: Store, login: Login, values: dict[str, Any], now_ms: int) -> bool:
    pending = (_table.c.state == str(State.PENDING)) & (_table.c.expires_at > now_ms)
    decided = update(_table).where(_table.c.device_sha256 == login.id, pending).values(**values)
    async with store.noting() as connection:
        return (await connection.execute(decided.returning(_table.c.state))).first() is not None


async def _revoked_since(connection: AsyncConnection, login: Login) -> bool:
    table, decided_at = tables.revocations, login.decided_at or 0
    meta = await read_meta(connection)
    if meta is None or meta.everyone_before > decided_at:
        return True
    later = (table.c.kind == "user") & (table.c.subject == login.user) & (table.c.before > decided_at)
    return (await connection.execute(select(literal(1)).where(later).limit(1))).first() is not None


async def _take(connection: AsyncConnection, login: Login) -> bool:
    approved = (_table.c.device_sha256 == login.id) & (_table.c.state == str(State.APPROVED))
    taken = update(_table).where(approved).values(state=str(State.TAKEN)).returning(_table.c.state)
    return (await connection.execute(taken)).first() is not None
