"""Why: PrimeHub's users keep the lines that are in their `~/.ssh/config`, and their pods keep their images.

The bastion runs in this process with a clock that jumps, since the legacy keys' tiers are a promise in minutes; the
pods have PrimeHub's label and its two ports and nothing of ours.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from bastion.service import Bastion
from bastion.settings import read_settings
from tests.kube.conftest import KubeSystem
from tests.support import legacy_pod
from tests.support.clock import Clock
from tests.support.hub import LIMIT, free_port
from tests.support.kube.cluster import SSH_LABELS
from tests.support.system import unix_user

MINUTE = 60.0
SSH_PORT, KEY_PORT = str(free_port()), str(free_port())
"""22 and 8080 there; here the machine may use these itself."""

CONFIG = """
Host {pod}.hub
  User {user}
  ForwardAgent yes
  ProxyCommand ssh -W %h:%p -i {key} limited-user@127.0.0.1 -p {port}
  StrictHostKeyChecking no
  UserKnownHostsFile=/dev/null
"""
"""As PrimeHub tells its users, but for the names of hosts, accounts and files."""


@dataclass
class Legacy:
    """Everything that a legacy user meets."""

    kube: KubeSystem
    bastion: Bastion
    clock: Clock
    folder: Path

    def person(self, name: str) -> Path:
        """Somebody's `id_rsa`."""
        key = self.folder / f"{name}_id_rsa"
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "3072", "-N", "", "-f", str(key)], check=True)
        return key

    async def pod(self, name: str, user: str, *keys: Path) -> None:
        """A server of PrimeHub's, running."""
        program = [sys.executable, legacy_pod.__file__, "0.0.0.0", SSH_PORT, KEY_PORT]
        pod = {
            "metadata": {
                "name": name,
                "labels": {"app": "jupyterhub", **SSH_LABELS},
                "annotations": {"hub.jupyter.org/username": user},
            },
            "spec": {"containers": [{"name": "notebook", "command": program}]},
        }
        self.lists(name, *keys)
        self.kube.cluster.create(pod)
        async with asyncio.timeout(LIMIT):
            while not await self._answers(name):
                await asyncio.sleep(0.02)

    async def _answers(self, name: str) -> bool:
        address = (self.kube.cluster.pod(name).get("status") or {}).get("podIP")
        for port in (SSH_PORT, KEY_PORT):
            try:
                _, writer = await asyncio.open_connection(address, int(port))
            except OSError:
                return False
            writer.close()
        return self.bastion.directory.by_name(f"{name}.hub") is not None

    def lists(self, name: str, *keys: Path) -> None:
        """What a pod lists from now on."""
        folder = self.kube.cluster.folder / "home" / name / ".ssh"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "authorized_keys").write_text("".join(key.with_suffix(".pub").read_text() for key in keys))

    async def enters(self, key: Path, name: str) -> bool:
        """`ssh <pod>.<namespace>`, with the block in the user's configuration."""
        config = self.folder / "config"
        port = self.kube.system.port
        config.write_text(CONFIG.format(pod=name, user=unix_user(), key=key, port=port))
        program = shutil.which("ssh")
        # What the user's own known_hosts and system hold: the bastion's key, and no other configuration.
        inner = self.folder / "bin" / "ssh"
        inner.parent.mkdir(exist_ok=True)
        known = self.kube.system.known_hosts
        inner.write_text(
            f'#!/bin/sh\nexec {program} -F none -o UserKnownHostsFile={known} -o GlobalKnownHostsFile=none "$@"\n'
        )
        inner.chmod(0o755)
        process = await asyncio.create_subprocess_exec(
            str(program),
            *("-F", str(config), "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
            *(f"{name}.hub", "echo $POD"),
            env={"PATH": f"{inner.parent}:{os.environ.get('PATH', os.defpath)}", "HOME": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        said, _ = await process.communicate()
        return process.returncode == 0 and said == f"{name}\n".encode()


@pytest.fixture
async def legacy(own_kube: KubeSystem, tmp_path: Path) -> AsyncIterator[Legacy]:
    """A cluster whose bastion has been taken over by this process."""
    own_kube.system.bastion.end(signal.SIGTERM)
    chosen = {
        "BASTION_DIRECTORY_SSH_PORT": SSH_PORT,
        "BASTION_DIRECTORY_KEY_PORT": KEY_PORT,
    }
    settings = read_settings({**own_kube.system.bastion.environment, **chosen})
    clock, stop = Clock(1000.0), asyncio.Event()
    async with AsyncExitStack() as stack:
        bastion = await Bastion.make(settings, stack, clock)
        task = asyncio.create_task(bastion.run(stop))
        async with asyncio.timeout(LIMIT):
            while not bastion.informed.is_set() or bastion.directory.heard_at is None:
                await asyncio.sleep(0.01)
        try:
            yield Legacy(own_kube, bastion, clock, tmp_path)
        finally:
            stop.set()
            await task


@pytest.mark.timeout(600)  # nine logins, each of two handshakes with RSA
async def test_primehubs_configuration_works_in_every_tier(legacy: Legacy) -> None:
    old, new, late = (legacy.person(name) for name in ("old", "new", "late"))
    await legacy.pod("jupyter-alice", "alice", old)
    assert await legacy.enters(old, "jupyter-alice"), "nothing was ever fetched: the cache is rebuilt"

    legacy.lists("jupyter-alice", new)
    legacy.clock.advance(1 * MINUTE)
    assert await legacy.enters(old, "jupyter-alice") is False, "the bastion knows the key, the pod's sshd no more"
    assert not await legacy.enters(new, "jupyter-alice"), "younger than two minutes: the cache alone answers"

    legacy.clock.advance(2 * MINUTE)
    assert not await legacy.enters(new, "jupyter-alice"), "older: only pods that are not in the cache are asked"

    await legacy.pod("jupyter-bob", "bob", late)
    async with asyncio.timeout(LIMIT):
        while legacy.bastion.keys.counts.pods < 2:
            await asyncio.sleep(0.02)
    assert await legacy.enters(late, "jupyter-bob"), "a pod's keys are fetched ahead when it becomes ready"

    legacy.clock.advance(12 * MINUTE)
    assert await legacy.enters(new, "jupyter-alice"), "fifteen minutes: everything is fetched anew"
    assert not await legacy.enters(old, "jupyter-alice")


async def test_a_key_opens_the_pods_that_list_it_and_nothing_else(legacy: Legacy) -> None:
    alices, bobs = legacy.person("alice"), legacy.person("bob")
    await legacy.pod("jupyter-alice", "alice", alices)
    await legacy.pod("jupyter-bob", "bob", bobs)
    assert await legacy.enters(alices, "jupyter-alice")
    assert not await legacy.enters(alices, "jupyter-bob")
    assert await legacy.enters(bobs, "jupyter-bob")


async def test_a_certificate_opens_a_pod_that_was_there_when_it_was_issued(legacy: Legacy) -> None:
    """The hub spawns without our part of its configuration's mark: time decides which run is meant."""
    kube = legacy.kube
    await kube.submit("alice")
    name = kube.cluster.pod_of("alice")["metadata"]["name"]
    kube.cluster.patch(name, {"metadata": {"labels": SSH_LABELS}})
    alice = kube.system.person("alice", "-legacy")
    async with asyncio.timeout(LIMIT):
        while legacy.bastion.directory.by_name(f"{name}.hub") is None:
            await asyncio.sleep(0.02)
    await alice.certificate()
    refused = await asyncio.to_thread(alice.run, "ssh", "-W", f"{name}.hub:22", "limited-user@127.0.0.1")
    assert b"does not open" not in refused.stderr
    direct = await asyncio.to_thread(alice.ssh, "alice", "true")
    assert b"jump mode only" in direct.stderr


async def test_a_user_who_is_called_as_a_pod_does_not_catch_its_logins(legacy: Legacy) -> None:
    """The namespace and the zone are both called `hub`, so `jupyter-alice.hub` is a pod and a user's host name."""
    alice = legacy.kube.system.person("alice", "-caught")
    key = alice.folder / "id"
    await legacy.pod("jupyter-alice", "alice", key)
    await legacy.pod("jupyter-jupyter-alice", "jupyter-alice", key)
    await legacy.bastion.keys.refresh()
    assert await legacy.enters(key, "jupyter-alice")
    assert await legacy.enters(key, "jupyter-jupyter-alice")
    legacy.kube.cluster.delete("jupyter-alice", grace=0)
    async with asyncio.timeout(LIMIT):
        while legacy.bastion.directory.by_name("jupyter-alice.hub") is not None:
            await asyncio.sleep(0.02)
    caught = await asyncio.to_thread(alice.run, "ssh", "-W", "jupyter-alice.hub:22", "limited-user@127.0.0.1")
    assert caught.stdout == b""
    assert b"does not open that destination" in caught.stderr
