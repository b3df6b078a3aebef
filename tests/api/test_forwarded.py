"""Why: in a cluster the proxy is a pod among notebooks, and no notebook may say for another address."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.forwarded import believable
from tests.support.hub import Hub
from tests.support.ports import Ports, new_key, open_ports

PODS = (ipaddress.ip_network("10.244.0.0/16"), ipaddress.ip_network("fd00:10::/64"))
PROXY, NOTEBOOK, OTHER, LAPTOP = "10.244.3.1", "10.244.1.5", "10.244.1.6", "203.0.113.7"


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("192.0.2.9, 203.0.113.7", "192.0.2.9, 203.0.113.7"),
        ("192.0.2.9, 10.244.1.5", "10.244.1.5"),
        ("10.244.1.6,192.0.2.9,10.244.1.5 , 198.51.100.2", "10.244.1.5, 198.51.100.2"),
        ("192.0.2.9, ::ffff:10.244.1.5", "::ffff:10.244.1.5"),
        ("192.0.2.9, FD00:10::5", "FD00:10::5"),
        ("192.0.2.9, nonsense", "192.0.2.9, nonsense"),
        ("", ""),
    ],
)
def test_what_a_pod_sent_through_a_proxy_ends_at_the_pods_own_address(told: str, left: str) -> None:
    assert believable(told, PODS) == left


@pytest.fixture
async def cluster(hub: Hub, tmp_path: Path) -> AsyncIterator[Ports]:
    """An api in a cluster whose ingress controller is in the pods' network."""
    networks = {"PODS_NETWORKS": "10.244.0.0/16", "LISTEN_TRUSTED_PROXIES": "10.244.0.0/16", "LISTEN_POD_PORT": "9082"}
    async with open_ports(hub, tmp_path / "state", **networks) as opened:
        yield opened


@pytest.mark.parametrize(
    ("port", "peer", "told", "sender"),
    [
        ("public", PROXY, NOTEBOOK, NOTEBOOK),
        ("public", PROXY, LAPTOP, None),
        ("public", PROXY, f"{OTHER}, {NOTEBOOK}", NOTEBOOK),
        ("public", PROXY, f"{LAPTOP}, {NOTEBOOK}", NOTEBOOK),
        ("pods", NOTEBOOK, OTHER, NOTEBOOK),
        ("pods", NOTEBOOK, LAPTOP, NOTEBOOK),
        ("pods", LAPTOP, NOTEBOOK, None),
    ],
)
async def test_a_notebook_enrols_its_own_address_and_no_other(
    hub: Hub, cluster: Ports, port: str, peer: str, told: str, sender: str | None
) -> None:
    await hub.start_server("alice")
    body = {"host_key": new_key(), "ssh_port": 40222, "key_port": 40080, "unix_user": "jovyan"}
    send = cluster.pods if port == "pods" else cluster.public
    token = await hub.server_token("alice")
    answer = await send("POST", "/enrolments", token, peer=peer, headers={"X-Forwarded-For": told}, json=body)
    assert answer.json().get("error") == (None if sender else "address_not_allowed"), answer.text
    assert [one.address for one in cluster.services.roster.listed] == ([sender] if sender else [])


@pytest.mark.parametrize("path", ["/", "/device", "/certificates", "/about", "/servers", "/internal/state", "/metrics"])
async def test_the_pods_own_port_has_nothing_for_people_and_nothing_for_bastions(lone: Ports, path: str) -> None:
    assert (await lone.pods("GET", path)).status_code == 404


@pytest.mark.parametrize("path", ["/enrolments/epoch", "/krl", "/ca.pub", "/healthz"])
async def test_the_pods_own_port_has_what_their_side_asks_for(lone: Ports, path: str) -> None:
    assert (await lone.pods("GET", path)).status_code == 200
