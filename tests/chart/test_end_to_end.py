"""From `helm template` to `ssh`: what the chart renders, run as it says on this machine.

A real API server takes the chart's objects; its Job's program makes the Secrets there with the Job's account; the
scripts of the init containers prepare what the Secrets and volumes hold; the api and the bastion run with exactly the
variables that are rendered, the bastion with its own account and Role; a real JupyterHub and a real KubeSpawner make
the servers' pods.
"""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest
import yaml

from bastion.metrics import PREFIX
from tests.chart.apiserver import ApiServer
from tests.chart.installation import Installation, api_network, set_up, values
from tests.chart.node import Node
from tests.chart.rendering import NAMESPACE, merged, template
from tests.kube.conftest import POD_SIDE, KubeSystem
from tests.support.hub import Hub, Release, free_port, no_tls
from tests.support.kube.cluster import FakeCluster
from tests.support.postgresql import binaries, running_postgresql
from tests.support.system import ACCESS, Process, System

SEVERAL: Mapping[str, Any] = {
    "api": {"replicas": 2, "keys": {"storage": "secret"}, "database": {"existingSecret": "postgresql"}},
    "networkPolicy": {"databaseTo": [{"to": [{"ipBlock": {"cidr": "127.0.0.1/32"}}]}]},
}


@dataclass
class Site(KubeSystem):
    """The whole, and where each replica of the api is asked."""

    apis: tuple[str, ...] = ()


@pytest.fixture(scope="module", params=["one api", "several replicas"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of PostgreSQL, for several replicas; empty for one."""
    if request.param == "one api":
        yield ""
        return
    if binaries() is None:
        pytest.skip("PostgreSQL's server is not installed")
    with running_postgresql(tmp_path_factory.mktemp("postgresql")) as address:
        yield address


@pytest.fixture(scope="module")
def site(
    hub_release: Release, server: ApiServer, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    node = Node(server, NAMESPACE, tmp_path_factory.mktemp("node"))
    node.start()
    ports = {"SSH_BASTION_SSH_PORT": str(free_port()), "SSH_BASTION_KEY_PORT": str(free_port())}
    hub = Hub(
        tmp_path_factory.mktemp("hub"),
        hub_release,
        pod_environment=POD_SIDE | ports,
        pod_api_url=f"http://127.0.0.1:{free_port()}",
        cluster=node,
    )
    system = System(hub, tmp_path_factory.mktemp("system"))
    chosen = merged(values(server, hub, system.port), SEVERAL if database else {})
    done = template(chosen)
    assert done.returncode == 0, done.stderr
    made = Installation(server, system.folder, [one for one in yaml.safe_load_all(done.stdout) if one])
    replica: Process | None = None
    try:
        made.secret("hub", "hub.services.ssh.apiToken", hub.service_token)
        if database:
            made.secret("postgresql", "url", database)
        made.create()
        made.run_the_job()
        set_up(made, system)
        hub.start()
        system.start()
        apis = [system.url]
        if database:
            replica = another_api(made, system)
            apis.append(f"http://127.0.0.1:{replica.environment['SSH_API_LISTEN_PORT']}")
        yield Site(system, cast(FakeCluster, None), tuple(apis))
    finally:
        try:
            system.stop()
        finally:
            if replica is not None:
                replica.end()
            hub.stop()
            node.stop()
            made.delete()


def another_api(made: Installation, system: System) -> Process:
    """The second replica, running."""
    port = free_port()
    pod = made.pod("api", api_network(port, free_port(), free_port()), number=2)
    log, output = system.folder / "api-2.log", system.folder / "api-2.audit"
    process = Process("api-2", system.api.arguments, pod.variables(pod.container), log, output)
    process.start()

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/readyz", verify=no_tls(), trust_env=False).status_code == 200
        return False

    system.wait("the second api", answers, process)
    return process


@pytest.fixture
async def people(site: Site) -> AsyncIterator[Site]:
    await site.hub.make_users()
    yield site
    await site.hub.clean()


async def test_what_is_rendered_runs_and_lets_people_in_both_ways(people: Site) -> None:
    await people.with_ssh("alice", "gpu")
    alice = people.system.person("alice")
    await alice.certificate()
    said = "echo $JUPYTERHUB_USER/$JUPYTERHUB_SERVER_NAME"
    for done in (
        alice.ssh("alice+gpu", said),
        alice.jump("alice+gpu.pods", said),
        alice.jump("alice+gpu.pods", said, jump="limited-user"),
    ):
        assert (done.returncode, done.stdout, done.stderr) == (0, b"alice/gpu\n", b"")


async def test_every_replica_of_the_api_signs_what_the_bastion_takes(people: Site) -> None:
    await people.with_ssh("alice")
    alice = people.system.person("alice", "-replicas")
    token = await people.hub.token("alice", [ACCESS])
    for at in people.apis:
        async with httpx.AsyncClient(verify=no_tls(), trust_env=False, timeout=60) as client:
            headers = {"Authorization": f"token {token}"}
            answer = await client.post(f"{at}/certificates", headers=headers, json={"public_key": alice.public_key})
        assert answer.status_code == 201, answer.text
        alice.certificate_file.write_text(answer.json()["certificate"] + "\n")
        assert alice.ssh("alice", "echo $JUPYTERHUB_USER").stdout == b"alice\n"


async def test_who_has_not_ticked_the_box_is_told(people: Site) -> None:
    await people.submit("bob")
    bob = people.system.person("bob")
    await bob.certificate()
    refused = bob.ssh("bob", "true")
    assert refused.returncode == 255
    assert b"bob is not running with SSH. Start it in JupyterHub with Enable SSH ticked" in refused.stderr


async def test_a_pod_deleted_in_the_cluster_ends_its_sessions(people: Site, server: ApiServer) -> None:
    await people.with_ssh("alice")
    alice = people.system.person("alice", "-deleted")
    await alice.certificate()
    with alice.session("alice@127.0.0.1", "echo here; cat") as client:
        assert client.stdout is not None
        assert client.stderr is not None
        assert client.stdout.readline() == b"here\n"
        assert server.ask("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/jupyter-alice").status == 200
        assert b"Your server alice stopped." in client.stderr.read()


async def test_the_metrics_port_of_the_chart_tells_that_the_list_is_fresh(people: Site) -> None:
    port = people.system.bastion.environment["BASTION_METRICS_PORT"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    assert f"{PREFIX}fresh 1.0" in text
