"""What people copy from the documents works."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, Object, environment, named, template

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


def test_primehubs_users_find_their_login_and_their_ports() -> None:
    objects: list[Object] = [one for one in yaml.safe_load_all(template(site("docs/from-primehub.md")).stdout) if one]
    variables = environment(objects, "bastion")
    assert variables["BASTION_LOGIN_JUMP_NAMES"] == "jump,limited-user"
    assert variables["BASTION_DIRECTORY_SSH_PORT"] == "22"
    assert "ssh-bastion-server/notebook=true" in variables["BASTION_DIRECTORY_SELECTOR"]
    pods = named(objects, "Deployment", "ssh-jupyterhub-bastion-bastion")["spec"]["template"]["metadata"]["labels"]
    assert pods["ssh-bastion-server/bastion"] == "true"


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
