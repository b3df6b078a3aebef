"""Why: the relay is tested with a front that decides nothing of interest, and with everything else real.

`Door` is a bastion made of the relay alone: it lets one key in, and leads to one sshd.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from bastion.relay.front import (
    ChannelOpen,
    ChannelRequest,
    ClientLink,
    GlobalRequest,
    HostTrust,
    PodFailure,
    PodLink,
    RelayRefused,
    ToPod,
    Tunnel,
    Verdict,
)
from bastion.relay.limits import Algorithms, RelayLimits, default_algorithms
from bastion.relay.meanings import DirectTcp, Unknown
from bastion.relay.requests import needed_capability
from bastion.relay.wire import ClientSide, Entrance, HostKey, PodLogin, PodSide, connect_pod
from ca.errors import Reason, Refusal
from ca.limits import ALL, Capabilities
from tests.support.sshd import Sshd

ALGORITHMS = default_algorithms(fast_aes=True)


@dataclass
class Front:
    """Lets the door's key in and permits what the door permits; keeps what it was asked."""

    door: Door
    link: ClientLink
    offered: list[tuple[str, bytes]] = field(default_factory=list)
    proven: list[tuple[str, bytes]] = field(default_factory=list)
    asked: list[ChannelOpen | ChannelRequest | GlobalRequest] = field(default_factory=list)
    inside: list[tuple[str, bytes]] = field(default_factory=list)
    invitations: list[str] = field(default_factory=list)
    awaited: list[str] = field(default_factory=list)
    ended: list[Exception | None] = field(default_factory=list)
    pods_lost: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def saw(self, kind: type) -> object:
        """What was asked that means this, once it was."""
        async with asyncio.timeout(20):
            while True:
                for one in self.asked:
                    if isinstance(one.meaning, kind):
                        return one.meaning
                self.news.clear()
                await self.news.wait()

    def _keep(self, asked: ChannelOpen | ChannelRequest | GlobalRequest) -> None:
        self.asked.append(asked)
        self.news.set()

    async def offer(self, login: str, blob: bytes) -> bool:
        self.offered.append((login, blob))
        return blob in self.door.welcome or blob in self.door.useless

    async def prove(self, login: str, blob: bytes) -> Verdict:
        self.proven.append((login, blob))
        if blob in self.door.welcome:
            return Verdict(ok=login in self.door.logins)
        return Verdict(ok=False, sentence=self.door.useless.get(blob))

    def interactive(self, login: str) -> bool:
        del login
        return self.door.browser is not None

    async def invite(self, login: str) -> str | Refusal:
        self.invitations.append(login)
        await self.door.before_invite()
        return "Open https://ssh.example.org/activate?code=BCDF-GHJK and approve.\n"

    async def invited(self, login: str) -> bytes | str | Refusal:
        self.awaited.append(login)
        if self.door.browser is None:
            return Refusal(Reason.NOT_PERMITTED, "There is no browser here.")
        return await self.door.browser()

    def authenticated(self, login: str, blob: bytes) -> None:
        self.inside.append((login, blob))

    async def upstream(self) -> PodLink:
        self.door.dials += 1
        await self.door.before_dial()
        sshd = self.door.sshd
        key = asyncssh.generate_private_key("ssh-ed25519")
        try:
            pod = await connect_pod(
                self.link,
                "127.0.0.1",
                self.door.pod_port or sshd.port,
                login=PodLogin(sshd.user, key, sshd.certificate(key)),
                trust=self.door.trust,
                algorithms=self.door.algorithms,
            )
            self.door.pods.append(pod)
            return pod
        except PodFailure as failure:
            self.door.failures.append(failure)
            raise RelayRefused(f"Your server cannot be reached ({failure.trouble.value}).") from failure

    def decide_open(self, asked: ChannelOpen) -> ToPod | Tunnel | Refusal:
        self._keep(asked)
        if isinstance(asked.meaning, DirectTcp) and asked.meaning.host == "pod.hub":
            return Tunnel("127.0.0.1", self.door.tunnel_port or self.door.sshd.port)
        return self._judge(asked) or ToPod()

    def decide_request(self, asked: ChannelRequest) -> Refusal | None:
        self._keep(asked)
        return self._judge(asked)

    def decide_global(self, asked: GlobalRequest) -> Refusal | None:
        self._keep(asked)
        return self._judge(asked)

    def decide_pod_open(self, asked: ChannelOpen) -> Refusal | None:
        self._keep(asked)
        return self._judge(asked)

    def pod_lost(self) -> None:
        self.pods_lost += 1

    def closed(self, exc: Exception | None) -> None:
        self.ended.append(exc)
        self.door.ended.put_nowait(self)

    def _judge(self, asked: ChannelOpen | ChannelRequest | GlobalRequest) -> Refusal | None:
        needed = needed_capability(asked.meaning)
        if needed is None or isinstance(needed, Unknown) or needed in self.door.allowed:
            return None
        return Refusal(Reason.NOT_PERMITTED, f"{needed.value} is not permitted here; ask your administrator.")


async def _at_once() -> None:
    """Dial without waiting for anything."""


