"""Names that YAML takes for numbers or switches are names all the same, in everything that is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from tests.chart.apiserver import ApiServer
from tests.chart.rendering import HIGHLY_AVAILABLE, MINIMAL, Object, merged, template

NAMED: Mapping[str, Any] = {
    "nameOverride": "2027",
    "hub": {"tokenSecret": {"name": "1", "key": "2"}},
    "secrets": {"existing": {"internal": "3", "cookie": "4", "hostKey": "5"}},
    "api": {
        "persistence": {"existingClaim": "12"},
        "ingress": {"enabled": True, "className": "6", "tlsSecretName": "7"},
        "priorityClassName": "null",
    },
    "bastion": {"priorityClassName": "null"},
}
OWN_DISK: Mapping[str, Any] = {"api": {"persistence": {"storageClassName": "8"}}}
ELSEWHERE: Mapping[str, Any] = {
    "notebooks": {"namespaces": ["2026", "2028"]},
    "secrets": {"existing": {"ca": "9"}},
    "api": {"database": {"existingSecret": "10", "key": "11"}},
}
SITES: Mapping[str, Mapping[str, Any]] = {
    "names of everything": NAMED,
    "a class of disks": OWN_DISK,
    "names of everything, several replicas": merged(NAMED, HIGHLY_AVAILABLE, ELSEWHERE),
}


def made(values: Mapping[str, Any], namespace: str, release: str) -> list[Object]:
    done = template(merged(MINIMAL, values), namespace, release)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def renamed(values: Any) -> Any:
    """The same with names that are nothing but names."""
    if isinstance(values, Mapping):
        return {key: renamed(value) for key, value in values.items()}
    if isinstance(values, list):
        return [renamed(value) for value in values]
    return f"n{values}" if isinstance(values, str) and values in ("null", *map(str, range(3000))) else values


def kinds(rendered: Any) -> Any:
    """What YAML takes everything for."""
    if isinstance(rendered, dict):
        return {key: kinds(value) for key, value in rendered.items()}
    return [kinds(value) for value in rendered] if isinstance(rendered, list) else type(rendered)


@pytest.mark.parametrize("site", SITES)
def test_names_like_numbers_and_switches_are_text(site: str) -> None:
    plain = made(renamed(SITES[site]), "n2026", "n-true")
    assert kinds(made(SITES[site], "2026", "true")) == kinds(plain)


@pytest.mark.parametrize("site", SITES)
def test_the_server_takes_objects_with_such_names(server: ApiServer, site: str) -> None:
    for namespace in ("2026", "2028"):
        assert server.ask("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}}).status in (201, 409)
    for one in made(SITES[site], "2026", "true"):
        answer = server.create(one, dry_run=True)
        assert answer.status == 201, (one["kind"], one["metadata"]["name"], answer)
