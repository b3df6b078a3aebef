"""Why: every test of the chart begins with what helm makes of it, for values that an administrator would write."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "chart"
NAMESPACE = "hub"
RELEASE = "ssh"
NAME = "ssh-jupyterhub-bastion"

Object = dict[str, Any]

MINIMAL: Mapping[str, Any] = {
    "image": {"repository": "registry.example.org/jupyterhub-bastion"},
    "publicUrl": "https://ssh.example.org",
    "hub": {"url": "https://hub.example.org"},
    "bastion": {"hosts": ["ssh.example.org"]},
    "kubeApiAddresses": ["192.0.2.10/32"],
}
"""What has no default, and nothing else."""

HIGHLY_AVAILABLE: Mapping[str, Any] = {
    "api": {
        "replicas": 3,
        "keys": {"storage": "secret"},
        "database": {"existingSecret": "postgresql"},
        "ingress": {"enabled": True, "className": "nginx"},
        "trustedProxies": ["10.1.0.0/16"],
    },
    "bastion": {"replicas": 4, "metrics": {"enabled": True}},
    "networkPolicy": {
        "databaseTo": [
            {
                "ports": [{"protocol": "TCP", "port": 5432}],
                "to": [{"podSelector": {"matchLabels": {"app": "postgresql"}}}],
            }
        ],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    },
}

PRIMEHUB: Mapping[str, Any] = {
    "notebooks": {
        "matchLabels": {"app": "jupyterhub", "component": "singleuser-server", "ssh-bastion-server/notebook": "true"},
        "sshPort": 22,
        "keyPort": 8080,
    },
    "bastion": {"jumpLogins": ["jump", "limited-user"], "service": {"type": "ClusterIP"}},
    "kubeApiPort": 16443,
}

EXISTING: Mapping[str, Any] = {
    "secrets": {"create": False, "existing": {"internal": "one", "cookie": "two", "hostKey": "three", "ca": "four"}}
}

MATRIX: Mapping[str, Mapping[str, Any]] = {
    "the least": {},
    "several replicas": HIGHLY_AVAILABLE,
    "no policies": {"networkPolicy": {"enabled": False}, "kubeApiAddresses": []},
    "own secrets": EXISTING,
    "several replicas, own secrets": {**HIGHLY_AVAILABLE, **EXISTING},
    "PrimeHub": PRIMEHUB,
    "PrimeHub's images and ours": {**PRIMEHUB, "notebooks": {**PRIMEHUB["notebooks"], "moreSshPorts": [2222]}},
    "servers as the hub says": {"bastion": {"directory": "hub"}, "kubeApiHost": "192.0.2.10"},
    "several namespaces": {"notebooks": {"namespaces": ["hub", "staff"]}, "kubeApiHost": "192.0.2.10"},
    "a namespace for each user": {"notebooks": {"namespaces": ["jupyter-*"]}},
    "a policy beside another in each namespace": {
        "notebooks": {"namespaces": ["hub", "staff"]},
        "networkPolicy": {"alsoBesideIn": ["staff"]},
    },
    "without z2jh's own policy": {"networkPolicy": {"besideSingleuserPolicy": False}},
    "pods with IPv6 addresses": {"listenHost": "::", "notebooks": {"networks": ["fd00:10:244::/56"]}},
    "labels of one's own": {
        "commonLabels": {"team": "all", "app.kubernetes.io/part-of": "jupyterhub"},
        "api": {"podLabels": {"team": "api"}, "podAnnotations": {"note": "api"}},
        "bastion": {
            "metrics": {"enabled": True},
            "podLabels": {"team": "bastion"},
            "podAnnotations": {"prometheus.io/scrape": "false", "prometheus.io/path": "/metrics"},
        },
    },
}
"""Installations that differ in what they render."""


def find(tool: str) -> str | None:
    """Where a program of Kubernetes is: as deploy/dev/kube-tools looks for it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jupyterhub-bastion" / "kube"
    folders = (os.environ.get("KUBEBUILDER_ASSETS"), os.environ.get("BASTION_KUBE") or str(cache))
    for folder in (folders[0], None, folders[1]):
        if found := shutil.which(tool, path=folder):
            return found
    return None


def why_not(tools: Iterable[str]) -> str | None:
    """A sentence about the programs that are missing; None when all are here."""
    missing = [tool for tool in tools if find(tool) is None]
    return f"{', '.join(missing)} not found: deploy/dev/kube-tools gets them where it can" if missing else None


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Values over values, as helm lays them: maps are joined, everything else is replaced."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result


def helm(*arguments: str, values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    program = find("helm")
    assert program is not None
    return subprocess.run(
        [program, *arguments, "--values", "-"],
        input=yaml.safe_dump(dict(values)),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def template(
    values: Mapping[str, Any], namespace: str = NAMESPACE, release: str = RELEASE
) -> subprocess.CompletedProcess[str]:
    # A helm built from its module names no release of Kubernetes, and then takes a very old one.
    return helm("template", release, str(CHART), "--namespace", namespace, "--kube-version", "1.35.4", values=values)


class _EachKeyOnce(yaml.SafeLoader):
    """YAML as Kubernetes takes it in the end: a key that stands twice in one map is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"twice in one map: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def rendered(*parts: Mapping[str, Any]) -> list[Object]:
    """The objects for the least values and what `parts` lay over them."""
    done = template(merged(MINIMAL, *parts))
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.load_all(done.stdout, _EachKeyOnce) if one]


def refusal(*parts: Mapping[str, Any]) -> str:
    """What helm says of values that it does not take."""
    done = template(merged(MINIMAL, *parts))
    assert done.returncode != 0, "helm took the values"
    return done.stderr


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def named(objects: Iterable[Object], kind: str, name: str, namespace: str = NAMESPACE) -> Object:
    found = [
        one
        for one in of_kind(objects, kind)
        if one["metadata"]["name"] == name and one["metadata"].get("namespace") == namespace
    ]
    assert len(found) == 1, f"{len(found)} of {kind} {namespace}/{name}"
    return found[0]


def pod_specs(objects: Iterable[Object]) -> dict[str, Object]:
    """The pod specs, by the name of what makes the pods."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in objects
        if one["kind"] in ("Deployment", "Job")
    }


def container(objects: Iterable[Object], part: str) -> Object:
    (one,) = named(objects, "Deployment", f"{NAME}-{part}")["spec"]["template"]["spec"]["containers"]
    result: Object = one
    return result


def environment(objects: Iterable[Object], part: str) -> dict[str, str]:
    """A container's variables, as text; those from Secrets with a stand-in."""
    return {one["name"]: one.get("value", "from-a-secret") for one in container(objects, part)["env"]}
