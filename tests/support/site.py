"""Why: limits, several processes and proxies are the bastion's own matter, so their tests need no JupyterHub.

`Site` is a bastion as real processes, one real sshd as alice's pod, OpenSSH's client for alice, and a double of the
api that lists the pod and signs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import httpx

from ca.keys import parse_public_key
from ca.limits import ALL
from ca.names import Instance, Server
from ca.policy import Grant
from ca.signer import FileSigner
from tests.bastion.authority.states import lines, state
from tests.support.hub import no_tls
from tests.support.internal_api import SECRET, InternalApi, internal_api
from tests.support.processes import die_with_parent
from tests.support.sshd import Sshd

LIMIT = 60.0
ROOT = Path(__file__).parents[2]
ALICE = Instance(Server("alice"), 1763000000000000)


class SiteFailed(Exception):
    """The bastion did not do what a test needs; the message ends with its log."""


@dataclass
class Client:
    """A running ssh."""

    process: asyncio.subprocess.Process

    async def talks(self, word: bytes) -> bool:
        """Whether the `cat` at its other end answers."""
        if self.process.stdin is None or self.process.stdout is None:
            return False
        self.process.stdin.write(word + b"\n")
        async with asyncio.timeout(LIMIT):
            return await self.process.stdout.readline() == word + b"\n"

    async def ends(self) -> tuple[int, bytes, bytes]:
        """Close its input; its exit status, output and errors when it has ended."""
        async with asyncio.timeout(LIMIT):
            output, errors = await self.process.communicate(b"")
        return self.process.returncode or 0, output, errors


@dataclass
class Site:
    """The bastion and what is around it."""

    folder: Path
    api: InternalApi
    sshd: Sshd
    signer: FileSigner
    settings: dict[str, str]
    port: int = 0
    bastion: asyncio.subprocess.Process | None = None
    _keys: list[Path] = field(default_factory=list)

    # -- the bastion

    async def start(self, *arguments: str) -> None:
        """`python -m bastion serve`, until it listens."""
        begins = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log, self.audit_file.open("ab") as audit:
            self.bastion = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "bastion", "serve", *arguments),
                cwd=ROOT,
                env=self.environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=audit,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        said = await self.logged(r"listening (?:with \d+ workers )?on \S+ port (\d+)", begins)
        self.port = int(said[1])

    async def end(self, by: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit status."""
        if self.bastion is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self.bastion.send_signal(by)
        try:
            async with asyncio.timeout(LIMIT):
                status = await self.bastion.wait()
        except TimeoutError:
            self.bastion.kill()
            raise SiteFailed(f"the bastion did not end\n{self.last_words}") from None
        self.bastion = None
        return status

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "PYTHONDEVMODE": "1",
            "PYTHONWARNINGS": "error",
            "BASTION_STATE_DIRECTORY": str(self.folder / "state"),
            "BASTION_LISTEN_PORT": "0",
            "BASTION_API_URL": self.api.url,
            "BASTION_API_SECRET_FILE": str(self.folder / "secret"),
            **self.settings,
        }

    @property
    def log(self) -> Path:
        return self.folder / "bastion.log"

    @property
    def audit_file(self) -> Path:
        return self.folder / "bastion.audit"

    @property
    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    def audit(self, name: str | None = None) -> list[dict[str, Any]]:
        """The audit lines so far; every line must be one."""
        read = [json.loads(line) for line in self.audit_file.read_text().splitlines()]
        return [line for line in read if name in (None, line["audit"])]

    async def logged(self, pattern: str, begins: int = 0) -> re.Match[str]:
        """Wait until the log holds this, at byte `begins` or later."""

        def look() -> re.Match[str] | None:
            return re.search(pattern, self.log.read_bytes()[begins:].decode(errors="replace"))

        found: list[re.Match[str]] = []

        def look_and_keep() -> bool:
            if (match := look()) is not None:
                found.append(match)
            return bool(found)

        await self.until(f"the log to say {pattern!r}", look_and_keep)
        return found[0]

    async def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait for something outside of this process."""
        end = time.monotonic() + LIMIT
        while not holds():
            if self.bastion is not None and self.bastion.returncode is not None:
                raise SiteFailed(f"the bastion ended with {self.bastion.returncode}\n{self.last_words}")
            if time.monotonic() > end:
                raise SiteFailed(f"waited in vain for {what}\n{self.last_words}")
            await asyncio.sleep(0.02)

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        """`python -m bastion …` as an operator types it: exit status, output, errors."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "bastion", *arguments),
            cwd=ROOT,
            env=self.environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(LIMIT):
            output, errors = await process.communicate()
        return process.returncode or 0, output.decode(), errors.decode()

    async def sessions(self) -> list[dict[str, Any]]:
        """What `sessions --json` says."""
        status, output, errors = await self.command("sessions", "--json")
        if status:
            raise SiteFailed(f"{errors}\n{self.last_words}")
        rows: list[dict[str, Any]] = json.loads(output)["sessions"]
        return rows

    async def metrics(self) -> dict[str, float]:
        """The metrics by name and labels as Prometheus writes them, without our prefix."""
        told = re.findall(r"metrics on (http://\S+/metrics)", self.log.read_text())
        async with httpx.AsyncClient(verify=no_tls(), trust_env=False, timeout=LIMIT) as client:
            answer = await client.get(told[-1])
        answer.raise_for_status()
        read = (line.rpartition(" ") for line in answer.text.splitlines() if line and not line.startswith("#"))
        return {name.removeprefix("jupyterhub_bastion_"): float(value) for name, _, value in read}

    async def metric(self, name: str) -> float:
        """One of them; 0 while it is absent."""
        return (await self.metrics()).get(name, 0.0)

    async def until_metric(self, name: str, holds: Callable[[float], bool]) -> float:
        """Wait until a metric is as wanted."""
        end = time.monotonic() + LIMIT
        while not holds(value := await self.metric(name)):
            if time.monotonic() > end:
                raise SiteFailed(f"{name} is {value}\n{self.last_words}")
            await asyncio.sleep(0.02)
        return value

    # -- people

    def key(self, name: str, *, certified: bool = True, user: str = "alice") -> Path:
        """The file of a private key, with a certificate of the user's for alice's server beside it."""
        path = self.folder / name
        private = asyncssh.generate_private_key("ssh-ed25519")
        path.touch(mode=0o600)
        path.write_bytes(private.export_private_key())
        if certified:
            now = int(time.time())
            public = parse_public_key(private.export_public_key())
            serial = (int(time.time() * 1000) << 20) + len(self._keys)
            grant = Grant(user, public, serial, (ALICE,), ALL, now - 60, now + 3600, None, as_admin=False)
            path.with_name(f"{name}-cert.pub").write_text(self.signer.sign_user(grant).line + "\n")
            self._keys.append(path)
        return path

    async def ssh(
        self, key: Path, *arguments: str, login: str = "alice", source: str = "127.0.0.1", log_level: str = "ERROR"
    ) -> Client:
        """`ssh alice@bastion …` from an address of this machine. What a bastion says before the end needs INFO."""
        options = (
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            f"LogLevel={log_level}",
            f"Port={self.port}",
            f"BindAddress={source}",
        )
        return Client(
            await asyncio.create_subprocess_exec(
                *("ssh", "-F", "none", "-i", str(key)),
                *(word for option in options for word in ("-o", option)),
                f"{login}@127.0.0.1",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder), "LANG": "C.UTF-8"},
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        )

    async def gets_in(self, key: Path, source: str = "127.0.0.1") -> bool:
        """Whether a command runs in the pod."""
        client = await self.ssh(key, "echo in", source=source)
        status, output, errors = await client.ends()
        if status:
            print(errors.decode(errors="replace"))
        return (status, output) == (0, b"in\n")


