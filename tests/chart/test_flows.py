"""Who may reach whom: the chart's policies beside Zero to JupyterHub's own, judged flow by flow."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.flows import End, allowed
from tests.chart.rendering import HIGHLY_AVAILABLE, NAME, PRIMEHUB, merged, of_kind, rendered

PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]

Z2JH: list[dict[str, Any]] = [
    # What Zero to JupyterHub's chart renders by default, in its own words.
    {
        "kind": "NetworkPolicy",
        "metadata": {"name": "singleuser", "namespace": "hub"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "jupyterhub", "component": "singleuser-server"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "ports": [{"port": "notebook-port"}],
                    "from": [{"podSelector": {"matchLabels": {"hub.jupyter.org/network-access-singleuser": "true"}}}],
                }
            ],
            "egress": [
                {
                    "ports": [{"port": 8081}],
                    "to": [{"podSelector": {"matchLabels": {"app": "jupyterhub", "component": "hub"}}}],
                },
                {
                    "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
                    "to": [{"ipBlock": {"cidr": cidr}} for cidr in (*PRIVATE, "169.254.169.254/32")],
                },
                {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [*PRIVATE, "169.254.169.254/32"]}}]},
            ],
        },
    },
    {
        "kind": "NetworkPolicy",
        "metadata": {"name": "hub", "namespace": "hub"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "jupyterhub", "component": "hub"}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "ports": [{"port": "http"}, {"port": 8081}],
                    "from": [{"podSelector": {"matchLabels": {"hub.jupyter.org/network-access-hub": "true"}}}],
                }
            ],
        },
    },
]

NOTEBOOK = {"app": "jupyterhub", "component": "singleuser-server"}
WITH_SSH = {**NOTEBOOK, "ssh-bastion-server/notebook": "true"}


def _ours(component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "jupyterhub-bastion",
        "app.kubernetes.io/instance": "ssh",
        "app.kubernetes.io/component": component,
        **({"hub.jupyter.org/network-access-hub": "true"} if component == "api" else {}),
    }


ENDS = {
    "the bastion": End("10.1.0.5", _ours("bastion"), "hub"),
    "the api": End("10.1.0.6", _ours("api"), "hub"),
    "the secrets job": End("10.1.0.7", _ours("secrets"), "hub"),
    "a notebook with SSH": End("10.1.1.1", WITH_SSH, "hub", {"notebook-port": 8888}),
    "another notebook with SSH": End("10.1.1.2", WITH_SSH, "hub", {"notebook-port": 8888}),
    "a notebook without SSH": End("10.1.1.3", NOTEBOOK, "hub", {"notebook-port": 8888}),
    "a pod with the label elsewhere": End("10.1.2.1", WITH_SSH, "other"),
    "a bastion elsewhere": End("10.1.2.2", _ours("bastion"), "other"),
    "the hub": End("10.1.0.2", {"app": "jupyterhub", "component": "hub"}, "hub"),
    "the proxy": End(
        "10.1.0.3",
        {"app": "jupyterhub", "component": "proxy", "hub.jupyter.org/network-access-singleuser": "true"},
        "hub",
    ),
    "the ingress controller": End("10.1.3.1", {"app": "ingress"}, "ingress-nginx"),
    "Prometheus": End("10.1.3.2", {"app": "prometheus"}, "monitoring"),
    "the database": End("10.1.0.9", {"app": "postgresql"}, "hub"),
    "DNS": End("10.1.4.1", {"k8s-app": "kube-dns"}, "kube-system"),
    "the node's DNS cache": End("169.254.20.10"),
    "the Kubernetes API": End("192.0.2.10"),
    "its neighbour": End("192.0.2.11"),
    "a laptop": End("203.0.113.7"),
    "the cloud's metadata": End("169.254.169.254"),
    "any pod": End("10.1.5.1", {"app": "something"}, "default"),
}

ALLOWED = [
    ("a laptop", "the bastion", 2222),
    ("any pod", "the bastion", 2222),
    ("the bastion", "DNS", 53),
    ("the bastion", "the node's DNS cache", 53),
    ("the bastion", "the Kubernetes API", 6443),
    ("the bastion", "the api", 9081),
    ("the bastion", "a notebook with SSH", 2222),
    ("the bastion", "a notebook with SSH", 8080),
    ("the ingress controller", "the api", 9080),
    ("a notebook with SSH", "the api", 9082),
    ("the api", "the hub", 8081),
    ("the api", "DNS", 53),
    ("the secrets job", "the Kubernetes API", 6443),
    # What was allowed without us still is.
    ("the proxy", "a notebook with SSH", 8888),
    ("a notebook with SSH", "a laptop", 443),
    ("a notebook without SSH", "a laptop", 443),
]

FORBIDDEN = [
    ("a laptop", "the bastion", 9090),
    ("a notebook with SSH", "the bastion", 9090),
    ("the bastion", "the Kubernetes API", 443),
    ("the bastion", "its neighbour", 6443),
    ("the bastion", "a laptop", 22),
    ("the bastion", "a laptop", 6443),
    ("the bastion", "a laptop", 16443),
    ("the bastion", "the cloud's metadata", 80),
    ("the bastion", "the hub", 8081),
    ("the bastion", "the api", 9080),
    ("the bastion", "any pod", 2222),
    ("the bastion", "the database", 5432),
    ("the bastion", "a notebook without SSH", 2222),
    ("the bastion", "a notebook without SSH", 8080),
    ("the bastion", "a notebook with SSH", 8888),
    ("the bastion", "a notebook with SSH", 22),
    ("the bastion", "a pod with the label elsewhere", 2222),
    ("another notebook with SSH", "a notebook with SSH", 2222),
    ("another notebook with SSH", "a notebook with SSH", 8080),
    ("the proxy", "a notebook with SSH", 2222),
    ("the hub", "a notebook with SSH", 8080),
    ("any pod", "a notebook with SSH", 2222),
    ("a bastion elsewhere", "a notebook with SSH", 2222),
    # Where X-Forwarded-For is believed, there are proxies alone.
    ("a notebook with SSH", "the api", 9080),
    ("a notebook without SSH", "the api", 9080),
    ("a notebook without SSH", "the api", 9082),
    ("the ingress controller", "the api", 9082),
    ("any pod", "the api", 9082),
    ("a notebook with SSH", "the api", 9081),
    ("the ingress controller", "the api", 9081),
    ("a laptop", "the api", 9080),
    ("any pod", "the api", 9081),
    ("Prometheus", "the api", 9081),
    ("the api", "a notebook with SSH", 2222),
    ("the api", "the Kubernetes API", 6443),
    ("the api", "a laptop", 443),
    ("a laptop", "the secrets job", 8080),
    ("the secrets job", "a laptop", 443),
    # z2jh blocks private addresses, and we open one port of one part.
    ("a notebook with SSH", "the database", 5432),
    ("a notebook with SSH", "any pod", 80),
    ("a notebook with SSH", "the cloud's metadata", 80),
]


@pytest.fixture(scope="module")
def policies() -> list[dict[str, Any]]:
    return [*of_kind(rendered(), "NetworkPolicy"), *Z2JH]


@pytest.mark.parametrize(("source", "target", "port"), ALLOWED)
def test_this_flow_is_allowed(policies: list[dict[str, Any]], source: str, target: str, port: int) -> None:
    assert allowed(policies, ENDS[source], ENDS[target], port, "UDP" if "DNS" in target else "TCP")


@pytest.mark.parametrize(("source", "target", "port"), FORBIDDEN)
def test_this_flow_is_forbidden(policies: list[dict[str, Any]], source: str, target: str, port: int) -> None:
    assert not allowed(policies, ENDS[source], ENDS[target], port)


def test_a_notebook_may_still_reach_its_hub(policies: list[dict[str, Any]]) -> None:
    hub_alone = [one for one in policies if one["metadata"]["name"] != "hub"]
    assert allowed(hub_alone, ENDS["a notebook with SSH"], ENDS["the hub"], 8081)


def test_metrics_and_a_database_are_open_to_those_who_are_named() -> None:
    policies = [*of_kind(rendered(HIGHLY_AVAILABLE), "NetworkPolicy"), *Z2JH]
    assert allowed(policies, ENDS["Prometheus"], ENDS["the bastion"], 9090)
    assert allowed(policies, ENDS["Prometheus"], ENDS["the api"], 9081)
    assert allowed(policies, ENDS["the api"], ENDS["the database"], 5432)
    for stranger in ("a laptop", "any pod", "a notebook with SSH", "the ingress controller"):
        assert not allowed(policies, ENDS[stranger], ENDS["the bastion"], 9090)
    assert not allowed(policies, ENDS["the bastion"], ENDS["the database"], 5432)


def test_a_primehub_site_keeps_its_ports() -> None:
    policies = [*of_kind(rendered(PRIMEHUB), "NetworkPolicy"), *Z2JH]
    bastion, notebook = ENDS["the bastion"], ENDS["a notebook with SSH"]
    assert allowed(policies, bastion, notebook, 22)
    assert allowed(policies, bastion, notebook, 8080)
    assert not allowed(policies, bastion, notebook, 2222)
    assert allowed(policies, bastion, ENDS["the Kubernetes API"], 16443)
    assert not allowed(policies, bastion, ENDS["the Kubernetes API"], 6443)
    assert not allowed(policies, bastion, ENDS["a laptop"], 16443)


def test_images_of_primehub_and_of_ours_are_reached_side_by_side() -> None:
    values = merged(PRIMEHUB, {"notebooks": {"moreSshPorts": [2222, 22]}})
    policies = [*of_kind(rendered(values), "NetworkPolicy"), *Z2JH]
    for port in (22, 2222, 8080):
        assert allowed(policies, ENDS["the bastion"], ENDS["a notebook with SSH"], port)
        assert not allowed(policies, ENDS["another notebook with SSH"], ENDS["a notebook with SSH"], port)
    assert not allowed(policies, ENDS["the bastion"], ENDS["a notebook with SSH"], 2223)
    assert not allowed(policies, ENDS["the bastion"], ENDS["a laptop"], 2222)


def test_without_z2jhs_policy_no_notebook_is_selected_and_none_is_cut_off() -> None:
    policies = of_kind(rendered({"networkPolicy": {"besideSingleuserPolicy": False}}), "NetworkPolicy")
    assert allowed(policies, ENDS["the proxy"], ENDS["a notebook with SSH"], 8888)
    assert allowed(policies, ENDS["a notebook with SSH"], ENDS["the hub"], 8081)
    assert allowed(policies, ENDS["a notebook with SSH"], ENDS["the api"], 9082)
    assert not allowed(policies, ENDS["the bastion"], ENDS["a laptop"], 22)


def test_rendered_alone_the_notebook_policy_would_cut_servers_off() -> None:
    """The reason for the value: so it must not be rendered without z2jh's own beside it."""
    policies = of_kind(rendered(), "NetworkPolicy")
    assert not allowed(policies, ENDS["the proxy"], ENDS["a notebook with SSH"], 8888)


def test_a_site_without_access_to_kubernetes_has_no_way_to_its_api() -> None:
    policies = of_kind(rendered({"bastion": {"directory": "hub"}}), "NetworkPolicy")
    assert not allowed(policies, ENDS["the bastion"], ENDS["the Kubernetes API"], 6443)


def test_people_may_be_let_in_from_some_networks_only() -> None:
    values = merged({"networkPolicy": {"sshFrom": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}})
    policies = of_kind(rendered(values), "NetworkPolicy")
    assert allowed(policies, ENDS["a laptop"], ENDS["the bastion"], 2222)
    assert not allowed(policies, End("198.51.100.1"), ENDS["the bastion"], 2222)


def test_the_policies_select_the_pods_that_the_deployments_make() -> None:
    objects = rendered()
    for part in ("api", "bastion"):
        (deployment,) = [one for one in of_kind(objects, "Deployment") if one["metadata"]["name"] == f"{NAME}-{part}"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert _ours(part).items() <= labels.items()
