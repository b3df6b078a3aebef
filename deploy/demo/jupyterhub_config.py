"""Why: an ordinary hub on one machine, with SSH added the way an administrator adds it: the last lines."""

# mypy: ignore-errors
# It runs where JupyterHub is installed, which is not where the types are checked.

import json
import os
import sys
from pathlib import Path

demo = json.loads(Path(os.environ["DEMO_HUB_SETTINGS"]).read_text())

c = get_config()  # noqa: F821 - what JupyterHub gives to every configuration file
c.JupyterHub.bind_url = f"http://127.0.0.1:{demo['port']}"
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = demo["hub_port"]
c.JupyterHub.db_url = f"sqlite:///{demo['folder']}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{demo['folder']}/cookie_secret"
c.ConfigurableHTTPProxy.command = [demo["proxy_command"]]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{demo['proxy_api_port']}"
c.ConfigurableHTTPProxy.pid_file = f"{demo['folder']}/proxy.pid"

c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = demo["password"]
c.Authenticator.allowed_users = set(demo["users"])

c.JupyterHub.allow_named_servers = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = demo["home"] + "/{username}"
c.Spawner.http_timeout = c.Spawner.start_timeout = 180
c.Spawner.environment = {"XDG_RUNTIME_DIR": demo["runtime"]}
if os.geteuid() == 0:
    c.Spawner.args = ["--allow-root"]

c.JupyterHub.services = [{"name": "demo", "api_token": demo["demo_token"]}]
c.JupyterHub.load_roles = [
    {"name": "demo", "services": ["demo"], "scopes": ["servers!user=alice", "tokens!user=alice"]},
]

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from jupyterhub_bastion_hub import configure  # noqa: E402

configure(
    c,
    public_url=demo["public_url"],
    api_token_file=demo["hub_token_file"],
    pod_side=demo["pod_side"],
    pod_python=demo["pod_python"],
    # Several servers share this machine's address, so nobody can have a fixed port.
    pod_environment={"SSH_BASTION_LISTEN": "127.0.0.1", "SSH_BASTION_KEY_PORT": "0"},
    sharing=True,
    start_servers=True,
)
