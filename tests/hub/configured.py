"""Why: runs in the hub's own environment; a line of JSON comes in, a line says what `configure` makes of it."""

# mypy: ignore-errors
# It runs where JupyterHub is installed, which is not where the types are checked.

import asyncio
import json
import os
import sys
from datetime import datetime
from pathlib import Path

from jupyterhub.utils import maybe_future
from traitlets.config import Config

sys.path.insert(0, str(Path(__file__).parents[2] / "deploy" / "hub"))
import jupyterhub_bastion_hub as ours


def configure(given):
    os.environ.pop(ours.TOKEN_VARIABLE, None)
    os.environ.update(given["environment"])
    c = Config({"JupyterHub": given["config"]})
    for name, entries in given["appended"].items():
        c.JupyterHub[name].extend(entries)
    arguments = {"public_url": "https://ssh.example.org/", "pod_side": "/opt/pod", **given["arguments"]}
    try:
        ours.configure(c, **arguments)
    except (ValueError, OSError) as problem:
        return {"error": str(problem)}
    return {
        "services": c.JupyterHub.services,
        "roles": c.JupyterHub.load_roles,
        "scopes": sorted(c.JupyterHub.get("extra_user_scopes", ())),
        "custom_scopes": sorted(c.JupyterHub.custom_scopes),
        "spawner": [each.__name__ for each in c.JupyterHub.spawner_class.__mro__],
    }


def instance_id(text):
    return ours.instance_id(datetime.fromisoformat(text))


PROFILE = {"display_name": "Large", "slug": "large", "default": True, "kubespawner_override": {"image": "large"}}


async def profiles_later(spawner):
    return [PROFILE]


async def form_later(spawner):
    return "<input name=size>"


def own_reading(form, spawner=None):
    return {"read": sorted(form)}


HOOKS = {
    "profile_list, callable": {"profile_list": lambda spawner: [PROFILE]},
    "profile_list, async": {"profile_list": profiles_later},
    "options_form, async": {"options_form": form_later},
    "options_form, none": {"options_form": lambda spawner: None},
    "options_from_form, simple": {"options_from_form": "simple"},
    "options_from_form, own": {"options_from_form": own_reading},
    "apply_user_options, dict": {"apply_user_options": {"image": "image"}},
}


def hook(name):
    """What the extended KubeSpawner makes of a hook that an administrator has set, and of a ticked box."""
    os.environ[ours.TOKEN_VARIABLE] = "t" * 32
    c = Config({"JupyterHub": {"spawner_class": "kubespawner.KubeSpawner"}, "KubeSpawner": HOOKS[name]})
    ours.configure(c, public_url="https://ssh.example.org", pod_side="/opt/pod", pod_python="python3")
    return asyncio.run(used(c))


async def used(c):
    spawner = c.JupyterHub.spawner_class(config=c, _mock=True)
    form = {"enable_ssh": ["on"], "size": ["1"]}
    page = await spawner.get_options_form()
    if "Large" in page:
        form["profile"] = ["large"]
    options = await spawner.run_options_from_form(form)
    query = await maybe_future(spawner.options_from_query(form))
    await spawner._run_apply_user_options({"enable_ssh": True, "image": "theirs"})
    return {"page": page, "options": options, "query": query, "image": spawner.image}


def pod_command(given):
    """What a container is told to run."""
    return ours.PodSide((given["python"], given["pod_side"])).wrap_in_pod(given["server"])


FUNCTIONS = {"configure": configure, "instance_id": instance_id, "hook": hook, "pod_command": pod_command}

for line in sys.stdin:
    name, argument = json.loads(line)
    print(json.dumps(FUNCTIONS[name](argument)), flush=True)
