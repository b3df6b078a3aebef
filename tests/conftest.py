"""Why: the fixtures that every folder of tests shares, and which JupyterHub a run is about."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.hub import Hub, Release, binaries


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hub", choices=["6", "5.5"], default="6", help="the JupyterHub release to run against")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "hub: runs a real JupyterHub; set by itself on tests that use such a fixture")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"hub_release", "running_hub", "hub", "own_hub"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("hub")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Tests run in several processes, which must call them the same: keys that are made anew are no names."""
    text = val if isinstance(val, str) else val.decode("latin-1") if isinstance(val, bytes) else ""
    return argname if "AAAA" in text or "ssh-" in text or not text.isprintable() or len(text) > 80 else None


@pytest.fixture(scope="session")
def hub_release(pytestconfig: pytest.Config) -> Release:
    """The release of this run, once its environment is known to be there."""
    release: Release = pytestconfig.getoption("--hub")
    if not (binaries(release) / "jupyterhub").exists():
        pytest.fail(f"JupyterHub {release} is not in {binaries(release)}: run `make hubs`")
    return release


@pytest.fixture(scope="session")
def running_hub(hub_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The run's hub, with stub servers; take `hub` unless a wider scope needs this one."""
    hub = Hub(tmp_path_factory.mktemp("hub"), hub_release)
    try:
        hub.start()
        yield hub
    finally:
        hub.stop()


@pytest.fixture
async def hub(running_hub: Hub) -> AsyncIterator[Hub]:
    """The run's hub for one test: with alice, bob and admin, without servers, shares, groups and tokens."""
    await running_hub.make_users()
    yield running_hub
    await running_hub.clean()


@pytest.fixture
def own_hub(hub_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub that belongs to one test, which may stop, restart or kill it."""
    hub = Hub(tmp_path_factory.mktemp("own-hub"), hub_release, poll_interval=1)
    try:
        hub.start()
        yield hub
    finally:
        hub.stop()
