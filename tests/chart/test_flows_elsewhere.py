"""Who may reach whom at sites that differ: several namespaces, and policies of which only some are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.chart.flows import End, allowed
from tests.chart.rendering import of_kind, rendered
from tests.chart.test_flows import ENDS, WITH_SSH, Z2JH

STAFF = End("10.1.6.1", WITH_SSH, "staff", {"notebook-port": 8888})
SEVERAL = {"notebooks": {"namespaces": ["hub", "staff"]}}
BESIDE = {**SEVERAL, "networkPolicy": {"alsoBesideIn": ["staff"]}}
Z2JH_VALUES = Path(__file__).parents[2] / "deploy" / "hub" / "z2jh-values.yaml"


def policies(*values: dict[str, Any]) -> list[dict[str, Any]]:
    return [*of_kind(rendered(*values), "NetworkPolicy"), *Z2JH]


def test_several_namespaces_are_reached_and_no_other() -> None:
    for values in (SEVERAL, BESIDE):
        here = policies(values)
        assert allowed(here, ENDS["the bastion"], STAFF, 2222)
        assert allowed(here, STAFF, ENDS["the api"], 9082)
        assert not allowed(here, STAFF, ENDS["the api"], 9080)
        assert not allowed(here, ENDS["a notebook with SSH"], STAFF, 2222)
        assert not allowed(here, ENDS["the bastion"], ENDS["a pod with the label elsewhere"], 2222)


def test_servers_in_a_namespace_without_z2jhs_policy_are_not_cut_off() -> None:
    here = policies(SEVERAL)
    assert allowed(here, ENDS["the proxy"], STAFF, 8888)
    assert allowed(here, STAFF, ENDS["a laptop"], 443)
    assert allowed(here, STAFF, ENDS["DNS"], 53, "UDP")
    assert allowed([one for one in here if one["metadata"]["name"] != "hub"], STAFF, ENDS["the hub"], 8081)


def test_where_a_policy_like_z2jhs_is_said_to_be_ours_stands_beside_it() -> None:
    here = policies(BESIDE)
    there = [
        {**one, "metadata": {**one["metadata"], "namespace": "staff"}} for one in Z2JH if one["spec"].get("egress")
    ]
    assert allowed([*here, *there], ENDS["the bastion"], STAFF, 2222)
    assert allowed([*here, *there], STAFF, ENDS["the api"], 9082)
    assert not allowed([*here, *there], ENDS["any pod"], STAFF, 2222)
    assert not allowed([*here, *there], STAFF, ENDS["a notebook with SSH"], 2222)


def test_a_site_whose_notebooks_are_all_elsewhere_gets_no_policy_for_them_at_home() -> None:
    objects = rendered({"notebooks": {"namespaces": ["staff"]}})
    assert not [one for one in of_kind(objects, "NetworkPolicy") if one["metadata"]["name"].endswith("-notebooks")]


def test_nobody_is_let_in_where_no_browsers_are_named() -> None:
    here = policies({"networkPolicy": {"browsersFrom": []}})
    for name in ("the ingress controller", "any pod", "a notebook with SSH", "a laptop"):
        assert not allowed(here, ENDS[name], ENDS["the api"], 9080)
    assert allowed(here, ENDS["a notebook with SSH"], ENDS["the api"], 9082)


def test_without_our_policies_z2jhs_own_take_the_rules_that_its_values_name() -> None:
    before = policies({"networkPolicy": {"enabled": False}})
    way_in = [(ENDS["the bastion"], ENDS["a notebook with SSH"], port) for port in (2222, 8080)]
    flows = [*way_in, (ENDS["a notebook with SSH"], ENDS["the api"], 9082)]
    assert not any(allowed(before, *flow) for flow in flows)
    text = Z2JH_VALUES.read_text()
    lines = text[text.index("# singleuser:\n") :].splitlines()
    rules = yaml.safe_load("\n".join(line.removeprefix("# ") for line in lines))["singleuser"]["networkPolicy"]
    spec = {key: [*Z2JH[0]["spec"][key], *rules[key]] for key in ("ingress", "egress")}
    after = [{**Z2JH[0], "spec": {**Z2JH[0]["spec"], **spec}}, *Z2JH[1:]]
    assert all(allowed(after, *flow) for flow in flows)
    assert not allowed(after, ENDS["any pod"], ENDS["a notebook with SSH"], 2222)
    assert not allowed(after, ENDS["a notebook with SSH"], ENDS["any pod"], 9082)
