"""Why: most tests share one system, where people start servers with SSH from their laptops; some break their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.laptop import Laptop, laptop
from tests.support.hub import Hub, Release
from tests.support.system import POD_SIDE, System

SETTINGS = {"SSH_API_SERVERS_START": "true", "SSH_API_HUB_TIMEOUT": "60"}


@pytest.fixture(scope="module")
def system(hub_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that the tests of one file share: they leave every part running."""
    yield from _running(hub_release, tmp_path_factory)


@pytest.fixture
def own_system(hub_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system for one test, which may break its parts."""
    yield from _running(hub_release, tmp_path_factory)


def _running(hub_release: Release, tmp_path_factory: pytest.TempPathFactory, **settings: str) -> Iterator[System]:
    hub = Hub(tmp_path_factory.mktemp("hub"), hub_release, pod_environment=POD_SIDE)
    system = System(hub, tmp_path_factory.mktemp("system"), api_settings={**SETTINGS, **settings})
    with system.running():
        yield system


@pytest.fixture
def alice(system: System, tmp_path: Path) -> Laptop:
    """alice at a machine that has never heard of hubssh."""
    return laptop(system, tmp_path / "laptop")


@pytest.fixture
def own_alice(own_system: System, tmp_path: Path) -> Laptop:
    """The same, with a system that may be broken."""
    return laptop(own_system, tmp_path / "laptop")


@pytest.fixture
def own_system_without_forwarding(
    hub_release: Release, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> Iterator[Laptop]:
    """alice where the site lets nobody forward with -R or -X, nor start servers."""
    settings = {
        "SSH_API_CERTIFICATES_CAPABILITIES": "pty,exec,subsystem,local-forward,streamlocal,agent",
        "SSH_API_SERVERS_START": "false",
    }
    for system in _running(hub_release, tmp_path_factory, **settings):
        yield laptop(system, tmp_path / "laptop")
