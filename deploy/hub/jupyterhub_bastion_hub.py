"""Why: the hub must know the service, and must start the pod side only for whoever ticked "Enable SSH".

Call `configure` at the end of `jupyterhub_config.py`:

    import sys
    sys.path.insert(0, "/srv/jupyterhub-bastion/deploy/hub")
    from jupyterhub_bastion_hub import configure

    configure(
        c,
        public_url="https://ssh.example.org",
        api_token_file="/srv/jupyterhub-bastion/hub-token",
        pod_side="/srv/jupyterhub-bastion/deploy/notebook/jupyterhub_bastion_notebook",
    )

At the end, because it adds to what is there (services, roles, the spawner class) and a later assignment
would throw that away. Whatever the spawner already does (forms, hooks, profiles) goes on: the spawner class
is extended, nothing of it is replaced. JupyterHub 5.5 and 6.

With KubeSpawner the box also marks the pod, so that the bastion finds it: the label that it selects by, and
annotations for the run, exactly, and for the ports. `user_options` cannot write any of these.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jupyterhub.app import JupyterHub
from jupyterhub.scopes import scope_definitions
from jupyterhub.utils import maybe_future
from traitlets.config import LazyConfigValue
from traitlets.utils.importstring import import_item

if TYPE_CHECKING:
    from jupyterhub.spawner import Spawner
    from traitlets.config import Config

TOKEN_VARIABLE = "SSH_BASTION_HUB_TOKEN"  # noqa: S105 - the name of a variable
OPTION = "enable_ssh"
"""The key in `user_options`. Only the JSON value `true` means yes; the rest of `user_options` is not read."""

SERVICE_SCOPES = ("list:users", "read:servers", "read:users", "read:users:shares")
"""What the api asks JupyterHub with its own token: who runs which server since when, groups, shares, and when a user
was made, since a name may be given to somebody else."""

ACTIVITY_SCOPE = "users:activity"
"""With it the api tells JupyterHub that a server is used, so that the idle culler lets it be."""

LABEL = ("ssh-bastion-server/notebook", "true")
"""The label of pods with SSH; older bastions selected by it too, and so do NetworkPolicies."""

ANNOTATION = "jupyterhub-bastion/"
"""Followed by `instance` (JupyterHub's `started` of the run, in microseconds), `ssh-port`, `key-port`."""

IN_PODS = {"SSH_BASTION_SSH_PORT": "2222", "SSH_BASTION_KEY_PORT": "8080"}
"""A pod has an address of its own, so its ports can be the same everywhere, and a NetworkPolicy can name them."""

IN_FRONT = """\
if { [ -r "$2/__main__.py" ] || { [ -f "$2" ] && [ -r "$2" ]; }; } &&
  "$1" -c "import sys; sys.exit(sys.version_info < (3, 9))" 2>/dev/null
then exec "$@"; fi
echo "[notebook-ssh] SSH stays off: this image has no pod side in $2, or no Python 3.9 by the name $1.\
 Use an image with both, or have an init container lend the pod side: docs/kubernetes.md says how." >&2
shift 3
exec "$@"
"""
"""What a shell is told before Python, the pod side, `--` and the server's command: the hub does not know what is in an
image, and whoever ticks the box on one without the pod side wants to work all the same. Kubernetes reads `$(` and `$$`
in a pod's words, so neither is in these."""

CHECK_BOX = f"""
<div class="form-check mb-3">
  <input class="form-check-input" type="checkbox" id="{OPTION}" name="{OPTION}" value="on">
  <label class="form-check-label" for="{OPTION}">Enable SSH</label>
</div>
"""


@dataclass(frozen=True, slots=True)
class PodSide:
    """How the pod side is started in front of the single-user server, and where it finds the api.

    Without a command the image starts it by itself, when `SSH_BASTION_ENABLE` is set.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def wrap(self, server: Sequence[str]) -> list[str]:
        return [*self.command, "--", *server] if self.command else list(server)

    def wrap_in_pod(self, server: Sequence[str]) -> list[str]:
        """The same where the image may lack the pod side: then the server starts alone, and its log says so."""
        return ["sh", "-c", IN_FRONT, "sh", *self.wrap(server)] if self.command else list(server)


def configure(
    c: Config,
    *,
    public_url: str,
    pod_side: str | Path | None,
    service: str = "ssh",
    api_token: str | None = None,
    api_token_file: str | Path | None = None,
    api_url: str | None = None,
    pod_python: str = sys.executable,
    pod_environment: Mapping[str, str] | None = None,
    sharing: bool = False,
    start_servers: bool = False,
    activity: bool = True,
) -> None:
    """Add the api as a service, its role, the users' scopes and the check box to the configuration `c`.

    public_url       where browsers reach the api, without a trailing slash
    pod_side         the pod side's folder or file, as the single-user server's machine sees it; None: the image
                     starts the pod side itself. With KubeSpawner an image that lacks it starts its server
                     alone, and the log says so
    service          the service's name, in small letters; scopes and the OAuth client id follow from it
    api_token[_file] the secret shared with the api; default: the variable SSH_BASTION_HUB_TOKEN
    api_url          where pods reach the api; default: public_url
    pod_python       the Python that runs the pod side; it needs nothing but the standard library
    pod_environment  more variables for the pod side
    sharing          let users share their servers (`shares!user`) by links; SSH is shared with the scope
                     `custom:<service>:connect`, which every user holds for the own servers. To share by name they
                     need `read:users:name` as well, with which everybody sees everybody's name
    start_servers    let the api start and stop servers for their owners (it also needs SSH_API_SERVERS_START=true)
    activity         let the api tell JupyterHub which servers are used over SSH (`users:activity`), so that the idle
                     culler lets them be
    Raises ValueError when the token is missing or short.
    """
    public_url = public_url.rstrip("/")
    token = _token(api_token, api_token_file)
    c.JupyterHub.services = [*_so_far(c.JupyterHub.services, []), service_entry(service, public_url, token)]
    scopes_of_api = [
        *SERVICE_SCOPES,
        *([ACTIVITY_SCOPE] if activity else ()),
        *(start_scopes() if start_servers else ()),
    ]
    role = {"name": f"{service}-service", "services": [service], "scopes": scopes_of_api}
    c.JupyterHub.load_roles = [*_so_far(c.JupyterHub.load_roles, []), role]
    connect = f"custom:{service}:connect"
    c.JupyterHub.custom_scopes = {
        **_so_far(c.JupyterHub.custom_scopes, {}),
        connect: {"description": "Open SSH sessions in the server."},
    }
    scopes = {f"access:services!service={service}", f"{connect}!user"} | ({"shares!user"} if sharing else set())
    grant_users(c, scopes)
    spawner = _spawner_class(c)
    in_pods = is_kubespawner(spawner)
    pods = PodSide(
        command=() if pod_side is None else (pod_python, str(pod_side)),
        environment={
            "SSH_BASTION_ENABLE": "1",
            "SSH_BASTION_API_URL": (api_url or public_url).rstrip("/"),
            **(IN_PODS if in_pods else {}),
            **(pod_environment or {}),
        },
    )
    extended = with_ssh(spawner, pods)
    c.JupyterHub.spawner_class = in_marked_pods(extended, pods) if in_pods else before_the_server(extended, pods)


def service_entry(service: str, public_url: str, token: str) -> dict[str, Any]:
    """The api as JupyterHub's OAuth client: own servers and shares may be read, nothing else."""
    return {
        "name": service,
        "display": False,
        "api_token": token,
        "oauth_client_id": f"service-{service}",
        "oauth_redirect_uri": f"{public_url}/oauth_callback",
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": ["read:servers!user", "read:users:groups!user", "read:users:shares!user"],
    }


def start_scopes() -> tuple[str, ...]:
    """The least that starting and stopping needs. JupyterHub 5.5 knows no scope for starting alone."""
    narrow = "start:servers" in scope_definitions
    return ("start:servers", "delete:servers") if narrow else ("servers",)


def grant_users(c: Config, scopes: set[str]) -> None:
    """Add scopes to every user's role.

    JupyterHub 6 adds `extra_user_scopes`, but ignores them where the role is spelled out; 5.5 knows only the latter.
    """
    roles = _so_far(c.JupyterHub.load_roles, [])
    spelled_out = [role for role in roles if role.get("name") == "user" and "scopes" in role]
    if spelled_out:
        role = spelled_out[0]
        changed = {**role, "scopes": [*role["scopes"], *sorted(scopes - set(role["scopes"]))]}
        c.JupyterHub.load_roles = [changed if each is role else each for each in roles]
    elif "extra_user_scopes" in JupyterHub.class_trait_names():
        c.JupyterHub.extra_user_scopes = {*_so_far(c.JupyterHub.extra_user_scopes, set()), *scopes}
    else:
        users = [role for role in roles if role.get("name") == "user"]
        others = [role for role in roles if role not in users]
        merged = {"name": "user", **(users[0] if users else {}), "scopes": ["self", *sorted(scopes)]}
        c.JupyterHub.load_roles = [*others, merged]


def instance_id(started: datetime) -> int:
    """JupyterHub's `started` (naive: UTC) of one run of a server, in microseconds since the epoch, exactly."""
    aware = started if started.tzinfo else started.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def with_ssh(spawner: type[Spawner], pods: PodSide) -> type[Spawner]:
    """The spawner class with the check box; everything it did before it still does."""

    class SshSpawner(spawner):  # type: ignore[misc]
        @property
        def ssh_enabled(self) -> bool:
            """`user_options` is whatever the user sent: this one boolean is all that is taken from it."""
            return isinstance(self.user_options, dict) and self.user_options.get(OPTION) is True

        async def get_options_form(self) -> str:
            return f"{await super().get_options_form() or ''}{CHECK_BOX}"

        async def run_options_from_form(self, form_data: dict[str, list[Any]]) -> dict[str, Any]:
            rest = {key: value for key, value in form_data.items() if key != OPTION}
            options = await maybe_future(super().run_options_from_form(rest))
            return {**(options or {}), OPTION: form_data.get(OPTION) == ["on"]}

        def options_from_query(self, query_data: dict[str, list[Any]]) -> Any:
            """A link must not be able to tick the box."""
            return super().options_from_query({key: value for key, value in query_data.items() if key != OPTION})

        async def _run_apply_user_options(self, user_options: dict[str, Any]) -> None:
            await super()._run_apply_user_options({k: v for k, v in user_options.items() if k != OPTION})

        def get_env(self) -> dict[str, str]:
            environment: dict[str, str] = super().get_env()
            return {**environment, **pods.environment} if self.ssh_enabled else environment

    return SshSpawner


def before_the_server(spawner: type[Spawner], pods: PodSide) -> type[Spawner]:
    """The spawner of processes or containers that starts the pod side, which becomes the server."""

    class SshSpawner(spawner):  # type: ignore[misc]
        cmd: list[str] | None

        async def start(self) -> Any:
            """The object outlives the run, so the command is put back: the next run may be without SSH."""
            plain = self.cmd
            if self.ssh_enabled and plain:
                self.cmd = pods.wrap(plain)
            try:
                return await maybe_future(super().start())
            finally:
                self.cmd = plain

    return SshSpawner


def in_marked_pods(spawner: type[Spawner], pods: PodSide) -> type[Spawner]:
    """The same for KubeSpawner, where profiles may choose another command at the last moment: the finished pod is
    changed, before the administrator's `modify_pod_hook` sees it."""

    class SshKubeSpawner(spawner):  # type: ignore[misc]
        async def get_pod_manifest(self) -> Any:
            pod = await maybe_future(super().get_pod_manifest())
            if self.ssh_enabled:
                mark(pod, pods, instance_id(self.orm_spawner.started))
            return pod

    return SshKubeSpawner


def mark(pod: Any, pods: PodSide, instance: int) -> None:
    """Make a pod (`V1Pod`) one with SSH: its label, its annotations, its port, and the pod side before its command."""
    ssh_port, key_port = (pods.environment[name] for name in IN_PODS)
    notebook = pod.spec.containers[0]
    if notebook.args:
        notebook.args = pods.wrap_in_pod(notebook.args)
    elif pods.command:
        raise NoCommand
    pod.metadata.labels = {**(pod.metadata.labels or {}), LABEL[0]: LABEL[1]}
    pod.metadata.annotations = {
        **(pod.metadata.annotations or {}),
        f"{ANNOTATION}instance": str(instance),
        f"{ANNOTATION}ssh-port": ssh_port,
        f"{ANNOTATION}key-port": key_port,
    }
    own_port = notebook.ports[0]  # KubeSpawner always names the server's; ours is of the same class
    notebook.ports = [*notebook.ports, type(own_port)(name="ssh", container_port=int(ssh_port), protocol="TCP")]


class NoCommand(Exception):
    """The pod side cannot stand in front of a command that only the image knows."""

    jupyterhub_message = (
        "SSH cannot be enabled: this hub does not say what its images run. "
        "Its administrator has to set KubeSpawner.cmd, or pod_side=None for images that start SSH themselves."
    )

    def __str__(self) -> str:
        return self.jupyterhub_message


def is_kubespawner(spawner: type[Spawner]) -> bool:
    """Whether it is KubeSpawner or made from it, without importing it where it may not be installed."""
    return any(each.__module__.partition(".")[0] == "kubespawner" for each in spawner.__mro__)


def _spawner_class(c: Config) -> Any:
    """The spawner class that the configuration names: a class, a dotted name, an entry point, or the default."""
    trait = JupyterHub.spawner_class
    named = c.JupyterHub.get("spawner_class", trait.default_value)
    if not isinstance(named, str):
        return named
    entry_points = trait.load_entry_points()
    return entry_points[named.lower()].load() if named.lower() in entry_points else import_item(named)


def _token(given: str | None, file: str | Path | None) -> str:
    if given is None:
        given = Path(file).read_text() if file is not None else os.environ.get(TOKEN_VARIABLE, "")
    token = given.strip()
    if len(token) < 32:
        raise ValueError(f"The api's token has fewer than 32 characters: set api_token_file or {TOKEN_VARIABLE}.")
    return token


def _so_far(value: Any, empty: Any) -> Any:
    """What the configuration holds under a name: spelled out, only added to, or nothing yet."""
    return value.get_value(empty) if isinstance(value, LazyConfigValue) else value
