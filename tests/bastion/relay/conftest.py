"""Why: one sshd serves every test of the relay; each test has a relay of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.bastion.relay.doors import Door
from tests.support.sshd import Sshd


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd.running(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
async def door(sshd: Sshd, tmp_path: Path) -> AsyncIterator[Door]:
    async with Door(sshd, tmp_path / "door").serving() as open_door:
        yield open_door
