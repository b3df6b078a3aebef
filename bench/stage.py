"""Why: both ways into a pod, side by side: through the bastion, and through an sshd as jump host.

The pod, the jump host and the bastion (`python -m bastion serve`, default settings) are real; the api's internal port
is a double that decides and signs with the api's own code (`ca`). All is on loopback, in one temporary folder.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bench.credentials import ZONE, Credentials
from bench.openssh import Sshd, private, sshd, wait_for
from bench.processes import Cores, running
from ca.limits import ALL
from ca.names import Instance, Server
from tests.support.internal_api import SECRET, InternalApi
from tests.support.sshd import free_port

ROOT = Path(__file__).parents[1]
SERVER = Server("alice", "")
FIRST = 1_763_000_000_000_000
RUNS = 200
"""How many runs of the server the pod's sshd takes for its own, one after the other."""
_REPEAT_SECONDS = 5.0


class Route(Enum):
    """A way into the pod; the value is the name in the ssh configuration."""

    DIRECT = "direct"
    OPENSSH = "via-sshd"
    JUMP = "via-bastion"


class Cipher(Enum):
    """What the client asks for; the value is the name of the ssh configuration."""

    DEFAULT = "default"
    GCM = "aes128-gcm"


@dataclass(slots=True)
class Stage:
    """Everything that runs for the whole benchmark, and the bastion of the moment."""

    folder: Path
    cores: Cores
    credentials: Credentials
    api: InternalApi
    pod: Sshd
    bastion: Process | None = None
    bastion_port: int = 0
    jump: Sshd | None = None

    def instance(self, number: int = 0) -> Instance:
        """One of the runs that the pod takes for its own."""
        return Instance(SERVER, FIRST + number)

    def pid(self, route: Route) -> int:
        """The process whose family serves this route, apart from the pod."""
        process = self.jump.process if route is Route.OPENSSH and self.jump else self.bastion
        if process is None:
            raise RuntimeError("nothing serves this route now")
        return process.pid

    def ssh(self, route: Route, cipher: Cipher = Cipher.DEFAULT, program: str = "ssh") -> list[str]:
        """A client's command up to, and without, the destination, which is `route.value`."""
        return [program, "-F", str(self.folder / f"ssh-{cipher.value}")]

    def list_run(self, number: int | None) -> None:
        """Let the api list this run of the server, or none."""
        enrolled = [] if number is None else [self._enrolled(self.instance(number))]
        self.api.change(version=f"v{number}", enrolled=enrolled)

    def _enrolled(self, instance: Instance) -> dict[str, object]:
        return {
            "login": instance.server.login,
            "instance": str(instance.id),
            "address": "127.0.0.1",
            "ssh_port": self.pod.port,
            "key_port": 9,
            "unix_user": getpass.getuser(),
            "host_key": self.pod.host_key.line,
        }

    @asynccontextmanager
    async def serving(self, settings: Mapping[str, str] | None = None) -> AsyncIterator[None]:
        """A fresh bastion, with these settings and otherwise its defaults, and a fresh jump host, both on the measured
        core."""
        async with AsyncExitStack() as stack:
            self.jump = await stack.enter_async_context(
                sshd(
                    self.folder / "jump",
                    self.credentials,
                    ["jump.host"],
                    [self.instance(number).principal for number in range(RUNS)],
                    self.credentials.signer.public.user,
                    self.cores.pinned([]),
                    free_port(),
                )
            )
            self.list_run(0)
            self.bastion = await stack.enter_async_context(self._bastion(settings or {}))
            self._write_configurations()
            yield

    @asynccontextmanager
    async def _bastion(self, settings: Mapping[str, str]) -> AsyncIterator[Process]:
        folder = self.folder / "bastion"
        folder.mkdir(exist_ok=True, mode=0o700)
        secret = self.folder / "secret"
        private(secret, SECRET.encode())
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "BASTION_STATE_DIRECTORY": str(folder),
            "BASTION_LISTEN_PORT": "0",
            "BASTION_API_URL": self.api.url,
            "BASTION_API_SECRET_FILE": str(secret),
            **settings,
        }
        log = self.folder / "bastion.log"
        command = self.cores.pinned([sys.executable, "-m", "bastion", "serve"])
        with log.open("wb") as errors, (self.folder / "audit").open("wb") as audit:
            async with running(command, stderr=errors, stdout=audit, env=environment, cwd=ROOT) as process:
                said = await wait_for(log, b"listening on", process)
                self.bastion_port = int(said.partition(b"127.0.0.1 port ")[2].partition(b'"')[0])
                await wait_for(log, b" started", process)
                yield process

    def _write_configurations(self) -> None:
        if self.jump is None:
            raise RuntimeError("there is no jump host")
        here, user = self.folder, getpass.getuser()
        lines = [
            f"Host direct\n  HostName 127.0.0.1\n  Port {self.bastion_port}\n  User alice\n  HostKeyAlias bastion",
            f"Host bastion-jump\n  HostName 127.0.0.1\n  Port {self.bastion_port}\n  User jump\n  HostKeyAlias bastion",
            f"Host via-bastion\n  HostName alice.{ZONE}\n  User {user}\n  ProxyJump bastion-jump",
            f"Host sshd\n  HostName 127.0.0.1\n  Port {self.jump.port}\n  User {user}\n  HostKeyAlias jump.host",
            f"Host via-sshd\n  HostName 127.0.0.1\n  Port {self.pod.port}\n  User {user}\n"
            f"  HostKeyAlias alice.{ZONE}\n  ProxyJump sshd",
            f"Host *\n  IdentityFile {here}/id\n  CertificateFile {here}/id-cert.pub\n  IdentitiesOnly yes\n"
            f"  IdentityAgent none\n  StrictHostKeyChecking yes\n  UserKnownHostsFile {here}/known_hosts\n"
            "  GlobalKnownHostsFile /dev/null\n  BatchMode yes\n  ConnectTimeout 60\n  LogLevel ERROR",
        ]
        text = "\n".join(lines) + "\n"
        (here / "ssh-default").write_text(text)
        (here / "ssh-aes128-gcm").write_text(text + "  Ciphers aes128-gcm@openssh.com\n")

    async def keep_telling(self) -> None:
        """For ever: answer the bastion's open question, as an api that has nothing new does after a while."""
        while True:
            await asyncio.sleep(_REPEAT_SECONDS)
            self.api.change()


