"""Why: runs in the hub's own environment; a line of JSON comes in, a line says what `configure` makes of it."""

# mypy: ignore-errors
# It runs where JupyterHub is installed, which is not where the types are checked.

import json
import os
import sys
from datetime import datetime
from pathlib import Path

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


for line in sys.stdin:
    name, argument = json.loads(line)
    print(json.dumps({"configure": configure, "instance_id": instance_id}[name](argument)), flush=True)
