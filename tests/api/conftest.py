"""Why: the fixtures of the api's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.ports import Ports, open_ports


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
