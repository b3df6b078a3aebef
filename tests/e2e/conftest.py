"""Why: the whole system is slow to start, so most tests share one; a test that breaks a part gets its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hub import Hub, Release
from tests.support.system import POD_SIDE, System


@pytest.fixture(scope="module")
def system(hub_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that the tests of one file share: they leave every part running."""
    yield from _running(hub_release, tmp_path_factory)


@pytest.fixture
def own_system(hub_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system for one test, which may break its parts."""
    yield from _running(hub_release, tmp_path_factory)


def _running(hub_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    hub = Hub(tmp_path_factory.mktemp("hub"), hub_release, pod_environment=POD_SIDE)
    system = System(hub, tmp_path_factory.mktemp("system"))
    with system.running():
        yield system
