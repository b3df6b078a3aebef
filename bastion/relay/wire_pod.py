"""The connection to a pod, behind one client's connection.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_RESOURCE_SHORTAGE, OPEN_UNKNOWN_CHANNEL_TYPE

from bastion.relay.answers import Slot
from bastion.relay.front import ChannelOpen, HostTrust, PodFailure, PodTrouble
from bastion.relay.limits import Algorithms
from bastion.relay.meanings import (
    Keepalive,
    Opened,
)
from bastion.relay.requests import FROM_PODS
from bastion.relay.requests import asked as parse_global
from bastion.relay.wire_channel import Leg
from bastion.relay.wire_link import GlobalReply, Link, Offered, OpenFailure
from bastion.relay.wire_options import PodLogin, pod_options
from bastion.relay.wire_pressure import Feeder
from ca.certificate import Kind, decode, is_certificate
from ca.errors import MalformedCertificate

if TYPE_CHECKING:
    from bastion.relay.front import Front


class Client(Link):
    """What the pod's connection needs to know of the client's."""

    front: Front
    invited: set[type[Opened]]
    """The kinds of channels that the client has asked the pod for."""

    def attach(self, pod: PodSide) -> None:
        """The pod's connection is being made."""
        raise NotImplementedError

    def pod_lost(self) -> None:
        """The pod's connection is over."""
        raise NotImplementedError


class PodOwner(asyncssh.SSHClient):
    """asyncssh's call-backs for the pod's connection."""

    def __init__(self, trust: HostTrust) -> None:
        self._trust = trust
        self._pod: PodSide | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Remember whose call-backs these are."""
        self._pod = conn if isinstance(conn, PodSide) else None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        if self._pod is not None:
            self._pod.over(exc)

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        """Whether a host certificate's CA is ours. Name, kind and time are asyncssh's to check after this."""
        return key.public_data in self._trust.authorities

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        """Whether a key without a certificate is the pod's."""
        return self._trust.bare and self._trust.key is not None and key.public_data == self._trust.key


class PodSide(Link, asyncssh.SSHClientConnection):
    """The pod's connection."""

    def __init__(self, client: Client, options: asyncssh.SSHClientConnectionOptions, trust: HostTrust) -> None:
        self.set_up(client.limits, client.bench)
        self._client = client
        self._trust = trust
        self.connected = False
        super().__init__(asyncio.get_running_loop(), options, None, None, "auth")

    def validate_server_host_key(self, key_data: bytes) -> asyncssh.SSHKey:
        """The pod's host key or certificate. Beyond asyncssh's checks: a certificate without principals is good for
        any host there, and nothing there knows which key this pod enrolled."""
        if is_certificate(key_data):
            try:
                certificate = decode(key_data)
            except MalformedCertificate:
                raise asyncssh.HostKeyNotVerifiable("unreadable host certificate") from None
            named = certificate.kind == Kind.HOST and self._trust.name in certificate.principals
            if not named or certificate.critical or self._trust.key not in {None, certificate.key_blob}:
                raise asyncssh.HostKeyNotVerifiable("the host certificate is another's")
        return super().validate_server_host_key(key_data)

    def feeders(self) -> list[Feeder]:
        """What the pod is sent comes from the client."""
        return [self._client]

    async def across(self) -> Link:
        """The other connection is the client's."""
        return self._client

    def judge_open(self, asked: ChannelOpen, kind: bytes) -> OpenFailure | Callable[[Leg, Offered], Awaitable[None]]:
        """Channels that the client asked the pod for, and nothing else."""
        if kind not in FROM_PODS:
            return OpenFailure(OPEN_UNKNOWN_CHANNEL_TYPE, "unknown channel type")
        if type(asked.meaning) not in self._client.invited:
            return OpenFailure(OPEN_ADMINISTRATIVELY_PROHIBITED, "the client did not ask for this")
        if len(self._client.legs) >= self.limits.channels:
            self.limits.hit("channels")
            return OpenFailure(OPEN_RESOURCE_SHORTAGE, "too many channels")
        refusal = self._client.front.decide_pod_open(asked)
        return self.open_across if refusal is None else OpenFailure(OPEN_ADMINISTRATIVELY_PROHIBITED, refusal.sentence)

    def wish(self, leg: Leg, name: bytes, payload: bytes, slot: Slot[int] | None) -> None:
        """Whatever the pod says on a channel goes to the client: exit status, flow control, what we do not know."""
        leg.far.request(name, payload, slot)

    def judge_global(self, name: bytes, payload: bytes, slot: Slot[GlobalReply]) -> None:
        """A keepalive is answered; nothing else that a pod says about the connection concerns the client."""
        slot.answer(b"" if isinstance(parse_global(name, payload), Keepalive) else None)

    def losing(self) -> None:
        """Before the client's channels are closed one by one, since its ssh ends with the last of them and unread."""
        if self.connected:
            self.connected = False
            self._client.pod_lost()

    def over(self, exc: Exception | None) -> None:
        """The connection is over."""
        self.let_go()
        self.count_silence(exc)
        self.losing()


async def connect_pod(
    client: Client, address: str, port: int, *, login: PodLogin, trust: HostTrust, algorithms: Algorithms
) -> PodSide:
    """Connect to the pod's sshd at an IP address, check its host key, and log in. Raises `PodFailure`."""
    limits = client.limits
    options = pod_options(lambda: PodOwner(trust), login, trust.name, limits, algorithms)
    loop = asyncio.get_running_loop()
    pod: PodSide | None = None
    waiter: asyncio.Future[None] | None = options.waiter
    try:
        async with asyncio.timeout(limits.dial_seconds):
            _, pod = await loop.create_connection(lambda: PodSide(client, options, trust), address, port)
        async with asyncio.timeout(limits.pod_login_seconds):
            if waiter is not None:
                await waiter
    except (TimeoutError, OSError) as problem:
        if pod is not None:
            pod.abort()
        turned_away = isinstance(problem, ConnectionError)
        detail = f"{address}:{port}: {problem or 'no answer in time'}"
        raise PodFailure(PodTrouble.UNREACHABLE, detail, turned_away=turned_away) from None
    except asyncssh.HostKeyNotVerifiable as problem:
        raise PodFailure(PodTrouble.WRONG_HOST_KEY, f"{address}:{port}: {problem.reason}") from None
    except asyncssh.PermissionDenied as problem:
        raise PodFailure(PodTrouble.LOGIN_REFUSED, f"{address}:{port}: {problem.reason}") from None
    except asyncssh.Error as problem:
        turned_away = isinstance(problem, asyncssh.ConnectionLost)
        detail = f"{address}:{port}: {problem.reason}"
        raise PodFailure(PodTrouble.PROTOCOL, detail, turned_away=turned_away) from None
    except asyncio.CancelledError:
        if pod is not None:
            pod.abort()
        raise
    if pod.is_gone:
        raise PodFailure(PodTrouble.UNREACHABLE, f"{address}:{port}: the connection was lost at once", turned_away=True)
    pod.connected = True
    client.attach(pod)
    return pod
