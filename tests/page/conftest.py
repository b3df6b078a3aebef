"""Why: the pages are seen by people, so these tests look at them in a browser, with everything real behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Browser

from tests.page.scenes import SETTINGS
from tests.support.chromium import MISSING, chromium, open_chromium
from tests.support.hub import Hub, Release
from tests.support.system import POD_SIDE, System


@pytest.fixture(scope="module")
def system(hub_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A JupyterHub, an api that may start servers, and a bastion, for the tests of one file."""
    if chromium() is None:
        pytest.skip(MISSING)
    hub = Hub(tmp_path_factory.mktemp("hub"), hub_release, pod_environment=POD_SIDE)
    system = System(hub, tmp_path_factory.mktemp("system"), api_settings=SETTINGS)
    with system.running():
        yield system


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium, for one test."""
    path = chromium()
    if path is None:
        pytest.skip(MISSING)
    async with open_chromium(path) as opened:
        yield opened


@pytest.fixture
async def plain_browser() -> AsyncIterator[Browser]:
    """The same without scripts."""
    path = chromium()
    if path is None:
        pytest.skip(MISSING)
    async with open_chromium(path, scripts=False) as opened:
        yield opened


@pytest.fixture
async def hub(system: System) -> AsyncIterator[Hub]:
    """The hub of the system, emptied after the test."""
    await system.hub.make_users()
    yield system.hub
    await system.hub.clean()
