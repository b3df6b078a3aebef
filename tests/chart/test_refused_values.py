"""What is said of values that cannot be used, before anything of them is in a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.chart.rendering import merged, refusal, rendered

WRONG: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "a misspelt value": ({"api": {"repliccas": 2}}, "repliccas"),
    "a misspelt part": ({"bastoin": {}}, "bastoin"),
    "a number for a switch": ({"networkPolicy": {"enabled": 1}}, "networkPolicy"),
    "no network": ({"kubeApiAddresses": ["192.0.2.10"]}, "kubeApiAddresses"),
    "root": ({"podSecurity": {"user": 0}}, "podSecurity"),
    "a setting of another process": ({"api": {"settings": {"BASTION_WORKERS": 2}}}, "BASTION_WORKERS"),
    "a path of the hub's": ({"publicUrl": "https://hub.example.org/ssh"}, "publicUrl"),
    "a port twice": ({"notebooks": {"moreSshPorts": [22, 22]}}, "moreSshPorts"),
    "the hub's own host": (
        {"hub": {"url": "https://SSH.example.org:8443/base"}},
        "give the api a host name of its own",
    ),
    "a zone with the api in it": (
        {"zone": "example.org", "bastion": {"hosts": ["192.0.2.1"]}},
        "zone is example.org, and ssh.example.org lies in it",
    ),
    "a zone with the bastion in it": (
        {"zone": "example.net", "bastion": {"hosts": ["192.0.2.1", "example.net."]}},
        "zone is example.net, and example.net. lies in it",
    ),
    "a whole address of Kubernetes": ({"kubeApiHost": "https://192.0.2.10:6443"}, "kubeApiHost"),
    "an address of Kubernetes with its port": ({"kubeApiHost": "192.0.2.10:6443"}, "kubeApiHost"),
    "a host of Kubernetes with its port": ({"kubeApiHost": "cafe:6443"}, "kubeApiHost"),
    "an IPv6 address of Kubernetes in brackets": ({"kubeApiHost": "[2001:db8::1]"}, "kubeApiHost"),
    "a service with capitals": ({"hub": {"serviceName": "SSH"}}, "serviceName"),
    "a service with a dot": ({"hub": {"serviceName": "ssh.hub"}}, "serviceName"),
    "no image": ({"image": {"repository": ""}}, "image.repository is empty: build"),
    "no address": ({"publicUrl": ""}, "publicUrl is empty: set it"),
    "no hub": ({"hub": {"url": ""}}, "hub.url is empty: set it"),
    "no host": ({"bastion": {"hosts": []}}, "bastion.hosts is empty: set it"),
    "replicas on SQLite": ({"api": {"replicas": 2}}, "put a PostgreSQL address"),
    "replicas with keys of their own": (
        {"api": {"replicas": 2, "database": {"existingSecret": "x"}}, "networkPolicy": {"enabled": False}},
        "every replica needs the same CA keys",
    ),
    "secrets from nowhere": ({"secrets": {"create": False}}, "secrets.existing.internal must name a Secret"),
    "no way to Kubernetes": ({"kubeApiAddresses": []}, "kubectl get endpointslices"),
    "no way to the database": ({"api": {"database": {"existingSecret": "x"}}}, "networkPolicy.databaseTo is empty"),
    "a setting that a value decides": ({"api": {"settings": {"SSH_API_ZONE": "x"}}}, "other values decide"),
    "an ingress without TLS": (
        {"publicUrl": "http://ssh.example.org", "api": {"ingress": {"enabled": True}}},
        "must begin with https://",
    ),
    "an ingress for an address": (
        {"publicUrl": "https://192.0.2.1", "api": {"ingress": {"enabled": True}}},
        "an Ingress takes a host name only",
    ),
    "an ingress for an IPv6 address": (
        {"publicUrl": "https://[2001:db8::1]", "api": {"ingress": {"enabled": True}}},
        "an Ingress takes a host name only",
    ),
    "a namespace twice": ({"notebooks": {"namespaces": ["hub", "hub"]}}, "namespaces"),
    "a name that no Service may have": ({"fullnameOverride": "ssh.hub"}, "set fullnameOverride to small letters"),
    "a name that begins with a digit": ({"fullnameOverride": "1ssh"}, "with a letter first"),
    "metrics where ssh listens": ({"bastion": {"metrics": {"enabled": True, "port": 2222}}}, "take another"),
    "a label of the chart's": (
        {"commonLabels": {"app.kubernetes.io/name": "x"}},
        "commonLabels: app.kubernetes.io/name",
    ),
    "a label of the chart's on pods": (
        {"bastion": {"podLabels": {"app.kubernetes.io/component": "x"}}},
        "bastion.podLabels: app.kubernetes.io/component",
    ),
    "the label that opens the hub": (
        {"api": {"podLabels": {"hub.jupyter.org/network-access-hub": "no"}}},
        "api.podLabels",
    ),
    "a policy beside none": ({"networkPolicy": {"alsoBesideIn": ["staff"]}}, "none of notebooks.namespaces"),
    "a place to listen that nobody reaches": ({"listenHost": "127.0.0.1"}, "listenHost"),
}


def _trusted(proxies: list[str], **others: Any) -> Mapping[str, Any]:
    return merged(
        {"api": {"trustedProxies": proxies}, "notebooks": {"networks": ["10.244.4.0/22", "fd00::/64"]}}, others
    )


def _headers(networks: str, *ssh_from: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = {"BASTION_PROXY_NETWORKS": networks}
    policy = {"sshFrom": list(ssh_from)}
    return {"notebooks": {"networks": ["10.244.4.0/22"]}, "bastion": {"settings": settings}, "networkPolicy": policy}


OPEN = {"enabled": False}
OVERLAPPING = ["10.244.4.0/22", "10.244.0.0/16", "10.244.7.255/32", "0.0.0.0/0", "10.244.5.1/16", "FD00::/64", "::/0"]
APART = ["10.244.0.0/22", "10.244.8.0/21", "10.244.3.255/32", "10.244.8.0/32", "192.0.2.0/24", "2001:db8::/64"]
ALL_PODS: Mapping[str, Any] = {"namespaceSelector": {}}
PROXIES: Mapping[str, Any] = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
HUBS_NAMESPACE: Mapping[str, Any] = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "hub"}}}
EVERYBODY: Mapping[str, Any] = {"ipBlock": {"cidr": "0.0.0.0/0"}}


@pytest.mark.parametrize("host", ["", "192.0.2.10", "api.cluster.example.org", "localhost", "2001:db8::10", "::1"])
def test_kubernetes_is_named_by_its_host_alone(host: str) -> None:
    assert rendered({"kubeApiHost": host})


def test_on_one_machine_the_hub_and_the_api_may_share_its_loopback_and_a_zone_may_be_alike() -> None:
    assert rendered({"publicUrl": "http://127.0.0.1:9080", "hub": {"url": "http://127.0.0.1:8000"}})
    assert rendered({"zone": "sh.example.org"})


@pytest.mark.parametrize("network", OVERLAPPING)
def test_without_policies_no_network_of_notebooks_is_a_trusted_proxys(network: str) -> None:
    said = refusal(_trusted(["192.0.2.1/32", network], networkPolicy=OPEN))
    assert f"api.trustedProxies and notebooks.networks overlap ({network} and " in said


@pytest.mark.parametrize("network", APART)
def test_without_policies_a_proxy_apart_from_notebooks_is_trusted(network: str) -> None:
    assert rendered(_trusted([network], networkPolicy=OPEN))


@pytest.mark.parametrize("network", OVERLAPPING)
def test_with_policies_the_ingress_controller_may_be_among_the_pods(network: str) -> None:
    assert rendered(_trusted([network]))
    for peer in (ALL_PODS, HUBS_NAMESPACE, EVERYBODY):
        said = refusal(_trusted([network], networkPolicy={"browsersFrom": [PROXIES, peer]}))
        assert "networkPolicy.browsersFrom lets notebook servers reach the api's public port" in said


def test_a_proxys_headers_count_among_pods_only_when_nobody_else_reaches_the_bastion() -> None:
    for networks in ("10.244.5.0/24", "192.0.2.1, 10.244.5.7"):
        assert "BASTION_PROXY_NETWORKS and notebooks.networks overlap" in refusal(_headers(networks))
        assert "networkPolicy.sshFrom lets notebook servers" in refusal(_headers(networks, ALL_PODS))
        assert rendered(_headers(networks, PROXIES))
    assert rendered(_headers("192.0.2.1"))


@pytest.mark.parametrize("mistake", WRONG)
def test_this_mistake_is_refused_and_named(mistake: str) -> None:
    values, words = WRONG[mistake]
    assert words in refusal(values)
