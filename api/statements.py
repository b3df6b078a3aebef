"""What `api.store` says in SQL where it is more than a line: enrolments, and what the snapshot holds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from api import tables
from api.database import Meta
from api.records import Enrolment, enrolment_of, is_instance
from ca.errors import Reason, Refusal
from ca.names import Server, parse_login
from ca.revocation import Revocations

REVOCATION_HORIZON_MS = 8 * 86400 * 1000
"""Longer than any certificate lives (seven days at most): older revocations refuse nothing that is left."""

ENDED_MS = 10 * 60 * 1000
"""How long bastions are told that somebody ended a session: one that has not heard it by then lets nobody in."""

MAX_ENDED = 5000

LOGGED_OUT = "session"
"""`kind` of a revocation of a browser session."""
LOGGED_OUT_MS = 13 * 3600 * 1000
"""Longer than any browser session lives."""
MAX_LOGGED_OUT = 100_000


async def enrol(connection: AsyncConnection, new: Enrolment, withdraw_sha256: str) -> Enrolment | Refusal:
    table = tables.enrolments
    mine = (table.c.owner == new.server.owner) & (table.c.server_name == new.server.name)
    fingerprint = new.host_key.fingerprint
    elsewhere = select(table.c.id).where(table.c.live_host_key == fingerprint, ~mine)
    if (await connection.execute(elsewhere)).first() is not None:
        return Refusal(
            Reason.HOST_KEY_CONFLICT, "Another server has enrolled with this host key. Make a new one and try again."
        )
    before = (await connection.execute(select(table).where(*is_instance(new.instance)))).mappings().one_or_none()
    if before is not None and before["host_key"] != new.host_key.line:
        return Refusal(
            Reason.HOST_KEY_CONFLICT,
            "This run of the server has already enrolled with another host key, and the first one stays. "
            "Restart the server if that was not you.",
        )
    older = select(table.c.id).where(mine, table.c.instance != str(new.instance.id), table.c.ended_at.is_(None))
    await end(connection, tuple((await connection.execute(older)).scalars()), "replaced", new.enrolled_at)
    values = {
        "live_host_key": fingerprint,
        "address": new.address,
        "ssh_port": new.ssh_port,
        "key_port": new.key_port,
        "unix_user": new.unix_user,
        "withdraw_sha256": withdraw_sha256,
        "ended_at": None,
        "ended_why": None,
    }
    if before is not None:
        await connection.execute(update(table).where(table.c.id == before["id"]).values(**values))
        return enrolment_of({**before, **values})
    identity = {
        "owner": new.server.owner,
        "server_name": new.server.name,
        "instance": str(new.instance.id),
        "host_key": new.host_key.line,
        "seen_ready": new.seen_ready,
        "enrolled_at": new.enrolled_at,
    }
    await connection.execute(insert(table).values(**identity, **values))
    return new


async def end(connection: AsyncConnection, ids: Sequence[int], why: str, now_ms: int) -> None:
    table = tables.enrolments
    for one in ids:
        ended = update(table).where(table.c.id == one, table.c.ended_at.is_(None))
        await connection.execute(ended.values(live_host_key=None, ended_at=now_ms, ended_why=why))


async def revocations(connection: AsyncConnection, meta: Meta, now_ms: int) -> Revocations:
    table = tables.revocations
    query = (
        select(table.c.kind, table.c.subject, func.max(table.c.before).label("before"))
        .where(table.c.revoked_at > now_ms - REVOCATION_HORIZON_MS, table.c.kind != LOGGED_OUT)
        .group_by(table.c.kind, table.c.subject)
    )
    rows = tuple(await connection.execute(query))
    return Revocations(
        everyone_before=meta.everyone_before,
        serials=frozenset(int(row.subject) for row in rows if row.kind == "serial"),
        users={row.subject: row.before for row in rows if row.kind == "user"},
        servers={parse_login(row.subject): row.before for row in rows if row.kind == "server"},
        shares=_shares(rows),
    )


def share_subject(user: str, server: Server) -> str:
    """How a row says whose way into which server is meant: two login names, which have no space."""
    return f"{Server(user).login} {server.login}"


def _shares(rows: Iterable[Any]) -> Mapping[str, Mapping[Server, int]]:
    found: dict[str, dict[Server, int]] = {}
    for row in rows:
        if row.kind == "share":
            user, _, server = row.subject.partition(" ")
            found.setdefault(parse_login(user).owner, {})[parse_login(server)] = row.before
    return found


async def enrolments(connection: AsyncConnection) -> tuple[Enrolment, ...]:
    table = tables.enrolments
    query = select(table).where(table.c.ended_at.is_(None)).order_by(table.c.owner, table.c.server_name)
    return tuple(enrolment_of(row) for row in (await connection.execute(query)).mappings())


async def ended_sessions(connection: AsyncConnection, now_ms: int) -> Mapping[str, str]:
    table = tables.ended_sessions
    query = select(table.c.session, table.c.by).where(table.c.ended_at > now_ms - ENDED_MS)
    rows = await connection.execute(query.order_by(table.c.ended_at.desc()).limit(MAX_ENDED))
    return {row.session: row.by for row in rows}


async def logged_out(connection: AsyncConnection, now_ms: int) -> frozenset[str]:
    table = tables.revocations
    query = select(table.c.subject).where(table.c.kind == LOGGED_OUT, table.c.revoked_at > now_ms - LOGGED_OUT_MS)
    rows = await connection.execute(query.order_by(table.c.revoked_at.desc()).limit(MAX_LOGGED_OUT))
    return frozenset(rows.scalars())
