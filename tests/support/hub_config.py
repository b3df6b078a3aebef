"""Why: the configuration of the JupyterHub that the tests start; what varies comes from the JSON file named below."""

# mypy: ignore-errors
# It runs where JupyterHub is installed, which is not where the types are checked.

import asyncio
import json
import os
import pwd
import sys
from pathlib import Path

from jupyterhub.proxy import Proxy

sys.path.insert(0, str(Path(__file__).parents[2] / "deploy" / "hub"))
from jupyterhub_bastion_hub import configure, grant_users

given = json.loads(Path(os.environ["HUB_UNDER_TEST"]).read_text())


class MemoryProxy(Proxy):
    """Keeps the routes and carries nothing: requests go to the hub directly, which saves a process and a second."""

    should_start = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.routes = {}

    async def add_route(self, routespec, target, data):
        self.routes[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec):
        self.routes.pop(routespec, None)

    async def get_all_routes(self):
        return self.routes


c = get_config()  # noqa: F821 - what JupyterHub gives to every configuration file
c.Application.log_level = given["log_level"]
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = given["hub_port"]
c.JupyterHub.bind_url = f"http://127.0.0.1:{given['port']}"
c.JupyterHub.db_url = f"sqlite:///{given['folder']}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{given['folder']}/cookie_secret"
c.ConfigurableHTTPProxy.pid_file = f"{given['folder']}/proxy.pid"
c.ConfigurableHTTPProxy.command = [str(Path(sys.executable).with_name("configurable-http-proxy"))]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{given['proxy_api_port']}"
c.ConfigurableHTTPProxy.auth_token = given["proxy_token"]
if not given["proxy"]:
    c.JupyterHub.proxy_class = MemoryProxy
c.JupyterHub.cleanup_servers = False
c.JupyterHub.allow_named_servers = True
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = given["password"]
c.SharedPasswordAuthenticator.admin_password = given["admin_password"]
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"admin"}
c.JupyterHub.last_activity_interval = 3600
# JupyterHub makes names small at login; a site's own authenticator need not.
c.Authenticator.username_map = {"bob.smith@example.org": "Bob.Smith@example.org"}

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = f"{given['folder']}/home/{{username}}"
c.Spawner.http_timeout = c.Spawner.start_timeout = 180
c.Spawner.poll_interval = given["poll_interval"]
c.Spawner.environment = {given["marker"]: given["marker_value"]}
c.Spawner.cmd = given["server_command"]
c.Spawner.args = given["server_args"]

if given["kubernetes"]:
    c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
    c.KubeSpawner.namespace = "hub"
    c.KubeSpawner.image = "notebook"
    c.KubeSpawner.delete_grace_period = 1
    c.KubeSpawner.environment = {given["marker"]: given["marker_value"]}

if given["kubernetes"] and given["existing_form"]:

    def note_the_pod(spawner, pod):
        pod.metadata.annotations["seen-by-hook"] = ",".join(sorted(pod.metadata.labels))
        return pod

    c.KubeSpawner.modify_pod_hook = note_the_pod
    c.KubeSpawner.profile_list = [
        {"display_name": "Small", "slug": "small", "default": True},
        {
            "display_name": "Large",
            "slug": "large",
            "kubespawner_override": {
                "extra_labels": {"size": "large"},
                "extra_annotations": {"jupyterhub-bastion/unix-user": pwd.getpwuid(os.getuid()).pw_name},
                "environment": {"SIZE": "large"},
                "cmd": [*given["server_command"], "as-the-profile-has-it"],
            },
        },
    ]
elif given["existing_form"]:

    def size_from_form(form_data):
        return {"size": form_data["size"][0]}

    def apply_size(spawner, user_options):
        spawner.environment = {**spawner.environment, "SIZE_FROM_FORM": user_options.get("size", "")}

    def note_the_hook(spawner):
        spawner.environment = {**spawner.environment, "HOOK_RAN": "yes"}

    c.Spawner.options_form = '<input name="size">'
    c.Spawner.options_from_form = size_from_form
    c.Spawner.apply_user_options = apply_size
    c.Spawner.pre_spawn_hook = note_the_hook

if not given["existing_form"]:

    class NoRoom(Exception):
        """A spawner that says no."""

        def __init__(self, words):
            super().__init__(words)
            self.jupyterhub_message = words

    async def as_chosen(spawner):
        """Some runs are slow, some fail, as the user chose."""
        await asyncio.sleep(spawner.user_options.get("slow", 0))
        if words := spawner.user_options.get("refuse"):
            raise NoRoom(words)

    c.Spawner.pre_spawn_hook = as_chosen

c.JupyterHub.services = [
    {"name": "the-tests", "api_token": given["admin_token"], "admin": True},
    {
        "name": "other",  # a service that has nothing to do with SSH, for tokens that it captured
        "api_token": given["other_token"],
        "oauth_client_id": "service-other",
        "oauth_redirect_uri": "http://127.0.0.1:9/oauth_callback",
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": ["read:servers!user"],
    },
]
c.JupyterHub.load_roles = [
    {
        "name": "the-tests",
        "services": ["the-tests"],
        "scopes": [
            "admin:users", "admin:servers", "admin:groups", "admin:server_state", "tokens", "shares", "read:hub",
            "access:servers", "access:services", "read:services", "shutdown", "custom:ssh:connect",
        ],
    },
]  # fmt: skip

configure(
    c,
    public_url=given["public_url"],
    api_url=given["pod_api_url"],
    api_token=given["service_token"],
    pod_side=given["pod_side"],
    pod_environment=given["pod_environment"],
    sharing=True,
    start_servers=given["start_servers"],
)
grant_users(c, {"access:services!service=other"})
