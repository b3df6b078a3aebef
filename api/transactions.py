"""The database and its transactions: opened, found again when its file went, and asked before every promise.

Every write that promises something is one transaction that first raises the high-water mark (`api.database`). That
single row makes the writes of all replicas queue up, so what a write has read is still true when it commits; and it
fails in a database that knows less than we do, which is then repaired by the next `Store.refresh`.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from api import tables
from api.database import Database, MarkFile, bring_up, connect, read_meta
from api.errors import StoreUnavailable

log = structlog.get_logger(__name__)

UNUSABLE = "The certificate database cannot be used at the moment, so nothing was done. Try again in a minute."
LATE_SECONDS = 10.0
"""After so long without a look at the database, which is taken every second, it counts as away."""
OUTAGES = (SQLAlchemyError, OSError, asyncio.TimeoutError)


class Transactions:
    """One database at `address`. What it has promised so far, the mark, is in the state directory as well."""

    def __init__(self, address: str, state_directory: Path) -> None:
        self._address = address
        self._is_shared = not address.startswith("sqlite")
        self._mark_file = MarkFile(state_directory / "high-water")
        self._database: Database | None = None
        self._mark = 0
        self._problem: str | None = UNUSABLE
        self._looked_at = -math.inf

    async def close(self) -> None:
        """Remember the mark and close every connection."""
        if self._database is not None:
            await self._database.close()
            self._database = None
        try:
            self._mark_file.write(self._mark)
        except OSError as error:
            log.warning("high_water_not_written", error=error.strerror)

    @property
    def problem(self) -> str | None:
        """Why the database cannot be used at this moment, for `/readyz`; None while it can."""
        gone = self._database is None or not self._database.is_in_place()
        late = time.monotonic() - self._looked_at > LATE_SECONDS
        return UNUSABLE if gone or late else self._problem

    @property
    def misses_others(self) -> bool:
        """Whether other replicas may write what is not heard of here, since the database cannot be read."""
        return self._is_shared and self.problem is not None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with. Raises `StoreUnavailable`, also for what goes wrong inside."""
        database = self._opened()
        with _outages_said():
            async with database.connected() as connection:
                yield connection

    @asynccontextmanager
    async def noting(self) -> AsyncIterator[AsyncConnection]:
        """A transaction for what may be lost with the database without harm: logins that wait, sessions that live.

        It raises no mark, so it wakes nobody and replicas do not queue up for it: let its first statement be the
        one that writes, with its condition in it. Raises `StoreUnavailable`, also for what goes wrong inside.
        """
        database = self._opened()
        with _outages_said():
            async with database.connected() as connection, connection.begin():
                yield connection
        self._check_place(database)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction for what was promised: see the head of this module. Raises `StoreUnavailable`."""
        database = self._opened()
        table = tables.meta
        raise_mark = (
            update(table)
            .where(table.c.id == 1, table.c.high_water >= self._mark)
            .values(high_water=table.c.high_water + 1)
            .returning(table.c.high_water)
        )
        with _outages_said():
            async with database.connected() as connection, connection.begin():
                mark = (await connection.execute(raise_mark)).scalar_one_or_none()
                if mark is None:
                    raise StoreUnavailable(UNUSABLE)
                yield connection
        self._check_place(database)
        self._mark = max(self._mark, int(mark))

    def _opened(self) -> Database:
        if self._database is None or not self._database.is_in_place():
            raise StoreUnavailable(UNUSABLE)
        return self._database

    def _check_place(self, database: Database) -> None:
        """What was committed to a file that is no longer the database is lost. Raises `StoreUnavailable`.

        A database that was only closed and opened anew meanwhile has it.
        """
        if database.lost or not database.is_in_place():
            raise StoreUnavailable(UNUSABLE)

    async def usable(self, now_ms: int) -> Database:
        """The open database; opened anew when there is none, when its file went, or when it knows less than we do."""
        database = self._database
        if database is not None and database.is_in_place():
            mark = self._mark  # before it is read: what is committed meanwhile is not missing in what was read
            async with database.watch.connect() as connection:
                meta = await read_meta(connection)
            if meta is not None and meta.high_water >= mark:
                return database
        if database is not None:
            log.error("database_lost", note="nothing that was issued before now counts any more")
            self._database, database.lost = None, True
            await database.abandon()
        database = connect(self._address)
        try:
            meta = await bring_up(database, self._mark, now_ms)
        except BaseException:
            await database.close()
            raise
        self._mark = max(self._mark, meta.high_water)
        self._database = database
        return database

    async def out_of_order(self, error: Exception) -> StoreUnavailable:
        """Close what does not work; the next refresh opens it anew."""
        _warn(error)
        self._problem = UNUSABLE
        database, self._database = self._database, None
        if database is not None:
            await database.abandon()
        return StoreUnavailable(UNUSABLE)


@contextmanager
def _outages_said() -> Iterator[None]:
    """Whatever goes wrong with the database in here is logged, and raised as `StoreUnavailable`."""
    try:
        yield
    except OUTAGES as error:
        _warn(error)
        raise StoreUnavailable(UNUSABLE) from None


def _warn(error: BaseException) -> None:
    """Say what kind of outage it is. Never the statement or its values: they name people."""
    if not isinstance(error, StoreUnavailable):
        cause = getattr(error, "orig", None) or error
        log.warning("store_unavailable", error=type(cause).__name__, said=str(cause)[:200])
