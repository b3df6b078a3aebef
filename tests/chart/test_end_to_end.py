"""From `helm template` to `ssh`: what the chart renders, run as it says on this machine.

A real API server takes the chart's objects; its Job's program makes the Secrets there with the Job's account; the
scripts of the init containers prepare what the Secrets and volumes hold; the api and the bastion run with exactly the
variables that are rendered, the bastion with its own account and Role; a real JupyterHub and a real KubeSpawner make
the servers' pods. What a cluster does and this machine does not is in `Pod.here`: paths, addresses and ports.
"""

from __future__ import annotations

import base64
import io
import os
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from bastion.metrics import PREFIX
from deploy.images import cluster_secrets
from tests.chart.apiserver import ApiServer
from tests.chart.node import Node
from tests.chart.rendering import NAME, NAMESPACE, Object, named, of_kind, template
from tests.kube.conftest import POD_SIDE, KubeSystem
from tests.support.hub import Hub, free_port
from tests.support.kube.cluster import FakeCluster
from tests.support.system import System, unix_user

GROUP = os.getgid() or 65532
"""The pods' group, which mounted Secrets belong to (`fsGroup`)."""


@dataclass
class Pod:
    """One pod of a rendered Deployment, its volumes under a folder of this machine."""

    spec: Object
    root: Path
    secrets: Mapping[str, Mapping[str, str]]
    network: Mapping[str, str]
    """Variables that say where something is: the cluster's network takes those addresses and ports elsewhere."""
    places: list[str] = field(default_factory=list)

    @property
    def container(self) -> Object:
        (one,) = self.spec["containers"]
        return cast(Object, one)

    def mount(self) -> None:
        """Make the volumes, as the node does."""
        volumes = {one["name"]: one for one in self.spec["volumes"]}
        mounts = {one["mountPath"]: volumes[one["name"]] for one in self.container["volumeMounts"]}
        for init in self.spec["initContainers"]:
            mounts |= {one["mountPath"]: volumes[one["name"]] for one in init["volumeMounts"]}
        self.places = list(mounts)
        for path, volume in mounts.items():
            folder = self.root / path.lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
            for item in volume.get("secret", {}).get("items", ()):
                value = self.secrets[volume["secret"]["secretName"]][item["key"]]
                (folder / item["path"]).write_bytes(base64.b64decode(value))
                os.chown(folder / item["path"], -1, self.spec["securityContext"]["fsGroup"])
                (folder / item["path"]).chmod(volume["secret"]["defaultMode"])

    def variables(self, container: Object) -> dict[str, str]:
        """What the container is given; every variable of `network` is one of them."""
        return {one["name"]: self.here(one["name"], one["value"]) for one in container["env"]}

    def here(self, name: str, value: str) -> str:
        if name in self.network:
            return self.network[name]
        known = {*self.places, *(place.rpartition("/")[0] for place in self.places)} - {""}
        inside = any(value == place or value.startswith(f"{place}/") for place in known)
        return f"{self.root}{value}" if inside else value

    def prepare(self) -> None:
        """Run the init containers."""
        for init in self.spec["initContainers"]:
            environment = {"PATH": "/usr/bin:/bin", **self.variables(init)}
            subprocess.run([*init["command"], *init["args"]], env=environment, check=True)


