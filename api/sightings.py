"""The table of live sessions: what each bastion process last said of who is in it.

A report replaces the one before it. A process that has not been heard of for a minute has none, whether it ended, lost
its way to us or was cut off: then nothing is known of its sessions, and nothing is shown. The rows may be lost with the
database without harm, since every process says everything again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import case, delete, func, insert, select, update

from api import tables
from api.store import Store
from ca.errors import MalformedName, Reason, Refusal
from ca.names import Server, parse_login
from ca.sessions import process_name, public_name

LIVE_MS = 60 * 1000
"""How long a report counts. Bastions repeat theirs three times in this time."""

MAX_SESSIONS = 5000
"""Sessions in one report."""

MAX_PROCESSES = 256
"""Bastion processes that may report at a time; their secret is shared, so that one of them could invent others."""

_FORGET_MS = 3600 * 1000


@dataclass(frozen=True, slots=True)
class Reported:
    """A session as its bastion tells of it.

    `id` is what the bastion calls it, in its audit lines too; a tunnel has the name of its connection in front. `user`
    is the JupyterHub user of a certificate, None for a raw key, whose `identity` is `key:SHA256:…`. `login` and
    `instance` name the run that it leads to: None for a connection in jump mode that leads nowhere yet. `since` is
    in seconds since the epoch, `received` and `sent` are bytes from and to the client.
    """

    id: str
    user: str | None
    identity: str
    login: str | None
    instance: str | None
    serial: str | None
    mode: str
    how: str
    peer: str
    since: float
    received: int
    sent: int


_FIELDS = tuple(field.name for field in fields(Reported))


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session that lives, as far as anybody knows. `name` is its public name (`ca.sessions`), `server` where it leads
    to."""

    name: str
    server: Server | None
    told: Reported


@dataclass(frozen=True, slots=True)
class _Told:
    seen_at: int
    sessions: tuple[LiveSession, ...]


class Sightings:
    """The reports of all bastions. What was read is kept while it does not change: pages ask often."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, _Told] = {}

    async def hear(self, process: str, sessions: Sequence[Reported], now_ms: int) -> Refusal | None:
        """Take the report of a bastion process, by its secret. Raises `StoreUnavailable`."""
        table = tables.bastions
        name, told = process_name(process), [_row(process, one) for one in sessions]
        later = case((table.c.seen_at >= now_ms, table.c.seen_at + 1), else_=now_ms)  # what is kept is told by it
        async with self._store.noting() as connection:
            replace = update(table).where(table.c.id == name).values(seen_at=later, sessions=told)
            known = await connection.execute(replace)
            if known.rowcount:
                return None
            await connection.execute(delete(table).where(table.c.seen_at < now_ms - _FORGET_MS))
            alive = select(func.count()).select_from(table).where(table.c.seen_at > now_ms - LIVE_MS)
            if (await connection.execute(alive)).scalar_one() >= MAX_PROCESSES:
                return Refusal(Reason.TOO_MANY, "Too many bastion processes report their sessions here.")
            await connection.execute(insert(table).values(id=name, seen_at=now_ms, sessions=told))
        return None

    async def everybodys(self, now_ms: int) -> tuple[LiveSession, ...]:
        """Every session that lives, in no order. Raises `StoreUnavailable`."""
        await self._refresh(now_ms)
        return tuple(one for told in self._read.values() for one in told.sessions)

    async def end(self, name: str, by: str, now_ms: int) -> None:
        """The session of this public name is to be cut: every bastion hears of it. Raises `StoreUnavailable`."""
        async with self._store.writing() as connection:
            values = {"session": name, "by": by, "ended_at": now_ms}
            await connection.execute(insert(tables.ended_sessions).values(**values))
        await self._store.reread(now_ms)

    async def _refresh(self, now_ms: int) -> None:
        table = tables.bastions
        async with self._store.reading() as connection:
            query = select(table.c.id, table.c.seen_at).where(table.c.seen_at > now_ms - LIVE_MS)
            seen = {row.id: row.seen_at for row in await connection.execute(query)}
            kept = {one: told for one, told in self._read.items() if seen.get(one) == told.seen_at}
            for row in await connection.execute(select(table).where(table.c.id.in_(seen.keys() - kept.keys()))):
                kept[row.id] = _Told(row.seen_at, tuple(_session(one) for one in row.sessions))
        self._read = kept


def _row(process: str, one: Reported) -> dict[str, Any]:
    row = {name: getattr(one, name) for name in _FIELDS}  # not `asdict`, which would take most of a long report's time
    return {**row, "name": public_name(process, one.id)}


def _session(row: Mapping[str, Any]) -> LiveSession:
    told = Reported(*(row[name] for name in _FIELDS))
    return LiveSession(row["name"], _server(told), told)


def _server(told: Reported) -> Server | None:
    try:
        return None if told.login is None else parse_login(told.login)
    except MalformedName:
        return None
