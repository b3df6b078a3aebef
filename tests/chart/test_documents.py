"""What people copy from the documents works."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from bastion.directory.podspec import UNIX_USER
from bastion.settings import read_settings
from tests.chart.rendering import CHART, NAME, Object, environment, merged, named, template

ROOT = Path(__file__).parents[2]
PAGES = ("docs/kubernetes.md", "docs/from-primehub.md", "deploy/chart/README.md")


def blocks(page: str) -> list[Any]:
    found = re.findall(r"^ *```yaml\n(.*?)^ *```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    return [yaml.safe_load(textwrap.dedent(block)) for block in found]


def site(page: str) -> dict[str, Any]:
    """The page's values for this chart."""
    (values,) = [one for one in blocks(page) if "publicUrl" in one]
    result: dict[str, Any] = values
    return result


@pytest.mark.parametrize("page", PAGES)
def test_the_values_of_this_page_are_taken(page: str) -> None:
    done = template(site(page))
    assert done.returncode == 0, done.stderr
    assert [one for one in yaml.safe_load_all(done.stdout) if one]


def test_what_is_to_be_added_behind_a_proxy_is_taken() -> None:
    page = "docs/kubernetes.md"
    (more,) = [one for one in blocks(page) if "networkPolicy" in one]
    done = template(merged(site(page), more))
    assert done.returncode == 0, done.stderr
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    settings = read_settings(environment(objects, "bastion"))
    assert [str(one) for one in settings.proxy.networks] == ["10.244.3.0/24"]


def test_the_policy_for_cilium_selects_whatever_needs_the_kubernetes_api() -> None:
    (policy,) = [one for one in blocks("docs/kubernetes.md") if one.get("kind") == "CiliumNetworkPolicy"]
    chosen = policy["spec"]["endpointSelector"]
    objects = [one for one in yaml.safe_load_all(template(site("docs/kubernetes.md")).stdout) if one]
    selected, wanted = set(), set()
    for one in objects:
        if one["kind"] in ("Deployment", "Job"):
            pods, name = one["spec"]["template"], one["metadata"]["name"]
            labels = pods["metadata"]["labels"]
            if all(labels[key] == value for key, value in chosen["matchLabels"].items()) and all(
                each["operator"] == "In" and labels[each["key"]] in each["values"]
                for each in chosen["matchExpressions"]
            ):
                selected.add(name)
            if pods["spec"]["automountServiceAccountToken"]:
                wanted.add(name)
    assert selected == wanted == {f"{NAME}-bastion", f"{NAME}-secrets"}


def test_the_annotation_for_an_images_user_is_the_one_that_the_bastion_reads() -> None:
    servers = [one["singleuser"] for one in blocks("docs/kubernetes.md") if "singleuser" in one]
    ((profile,),) = [one["profileList"] for one in servers if "profileList" in one]
    assert list(profile["kubespawner_override"]["extra_annotations"]) == [UNIX_USER]


def test_the_commands_for_every_bastion_select_its_pods() -> None:
    text = (ROOT / "docs/kubernetes.md").read_text()
    (selector,) = re.findall(r"get pods -l (\S+) -o name", text)
    objects = [one for one in yaml.safe_load_all(template(site("docs/kubernetes.md")).stdout) if one]
    for part, chosen in (("bastion", True), ("api", False)):
        labels = named(objects, "Deployment", f"{NAME}-{part}")["spec"]["template"]["metadata"]["labels"]
        assert all(labels[key] == value for key, value in (one.split("=") for one in selector.split(","))) is chosen
        assert f"deploy/{NAME}-{part}" in text or part == "bastion"


def test_before_the_hub_knows_the_service_the_api_waits_for_no_secret_of_the_hubs() -> None:
    text = (ROOT / "docs/from-primehub.md").read_text()
    (name, key) = re.findall(r"create secret generic (\S+) --from-literal=(\w+)=", text)[0]
    objects = [one for one in yaml.safe_load_all(template(site("docs/from-primehub.md")).stdout) if one]
    volumes = named(objects, "Deployment", f"{NAME}-api")["spec"]["template"]["spec"]["volumes"]
    (token,) = [one["secret"] for one in volumes if one["name"] == "hub-token"]
    assert (token["secretName"], token["items"][0]["key"]) == (name, key)


def test_primehubs_users_find_their_login_and_their_ports() -> None:
    objects: list[Object] = [one for one in yaml.safe_load_all(template(site("docs/from-primehub.md")).stdout) if one]
    variables = environment(objects, "bastion")
    assert variables["BASTION_LOGIN_JUMP_NAMES"] == "jump,limited-user"
    assert variables["BASTION_DIRECTORY_SSH_PORT"] == "22"
    assert "ssh-bastion-server/notebook=true" in variables["BASTION_DIRECTORY_SELECTOR"]
    pods = named(objects, "Deployment", "ssh-jupyterhub-bastion-bastion")["spec"]["template"]["metadata"]["labels"]
    assert "ssh-bastion-server/bastion" not in pods  # PrimeHub's policy for its bastion opens two ports of the world


def test_every_value_that_the_pages_name_is_one() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    for page in PAGES[:2]:
        for name in re.findall(
            r"`((?:api|bastion|hub|networkPolicy|notebooks|secrets)(?:\.[A-Za-z]+)+)`", (ROOT / page).read_text()
        ):
            value = defaults
            if name.startswith(("hub.services", "hub.extraFiles", "bastion.settings")):
                continue
            for part in name.split("."):
                assert part in value, f"{page}: {name}"
                value = value[part]
