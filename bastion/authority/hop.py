"""The certificates with which the bastion enters pods: asked for once, used until shortly before they end.

Asking costs a round trip to the api, and the api may be down; so one is kept for each person, instance and set
of capabilities. A person who opens twenty connections at once asks once. Each has a private key of its own
that is made here, lives in this process only and ends with its certificate.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import asyncssh

from bastion.authority.client import Issued
from bastion.authority.errors import AuthorityUnavailable
from ca.keys import PublicKey, parse_key_blob
from ca.limits import Capabilities
from ca.names import Instance

MARGIN_SECONDS = 60.0
"""A certificate is not used any more when it ends this soon: a pod's clock may be a little ahead."""


class HopIssuer(Protocol):
    """The part of the authority that this needs."""

    async def hop_certificate(
        self,
        instance: Instance,
        public_key: PublicKey,
        *,
        certificate: str | None,
        raw_key: str | None,
        peer: str | None,
    ) -> Issued:
        """See `bastion.authority.client.Authority.hop_certificate`."""
        ...


@dataclass(frozen=True, slots=True)
class Hop:
    """A private key and its certificate, as asyncssh's `client_keys` wants them: `[hop.client_key]`."""

    key: asyncssh.SSHKey = field(repr=False)
    certificate: asyncssh.SSHCertificate = field(repr=False)
    valid_before: int

    @property
    def client_key(self) -> tuple[asyncssh.SSHKey, asyncssh.SSHCertificate]:
        """The pair for `asyncssh.connect(client_keys=[…])`."""
        return self.key, self.certificate


@dataclass(frozen=True, slots=True)
class Proof:
    """What the bastion shows the api for a person: her certificate line, or a raw key's fingerprint; and `peer`,
    the address she comes from, which a certificate may be bound to."""

    certificate: str | None = None
    raw_key: str | None = None
    peer: str | None = None


_Key = tuple[str, Instance, Capabilities]


class HopCertificates:
    """Hop certificates by identity, instance and capabilities; at most `max_entries`, the oldest used go first."""

    def __init__(
        self,
        issuer: HopIssuer,
        *,
        wall: Callable[[], float] = time.time,
        max_entries: int = 5000,
        margin: float = MARGIN_SECONDS,
    ) -> None:
        self._issuer = issuer
        self._wall = wall
        self._max_entries = max_entries
        self._margin = margin
        self._kept: OrderedDict[_Key, Hop] = OrderedDict()
        self._asking: dict[tuple[_Key, Proof], asyncio.Task[Hop]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def hop(self, identity: str, instance: Instance, capabilities: Capabilities, proof: Proof) -> Hop:
        """A certificate that is good for another minute at least; from the api if there is none.

        Raises `AuthorityRefused` and `AuthorityUnavailable`, neither of which is remembered.
        """
        key = (identity, instance, capabilities)
        kept = self._kept.get(key)
        if kept is not None and self._wall() < kept.valid_before - self._margin:
            self._kept.move_to_end(key)
            return kept
        # By proof too: somebody whose certificate is good must not share the fate of one that was refused.
        task = self._asking.get((key, proof))
        if task is None:
            task = asyncio.create_task(self._ask(key, proof), name=f"hop certificate for {instance.principal}")
            self._asking[key, proof] = task
            task.add_done_callback(lambda done: self._done(key, proof, done))
        return await asyncio.shield(task)

    def forget(self, instance: Instance) -> None:
        """The instance is gone: its certificates are of no use any more."""
        for key in [key for key in self._kept if key[1] == instance]:
            del self._kept[key]

    async def _ask(self, key: _Key, proof: Proof) -> Hop:
        _, instance, _ = key
        private = asyncssh.generate_private_key("ssh-ed25519")
        issued = await self._issuer.hop_certificate(
            instance,
            parse_key_blob(private.public_data),
            certificate=proof.certificate,
            raw_key=proof.raw_key,
            peer=proof.peer,
        )
        hop = Hop(private, _certificate(issued, private), issued.valid_before)
        if self._wall() < hop.valid_before - self._margin:
            self._kept[key] = hop
            self._kept.move_to_end(key)
            while len(self._kept) > self._max_entries:
                self._kept.popitem(last=False)
        return hop

    def _done(self, key: _Key, proof: Proof, task: asyncio.Task[Hop]) -> None:
        self._asking.pop((key, proof), None)
        if not task.cancelled():
            task.exception()  # whoever asked may have gone; then nobody else looks at it


def _certificate(issued: Issued, private: asyncssh.SSHKey) -> asyncssh.SSHCertificate:
    try:
        certificate = asyncssh.import_certificate(issued.certificate)
    except (asyncssh.KeyImportError, ValueError):
        raise AuthorityUnavailable("the api's hop certificate cannot be read") from None
    if certificate.key.public_data != private.public_data:
        raise AuthorityUnavailable("the api's hop certificate is for another key")
    return certificate
