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


@pytest.mark.parametrize(("values", "warned"), [({}, False), (INGRESS, True), (NAMED, False)])
def test_an_ingress_whose_proxies_are_not_named_is_warned_of(
    server: ApiServer, tmp_path: Path, values: Mapping[str, Any], warned: bool
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(server.kubeconfig()))
    at = ("--kubeconfig", str(kubeconfig), "--namespace", NAMESPACE, "--dry-run=server")
    done = helm("install", RELEASE, str(CHART), *at, values=merged(MINIMAL, values))
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "Let people in" in notes
    assert ("api.trustedProxies is empty" in notes) is warned
