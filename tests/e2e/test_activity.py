"""Why: the idle culler must not stop a server in which somebody works over SSH, and must stop one where nobody does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import anyio
import pytest

from tests.support.hub import LIMIT, Hub, binaries
from tests.support.processes import die_with_parent
from tests.support.system import POD_SIDE, System, unix_user

CULL_AFTER = 15
"""Seconds. It is the culler's own clock that is waited for, until it has stopped what is idle."""


@pytest.fixture(scope="module")
def watched(hub_release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A site whose bastion tells often what is used."""
    hub = Hub(tmp_path_factory.mktemp("hub"), hub_release, pod_environment=POD_SIDE)
    system = System(hub, tmp_path_factory.mktemp("system"), bastion_settings={"BASTION_ACTIVITY_INTERVAL": "0.5"})
    with system.running():
        yield system


@contextlib.contextmanager
def idle_culler(hub: Hub, log: Path) -> Iterator[None]:
    """JupyterHub's idle culler, as a service of the hub runs it."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [
                str(binaries(hub.release) / "jupyterhub-idle-culler"),
                f"--url={hub.api_url}",
                f"--timeout={CULL_AFTER}",
                "--cull-every=1",
            ],
            env={"PATH": os.defpath, "HOME": str(hub.folder), "JUPYTERHUB_API_TOKEN": hub.admin_token},
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - calls nothing but prctl
        ) as culler,
    ):
        try:
            yield
        finally:
            culler.kill()


async def last_activity(system: System, server: str) -> datetime:
    found = await system.hub.server("alice", server)
    assert found is not None, f"alice/{server} does not run"
    return datetime.fromisoformat(found["last_activity"].replace("Z", "+00:00"))


async def gone(system: System, server: str) -> None:
    """Wait until the server has been stopped."""
    with anyio.fail_after(LIMIT):
        while await system.hub.server("alice", server) is not None:
            await anyio.sleep(0.1)


async def moved(system: System, server: str, since: datetime) -> datetime:
    """Wait until JupyterHub has heard of more activity; when that was."""
    with anyio.fail_after(LIMIT):
        while (at := await last_activity(system, server)) == since:
            await anyio.sleep(0.1)
    return at


async def test_the_culler_stops_what_is_idle_and_leaves_what_is_used(watched: System, tmp_path: Path) -> None:
    """One session moves data; one rests with keepalives every second, and so does one in jump mode."""
    system = watched
    for name in ("busy", "idle", "tunnel"):
        await system.start_server("alice", name)
    alice = system.person("alice")
    await alice.certificate()
    alive = ("-o", "ServerAliveInterval=1")
    through = ("-o", f"ProxyCommand={alice.jump_command()}", "-l", unix_user())
    with (
        alice.session("alice+busy@127.0.0.1", "while echo in; do sleep 0.3; done") as busy,
        alice.session(*alive, "alice+idle@127.0.0.1", "echo in; cat") as idle,
        alice.session(*alive, *through, "alice+tunnel.hub", "echo in; cat", port=False) as tunnel,
    ):
        for client in (busy, idle, tunnel):
            assert client.stdout is not None
            assert client.stdout.readline() == b"in\n"
        with idle_culler(system.hub, tmp_path / "culler.log"):
            for name in ("idle", "tunnel"):
                await gone(system, name)
            await moved(system, "busy", await last_activity(system, "busy"))
        assert busy.poll() is None
        assert (await system.hub.server("alice", "busy") or {}).get("ready") is True
    said = (tmp_path / "culler.log").read_text()
    assert "alice/idle" in said
    assert "Culling server alice/busy" not in said


async def test_only_data_moves_the_moment_of_last_activity(watched: System) -> None:
    system = watched
    for name in ("resting", "working"):
        await system.start_server("alice", name)
    alice = system.person("alice", "-moves")
    await alice.certificate()
    with (
        alice.session("-o", "ServerAliveInterval=1", "alice+resting@127.0.0.1", "echo in; cat") as resting,
        alice.session("alice+working@127.0.0.1", "while echo in; do sleep 0.3; done") as working,
    ):
        for client in (resting, working):
            assert client.stdout is not None
            assert client.stdout.readline() == b"in\n"
        there = await last_activity(system, "working")
        for _ in range(2):  # what moved when the sessions began is known by then
            there = await moved(system, "working", there)
        here = await last_activity(system, "resting")
        for _ in range(4):
            there = await moved(system, "working", there)
        assert await last_activity(system, "resting") == here
        assert resting.stdin is not None
        resting.stdin.write(b"at work\n")
        assert await moved(system, "resting", here) > here