@asynccontextmanager
async def staged(folder: Path, cores: Cores) -> AsyncIterator[Stage]:
    """A pod and the api's double; `Stage.serving` adds what is measured."""
    credentials = Credentials(folder / "ca")
    public = credentials.signer.public
    api = InternalApi(
        {
            "version": "none",
            "epoch": "bench",
            "zone": ZONE,
            "heard_seconds_ago": 0.0,
            "raw_keys": {"direct": True, "capabilities": sorted(ALL)},
            "trust": {
                kind: [key.line for key in keys]
                for kind, keys in (("user", public.user), ("host", public.host), ("hop", public.hop))
            },
            "revocations": {"everyone_before": 0, "serials": [], "users": {}, "servers": {}},
            "enrolled": [],
        }
    )
    api.answers = {
        "/internal/hop-certificates": credentials.answer_hop,
        "/internal/host-certificates": credentials.answer_host,
    }
    private(folder / "id", credentials.client_key.export_private_key())
    (folder / "id.pub").write_bytes(credentials.client_key.export_public_key())
    principals = [Instance(SERVER, FIRST + number).principal for number in range(RUNS)]
    authorities = "".join(f"@cert-authority * {key.line}\n" for key in public.host)
    (folder / "known_hosts").write_text(authorities)
    await api.start()
    try:
        pod_names = [f"alice.{ZONE}"]
        async with sshd(
            folder / "pod", credentials, pod_names, principals, (*public.user, *public.hop), [], free_port()
        ) as pod:
            stage = Stage(folder, cores, credentials, api, pod)
            (folder / "id-cert.pub").write_text(credentials.user("alice", stage.instance()) + "\n")
            telling = asyncio.create_task(stage.keep_telling())
            try:
                yield stage
            finally:
                telling.cancel()
    finally:
        await api.stop()
        await asyncio.sleep(0.1)  # its connections end by themselves; cancelled, Python 3.11 would report them
