"""Why: who moves over from PrimeHub begins beside a hub that has never heard of the service and refuses its token.
People's keys must open their pods all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.kube.conftest import KubeSystem, running
from tests.support import legacy_pod
from tests.support.hub import LIMIT, Release, free_port
from tests.support.kube.cluster import SSH_LABELS
from tests.support.system import Person, unix_user

POD = "jupyter-alice"


@pytest.fixture
def primehub(hub_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSystem]:
    """As after the first step of docs/from-primehub.md: any token, which JupyterHub refuses; pods of PrimeHub's."""
    ports = {"BASTION_DIRECTORY_SSH_PORT": str(free_port()), "BASTION_DIRECTORY_KEY_PORT": str(free_port())}
    yield from running(hub_release, tmp_path_factory, ports, {"SSH_API_HUB_TOKEN": "0" * 32})


def a_pod(site: KubeSystem, lists: Person) -> None:
    settings = site.system.bastion.environment
    ports = (settings["BASTION_DIRECTORY_SSH_PORT"], settings["BASTION_DIRECTORY_KEY_PORT"])
    folder = site.cluster.folder / "home" / POD / ".ssh"
    folder.mkdir(mode=0o700, parents=True)
    (folder / "authorized_keys").write_text(lists.public_key + "\n")
    site.cluster.create(
        {
            "metadata": {
                "name": POD,
                "labels": {"app": "jupyterhub", **SSH_LABELS},
                "annotations": {"hub.jupyter.org/username": "alice"},
            },
            "spec": {
                "containers": [
                    {"name": "notebook", "command": [sys.executable, legacy_pod.__file__, "0.0.0.0", *ports]}
                ]
            },
        }
    )


def enters(person: Person) -> subprocess.CompletedProcess[bytes]:
    """As PrimeHub's own `~/.ssh/config` has it."""
    chosen = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "IdentitiesOnly=yes")
    options = [part for one in chosen for part in ("-o", one)]
    proxy = f"ProxyCommand={person.jump_command('limited-user')}"
    return subprocess.run(
        [
            "ssh",
            "-F",
            "none",
            "-i",
            person.folder / "id",
            *options,
            "-o",
            proxy,
            f"{unix_user()}@{POD}.hub",
            "echo $POD",
        ],
        env=person.environment(),
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )


async def test_keys_open_pods_beside_a_hub_that_does_not_know_the_service(primehub: KubeSystem) -> None:
    alice, bob = primehub.system.person("alice"), primehub.system.person("bob")
    a_pod(primehub, lists=alice)
    async with asyncio.timeout(LIMIT):
        while (done := await asyncio.to_thread(enters, alice)).returncode != 0:  # the pod is on its way
            await asyncio.sleep(0.1)
    assert done.stdout == f"{POD}\n".encode()
    assert (await asyncio.to_thread(enters, bob)).returncode == 255
    log = primehub.system.api.log.read_text()
    assert log.count("hub_not_heard") == 1
    assert "list:users" in log or "does not accept this service's own token" in log
