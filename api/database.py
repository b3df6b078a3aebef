"""Opening the database: the engine, the migrations, and finding out that it is not the one we knew.

A table of revocations that is lost must not revive what it revoked. So the database carries a high-water mark
that grows with every write, and the mark is remembered outside it too: in memory, and in a file beside the keys.
A database that is new, or that knows less than was once written, gets a new epoch (pods then enrol again) and a
watermark: nothing issued before this moment counts any more.
"""

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, insert, make_url, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from api import tables

_BUSY_MS = 3000
_PATIENCE = {"timeout": 5, "command_timeout": 5}
"""Seconds for a connection to a database server, and for one statement. A network that swallows what is sent says
nothing for a quarter of an hour, and what was revoked elsewhere meanwhile would not be known here."""
_FAREWELL = 5.0
_ONE: dict[str, Any] = {"pool_size": 1, "max_overflow": 0}
_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x6A685F62617374  # any number, the same in every replica

Identity = tuple[int, int]
"""Device and inode of a SQLite file."""


@dataclass(frozen=True, slots=True)
class Meta:
    """The database about itself. `everyone_before`: milliseconds since the epoch."""

    epoch: str
    everyone_before: int
    high_water: int


@dataclass(slots=True)
class Database:
    """One opened database. A file that is replaced under us makes another `Database`.

    `watch` has a connection that is nobody else's: the look at what changed waits for no request.
    """

    engine: AsyncEngine = field(repr=False)
    watch: AsyncEngine = field(repr=False)
    path: Path | None
    identity: Identity | None
    lost: bool = False
    """Whether it was found to know less than was promised. What is committed to it means nothing."""
    _closed: bool = field(default=False, repr=False)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[AsyncConnection]:
        """A connection for a request. One that comes back after `close` is closed as well."""
        async with self.engine.connect() as connection:
            try:
                yield connection
            finally:
                if self._closed:
                    await connection.invalidate()

    def is_in_place(self) -> bool:
        """Whether the file that was opened is still the file of that name. True for a database server."""
        return self.path is None or _identity(self.path) == self.identity

    async def close(self) -> None:
        """Close every connection. Farewells that nobody answers are not waited for."""
        self._closed = True
        for engine in (self.engine, self.watch):
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await engine.dispose()

    async def abandon(self) -> None:
        """Close, because the file is not the one that was opened.

        SQLite then leaves the write-ahead log of the old file in its place, where it would be read as the new
        file's. What was in it is lost with the old file.
        """
        await self.close()
        if self.path is not None and not self.is_in_place():
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


def connect(address: str) -> Database:
    """The database of a SQLAlchemy address; a SQLite file is made, with mode 0600. Raises `OSError`."""
    url = make_url(address)
    if url.get_backend_name() != "sqlite":
        engine, watch = (
            create_async_engine(
                url, pool_pre_ping=True, pool_timeout=5, hide_parameters=True, connect_args=_PATIENCE, **size
            )
            for size in ({}, _ONE)
        )
        return Database(engine, watch, None, None)
    path = Path(url.database or "")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    path.chmod(0o600)
    engine, watch = (create_async_engine(url, pool_timeout=5, hide_parameters=True, **size) for size in ({}, _ONE))
    for one in (engine, watch):
        event.listen(one.sync_engine, "connect", _prepare_sqlite)
    return Database(engine, watch, path, _identity(path))


async def bring_up(database: Database, known: int, now_ms: int) -> Meta:
    """Migrate, and judge what is there against `known`, the highest mark that was ever seen.

    One transaction: a replica that starts at the same moment waits, and finds everything done.
    """
    async with _for_changes(database) as engine, engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        await connection.run_sync(_migrate)
        found = await read_meta(connection)
        if found is None:
            fresh = _fresh(known, now_ms)
            await connection.execute(insert(tables.meta).values(id=1, **_columns(fresh)))
            return fresh
        if found.high_water < known:
            fresh = _fresh(known, now_ms)
            await connection.execute(update(tables.meta).values(**_columns(fresh)))
            return fresh
        return found


@asynccontextmanager
async def _for_changes(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine on which a statement may take as long as it takes: a migration of a large table, and the replicas that
    wait for it."""
    if database.path is not None:
        yield database.engine
        return
    patience = {"timeout": _PATIENCE["timeout"]}
    engine = create_async_engine(database.engine.url, poolclass=NullPool, hide_parameters=True, connect_args=patience)
    try:
        yield engine
    finally:
        await engine.dispose()


async def read_meta(connection: AsyncConnection) -> Meta | None:
    """The one row of `meta`, None in an empty database."""
    row = (await connection.execute(select(tables.meta))).one_or_none()
    return None if row is None else Meta(row.epoch, row.everyone_before, row.high_water)


class MarkFile:
    """The high-water mark outside the database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = 0

    def read(self) -> int:
        """The mark that was written last; 0 where there is none or it cannot be read."""
        with suppress(OSError, ValueError):
            self._written = int(self._path.read_text("ascii"))
        return self._written

    def write(self, mark: int) -> None:
        """Remember `mark` if it is higher than what is there. Raises `OSError` (a full disk)."""
        if mark <= self._written:
            return
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".high-water")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{mark}\n")
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self._path)
        except OSError:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
        self._written = mark


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    # FULL: in WAL mode a commit is only on the disk when the log was flushed, and a certificate that left
    # without its record could not be revoked.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_BUSY_MS}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _fresh(known: int, now_ms: int) -> Meta:
    return Meta(epoch=secrets.token_hex(16), everyone_before=now_ms, high_water=known + 1)


def _columns(meta: Meta) -> dict[str, object]:
    return {"epoch": meta.epoch, "everyone_before": meta.everyone_before, "high_water": meta.high_water}
