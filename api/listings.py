"""What the operator's command line shows of the database: what was revoked, and which certificates live.

Read only. Whoever has lost a laptop does not know a serial; here it is found by user or server.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import RowMapping, select

from api import tables
from api.records import instances_in, record_of
from api.statements import LOGGED_OUT, REVOCATION_HORIZON_MS
from api.store import Store
from ca.names import Server

MAX_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class RevocationRow:
    """One revocation. `kind` is serial, user, server or share; `revoked_at` in milliseconds since the epoch."""

    kind: str
    subject: str
    by: str
    why: str
    revoked_at: int


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """One certificate that has not ended. `revoked`: why it does not count, None while it does."""

    serial: int
    user: str
    servers: tuple[Server, ...]
    fingerprint: str
    issued_at: int
    valid_before: int
    how: str
    address: str | None
    revoked: str | None


async def revocations(store: Store, now_ms: int) -> tuple[RevocationRow, ...]:
    """Those that can still refuse something, the newest first. Raises `StoreUnavailable`."""
    table = tables.revocations
    query = select(table).where(table.c.revoked_at > now_ms - REVOCATION_HORIZON_MS, table.c.kind != LOGGED_OUT)
    async with store.reading() as connection:
        rows = await connection.execute(query.order_by(table.c.revoked_at.desc(), table.c.id.desc()).limit(MAX_ROWS))
        return tuple(_revocation(row) for row in rows.mappings())


async def certificates(
    store: Store, now: float, user: str | None = None, server: Server | None = None
) -> tuple[CertificateRow, ...]:
    """User certificates that have not ended, the newest first; a user's or a server's alone. Raises
    `StoreUnavailable`."""
    table = tables.certificates
    query = select(table).where(table.c.kind == "user", table.c.valid_before > int(now))
    if user is not None:
        query = query.where(table.c.user == user)
    async with store.reading() as connection:
        rows = (await connection.execute(query.order_by(table.c.issued_at.desc()).limit(MAX_ROWS))).mappings().all()
    found = (_certificate(store, row) for row in rows)
    return tuple(one for one in found if server is None or server in one.servers)


def _revocation(row: RowMapping) -> RevocationRow:
    return RevocationRow(row["kind"], row["subject"], row["by"], row["why"], row["revoked_at"])


def _certificate(store: Store, row: RowMapping) -> CertificateRow:
    record = record_of(row)
    instances = instances_in(record.principals)
    return CertificateRow(
        serial=record.serial,
        user=record.user,
        servers=tuple(dict.fromkeys(one.server for one in instances)),
        fingerprint=record.fingerprint,
        issued_at=record.issued_at,
        valid_before=record.valid_before,
        how=record.how,
        address=record.address,
        revoked=store.snapshot.revocations.refuses(record.serial, record.user, instances),
    )


def as_json(rows: Sequence[RevocationRow] | Sequence[CertificateRow]) -> str:
    """For programs. Serials are text, since they fill 63 bits."""
    return json.dumps([_fields(row) for row in rows], indent=2)


def certificate_table(rows: Sequence[CertificateRow]) -> str:
    """For people."""
    heading = ("serial", "user", "servers", "until", "how", "from", "revoked")
    return _table(
        heading,
        [
            (
                str(one.serial),
                one.user,
                ",".join(server.login for server in one.servers),
                _moment(one.valid_before),
                one.how,
                one.address or "",
                one.revoked or "",
            )
            for one in rows
        ],
    )


def revocation_table(rows: Sequence[RevocationRow]) -> str:
    """For people."""
    lines = [(_moment(one.revoked_at / 1000), one.kind, one.subject, one.by, one.why) for one in rows]
    return _table(("at", "kind", "which", "by", "why"), lines)


def _fields(row: RevocationRow | CertificateRow) -> Mapping[str, object]:
    if isinstance(row, RevocationRow):
        return asdict(row)
    return {**asdict(row), "serial": str(row.serial), "servers": [one.login for one in row.servers]}


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they have to be. What people wrote is shown without its control characters."""
    shown = [heading, *([cell if cell.isprintable() else ascii(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in shown) for at in range(len(heading))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    )
