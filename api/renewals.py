"""What SQL knows of renewed certificates: that one may be recorded, and which ones go with one that is revoked.

A renewed certificate carries the key and the login of the one that was shown for it. Whoever revokes one means the
key in the hands of whoever has it, so those that were renewed from it go as well; and since a stolen key can renew in
a loop, only so many count at a time.
"""

from sqlalchemy import ColumnElement, and_, func, insert, select

from api import statements, tables
from api.database import read_meta
from api.records import CertificateRecord, columns_of, instances_in, record_of
from api.store import Store
from ca.errors import Reason, Refusal

RENEWED = "renew"
"""`how` of a certificate that another one was shown for."""

MAX_COUNTING = 100
"""Renewed certificates of one key and one login that count at the same time."""

_REVOKED = Refusal(Reason.REVOKED, "This certificate was revoked. Log in again: hubssh login")
_TOO_MANY = Refusal(
    Reason.TOO_MANY, "This key was renewed very often since its last login. If that was not you, log in and revoke it."
)


async def keep(store: Store, presented: CertificateRecord, record: CertificateRecord, now_ms: int) -> Refusal | None:
    """Remember `record` if `presented` counts at this moment for everything that is in it.

    In one transaction: a revocation and a renewal that meet leave nothing behind that counts. Raises
    `StoreUnavailable`.
    """
    table, renewed = tables.certificates, instances_in(record.principals)
    async with store.writing() as connection:
        meta = await read_meta(connection)
        if meta is None:
            return _REVOKED
        revocations = await statements.revocations(connection, meta, now_ms)
        whole = tuple(revocations.living(presented.serial, presented.user, renewed)) == renewed
        if not whole or revocations.refuses(presented.serial, presented.user, renewed):
            return _REVOKED
        counting = select(func.count()).select_from(table).where(_like(record, now_ms))
        if (await connection.execute(counting)).scalar_one() >= MAX_COUNTING:
            return _TOO_MANY
        await connection.execute(insert(table).values(**columns_of(record)))
    return None


async def renewed_from(store: Store, record: CertificateRecord, now_ms: int) -> tuple[CertificateRecord, ...]:
    """Certificates that have not expired, renewed from `record` or from one of these. Raises `StoreUnavailable`."""
    table = tables.certificates
    later = select(table).where(_like(record, now_ms), table.c.issued_at >= record.issued_at)
    async with store.reading() as connection:
        found = tuple(record_of(row) for row in (await connection.execute(later)).mappings())
    return tuple(one for one in found if one.serial != record.serial)


def _like(record: CertificateRecord, now_ms: int) -> ColumnElement[bool]:
    """Renewed ones of the same key, person and login that have not expired."""
    table = tables.certificates
    return and_(
        table.c.user == record.user,
        table.c.fingerprint == record.fingerprint,
        table.c.login_at == record.login_at,
        table.c.how == RENEWED,
        table.c.valid_before > now_ms // 1000,
    )
