"""Why: a replica that hears nothing of its database must not pass for one that does, nor stop hearing for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, make_url, text

from api import database, tables, transactions
from api.errors import StoreUnavailable
from api.records import columns_of
from api.store import Store
from tests.api.test_store import NOW, record
from tests.support.ports import open_ports

LIMIT = 60.0


@pytest.fixture
async def lite(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(f"sqlite+aiosqlite:///{tmp_path}/api.sqlite", tmp_path) as store:
        await store.open(NOW)
        yield store


class Network:
    """Between the api and a database server: passes everything on, or swallows it without a word."""

    def __init__(self) -> None:
        self.passes = asyncio.Event()
        self.passes.set()

    @asynccontextmanager
    async def leads_to(self, address: str) -> AsyncIterator[str]:
        """The address of the database, through here."""
        url = make_url(address)
        tasks: set[asyncio.Task[None]] = set()

        async def pump(come: asyncio.StreamReader, go: asyncio.StreamWriter) -> None:
            while data := await come.read(65536):
                await self.passes.wait()
                go.write(data)
            go.close()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_connection(url.host, url.port)
            for come, go in ((reader, there[1]), (there[0], writer)):
                tasks.add(asyncio.create_task(pump(come, go)))

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        try:
            yield url.set(port=server.sockets[0].getsockname()[1]).render_as_string(hide_password=False)
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_replica_that_hears_nothing_of_its_database_sends_the_bastion_to_another(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", {"timeout": 0.5, "command_timeout": 0.5})
    monkeypatch.setattr(database, "_FAREWELL", 0.5)
    network = Network()
    async with network.leads_to(postgresql) as address, open_ports(None, tmp_path, DATABASE_URL=address) as here:
        told = await here.internal("GET", "/internal/state")
        assert told.status_code == 200
        polling = asyncio.create_task(
            here.internal("GET", "/internal/state", params={"version": told.json()["version"], "wait": 60})
        )
        await asyncio.sleep(0)
        network.passes.clear()
        async with asyncio.timeout(LIMIT / 2):  # less than the poll would wait
            await here.services.roster.read_store()
            answer = await polling
        assert (answer.status_code, answer.json()["error"]) == (503, "store_unavailable")
        assert answer.headers["connection"] == "close"
        assert (await here.public("GET", "/readyz")).status_code == 503
        network.passes.set()
        await here.services.roster.read_store()
        assert (await here.internal("GET", "/internal/state")).status_code == 200
        assert (await here.public("GET", "/readyz")).status_code == 200


async def test_a_database_of_one_replica_that_is_away_is_no_reason_to_say_nothing(lite: Store, tmp_path: Path) -> None:
    (tmp_path / "api.sqlite").unlink()
    assert lite.problem is not None
    assert not lite.misses_others


async def test_a_look_that_was_not_taken_for_long_is_said(lite: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lite.problem is None
    monkeypatch.setattr(transactions, "LATE_SECONDS", 0.0)
    assert lite.problem is not None


async def test_the_look_at_the_database_waits_for_no_request(lite: Store) -> None:
    async with AsyncExitStack() as requests:
        for _ in range(15):
            await requests.enter_async_context(lite.reading())
        with pytest.raises(StoreUnavailable):  # more connections than these there are not
            await requests.enter_async_context(lite.reading())
        async with asyncio.timeout(LIMIT):
            await lite.refresh(NOW)
        assert lite.problem is None


async def test_what_was_committed_while_the_database_was_opened_anew_was_done(lite: Store) -> None:
    one = record()
    async with lite.writing() as connection:
        await connection.execute(insert(tables.certificates).values(**columns_of(one)))
        await lite.out_of_order(StoreUnavailable("for a moment"))
    await lite.refresh(NOW)
    assert await lite.certificate(one.serial) is not None


async def test_a_migration_takes_as_long_as_it_takes(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", {"timeout": 5, "command_timeout": 0.2})
    migrate = database._migrate

    def slowly(connection: Connection) -> None:
        connection.execute(text("SELECT pg_sleep(1)"))
        migrate(connection)

    monkeypatch.setattr(database, "_migrate", slowly)
    async with Store(postgresql, tmp_path) as store:
        await store.open(NOW)
        assert store.problem is None


async def test_rows_that_cannot_be_forgotten_keep_nobody_from_what_was_read(
    lite: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_now_ms: int) -> None:
        raise StoreUnavailable("the disk is slow")

    monkeypatch.setattr(lite, "_prune", fails)
    await lite.refresh(NOW)
    assert lite.problem is None