@dataclass
class Installation:
    """The chart in a cluster."""

    server: ApiServer
    folder: Path
    objects: list[Object]

    def create(self) -> None:
        """The objects, and what the hub's own chart would have made."""
        for one in self.objects:
            answer = self.server.create(one)
            assert answer.status == 201, (one["kind"], answer)

    def account(self, name: str) -> Path:
        """What is mounted into pods of this account."""
        folder = self.folder / "accounts" / name
        folder.mkdir(parents=True)
        (folder / "token").write_text(self.server.token_of(name, NAMESPACE))
        (folder / "ca.crt").write_bytes(self.server.ca.read_bytes())
        return folder

    def run_the_job(self) -> None:
        (job,) = of_kind(self.objects, "Job")
        spec = job["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["command"] == ["python", "/opt/jupyterhub-bastion/cluster_secrets.py", "make"]
        environment = {one["name"]: one["value"] for one in container["env"]}
        arguments = ["make", *container["args"]]
        account = self.account(spec["serviceAccountName"])
        assert cluster_secrets.main(arguments, environment, io.StringIO(), account) == 0

    def secrets(self) -> dict[str, dict[str, str]]:
        listed = self.server.ask("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets").body["items"]
        return {one["metadata"]["name"]: one["data"] for one in listed}

    def pod(self, part: str, network: Mapping[str, str]) -> Pod:
        deployment = named(self.objects, "Deployment", f"{NAME}-{part}")
        spec = deployment["spec"]["template"]["spec"]
        pod = Pod(spec, self.folder / part, self.secrets(), network)
        pod.mount()
        pod.prepare()
        return pod


def values(server: ApiServer, hub: Hub, port: int) -> dict[str, Any]:
    """As an administrator writes them for a cluster that is this machine."""
    return {
        "image": {"repository": "registry.example.org/jupyterhub-bastion"},
        "publicUrl": hub.public_url,
        "zone": "pods",
        "hub": {"url": hub.url, "apiUrl": hub.api_url},
        "kubeApiHost": "127.0.0.1",
        "kubeApiPort": server.port,
        "kubeApiAddresses": ["127.0.0.1/32"],
        "podSecurity": {"group": GROUP},
        "notebooks": {
            "unixUser": unix_user(),
            "networks": ["127.0.0.0/8"],
            "sshPort": int(hub.pod_environment["SSH_BASTION_SSH_PORT"]),
            "keyPort": int(hub.pod_environment["SSH_BASTION_KEY_PORT"]),
        },
        "api": {"settings": {"SSH_API_HUB_POLL_INTERVAL": 0.3}, "startServers": True},
        "bastion": {
            "hosts": ["127.0.0.1"],
            "port": port,
            "jumpLogins": ["jump", "limited-user"],
            "shutdownGraceSeconds": 2,
            "metrics": {"enabled": True},
            "settings": {"BASTION_LIMITS_BUFFERED": 1048576},
        },
    }


@pytest.fixture(scope="module")
def site(hub_release: str, server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSystem]:
    node = Node(server, NAMESPACE, tmp_path_factory.mktemp("node"))
    node.start()
    ports = {"SSH_BASTION_SSH_PORT": str(free_port()), "SSH_BASTION_KEY_PORT": str(free_port())}
    hub = Hub(tmp_path_factory.mktemp("hub"), hub_release, pod_environment=POD_SIDE | ports, cluster=node)  # type: ignore[arg-type]
    system = System(hub, tmp_path_factory.mktemp("system"))
    try:
        install(server, hub, system)
        hub.start()
        system.start()
        yield KubeSystem(system, cast(FakeCluster, None))
    finally:
        try:
            system.stop()
        finally:
            hub.stop()
            node.stop()


def install(server: ApiServer, hub: Hub, system: System) -> None:
    """Give the processes of `system` what the chart renders, and nothing else."""
    done = template(values(server, hub, system.port))
    assert done.returncode == 0, done.stderr
    made = Installation(server, system.folder, [one for one in yaml.safe_load_all(done.stdout) if one])
    token = base64.b64encode(hub.service_token.encode()).decode()
    hubs = {"kind": "Secret", "metadata": {"name": "hub", "namespace": NAMESPACE}}
    assert server.create({**hubs, "data": {"hub.services.ssh.apiToken": token}}).status == 201
    made.create()
    made.run_the_job()
    internal = f"http://127.0.0.1:{system.internal_port}"
    api = made.pod(
        "api",
        {
            "SSH_API_LISTEN_HOST": "127.0.0.1",
            "SSH_API_LISTEN_PORT": str(hub.api_port),
            "SSH_API_INTERNAL_HOST": "127.0.0.1",
            "SSH_API_INTERNAL_PORT": str(system.internal_port),
        },
    )
    bastion = made.pod(
        "bastion",
        {
            "BASTION_LISTEN_HOST": "127.0.0.1",
            "BASTION_LISTEN_PORT": str(system.port),
            "BASTION_API_URL": internal,
            "BASTION_METRICS_HOST": "127.0.0.1",
            "BASTION_METRICS_PORT": str(free_port()),
        },
    )
    for pod, process in ((api, system.api), (bastion, system.bastion)):
        assert pod.container["command"] == ["python", *process.arguments]
        process.environment = pod.variables(pod.container)
        assert pod.network.items() <= process.environment.items()
    # What Kubernetes adds: its address as the Service has it, which the values put right, and the account.
    account = {"BASTION_DIRECTORY_SERVICE_ACCOUNT": str(made.account(f"{NAME}-bastion"))}
    system.bastion.environment = {
        **system.bastion.environment,
        **account,
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
    }
    system.state = system.folder / "state"
    system.state.mkdir()
    secret = made.secrets()[f"{NAME}-internal"]["secret"]
    (system.state / "internal-secret").write_bytes(base64.b64decode(secret))


@pytest.fixture
async def people(site: KubeSystem) -> AsyncIterator[KubeSystem]:
    await site.hub.make_users()
    yield site
    await site.hub.clean()


async def test_what_is_rendered_runs_and_lets_people_in_both_ways(people: KubeSystem) -> None:
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


async def test_who_has_not_ticked_the_box_is_told(people: KubeSystem) -> None:
    await people.submit("bob")
    bob = people.system.person("bob")
    await bob.certificate()
    refused = bob.ssh("bob", "true")
    assert refused.returncode == 255
    assert b"bob is not running with SSH. Start it in JupyterHub with Enable SSH ticked" in refused.stderr


async def test_a_pod_deleted_in_the_cluster_ends_its_sessions(people: KubeSystem, server: ApiServer) -> None:
    await people.with_ssh("alice")
    alice = people.system.person("alice", "-deleted")
    await alice.certificate()
    with alice.session("alice@127.0.0.1", "echo here; cat") as client:
        assert client.stdout is not None
        assert client.stderr is not None
        assert client.stdout.readline() == b"here\n"
        assert server.ask("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/jupyter-alice").status == 200
        assert b"Your server alice stopped." in client.stderr.read()


async def test_the_metrics_port_of_the_chart_tells_that_the_list_is_fresh(people: KubeSystem) -> None:
    port = people.system.bastion.environment["BASTION_METRICS_PORT"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    assert f"{PREFIX}fresh 1.0" in text
