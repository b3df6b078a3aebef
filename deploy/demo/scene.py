"""Why: where everything of one demo is: its folder, ports, addresses and secrets, decided once."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_USUAL_PORTS = (8000, 8081, 8001, 9080, 9081, 2222)
USERS = ("alice", "bob")


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports on 127.0.0.1: those that the documentation shows, or free ones where these are taken."""

    hub: int
    hub_internal: int
    proxy_api: int
    api: int
    api_internal: int
    bastion: int


@dataclass(frozen=True, slots=True)
class Scene:
    """One demo. The secrets are in files with mode 0600 in `folder`, whose mode is 0700."""

    folder: Path
    ports: Ports
    password: str
    hub_bin: Path
    """The folder with the `jupyterhub` of its environment."""

    @property
    def hub_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.hub}"

    @property
    def hub_api_url(self) -> str:
        """The hub's REST API without the proxy in between."""
        return f"http://127.0.0.1:{self.ports.hub_internal}/hub/api"

    @property
    def public_url(self) -> str:
        """The api, as browsers see it."""
        return f"http://127.0.0.1:{self.ports.api}"

    @property
    def internal_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.api_internal}"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def homes(self) -> Path:
        """The notebook servers' homes, one per user."""
        return self.folder / "home"

    @property
    def laptop(self) -> Path:
        """What would be on the user's own computer: a key, its certificate, known hosts, a JupyterHub token."""
        return self.folder / "laptop"

    @property
    def hub_token(self) -> Path:
        """The secret between the hub and the api."""
        return self.folder / "hub-token"

    @property
    def admin_token(self) -> Path:
        """The demo's own token, to start and stop alice's servers."""
        return self.folder / "demo-token"

    @property
    def internal_secret(self) -> Path:
        """The secret between the api and the bastion; the api makes it."""
        return self.folder / "api" / "internal-secret"

    def hub_environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.hub_bin}:{system_path()}",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "DEMO_HUB_SETTINGS": str(self.folder / "hub.json"),
            # Never on a command line, where every user of the machine could read it.
            "CONFIGPROXY_AUTH_TOKEN": (self.folder / "proxy-token").read_text(),
        }

    def api_environment(self) -> dict[str, str]:
        return {
            "PATH": system_path(),
            "LANG": "C.UTF-8",
            "SSH_API_PUBLIC_URL": self.public_url,
            "SSH_API_PODS_UNIX_USER": pwd.getpwuid(os.geteuid()).pw_name,
            "SSH_API_STATE_DIRECTORY": str(self.folder / "api"),
            "SSH_API_HUB_URL": self.hub_url,
            "SSH_API_HUB_API_URL": self.hub_api_url,
            "SSH_API_HUB_TOKEN_FILE": str(self.hub_token),
            "SSH_API_LISTEN_PORT": str(self.ports.api),
            "SSH_API_INTERNAL_PORT": str(self.ports.api_internal),
            "SSH_API_BASTION_PORT": str(self.ports.bastion),
            "SSH_API_SERVERS_START": "true",
            "SSH_API_LOG_AUDIT_FILE": str(self.logs / "api-audit.log"),
        }

    def bastion_environment(self) -> dict[str, str]:
        return {
            "PATH": system_path(),
            "LANG": "C.UTF-8",
            "BASTION_STATE_DIRECTORY": str(self.folder / "bastion"),
            "BASTION_LISTEN_PORT": str(self.ports.bastion),
            "BASTION_API_URL": self.internal_url,
            "BASTION_API_SECRET_FILE": str(self.internal_secret),
            "BASTION_LOG_AUDIT_FILE": str(self.logs / "bastion-audit.log"),
        }


def system_path() -> str:
    return "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def set_up(folder: Path, hub_bin: Path) -> Scene:
    """Fill `folder`, which is empty and private, with everything that has to be there before the first start."""
    scene = Scene(folder=folder, ports=choose_ports(), password=secrets.token_urlsafe(9), hub_bin=hub_bin)
    for path in (scene.logs, scene.homes, scene.laptop, folder / "api", folder / "bastion", folder / "run"):
        path.mkdir(mode=0o700)
    for user in USERS:
        (scene.homes / user / ".ssh").mkdir(mode=0o700, parents=True)
    for file in (scene.hub_token, scene.admin_token, folder / "proxy-token"):
        write_private(file, secrets.token_hex(32))
    settings = {
        "folder": str(folder),
        "home": str(scene.homes),
        "port": scene.ports.hub,
        "hub_port": scene.ports.hub_internal,
        "proxy_api_port": scene.ports.proxy_api,
        "proxy_command": str(scene.hub_bin / "configurable-http-proxy"),
        "users": USERS,
        "password": scene.password,
        "demo_token": scene.admin_token.read_text(),
        "hub_token_file": str(scene.hub_token),
        "public_url": scene.public_url,
        "pod_side": str(ROOT / "deploy" / "notebook" / "jupyterhub_bastion_notebook"),
        "pod_python": str(scene.hub_bin / "python"),
        "runtime": str(folder / "run"),
    }
    write_private(folder / "hub.json", json.dumps(settings))
    return scene


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read, not even for a moment."""
    path.touch(mode=0o600)
    path.write_text(text)


def choose_ports(usual: Sequence[int] = _USUAL_PORTS) -> Ports:
    """The usual ports, each replaced by a free one when somebody listens there."""
    held: list[socket.socket] = []
    try:
        for port in usual:
            held.append(_hold(port) or _hold(0) or sys.exit("There is no free port on 127.0.0.1."))
        return Ports(*(each.getsockname()[1] for each in held))
    finally:
        for each in held:
            each.close()


def _hold(port: int) -> socket.socket | None:
    """A listening socket, so that no port is chosen twice and none that somebody uses; None when it is taken."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier demo may linger
    try:
        holder.bind(("127.0.0.1", port))
        holder.listen()
    except OSError:
        holder.close()
        return None
    return holder
