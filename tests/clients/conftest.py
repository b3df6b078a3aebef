"""Why: clients are many and starting the system is slow, so all of them share one, with a server each for two people.

None of it depends on JupyterHub's release, so all of it runs on one.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tests.clients.counting import make_countable
from tests.clients.openssh import cache
from tests.support.hub import Hub, binaries
from tests.support.system import Person, System

POD_SIDE = {
    "SSH_BASTION_LISTEN": "127.0.0.1",
    "SSH_BASTION_KEY_PORT": "0",
    "SSH_BASTION_POLL": "0.5",
    "SSH_TEST_OPENSSH": str(cache()),
}
SETTINGS = {"BASTION_LIMITS_CONNECTIONS_PER_USER": "200"}
"""Two people have 64 clients here."""


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose bastion can be counted. Tests leave every part running."""
    if not (binaries("6") / "jupyterhub").exists():
        pytest.fail(f"JupyterHub 6 is not in {binaries('6')}: run `make hubs`")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    pod_side = Path(__file__).parent / "pod_side.py"
    hub = Hub(tmp_path_factory.mktemp("hub"), "6", pod_environment=POD_SIDE, pod_side=pod_side)
    system = System(hub, tmp_path_factory.mktemp("system"), bastion_settings=SETTINGS)
    make_countable(system)
    try:
        with system.running():
            yield system
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="session")
def alice(system: System) -> Person:
    """Alice, with a running server and a certificate for it."""
    return anyio.run(enter, system, "alice")


@pytest.fixture(scope="session")
def bob(system: System) -> Person:
    """Bob, with the same."""
    return anyio.run(enter, system, "bob")


async def enter(system: System, user: str, server: str = "") -> Person:
    """Start the user's server and get a certificate for it."""
    await system.start_server(user, server)
    person = system.person(user, server and f"-{server}")
    await person.certificate()
    return person


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: paths of unix sockets are at most 107 bytes long."""
    made = Path(tempfile.mkdtemp(prefix="clients-"))
    yield made
    shutil.rmtree(made)