@dataclass
class Door:
    """A relay on a loopback port. Change its fields to change what the next connection meets."""

    sshd: Sshd
    directory: Path
    limits: RelayLimits = field(default_factory=RelayLimits)
    algorithms: Algorithms = ALGORITHMS
    allowed: Capabilities = ALL
    logins: frozenset[str] = frozenset({"alice"})
    welcome: set[bytes] = field(default_factory=set)
    useless: Mapping[bytes, str | None] = field(default_factory=dict)
    before_dial: Callable[[], asyncio.Future[None]] = _at_once  # type: ignore[assignment]
    before_invite: Callable[[], Awaitable[object]] = _at_once
    browser: Callable[[], Awaitable[bytes | str | Refusal]] | None = None
    """What becomes of a login in a browser; None: there are none."""
    pod_port: int = 0
    tunnel_port: int = 0
    dials: int = 0
    port: int = 0
    failures: list[PodFailure] = field(default_factory=list)
    fronts: list[Front] = field(default_factory=list)
    sides: list[ClientSide] = field(default_factory=list)
    pods: list[PodSide] = field(default_factory=list)
    ended: asyncio.Queue[Front] = field(default_factory=asyncio.Queue)
    host_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))

    def __post_init__(self) -> None:
        self.trust = HostTrust(
            name=self.sshd.name,
            authorities=frozenset({self.sshd.host_ca.public_data}),
            key=self.sshd.host_key.public_data,
        )
        self.welcome.add(self.sshd.user_key.public_data)

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    def front(self, link: ClientLink) -> Front:
        made = Front(self, link)
        self.fronts.append(made)
        if isinstance(link, ClientSide):
            self.sides.append(link)
        return made

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Door]:
        self.directory.mkdir(parents=True, exist_ok=True)
        certificate = self.sshd.host_ca.generate_host_certificate(
            self.host_key, "bastion", principals=["127.0.0.1"], valid_after="-1m", valid_before="+10m"
        )
        entrance = Entrance(self.front, [HostKey(self.host_key, certificate)], self.limits, self.algorithms)
        server = await asyncio.get_running_loop().create_server(entrance, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ca = self.sshd.host_ca.export_public_key().decode().strip()
        self.known_hosts.write_text(f"@cert-authority [127.0.0.1]:{self.port},{self.sshd.name} {ca}\n")
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()
            await self._cut()

    async def _cut(self) -> None:
        """End whatever is left, and give the transports the turns of the loop that they take to close."""
        left = [*self.sides, *self.pods]
        for one in left:
            one.abort()
        for one in left:
            await asyncio.wait_for(one.wait_closed(), 10)
        for _ in range(5):
            await asyncio.sleep(0)

    async def next_end(self) -> Front:
        return await asyncio.wait_for(self.ended.get(), 20)


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    status: int
    out: bytes
    err: bytes


@dataclass(frozen=True)
class Way:
    """How to get to the sshd: directly, or through a door."""

    port: int
    login: str
    known_hosts: Path
    identity: Path

    @classmethod
    def direct(cls, sshd: Sshd) -> Way:
        return cls(sshd.port, sshd.user, sshd.known_hosts, sshd.identity)

    @classmethod
    def through(cls, door: Door, login: str = "alice") -> Way:
        return cls(door.port, login, door.known_hosts, door.sshd.identity)

    @property
    def options(self) -> list[str]:
        """For ssh, scp and sftp alike: nothing of the machine's own configuration."""
        chosen = {
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(self.identity),
            "IdentityAgent": "none",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
            "Port": str(self.port),
            "User": self.login,
            "ConnectTimeout": "20",
        }
        return ["-F", "none", *(part for name, value in chosen.items() for part in ("-o", f"{name}={value}"))]

    async def run(self, *arguments: str | bytes, stdin: bytes | None = b"", **more: object) -> Answer:
        """`ssh` with options first, then `--`, then the command."""
        return await run(self.command(*arguments), stdin=stdin, **more)

    def command(self, *arguments: str | bytes) -> list[str | bytes]:
        """Everything before `--` goes before the host, everything after it is the command."""
        cut = arguments.index("--") if "--" in arguments else len(arguments)
        return ["ssh", *arguments[:cut], *self.options, "127.0.0.1", *arguments[cut + 1 :]]  # ssh takes the first


async def run(
    command: Sequence[str | bytes],
    *,
    stdin: bytes | None = b"",
    env: Mapping[str, str] | None = None,
    limit: float = 60,
) -> Answer:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**_clean_environment(), **(env or {})},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin), limit)
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    return Answer(process.returncode or 0, out, err)


@asynccontextmanager
async def master(
    way: Way, socket: Path, *options: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[list[str]]:
    """A multiplexing master; yields the options with which others use its connection."""
    control = ["-S", str(socket)]
    process = await asyncio.create_subprocess_exec(
        *way.command("-M", "-N", "-n", *control, "-o", "ControlPersist=no", *options),
        stdin=asyncio.subprocess.DEVNULL,
        env=_clean_environment(),
    )
    try:
        async with asyncio.timeout(20):
            while (await run(way.command(*control, "-O", "check"))).status != 0:
                if process.returncode is not None:
                    raise AssertionError("the master ended")
        yield control
    finally:
        await run(way.command(*control, "-O", "exit"))
        try:
            await asyncio.wait_for(process.wait(), 20)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def connect(door: Door, **more: Any) -> Any:
    """An asyncssh client, for what OpenSSH's cannot be made to do."""
    chosen = {
        "username": "alice",
        "client_keys": [door.sshd.user_key],
        "known_hosts": str(door.known_hosts),
        "config": None,
        "agent_path": None,
    }
    return asyncssh.connect("127.0.0.1", door.port, **{**chosen, **more})


def _clean_environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG")
    return {name: os.environ[name] for name in kept if name in os.environ}
