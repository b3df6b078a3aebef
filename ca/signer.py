"""The signer: the only room that holds private keys, small and dull on purpose.

For each certificate: build, with every field written out; sign; read the result back as a stranger would; compare
it with the grant. Anything that differs is a bug, and the certificate is not handed out.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ca.certificate import Certificate, Kind, encode_unsigned, line_of, string
from ca.errors import BastionError, KeyFileError
from ca.keyfiles import AuthorityKeys, open_authority
from ca.limits import Capabilities, extensions_for
from ca.names import parse_principal
from ca.policy import Grant, HopGrant, HostGrant
from ca.trust import HELD_CONNECTION, MAX_PRINCIPALS, TrustedKeys, genuine

NONCE_BYTES = 32
_HOST_NAME = re.compile(r"[a-z0-9._=+:-]{1,1024}")
"""What ssh matches as it stands: no capitals, no wildcards, no separators. With `:`, for an IPv6 address."""


class SigningError(BastionError):
    """A grant that must not be signed, or a signed certificate that is not what the grant said."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate, ready to be handed out. Times are seconds since the epoch."""

    line: str
    serial: int
    key_id: str
    principals: tuple[str, ...]
    extensions: tuple[str, ...]
    valid_after: int
    valid_before: int


class Signer(Protocol):
    """Where CA keys live: files now; an agent or a KMS fits behind the same four names."""

    @property
    def public(self) -> TrustedKeys:
        """The public keys of the three CAs: current, next and previous of each."""
        ...

    def sign_user(self, grant: Grant) -> Signed:
        """A user certificate."""
        ...

    def sign_hop(self, grant: HopGrant) -> Signed:
        """The certificate with which the bastion logs in to one pod."""
        ...

    def sign_host(self, grant: HostGrant) -> Signed:
        """A host certificate, for a pod or for the bastion."""
        ...


class FileSigner:
    """A `Signer` with its keys in a folder of files (`ca.keyfiles`)."""

    def __init__(self, directory: Path, group: int | None) -> None:
        self._directory = directory
        self._group = group
        self.reload()

    def __repr__(self) -> str:
        return f"FileSigner({str(self._directory)!r})"

    def reload(self) -> None:
        """Read the keys again, after a rotation. On an error the keys in use stay. Raises `KeyFileError`."""
        user, host, hop = (open_authority(self._directory, name, self._group) for name in ("user", "host", "hop"))
        if len({key for keys in (user, host, hop) for key in keys.public}) != sum(
            len(set(keys.public)) for keys in (user, host, hop)
        ):
            raise KeyFileError("Two of the CAs share a key: a certificate of one would count as the other's.")
        self._user, self._host, self._hop = user, host, hop
        self.public = TrustedKeys(user=user.public, host=host.public, hop=hop.public)

    @property
    def generations(self) -> tuple[str, str, str]:
        """Which generation of user, host and hop keys is in use: changes when a rotation was read."""
        return (self._user.generation, self._host.generation, self._hop.generation)

    def sign_user(self, grant: Grant) -> Signed:
        """Sign a user certificate. Raises `SigningError`."""
        critical: tuple[tuple[str, bytes], ...] = ((HELD_CONNECTION, b""),) if grant.held else ()
        if grant.source_address is not None:
            critical += (("source-address", string(grant.source_address.encode("ascii"))),)
        return _sign(
            self._user,
            kind=Kind.USER,
            key_blob=grant.key.blob,
            serial=grant.serial,
            key_id=grant.user,
            principals=_principals(tuple(one.principal for one in grant.instances)),
            valid_after=grant.valid_after,
            valid_before=grant.valid_before,
            critical=critical,
            extensions=_extensions(grant.capabilities),
        )

    def sign_hop(self, grant: HopGrant) -> Signed:
        """Sign a hop certificate. Raises `SigningError`."""
        return _sign(
            self._hop,
            kind=Kind.USER,
            key_blob=grant.key.blob,
            serial=grant.serial,
            key_id=grant.identity,
            principals=_principals((grant.instance.principal,)),
            valid_after=grant.valid_after,
            valid_before=grant.valid_before,
            critical=(),
            extensions=_extensions(grant.capabilities),
        )

    def sign_host(self, grant: HostGrant) -> Signed:
        """Sign a host certificate. Raises `SigningError`."""
        if not grant.names or len(grant.names) > MAX_PRINCIPALS:
            raise SigningError("A host certificate needs between 1 and 256 names.")
        for name in grant.names:
            if not _HOST_NAME.fullmatch(name):
                raise SigningError("A host certificate's name has characters that ssh would not match.")
        return _sign(
            self._host,
            kind=Kind.HOST,
            key_blob=grant.key.blob,
            serial=grant.serial,
            key_id=grant.key_id,
            principals=grant.names,
            valid_after=grant.valid_after,
            valid_before=grant.valid_before,
            critical=(),
            extensions=(),
        )


def _principals(principals: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse to sign an empty list, which asyncssh and OpenSSH before 10.3 read as "anybody"."""
    if not principals or len(principals) > MAX_PRINCIPALS:
        raise SigningError("A user certificate needs between 1 and 256 principals.")
    for principal in principals:
        if parse_principal(principal).principal != principal:
            raise SigningError("A principal is not in its canonical form.")
    return principals


def _extensions(capabilities: Capabilities) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, b"") for name in extensions_for(capabilities))


def _sign(
    keys: AuthorityKeys,
    *,
    kind: Kind,
    key_blob: bytes,
    serial: int,
    key_id: str,
    principals: tuple[str, ...],
    valid_after: int,
    valid_before: int,
    critical: tuple[tuple[str, bytes], ...],
    extensions: tuple[tuple[str, bytes], ...],
) -> Signed:
    if not 0 <= valid_after < valid_before < 1 << 63 or not 0 < serial < 1 << 63:
        raise SigningError("A certificate needs a serial, and an end after its beginning.")
    if not key_id or "\0" in key_id:
        raise SigningError("A certificate needs a key id that OpenSSH can read.")
    wanted = Certificate(
        kind=kind,
        key_blob=key_blob,
        serial=serial,
        key_id=key_id,
        principals=principals,
        valid_after=valid_after,
        valid_before=valid_before,
        critical=critical,
        extensions=extensions,
        ca_blob=keys.current.blob,
        nonce=os.urandom(NONCE_BYTES),
    )
    signed = encode_unsigned(wanted)
    blob = signed + string(keys.signing.sign(signed, b"ssh-ed25519"))
    _check(blob, wanted, keys)
    return Signed(
        line=line_of(blob),
        serial=serial,
        key_id=key_id,
        principals=principals,
        extensions=tuple(name for name, _ in extensions),
        valid_after=valid_after,
        valid_before=valid_before,
    )


def _check(blob: bytes, wanted: Certificate, keys: AuthorityKeys) -> None:
    """Read the signed certificate as a stranger would, and compare it with what was to be signed."""
    read = genuine(blob, (keys.current,))
    if read is None:
        raise SigningError("The certificate just signed does not verify.")
    if read != wanted:
        raise SigningError("The certificate just signed is not the one that was granted.")
