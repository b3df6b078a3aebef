"""Why: what an installation leaves open is said where its administrator reads it, right after installing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chart.apiserver import ApiServer
from tests.chart.rendering import CHART, MINIMAL, NAMESPACE, RELEASE, helm, merged

INGRESS: Mapping[str, Any] = {"api": {"ingress": {"enabled": True, "className": "nginx"}}}
NAMED: Mapping[str, Any] = {"api": {**INGRESS["api"], "trustedProxies": ["10.1.0.0/16"]}}


SERVICE: Mapping[str, Any] = {"api": {"service": {"type": "LoadBalancer"}}}
POLICY: Mapping[str, Any] = {"networkPolicy": {"browsersFrom": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}}


def notes(server: ApiServer, folder: Path, *values: Mapping[str, Any]) -> str:
    """What is said after installing with these values."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(server.kubeconfig()))
    at = ("--kubeconfig", str(kubeconfig), "--namespace", NAMESPACE, "--dry-run=server")
    done = helm("install", RELEASE, str(CHART), *at, values=merged(MINIMAL, *values))
    assert done.returncode == 0, done.stderr
    said = done.stdout.partition("NOTES:")[2]
    assert "Let people in" in said
    return said


@pytest.mark.parametrize(("values", "warned"), [({}, False), (INGRESS, True), (NAMED, False)])
def test_an_ingress_whose_proxies_are_not_named_is_warned_of(
    server: ApiServer, tmp_path: Path, values: Mapping[str, Any], warned: bool
) -> None:
    assert ("api.trustedProxies is empty" in notes(server, tmp_path, values)) is warned


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ([], False),
        ([SERVICE], True),
        ([SERVICE, POLICY], False),
        ([SERVICE, {"networkPolicy": {"enabled": False}}], False),
    ],
)
def test_a_way_to_the_api_that_the_policy_closes_is_warned_of(
    server: ApiServer, tmp_path: Path, values: list[Mapping[str, Any]], warned: bool
) -> None:
    said = notes(server, tmp_path, *values)
    assert ("nobody reaches the api through its Service of type LoadBalancer" in said) is warned


def test_another_name_of_the_service_is_named_for_the_hub_as_well(server: ApiServer, tmp_path: Path) -> None:
    said = notes(server, tmp_path, {"hub": {"serviceName": "shell"}})
    assert "hub.services.shell: {}" in said
    assert "custom.ssh.service: shell" in said
