"""Why: people's servers are pods, made by the real KubeSpawner, and the bastion finds them by watching Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import anyio
import httpx
import pytest

from tests.support.hub import LIMIT, Hub, free_port
from tests.support.kube.cluster import FakeCluster
from tests.support.system import System, unix_user

# Not the usual 2222 and 8080, which this machine may use itself: the pods have addresses of their own, but one network.
POD_SIDE = {"SSH_BASTION_LISTEN": "0.0.0.0", "SSH_BASTION_POLL": "0.5"}


@dataclass
class KubeSystem:
    """The system, and the cluster that it lives in."""

    system: System
    cluster: FakeCluster

    @property
    def hub(self) -> Hub:
        return self.system.hub

    async def submit(self, user: str, server: str = "", **fields: str) -> None:
        """Start a server as a person does: the real spawn page, its form filled in, and the wait."""
        await self.hub.user(user)
        async with await self.hub.login(user) as browser:
            page = await browser.get(f"/hub/spawn/{quote(user)}/{server}".rstrip("/"))
            assert page.status_code == 200, page.url
            assert 'name="enable_ssh"' in page.text
            await self.send(browser, page, fields)
        with anyio.fail_after(LIMIT):
            while not (await self.hub.server(user, server) or {}).get("ready"):
                await anyio.sleep(0.05)

    async def send(self, browser: httpx.AsyncClient, page: httpx.Response, fields: dict[str, str]) -> None:
        xsrf = next(cookie.value for cookie in browser.cookies.jar if cookie.name == "_xsrf")
        action = re.search(r'<form[^>]*id="spawn_form"[^>]*action="([^"]*)"', page.text)
        assert action is not None
        # Where that leads in the end is the server's own page, which no proxy carries here.
        await browser.post(action[1].replace("&amp;", "&"), data={"_xsrf": xsrf or "", **fields})

    async def with_ssh(self, user: str, server: str = "") -> None:
        """Tick the box, start, and wait until the server can be entered."""
        await self.submit(user, server, enable_ssh="on")
        await self.system.listed(user, server)


def running(
    release: str,
    factory: pytest.TempPathFactory,
    settings: Mapping[str, str] | None = None,
    api_settings: Mapping[str, str] | None = None,
    **how: bool | Path,
) -> Iterator[KubeSystem]:
    cluster = FakeCluster(factory.mktemp("cluster"))
    cluster.start()
    ports = {"SSH_BASTION_SSH_PORT": str(free_port()), "SSH_BASTION_KEY_PORT": str(free_port())}
    hub = Hub(factory.mktemp("hub"), release, pod_environment=POD_SIDE | ports, cluster=cluster, **how)  # type: ignore[arg-type]
    chosen = {
        "BASTION_DIRECTORY_SOURCE": "kubernetes",
        "BASTION_DIRECTORY_KUBECONFIG": str(cluster.kubeconfig()),
        "BASTION_DIRECTORY_UNIX_USER": unix_user(),
        "BASTION_LOGIN_JUMP_NAMES": "jump,limited-user",
        **(settings or {}),
    }
    system = System(hub, factory.mktemp("system"), bastion_settings=chosen, api_settings=api_settings or {})
    try:
        with system.running():
            yield KubeSystem(system, cluster)
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def kube(hub_release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSystem]:
    """A system in a cluster, which the tests of one file share: they leave every part running."""
    yield from running(hub_release, tmp_path_factory)


@pytest.fixture
def own_kube(hub_release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSystem]:
    """A system in a cluster for one test, which may break its parts."""
    yield from running(hub_release, tmp_path_factory)
