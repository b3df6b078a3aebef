"""What Zero to JupyterHub is given does in a real JupyterHub's configuration what its words say."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import NAME, container, environment, pod_specs, rendered
from tests.support.hub import Release, binaries

HUB = Path(__file__).parents[2] / "deploy" / "hub"
VALUES: dict[str, Any] = yaml.safe_load((HUB / "z2jh-values.yaml").read_text())
TOKEN = "t" * 64

# What z2jh's jupyterhub_config.py does around the piece, with its module `z2jh` made of the values.
PROGRAM = """
import json, sys, types
from traitlets.config import Config

given = json.load(sys.stdin)
module = types.ModuleType("z2jh")

def get_config(key, default=None):
    value = given["values"]
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return default
        value = value[part]
    return value

module.get_config = get_config
module.get_secret_value = lambda key, default=None: given["secrets"][key]
sys.modules["z2jh"] = module
c = Config()
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.services = [{"name": "other", "api_token": "o" * 32}]
for name, service in get_config("hub.services").items():
    token = given["secrets"][f"hub.services.{name}.apiToken"]
    c.JupyterHub.services.append({**service, "name": name, "api_token": token})
c.JupyterHub.load_roles = []
before = set(c.JupyterHub)
for name in sorted(given["values"]["hub"]["extraConfig"]):
    exec(compile(given["values"]["hub"]["extraConfig"][name], name, "exec"), {"c": c})
spawner = c.JupyterHub.spawner_class
json.dump({
    "services": c.JupyterHub.services,
    "roles": c.JupyterHub.load_roles,
    "extra": sorted(c.JupyterHub.get("extra_user_scopes", [])),
    "box": not isinstance(spawner, str) and spawner.__name__,
}, sys.stdout)
"""


def configured(release: Release, **ssh: Any) -> dict[str, Any]:
    mounted = Path(VALUES["hub"]["extraFiles"]["ssh"]["mountPath"])
    assert mounted.name == "jupyterhub_bastion_hub.py"
    service = ssh.get("service", "ssh")
    hub = {**VALUES["hub"], "services": {service: VALUES["hub"]["services"]["ssh"]}}
    text = json.dumps({"custom": {"ssh": {**VALUES["custom"]["ssh"], **ssh}}, "hub": hub})
    assert str(mounted.parent) in text
    values = json.loads(text.replace(str(mounted.parent), str(HUB)))
    done = subprocess.run(
        [binaries(release) / "python", "-c", PROGRAM],
        input=json.dumps({"values": values, "secrets": {f"hub.services.{service}.apiToken": TOKEN}}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_hub_knows_the_service_once_and_its_users_may_use_it(hub_release: Release) -> None:
    made = configured(hub_release)
    assert [one["name"] for one in made["services"]] == ["other", "ssh"]
    service = made["services"][1]
    assert service["api_token"] == TOKEN
    assert service["oauth_redirect_uri"] == "https://ssh.example.org/oauth_callback"
    users = [scope for role in made["roles"] if role["name"] == "user" for scope in role["scopes"]] + made["extra"]
    assert "access:services!service=ssh" in users
    assert [role["services"] for role in made["roles"] if "services" in role] == [["ssh"]]
    assert made["box"]


def test_another_name_of_the_service_is_said_once(hub_release: Release) -> None:
    made = configured(hub_release, service="shell")
    assert [(one["name"], one.get("oauth_client_id")) for one in made["services"]] == [
        ("other", None),
        ("shell", "service-shell"),
    ]
    assert made["services"][1]["api_token"] == TOKEN
    assert [role["services"] for role in made["roles"] if "services" in role] == [["shell"]]
    assert [one["name"] for one in configured(hub_release, service="shell", enabled=False)["services"]] == ["other"]


def test_the_switch_leaves_the_hub_as_it_was(hub_release: Release) -> None:
    made = configured(hub_release, enabled=False)
    assert [one["name"] for one in made["services"]] == ["other"]
    assert made["roles"] == made["extra"] == []
    assert made["box"] is False


def test_the_two_charts_mean_the_same_service_token_and_ports() -> None:
    objects = rendered()
    variables = environment(objects, "api")
    assert variables["SSH_API_SERVICE_NAME"] == VALUES["custom"]["ssh"]["service"]
    assert list(VALUES["hub"]["services"]) == [variables["SSH_API_SERVICE_NAME"]]
    (token,) = [v["secret"] for v in pod_specs(objects)[f"{NAME}-api"]["volumes"] if v["name"] == "hub-token"]
    assert token["items"][0]["key"] == "hub.services.ssh.apiToken"
    assert VALUES["custom"]["ssh"]["apiUrl"] == f"http://{NAME}-api-pods.hub.svc"
    (service,) = [one for one in objects if one["kind"] == "Service" and one["metadata"]["name"] == f"{NAME}-api-pods"]
    (port,) = service["spec"]["ports"]
    assert port["port"] == 80
    (target,) = [one for one in container(objects, "api")["ports"] if one["name"] == port["targetPort"]]
    assert str(target["containerPort"]) == variables["SSH_API_LISTEN_POD_PORT"]
    assert environment(objects, "bastion")["BASTION_DIRECTORY_SSH_PORT"] == "2222"


def test_the_pod_side_accepts_the_addresses_that_the_values_give_it() -> None:
    # It is a distribution of its own, which is not installed here.
    settings = importlib.import_module("deploy.notebook.jupyterhub_bastion_notebook.settings")
    address = VALUES["custom"]["ssh"]["apiUrl"]
    assert settings.check_url(address, private_http=False) == address


@pytest.mark.parametrize("name", ["Dockerfile.notebook"])
def test_the_notebook_image_has_the_pod_side_where_the_values_look(name: str) -> None:
    recipe = (HUB.parent / "images" / name).read_text()
    assert f" {VALUES['custom']['ssh']['podSide']}\n" in recipe
