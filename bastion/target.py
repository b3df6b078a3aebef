"""Reach a pod: dial it, see that it is the one that enrolled, and log in there for one person.

Every pod is checked by its host key before anything is handed to it. A pod with an enrolled key must show that key,
in jump mode too: an address and a port are only what somebody said, and a tunnel to the wrong one would be a way to
stand in for somebody else's server.
"""

import asyncio
import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import asyncssh

from bastion.admission import Admission
from bastion.authority import AuthorityError, HopCertificates, Proof
from bastion.directory.table import Pod
from bastion.relay.front import ClientLink, HostTrust, PodFailure, PodLink, PodTrouble, RelayRefused
from bastion.relay.limits import Algorithms, RelayLimits
from bastion.relay.wire import PodLogin, connect_pod, see_host_key
from ca.certificate import line_of
from ca.errors import Reason, Refusal
from ca.trust import TrustedKeys

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_log = logging.getLogger(__name__)

_TROUBLE = {
    PodTrouble.UNREACHABLE: "The server {server} does not answer on its SSH port. If it is running, restart it.",
    PodTrouble.WRONG_HOST_KEY: "What answers for {server} is not the server that enrolled. Restart the server.",
    PodTrouble.LOGIN_REFUSED: (
        "The server {server} does not let the bastion in as {user}. Restart the server; if that does not help, "
        "ask the administrator of this hub whether its image works as another user."
    ),
    PodTrouble.PROTOCOL: "What answers for {server} is not an SSH server that is known here. Restart the server.",
}

_NOT_OURS = (
    "What answers for {server} is not the server that enrolled. Restart the server; "
    "if its image starts an SSH server of its own, use jump mode. Type: {line}"
)
"""Where no key was enrolled, as in Kubernetes: an image may bring an sshd of its own, which has no certificate."""

RETRY_SECONDS = 0.3
MAX_SEEN = 20_000
"""Pods whose host key is remembered as seen; the oldest are looked at again."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Dials pods. `lost` hears of pods that did not answer, so that the directory can look after them;
    `failed` is told in a word why a pod could not be had, to be counted."""

    hops: HopCertificates
    trust: Callable[[], TrustedKeys]
    zone: Callable[[], str]
    networks: tuple[Network, ...]
    limits: RelayLimits
    algorithms: Algorithms
    lost: Callable[[Pod], Awaitable[object]]
    failed: Callable[[str], None] = lambda _: None
    jump_name: str = "jump"
    _seen: OrderedDict[Pod, None] = field(default_factory=OrderedDict, repr=False)

    async def connect(self, link: ClientLink, pod: Pod, admission: Admission) -> PodLink:
        """Log in to `pod` for somebody who was admitted to it. Raises `RelayRefused` with a sentence."""
        if refusal := self._misplaced(pod):
            self.failed("address")
            raise RelayRefused(refusal.sentence)
        if pod.unix_user is None:
            raise RelayRefused(f"This server takes connections in jump mode only. Type: {self.jump_line(pod)}")
        try:
            hop = await self.hops.hop(
                f"{admission.how}:{admission.identity}",  # no user is named so that she meets somebody's raw key
                pod.instance,
                admission.capabilities,
                _proof(admission, link.peer[0]),
            )
        except AuthorityError as error:
            self.failed("no_certificate")
            raise RelayRefused(error.sentence) from None
        trust = HostTrust(
            name=pod.server.host_name(self.zone()),
            authorities=frozenset(key.blob for key in self.trust().host),
            key=None if pod.host_key is None else pod.host_key.blob,
            bare=False,
        )
        login = PodLogin(username=pod.unix_user, key=hop.key, certificate=hop.certificate)
        try:
            made = await self._dial(link, pod, login, trust)
        except PodFailure as failure:
            _log.warning("%s: %s", pod.instance.principal, failure)
            self.failed(failure.trouble.value)
            if failure.trouble is PodTrouble.UNREACHABLE:
                await self._suspect(pod)
            unknown = failure.trouble is PodTrouble.WRONG_HOST_KEY and pod.host_key is None
            sentence = _NOT_OURS if unknown else _TROUBLE[failure.trouble]
            words = sentence.format(server=pod.server, user=pod.unix_user, line=self.jump_line(pod))
            raise RelayRefused(words) from None
        self._remember(pod)
        return made

    async def _dial(self, link: ClientLink, pod: Pod, login: PodLogin, trust: HostTrust) -> PodLink:
        """Dial, and once more after a moment where something turned us away: a pod's sshd that reads a new host
        certificate is away for an instant. One that hangs would take all of the time again."""
        for pause in (RETRY_SECONDS, None):
            try:
                return await connect_pod(
                    link, pod.address, pod.ssh_port, login=login, trust=trust, algorithms=self.algorithms
                )
            except PodFailure as failure:
                if pause is None or not failure.turned_away:
                    raise
                await asyncio.sleep(pause)
        raise PodFailure(PodTrouble.UNREACHABLE, "it was not dialled")

    async def verify(self, pod: Pod) -> Refusal | None:
        """Whether the pod's address shows the host key that it enrolled with. Pods that never enrolled (legacy, jump
        mode only) have none to show: their own users check the host key from end to end."""
        if refusal := self._misplaced(pod):
            self.failed("address")
            return refusal
        if pod.host_key is None or pod in self._seen:
            return None
        try:
            async with asyncio.timeout(self.limits.dial_seconds):
                shown = await see_host_key(pod.address, pod.ssh_port, pod.host_key.algorithm, self.algorithms)
        except (OSError, asyncssh.Error):
            self.failed(PodTrouble.UNREACHABLE.value)
            await self._suspect(pod)
            return Refusal(Reason.UNAVAILABLE, f"The server {pod.server} does not answer on its SSH port.")
        if shown != pod.host_key.blob:
            self.failed(PodTrouble.WRONG_HOST_KEY.value)
            return Refusal(
                Reason.WRONG_TARGET,
                f"What answers at the address of {pod.server} is not the server that enrolled. Restart the server.",
            )
        self._remember(pod)
        return None

    def jump_line(self, pod: Pod) -> str:
        """What to type to enter `pod` in jump mode."""
        return f"ssh -J {self.jump_name}@BASTION {pod.unix_user or 'USER'}@{pod.server.host_name(self.zone())}"

    def forget(self, pod: Pod) -> None:
        """The pod is gone or has moved."""
        self._seen.pop(pod, None)
        self.hops.forget(pod.instance)

    def _misplaced(self, pod: Pod) -> Refusal | None:
        address = ipaddress.ip_address(pod.address)
        if any(address in network for network in self.networks):
            return None
        return Refusal(
            Reason.ADDRESS_NOT_ALLOWED,
            f"The server {pod.server} has an address outside the networks of notebook servers. "
            "Ask the administrator of this hub.",
        )

    def _remember(self, pod: Pod) -> None:
        self._seen[pod] = None
        while len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)

    async def _suspect(self, pod: Pod) -> None:
        with suppress(OSError):
            await self.lost(pod)


def _proof(admission: Admission, peer: str) -> Proof:
    if admission.certified and admission.certificate is not None:
        return Proof(certificate=line_of(admission.certificate), peer=peer)
    return Proof(raw_key=admission.key.fingerprint)
