"""Why: what the chart renders is run on this machine as it says: volumes, Secrets, accounts, scripts and variables.

What a cluster does and this machine does not is in `Pod.here`: paths, addresses and ports.
"""

from __future__ import annotations

import base64
import io
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from deploy.images import cluster_secrets
from tests.chart.apiserver import ApiServer, place
from tests.chart.rendering import NAME, NAMESPACE, Object, named, of_kind
from tests.support.hub import Hub, free_port
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
            if "secret" in volume:
                self._write(folder, volume["secret"]["secretName"], volume["secret"])
            for source in volume.get("projected", {}).get("sources", ()):
                self._write(folder, source["secret"]["name"], source["secret"])

    def _write(self, folder: Path, name: str, chosen: Object) -> None:
        """The items of one Secret, for the pod's group to read."""
        for item in chosen["items"]:
            if chosen.get("optional") and item["key"] not in self.secrets[name]:
                continue
            file = folder / item["path"]
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(base64.b64decode(self.secrets[name][item["key"]]))
            os.chown(file, -1, self.spec["securityContext"]["fsGroup"])
            file.chmod(0o440)

    def variables(self, container: Object) -> dict[str, str]:
        """What the container is given; every variable of `network` is one of them."""
        return {one["name"]: self.here(one["name"], self._value(one)) for one in container["env"]}

    def _value(self, variable: Object) -> str:
        if "value" in variable:
            return str(variable["value"])
        chosen = variable["valueFrom"]["secretKeyRef"]
        return base64.b64decode(self.secrets[chosen["name"]][chosen["key"]]).decode()

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

    def secret(self, name: str, key: str, value: str) -> None:
        """A Secret that was there before."""
        data = {key: base64.b64encode(value.encode()).decode()}
        one = {"kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data}
        assert self.server.create(one).status == 201

    def create(self) -> None:
        """The chart's objects."""
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

    def delete(self) -> None:
        """Everything again, for the next."""
        for one in self.objects:
            self.server.ask("DELETE", f"{place(one)}/{one['metadata']['name']}?propagationPolicy=Background")
        for name in self.secrets():
            self.server.ask("DELETE", f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}")

    def pod(self, part: str, network: Mapping[str, str], number: int = 1) -> Pod:
        """One replica."""
        deployment = named(self.objects, "Deployment", f"{NAME}-{part}")
        assert 1 <= number <= deployment["spec"]["replicas"]
        spec = deployment["spec"]["template"]["spec"]
        pod = Pod(spec, self.folder / f"{part}-{number}", self.secrets(), network)
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
            "networks": ["127.0.0.0/8"],  # where the ingress controller's pods would be, too
            "sshPort": int(hub.pod_environment["SSH_BASTION_SSH_PORT"]),
            "keyPort": int(hub.pod_environment["SSH_BASTION_KEY_PORT"]),
        },
        "api": {
            "settings": {"SSH_API_HUB_POLL_INTERVAL": 0.3},
            "startServers": True,
            "trustedProxies": ["127.0.0.0/8"],
        },
        "bastion": {
            "hosts": ["127.0.0.1"],
            "port": port,
            "jumpLogins": ["jump", "limited-user"],
            "shutdownGraceSeconds": 2,
            "metrics": {"enabled": True},
            "settings": {"BASTION_LIMITS_BUFFERED": 1048576},
        },
    }


def api_network(port: int, internal_port: int, pod_port: int) -> dict[str, str]:
    return {
        "SSH_API_LISTEN_HOST": "127.0.0.1",
        "SSH_API_LISTEN_PORT": str(port),
        "SSH_API_LISTEN_POD_PORT": str(pod_port),
        "SSH_API_INTERNAL_HOST": "127.0.0.1",
        "SSH_API_INTERNAL_PORT": str(internal_port),
    }


def set_up(made: Installation, system: System) -> None:
    """Give the processes of `system` what the chart renders, and nothing else."""
    pod_port = urlsplit(system.hub.pod_api_url).port
    assert pod_port
    api = made.pod("api", api_network(system.hub.api_port, system.internal_port, pod_port))
    bastion = made.pod(
        "bastion",
        {
            "BASTION_LISTEN_HOST": "127.0.0.1",
            "BASTION_LISTEN_PORT": str(system.port),
            "BASTION_API_URL": f"http://127.0.0.1:{system.internal_port}",
            "BASTION_METRICS_HOST": "127.0.0.1",
            "BASTION_METRICS_PORT": str(free_port()),
        },
    )
    for pod, process in ((api, system.api), (bastion, system.bastion)):
        assert pod.container["command"] == ["python", *process.arguments]
        process.environment = pod.variables(pod.container)
        assert pod.network.items() <= process.environment.items()
    # What Kubernetes adds: its address as the Service has it, which the values put right, and the account.
    system.bastion.environment = {
        **system.bastion.environment,
        "BASTION_DIRECTORY_SERVICE_ACCOUNT": str(made.account(f"{NAME}-bastion")),
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
    }
    system.state = system.folder / "state"
    system.state.mkdir()
    secret = made.secrets()[f"{NAME}-internal"]["secret"]
    (system.state / "internal-secret").write_bytes(base64.b64decode(secret))
