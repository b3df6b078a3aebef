"""Why: what users get is the whole: a real JupyterHub, the api, the bastion and pods' sshd, spoken to by OpenSSH.

`System` adds the api and the bastion, each a process of its own as in production, to a `Hub`, and makes keys,
certificates and ssh commands for people. Everything is on loopback and in one temporary folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import anyio
import httpx

from ca.names import Server
from tests.support.hub import LIMIT, ROOT, Hub, free_port, no_tls
from tests.support.processes import die_with_parent

ACCESS = "access:services!service=ssh"


POD_SIDE = {"SSH_BASTION_LISTEN": "127.0.0.1", "SSH_BASTION_KEY_PORT": "0", "SSH_BASTION_POLL": "0.5"}
"""For servers that share this machine's address, and whose stop is waited for."""


class SystemFailed(Exception):
    """A part did not do what a test needs; the message ends with its log."""


@dataclass
class Process:
    """A part of the system: started, awaited, ended."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    output: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log, self.output.open("ab") as output:
            self.running = subprocess.Popen(
                [sys.executable, "-X", "dev", "-W", "error", *self.arguments],
                cwd=ROOT,
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - calls nothing but prctl
            )

    def end(self, by: signal.Signals = signal.SIGTERM) -> int:
        """End it and return its exit status."""
        if self.running is None:
            return 0
        self.running.send_signal(by)
        try:
            status = self.running.wait(LIMIT / 6)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()
            raise SystemFailed(f"{self.name} did not end\n{self.last_words}") from None
        self.running = None
        return status

    @property
    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


@dataclass
class System:
    """The hub, the api and the bastion."""

    hub: Hub
    folder: Path
    bastion_settings: Mapping[str, str] = field(default_factory=dict)
    api_settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.port = free_port()
        self.internal_port = free_port()
        self.state = self.folder / "api-state"
        self.bastion_state = self.folder / "bastion-state"
        self._log_begins = 0
        self.known_hosts = self.folder / "known_hosts"
        self.url = self.hub.public_url
        self.api = self._process(
            "api",
            {
                "SSH_API_PUBLIC_URL": self.url,
                "SSH_API_HUB_URL": self.hub.url,
                "SSH_API_HUB_API_URL": self.hub.api_url,
                "SSH_API_HUB_TOKEN": self.hub.service_token,
                "SSH_API_HUB_POLL_INTERVAL": "0.3",
                "SSH_API_LISTEN_PORT": str(self.hub.api_port),
                "SSH_API_INTERNAL_PORT": str(self.internal_port),
                "SSH_API_STATE_DIRECTORY": str(self.state),
                "SSH_API_BASTION_PORT": str(self.port),
                **self.api_settings,
            },
        )
        self.bastion = self._process(
            "bastion",
            {
                "BASTION_STATE_DIRECTORY": str(self.bastion_state),
                "BASTION_LISTEN_PORT": str(self.port),
                "BASTION_API_URL": f"http://127.0.0.1:{self.internal_port}",
                "BASTION_API_SECRET_FILE": str(self.state / "internal-secret"),
                **self.bastion_settings,
            },
        )

    def _process(self, name: str, environment: Mapping[str, str]) -> Process:
        log, output = self.folder / f"{name}.log", self.folder / f"{name}.audit"
        return Process(name, ["-m", name, "serve"], environment, log, output)

    # -- the parts ---------------------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[Self]:
        """The hub, the api and the bastion, until the block ends."""
        try:
            self.hub.start()
            self.start()
            yield self
        finally:
            try:
                self.stop()
            finally:
                self.hub.stop()

    def start(self) -> None:
        self.start_api()
        self.start_bastion()
        self.known_hosts.write_text(self.get("/known_hosts"))

    def stop(self) -> None:
        for part in (self.bastion, self.api):
            part.end()

    def start_api(self) -> None:
        self.api.start()
        self.wait("the api to be ready", lambda: self._answers("/readyz"), self.api)

    def start_bastion(self) -> None:
        self._log_begins = self.bastion.log.stat().st_size if self.bastion.log.exists() else 0
        self.bastion.start()
        self.wait("the bastion to listen", lambda: self._knows(f'port {self.port}"'), self.bastion)

    def _answers(self, path: str) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}{path}", verify=no_tls(), trust_env=False).status_code == 200
        return False

    def get(self, path: str) -> str:
        answer = httpx.get(f"{self.url}{path}", verify=no_tls(), trust_env=False, timeout=LIMIT)
        answer.raise_for_status()
        return answer.text

    def wait(self, what: str, condition: Callable[[], bool], part: Process | None = None) -> None:
        """Ask until it holds; a part that ended meanwhile is not waited for."""
        end = time.monotonic() + LIMIT / 2
        while not condition():
            if part is not None and part.running is not None and part.running.poll() is not None:
                raise SystemFailed(f"{part.name} ended with status {part.running.returncode}\n{part.last_words}")
            if time.monotonic() > end:
                raise SystemFailed(f"waited in vain for {what}\n{part.last_words if part else ''}")
            time.sleep(0.02)

    def audit(self, part: str, name: str | None = None) -> list[dict[str, Any]]:
        """The audit lines of `api` or `bastion` so far, of one kind or all."""
        text = (self.folder / f"{part}.audit").read_text()
        lines = [json.loads(line) for line in text.splitlines() if line.startswith('{"audit"')]
        return [line for line in lines if name is None or line["audit"] == name]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m bastion …`, as an operator on the same machine types it."""
        return subprocess.run(
            [sys.executable, "-m", "bastion", *arguments],
            cwd=ROOT,
            env={"PATH": os.defpath, **self.bastion.environment},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    # -- people ------------------------------------------------------------------------------------------------

    def person(self, user: str, label: str = "") -> Person:
        """Somebody with a key pair of her own and no certificate yet."""
        return Person.make(self, user, self.folder / f"person-{user}{label}")

    async def listed(self, user: str, server: str = "") -> None:
        """Wait until the bastion knows the server, so that it can be entered."""
        login = Server(user, server).login
        secret = (self.state / "internal-secret").read_text().strip()
        headers = {"Authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(verify=no_tls(), trust_env=False, headers=headers, timeout=LIMIT) as client:
            with anyio.fail_after(LIMIT / 2):
                while True:
                    state = (await client.get(f"http://127.0.0.1:{self.internal_port}/internal/state")).json()
                    wanted = [one["instance"] for one in state["enrolled"] if one["login"] == login]
                    if wanted and self._knows(f":{wanted[0]} started"):
                        return
                    await anyio.sleep(0.05)

    def _knows(self, what: str) -> bool:
        """Whether the bastion that runs now has logged this."""
        return what in self.bastion.log.read_bytes()[self._log_begins :].decode(errors="replace")

    async def start_server(self, user: str, server: str = "") -> None:
        """Start a server with SSH and wait until it can be entered."""
        await self.hub.start_server(user, server, ssh=True)
        await self.listed(user, server)

    def home(self, user: str) -> Path:
        return self.hub.folder / "home" / user


@dataclass
class Person:
    """A key pair, perhaps a certificate, and OpenSSH's clients run with nothing else."""

    system: System
    user: str
    folder: Path

    @classmethod
    def make(cls, system: System, user: str, folder: Path) -> Person:
        folder.mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id")], check=True)
        return cls(system, user, folder)

    @property
    def public_key(self) -> str:
        return (self.folder / "id.pub").read_text().strip()

    @property
    def certificate_file(self) -> Path:
        return self.folder / "id-cert.pub"

    async def certificate(self, **fields: object) -> dict[str, Any]:
        """Get a certificate with a token that JupyterHub minted for our service; it is kept beside the key."""
        token = await self.system.hub.token(self.user, [ACCESS])
        answer = await self.ask(token, **fields)
        if answer.status_code != 201:
            raise SystemFailed(f"{answer.status_code} {answer.text}")
        issued: dict[str, Any] = answer.json()
        self.certificate_file.write_text(issued["certificate"] + "\n")
        return issued

    async def ask(self, token: str, **fields: object) -> httpx.Response:
        """`POST /certificates` with any token."""
        async with httpx.AsyncClient(verify=no_tls(), trust_env=False, timeout=LIMIT) as client:
            return await client.post(
                f"{self.system.url}/certificates",
                headers={"Authorization": f"token {token}"},
                json={"public_key": self.public_key, **fields},
            )

    def options(self, *, port: bool = True) -> list[str]:
        chosen = ["-F", "none", "-i", str(self.folder / "id")]
        for option in (
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.system.known_hosts}",
            "GlobalKnownHostsFile=/dev/null",
            "BatchMode=yes",
            "ConnectTimeout=30",
            *([f"Port={self.system.port}"] if port else []),
        ):
            chosen += ["-o", option]
        return chosen

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder), "LANG": "C.UTF-8"}

    def run(
        self, program: str, *arguments: str, data: bytes = b"", port: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a client to its end, with `data` as its input."""
        return subprocess.run(
            [program, *self.options(port=port), *arguments],
            input=data,
            env=self.environment(),
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )

    def ssh(self, login: str, *command: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """`ssh LOGIN@bastion COMMAND` in direct mode."""
        return self.run("ssh", f"{login}@127.0.0.1", *command, data=data)

    def jump_command(self, jump: str = "jump") -> str:
        """The ProxyCommand of jump mode; `-J` gives no options to its inner ssh."""
        return " ".join(["ssh", *self.options(), "-W", "%h:%p", f"{jump}@127.0.0.1"])

    def jump(
        self, host: str, *command: str, user: str | None = None, jump: str = "jump", data: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """`ssh -J jump@bastion USER@HOST COMMAND`, end to end."""
        proxy = ["-o", f"ProxyCommand={self.jump_command(jump)}"]
        account = user or unix_user()
        return self.run("ssh", *proxy, f"{account}@{host}", *command, data=data, port=False)

    @contextlib.contextmanager
    def session(self, *arguments: str, port: bool = True) -> Iterator[subprocess.Popen[bytes]]:
        """A client that stays: its three streams are pipes. It is ended with the block."""
        with subprocess.Popen(
            ["ssh", *self.options(port=port), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(),
            bufsize=0,
        ) as client:
            try:
                yield client
            finally:
                client.kill()


def unix_user() -> str:
    """The account that the servers of these tests run as."""
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name
