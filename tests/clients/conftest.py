"""Why: clients are many and starting the system is slow, so each file's rows share one system with one running server.

None of it depends on JupyterHub's release, so all of it runs on one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.clients.counting import make_countable
from tests.support.hub import Hub, binaries
from tests.support.system import Person, System

POD_SIDE = {"SSH_BASTION_LISTEN": "127.0.0.1", "SSH_BASTION_KEY_PORT": "0", "SSH_BASTION_POLL": "0.5"}
MakeSystem = Callable[..., System]


@pytest.fixture(scope="session", autouse=True)
def _enough_open_files() -> None:
    """Many clients at once need many descriptors; the machine's soft limit is often 1024."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))


@pytest.fixture(scope="module")
def make_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeSystem]:
    """Starts systems that end with the file, with these settings of the bastion; `countable`: see `counting`."""
    if not (binaries("6") / "jupyterhub").exists():
        pytest.fail(f"JupyterHub 6 is not in {binaries('6')}: run `make hubs`")
    made: list[System] = []

    def make(bastion: Mapping[str, str] | None = None, *, countable: bool = False, **hub: Any) -> System:
        system = System(
            Hub(tmp_path_factory.mktemp("hub"), "6", **{"pod_environment": POD_SIDE, **hub}),
            tmp_path_factory.mktemp("system"),
            bastion_settings=bastion or {},
        )
        made.append(system)
        if countable:
            make_countable(system)
        system.hub.start()
        system.start()
        return system

    yield make
    for system in made:
        try:
            system.stop()
        finally:
            system.hub.stop()


@pytest.fixture(scope="module")
def alice(make_system: MakeSystem) -> Person:
    """Alice, with a running server and a certificate for it."""
    return enter(make_system(), "alice")


def enter(system: System, user: str) -> Person:
    """Start the user's server and get a certificate for it."""

    async def begin() -> Person:
        await system.start_server(user)
        person = system.person(user)
        await person.certificate()
        return person

    return anyio.run(begin)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: paths of unix sockets are at most 107 bytes long."""
    made = Path(tempfile.mkdtemp(prefix="clients-"))
    made.chmod(0o700)
    yield made
    shutil.rmtree(made)
