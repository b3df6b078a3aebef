"""The one door to SQL: what was issued, what was revoked, which pods enrolled.

Writes are transactions that raise the high-water mark (`api.transactions`); a database that knows less than we do is
repaired by the next `refresh`.

A certificate's record is committed, and the file that it was committed to is still in its place, before anything
is handed out: every method here either did its work or raises `StoreUnavailable`.
"""

import asyncio
import hashlib
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import delete, insert, select, update

from api import statements, tables
from api.database import Database, read_meta
from api.errors import StoreUnavailable
from api.records import (
    CertificateRecord,
    Enrolment,
    Snapshot,
    columns_of,
    instance_of,
    is_instance,
    record_of,
)
from api.transactions import OUTAGES, UNUSABLE, Transactions
from ca.errors import Refusal
from ca.names import Instance, Server

__all__ = ("CertificateRecord", "Enrolment", "Snapshot", "Store")

log = structlog.get_logger(__name__)

KEEP_MS = 90 * 86400 * 1000
"""How long rows are kept after they stopped to mean anything."""

MAX_LISTED = 500


class Store(Transactions):
    """The database. `await open()` first; `refresh()` about once a second keeps `snapshot` and `problem` true."""

    def __init__(self, address: str, state_directory: Path) -> None:
        super().__init__(address, state_directory)
        self._snapshot: Snapshot | None = None
        self._refreshing = asyncio.Lock()
        self._pruned_at = 0

    def __repr__(self) -> str:
        return "Store()"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self, now_ms: int) -> Snapshot:
        """Open, migrate, and judge whether something was lost. Raises `StoreUnavailable`."""
        self._mark = max(self._mark, self._mark_file.read())
        return await self.refresh(now_ms)

    @property
    def snapshot(self) -> Snapshot:
        """The last state that was read. Raises `StoreUnavailable` before there was one."""
        if self._snapshot is None:
            raise StoreUnavailable(UNUSABLE)
        return self._snapshot

    async def refresh(self, now_ms: int) -> Snapshot:
        """Read what other replicas wrote, and repair a database that was lost or restored.

        Raises `StoreUnavailable`; the last snapshot stays.
        """
        async with self._refreshing:
            try:
                snapshot = await self._read(await self.usable(now_ms), now_ms)
                self._mark_file.write(self._mark)
            except (*OUTAGES, StoreUnavailable) as error:
                raise await self.out_of_order(error) from None
            self._problem, self._looked_at = None, time.monotonic()
            with suppress(StoreUnavailable):  # rows that mean nothing may stay; what was read is true all the same
                await self._prune(now_ms)
            return snapshot

    async def seen(self, mark: int, now_ms: int) -> None:
        """A bastion was once told `mark`. A database that knows less was restored, and is repaired before anybody is
        answered from it. Raises `StoreUnavailable`."""
        if mark > self._mark:
            self._mark = mark
            await self.refresh(now_ms)

    async def record(self, record: CertificateRecord) -> None:
        """Remember a certificate. Only when this has returned may the certificate be handed out."""
        async with self.writing() as connection:
            await connection.execute(insert(tables.certificates).values(**columns_of(record)))

    async def certificates_of(self, user: str, now: float) -> tuple[CertificateRecord, ...]:
        """The user's certificates that have not expired, the newest first."""
        table = tables.certificates
        query = select(table).where(table.c.user == user, table.c.kind == "user", table.c.valid_before > int(now))
        async with self.reading() as connection:
            rows = await connection.execute(query.order_by(table.c.issued_at.desc()).limit(MAX_LISTED))
            return tuple(record_of(row) for row in rows.mappings())

    async def certificate(self, serial: int) -> CertificateRecord | None:
        """One certificate, whoever's it is."""
        table = tables.certificates
        async with self.reading() as connection:
            row = (
                (await connection.execute(select(table).where(table.c.serial == str(serial)))).mappings().one_or_none()
            )
            return None if row is None else record_of(row)

    async def revoke_serial(self, serial: int, by: str, why: str, now_ms: int) -> None:
        """This certificate does not count any more."""
        await self._revoke("serial", str(serial), by, why, now_ms)

    async def revoke_user(self, user: str, by: str, why: str, now_ms: int) -> None:
        """No certificate that `user` was given until now counts any more."""
        await self._revoke("user", user, by, why, now_ms)

    async def revoke_server(self, server: Server, by: str, why: str, now_ms: int) -> None:
        """No certificate that was issued until now opens `server` any more."""
        await self._revoke("server", server.login, by, why, now_ms)

    async def revoke_share(self, user: str, server: Server, by: str, why: str, now_ms: int) -> None:
        """No certificate that `user` was given until now opens `server` any more; what else is in them stays."""
        await self._revoke("share", statements.share_subject(user, server), by, why, now_ms)

    async def revoke_everyone(self, now_ms: int) -> None:
        """No certificate that was issued until now counts any more."""
        async with self.writing() as connection:
            await connection.execute(update(tables.meta).values(everyone_before=now_ms + 1))
        await self.reread(now_ms)

    async def log_out(self, session: str, user: str, now_ms: int) -> None:
        """The browser session of this id is over, on every replica within its next look."""
        await self._revoke(statements.LOGGED_OUT, _hashed(session), user, "logged out", now_ms)

    def has_logged_out(self, session: str) -> bool:
        """Whether the browser session of this id is over."""
        return _hashed(session) in self.snapshot.logged_out

    async def enrol(self, new: Enrolment, withdraw_sha256: str) -> Enrolment | Refusal:
        """Remember a pod. The first host key of an instance stays, and a host key stands for one server at a time.

        The same pod may come again with the same key: its address and its withdraw token are then replaced.
        """
        async with self.writing() as connection:
            answer = await statements.enrol(connection, new, withdraw_sha256)
        await self.reread(new.enrolled_at)
        return answer

    async def withdraw(self, withdraw_sha256: str, now_ms: int) -> Instance | None:
        """End the enrolment with this token. None: there is no such token. Ending it again changes nothing."""
        table = tables.enrolments
        async with self.writing() as connection:
            query = select(table).where(table.c.withdraw_sha256 == withdraw_sha256)
            row = (await connection.execute(query)).mappings().one_or_none()
            if row is None:
                return None
            await statements.end(connection, (int(row["id"]),), "withdrawn", now_ms)
        await self.reread(now_ms)
        return instance_of(row)

    async def end_enrolments(self, instances: Iterable[Instance], why: str, now_ms: int) -> None:
        """These runs are over."""
        table = tables.enrolments
        async with self.writing() as connection:
            for one in instances:
                query = select(table.c.id).where(*is_instance(one), table.c.ended_at.is_(None))
                await statements.end(connection, tuple((await connection.execute(query)).scalars()), why, now_ms)
        await self.reread(now_ms)

    async def mark_ready(self, instances: Iterable[Instance], now_ms: int) -> None:
        """JupyterHub has said that these are ready; after a restart they are listed before it says so again."""
        table = tables.enrolments
        async with self.writing() as connection:
            for one in instances:
                await connection.execute(update(table).where(*is_instance(one)).values(seen_ready=True))
        await self.reread(now_ms)

    async def _revoke(self, kind: str, subject: str, by: str, why: str, now_ms: int) -> None:
        values = {"kind": kind, "subject": subject, "by": by, "why": why, "revoked_at": now_ms}
        async with self.writing() as connection:
            # One more millisecond: what was issued in this very millisecond is meant as well.
            await connection.execute(insert(tables.revocations).values(**values, before=now_ms + 1))
        await self.reread(now_ms)

    async def reread(self, now_ms: int) -> None:
        """Bring the snapshot up to what was just committed. The work is done: an outage now is not its failure."""
        try:
            await self.refresh(now_ms)
        except StoreUnavailable:
            log.warning("store_not_reread")

    async def _read(self, database: Database, now_ms: int) -> Snapshot:
        async with database.watch.connect() as connection:
            meta = await read_meta(connection)
            if meta is None:
                raise StoreUnavailable(UNUSABLE)
            last = self._snapshot
            if last is not None and last.meta == meta:
                return last
            snapshot = Snapshot(
                meta=meta,
                revocations=await statements.revocations(connection, meta, now_ms),
                enrolments=await statements.enrolments(connection),
                ended_sessions=await statements.ended_sessions(connection, now_ms),
                logged_out=await statements.logged_out(connection, now_ms),
            )
        self._mark = max(self._mark, meta.high_water)
        self._snapshot = snapshot
        return snapshot

    async def _prune(self, now_ms: int) -> None:
        """Once an hour, forget what has meant nothing for three months."""
        if now_ms - self._pruned_at < 3600 * 1000:
            return
        self._pruned_at = now_ms
        limit = now_ms - KEEP_MS
        async with self.writing() as connection:
            await connection.execute(
                delete(tables.certificates).where(tables.certificates.c.valid_before < limit // 1000)
            )
            await connection.execute(delete(tables.revocations).where(tables.revocations.c.revoked_at < limit))
            await connection.execute(delete(tables.enrolments).where(tables.enrolments.c.ended_at < limit))
            day, hour = now_ms - 86400 * 1000, now_ms - 3600 * 1000
            await connection.execute(delete(tables.logins).where(tables.logins.c.expires_at < hour))
            await connection.execute(delete(tables.nonces).where(tables.nonces.c.used_at < hour))
            await connection.execute(delete(tables.bastions).where(tables.bastions.c.seen_at < day))
            await connection.execute(delete(tables.ended_sessions).where(tables.ended_sessions.c.ended_at < day))


def _hashed(session: str) -> str:
    """What is kept of a session's id: whoever reads the database must not learn what is in a cookie."""
    return hashlib.sha256(session.encode("utf-8", "replace")).hexdigest()
