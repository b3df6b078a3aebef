"""Why: the chart's tests need helm, and some a Kubernetes API server; where there is none they say so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chart.apiserver import TOOLS, ApiServer, running
from tests.chart.rendering import NAMESPACE, why_not


@pytest.fixture(scope="session", autouse=True)
def helm_is_here() -> None:
    if reason := why_not(["helm"]):
        pytest.skip(reason)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """etcd and kube-apiserver for the tests of one file."""
    if reason := why_not(TOOLS):
        pytest.skip(reason)
    with running(tmp_path_factory.mktemp("kubernetes")) as one:
        for name, level in ((NAMESPACE, "privileged"), ("staff", "privileged"), ("strict", "restricted")):
            labels = {"pod-security.kubernetes.io/enforce": level}
            answer = one.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
            assert answer.status == 201, answer
        yield one
