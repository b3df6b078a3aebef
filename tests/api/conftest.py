"""Why: the fixtures of the api's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from api.store import Store
from tests.support.hub import Hub
from tests.support.ports import Ports, open_ports
from tests.support.postgresql import binaries, running_postgresql

NOW = 1_800_000_000_000
"""Milliseconds: when the stores here are opened."""


@pytest.fixture
async def ports(hub: Hub, tmp_path: Path) -> AsyncIterator[Ports]:
    """An api beside the run's JupyterHub."""
    async with open_ports(hub, tmp_path / "state") as opened:
        yield opened


@pytest.fixture
async def lone(tmp_path: Path) -> AsyncIterator[Ports]:
    """An api whose JupyterHub does not answer."""
    async with open_ports(None, tmp_path / "state") as opened:
        yield opened


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if binaries() is None:
        pytest.skip("PostgreSQL's server (initdb, postgres) is not installed")
    with running_postgresql(tmp_path_factory.mktemp("postgresql")) as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
async def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/api.sqlite"
    address: str = request.getfixturevalue("postgresql")
    engine = create_async_engine(address)
    async with engine.begin() as connection:
        await connection.execute(text("DROP SCHEMA public CASCADE"))
        await connection.execute(text("CREATE SCHEMA public"))
    await engine.dispose()
    return address


@pytest.fixture
async def stores(address: str, tmp_path: Path) -> AsyncIterator[Callable[[str], Store]]:
    """Stores on that database; each has a state directory of its own name."""
    async with AsyncExitStack() as stack:
        made: list[Store] = []

        def make(state: str) -> Store:
            (tmp_path / state).mkdir(exist_ok=True)
            store = Store(address, tmp_path / state)
            made.append(store)
            stack.push_async_exit(store)
            return store

        yield make


@pytest.fixture
async def store(stores: Callable[[str], Store]) -> Store:
    store = stores("state")
    await store.open(NOW)
    return store
