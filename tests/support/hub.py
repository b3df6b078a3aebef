"""Why: who may do what is decided by tokens that a real JupyterHub made, so the tests start a real one.

`Hub` runs JupyterHub 6 or 5.5 (see `--hub` in `tests/conftest.py`) as a child process with users alice, bob and
admin, the service "ssh" as `deploy/hub` sets it up, and a service "other" that has nothing to do with it.
Fixtures: `hub` (one hub per test run, emptied of servers, shares, groups and tokens after each test) and
`own_hub` (a hub for one test that stops, restarts or kills it).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import quote

import anyio
import httpx

from tests.support.processes import die_with_parent, end_marked

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
Release = Literal["6", "5.5"]
LIMIT = 180.0
"""Seconds: a real single-user server may take half a minute on a busy machine."""
MARKER = "JUPYTERHUB_BASTION_TEST"


class Cluster(Protocol):
    """A Kubernetes cluster that KubeSpawner finds through a file."""

    def kubeconfig(self) -> Path: ...


class HubFailed(Exception):
    """JupyterHub did not do what a test needs; the message ends with its log."""


def binaries(release: Release) -> Path:
    """The folder with the `jupyterhub` of one release."""
    variable, fallback = {"6": ("HUB6_BIN", ".venv/hub/bin"), "5.5": ("HUB55_BIN", ".venv/hub55/bin")}[release]
    return Path(os.environ.get(variable) or ROOT / fallback).absolute()


def free_port() -> int:
    """A port below the range that the kernel gives out by itself, so that it is still free when it is bound."""
    for _ in range(200):
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise HubFailed("no free port between 20000 and 32000")


def no_tls() -> ssl.SSLContext:
    """Every hub here speaks HTTP: reading the certificate store for each client would cost more than the request."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class Hub:
    """One JupyterHub. `start` and `stop` block; what talks to it is async and bound to no event loop."""

    folder: Path
    release: Release = "6"
    real_servers: bool = False
    """True: jupyterhub-singleuser. False: a stub that starts in a tenth of the time."""
    proxy: bool = False
    """True: the pure-Python configurable-http-proxy, so that user servers can be reached. False: the hub alone."""
    poll_interval: float = 30
    """Seconds between two looks of the hub at its servers' processes; JupyterHub's default."""
    pod_side: Path = ROOT / "deploy" / "notebook" / "jupyterhub_bastion_notebook"
    pod_environment: Mapping[str, str] = field(default_factory=dict)
    existing_form: bool = False
    """True: the administrator has a spawn form and hooks already."""
    cluster: Cluster | None = None
    """Where KubeSpawner makes pods; None: servers are processes of this machine."""
    start_servers: bool = True
    """Whether the api's token may start and stop servers."""
    log_level: str = "INFO"
    public_url: str = ""
    """Where the api is said to be; the OAuth redirect goes there. Default: a free port on loopback."""
    pod_api_url: str = ""
    """Where pods reach the api. Default: there, too."""

    password: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    admin_password: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    admin_token: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)
    service_token: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)
    """The api's token; it is also the OAuth client secret."""
    other_token: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)

    service = "ssh"
    client_id = "service-ssh"
    users = ("alice", "bob", "admin")

    def __post_init__(self) -> None:
        self.hub_port = free_port()
        self.port = free_port() if self.proxy else self.hub_port
        self.proxy_api_port = free_port()
        self.api_port = free_port()
        self.public_url = self.public_url or f"http://127.0.0.1:{self.api_port}"
        self.url = f"http://127.0.0.1:{self.port}"
        self.hub_url = f"{self.url}/hub"
        self.api_url = f"http://127.0.0.1:{self.hub_port}/hub/api"
        self.log = self.folder / "hub.log"
        self._marker = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None

    # -- the process ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the hub and wait until it answers; servers of an earlier run are taken over."""
        settings = self._write_settings()
        command = [str(binaries(self.release) / "jupyterhub"), "-f", str(HERE / "hub_config.py")]
        environment = {
            "PATH": f"{binaries(self.release)}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "HUB_UNDER_TEST": str(settings),
            MARKER: self._marker,
            **({"KUBECONFIG": str(self.cluster.kubeconfig())} if self.cluster is not None else {}),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - calls nothing but prctl
            )
        self._wait_until_it_answers(self._process)

    def stop(self) -> None:
        """End the hub, its proxy and every server that it started."""
        self._end(signal.SIGTERM)
        end_marked(MARKER, self._marker)

    def halt(self) -> None:
        """End the hub as an upgrade does: the servers stay."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the hub with SIGKILL: the servers stay, and so does a proxy."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.halt()
        self.start()

    def _end(self, by: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(by)
        try:
            self._process.wait(LIMIT / 6)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + LIMIT
        with httpx.Client(verify=no_tls(), trust_env=False) as client:
            while time.monotonic() < end:
                if process.poll() is not None:
                    raise HubFailed(f"JupyterHub ended with status {process.returncode}\n{self._log_tail()}")
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"{self.hub_url}/api/").status_code == 200:
                        return
                time.sleep(0.05)
        raise HubFailed(f"JupyterHub did not answer within {LIMIT:.0f} s\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def _write_settings(self) -> Path:
        for user in self.users:
            (self.folder / "home" / user).mkdir(parents=True, exist_ok=True)
        bin_folder = binaries(self.release)
        server_args = ["--allow-root"] if self.real_servers and os.geteuid() == 0 else []
        settings = {
            "folder": str(self.folder),
            "port": self.port,
            "hub_port": self.hub_port,
            "proxy": self.proxy,
            "proxy_api_port": self.proxy_api_port,
            "proxy_token": secrets.token_hex(24),
            "log_level": self.log_level,
            "password": self.password,
            "admin_password": self.admin_password,
            "admin_token": self.admin_token,
            "service_token": self.service_token,
            "other_token": self.other_token,
            "poll_interval": self.poll_interval,
            "marker": MARKER,
            "marker_value": self._marker,
            "server_command": (
                [str(bin_folder / "jupyterhub-singleuser")]
                if self.real_servers
                else [sys.executable, str(HERE / "stub_server.py"), str(os.getpid())]
            ),
            "server_args": server_args,
            "public_url": self.public_url,
            "pod_api_url": self.pod_api_url or None,
            "existing_form": self.existing_form,
            "start_servers": self.start_servers,
            "kubernetes": self.cluster is not None,
            "pod_side": str(self.pod_side),
            "pod_environment": dict(self.pod_environment),
        }
        path = self.folder / "settings.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(settings))
        return path

    # -- as an administrator ----------------------------------------------------------------------------------

    def client(self, token: str | None = None, **options: Any) -> httpx.AsyncClient:
        """A client whose relative URLs are the hub's REST API; `token=""` sends none, default: the tests' admin."""
        token = self.admin_token if token is None else token
        headers = {"Authorization": f"token {token}"} if token else {}
        options = {"base_url": self.api_url, "headers": headers, "timeout": LIMIT, **options}
        return httpx.AsyncClient(verify=no_tls(), trust_env=False, **options)

    async def request(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        async with self.client(token) as client:
            return await client.request(method, path, **options)

    async def _done(self, method: str, path: str, **options: Any) -> Any:
        answer = await self.request(method, path, **options)
        if answer.is_error:
            raise HubFailed(f"{method} {path}: {answer.status_code} {answer.text}\n{self._log_tail()}")
        return answer.json() if answer.content else None

    async def user(self, name: str) -> dict[str, Any]:
        """The user's model as an administrator sees it, server state (pid) included; the user is made if missing."""
        answer = await self.request("GET", f"/users/{quote(name)}")
        if answer.status_code == 404:
            await self._done("POST", f"/users/{quote(name)}")
            answer = await self.request("GET", f"/users/{quote(name)}")
        model: dict[str, Any] = answer.json()
        return model

    async def server(self, user: str, name: str = "") -> dict[str, Any] | None:
        """The model of an active server, None when it does not run."""
        found: dict[str, Any] | None = (await self.user(user))["servers"].get(name)
        return found

    async def start_server(
        self, user: str, name: str = "", *, ssh: object = False, wait: bool = True, **options: Any
    ) -> dict[str, Any]:
        """Start a server and wait until it is ready; `ssh`: the check box, `options`: the rest of the form."""
        await self.user(user)
        await self._done("POST", self._server_path(user, name), json={"enable_ssh": ssh, **options})
        with anyio.fail_after(LIMIT):
            while True:
                server = await self.server(user, name)
                if server is None:
                    raise HubFailed(f"the server {user}/{name} did not start\n{self._log_tail()}")
                if server["ready"] or not wait:
                    return server
                await anyio.sleep(0.05)

    async def stop_server(self, user: str, name: str = "", *, wait: bool = True) -> None:
        answer = await self.request("DELETE", self._server_path(user, name))
        if answer.status_code not in (202, 204):
            raise HubFailed(f"stop {user}/{name}: {answer.status_code} {answer.text}")
        with anyio.fail_after(LIMIT):
            while wait and await self.server(user, name) is not None:
                await anyio.sleep(0.02)

    async def server_pid(self, user: str, name: str = "") -> int:
        """The process that the spawner started: the pod side when SSH is enabled, else the server."""
        server = await self.server(user, name)
        if server is None:
            raise HubFailed(f"the server {user}/{name} does not run")
        return int(server["state"]["pid"])

    async def server_environment(self, user: str, name: str = "") -> dict[str, str]:
        """The environment with which the spawner started the server."""
        raw = Path(f"/proc/{await self.server_pid(user, name)}/environ").read_bytes()
        pairs = (pair.decode().partition("=") for pair in raw.split(b"\0") if pair)
        return {key: value for key, _, value in pairs}

    async def server_token(self, user: str, name: str = "") -> str:
        """The JUPYTERHUB_API_TOKEN of a running server, as code in the notebook reads it."""
        return (await self.server_environment(user, name))["JUPYTERHUB_API_TOKEN"]

    async def token(self, user: str, scopes: Sequence[str] | None = None, note: str = "test", **options: Any) -> str:
        """A token of `user`, minted by the hub; without scopes it may do whatever the user may."""
        await self.user(user)
        body = {"note": note, **({} if scopes is None else {"scopes": list(scopes)}), **options}
        made = await self._done("POST", f"/users/{quote(user)}/tokens", json=body)
        return str(made["token"])

    async def share(self, owner: str, name: str, to: str, scopes: Iterable[str] | None = None) -> None:
        """Share a server. Without `scopes`: its web pages and SSH; each scope is filtered to this server."""
        await self.user(to)
        wanted = ("access:servers", f"custom:{self.service}:connect") if scopes is None else tuple(scopes)
        body = {"user": to, "scopes": [f"{scope}!server={owner}/{name}" for scope in wanted]}
        await self._done("POST", f"/shares/{quote(owner)}/{quote(name)}", json=body)

    async def unshare(self, owner: str, name: str, user: str) -> None:
        await self._done("PATCH", f"/shares/{quote(owner)}/{quote(name)}", json={"user": user})

    async def set_groups(self, user: str, groups: Iterable[str]) -> None:
        """Make the user a member of exactly these groups."""
        present, wanted = set((await self.user(user))["groups"]), set(groups)
        known = {group["name"] for group in await self._done("GET", "/groups")}
        for group in wanted - known:
            await self._done("POST", f"/groups/{quote(group)}")
        for group in wanted - present:
            await self._done("POST", f"/groups/{quote(group)}/users", json={"users": [user]})
        for group in present - wanted:
            await self._done("DELETE", f"/groups/{quote(group)}/users", json={"users": [user]})

    async def clean(self) -> None:
        """Stop every server and make the users anew: their tokens, shares and servers go with the old ones."""
        for user in await self._done("GET", "/users"):
            for name in user["servers"]:
                await self.stop_server(user["name"], name)
            await self._done("DELETE", f"/users/{quote(user['name'])}")
        for group in await self._done("GET", "/groups"):
            await self._done("DELETE", f"/groups/{quote(group['name'])}")
        await self.make_users()

    async def make_users(self) -> None:
        for name in self.users:
            answer = await self.request("POST", f"/users/{name}", json={"admin": name == "admin"})
            if answer.status_code not in (201, 409):  # 409: is there
                raise HubFailed(f"make {name}: {answer.status_code} {answer.text}")

    @staticmethod
    def _server_path(user: str, name: str) -> str:
        return f"/users/{quote(user)}/" + (f"servers/{quote(name)}" if name else "server")

    # -- as a person with a browser ---------------------------------------------------------------------------

    async def login(self, user: str, password: str | None = None) -> httpx.AsyncClient:
        """A browser that has logged in through the hub's own form: use it as `async with await hub.login(...)`."""
        async with self.browser() as browser:
            await self.log_in_here(browser, f"{self.hub_url}/login", user, password)
        return self.browser(browser.cookies)

    def browser(self, cookies: httpx.Cookies | None = None) -> httpx.AsyncClient:
        """Keeps cookies, follows redirects, belongs to nobody yet."""
        return httpx.AsyncClient(
            verify=no_tls(),
            trust_env=False,
            base_url=self.url,
            follow_redirects=True,
            timeout=LIMIT,
            cookies=cookies,
        )

    async def log_in_here(
        self, browser: httpx.AsyncClient, url: str, user: str, password: str | None = None
    ) -> httpx.Response:
        """Open `url`; if it leads to the hub's login form, fill it in, and go on wherever the hub leads."""
        page = await browser.get(url)
        form = re.search(r'<form[^>]*action="([^"]*/hub/login[^"]*)"', page.text)
        if form is None:
            return page
        if password is None:
            password = self.admin_password if user == "admin" else self.password
        xsrf = next((cookie.value for cookie in browser.cookies.jar if cookie.name == "_xsrf"), None)
        action = page.url.join(form[1].replace("&amp;", "&"))
        return await browser.post(action, data={"username": user, "password": password, "_xsrf": xsrf or ""})