@asynccontextmanager
async def site(folder: Path, **settings: str) -> AsyncIterator[Site]:
    """A site whose bastion is not started yet; `settings` are without the prefix."""
    sshd = Sshd(folder / "pod", name="alice.hub")
    sshd.start()
    try:
        (folder / "ca").mkdir(mode=0o700)
        signer = FileSigner(folder / "ca", None)
        secret = folder / "secret"
        secret.touch(mode=0o600)
        secret.write_text(SECRET)
        async with internal_api(_state(sshd, signer)) as api:
            api.answers["/internal/hop-certificates"] = lambda body: _hop(sshd, body)
            api.answers["/internal/sessions"] = api.answers["/internal/activity"] = (200, {"heard": 0})
            api.answers["/internal/host-certificates"] = lambda body: _host(sshd, body)
            made = Site(folder, api, sshd, signer, {f"BASTION_{name}": value for name, value in settings.items()})
            try:
                yield made
            finally:
                await made.end()
    finally:
        sshd.stop()


def _state(sshd: Sshd, signer: FileSigner) -> dict[str, Any]:
    host_ca = parse_public_key(sshd.host_ca.export_public_key())
    trust = signer.public
    return state(
        trust={"user": lines(*trust.user), "host": [host_ca.line], "hop": lines(*trust.hop)},
        revocations={"everyone_before": 0, "serials": [], "users": {}, "servers": {}},
        enrolled=[
            {
                "login": ALICE.server.login,
                "instance": str(ALICE.id),
                "address": "127.0.0.1",
                "ssh_port": sshd.port,
                "key_port": 9,
                "unix_user": sshd.user,
                "host_key": parse_public_key(sshd.host_key.export_public_key()).line,
            }
        ],
    )


def _hop(sshd: Sshd, body: dict[str, str]) -> tuple[int, dict[str, Any]]:
    key = asyncssh.import_public_key(body["public_key"])
    certificate = sshd.user_ca.generate_user_certificate(
        key, "alice", principals=[sshd.user], valid_after="-1m", valid_before="+10m"
    )
    line = certificate.export_certificate().decode().strip()
    return 200, {"certificate": line, "valid_before": int(time.time()) + 600}


def _host(sshd: Sshd, body: dict[str, str]) -> tuple[int, dict[str, Any]]:
    key = asyncssh.import_public_key(body["public_key"])
    certificate = sshd.host_ca.generate_host_certificate(
        key, "bastion", principals=["127.0.0.1"], valid_after="-1m", valid_before="+1h"
    )
    line = certificate.export_certificate().decode().strip()
    return 200, {"certificate": line, "valid_before": int(time.time()) + 3600}
