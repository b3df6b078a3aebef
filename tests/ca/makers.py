"""Why: keys and certificates of every kind, right and wrong, made in one place and read by `ssh-keygen` as well."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from typing import Any

import asyncssh
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ca.certificate import CERTIFICATE_TYPES, Certificate, Kind, blob_of, decode, encode_unsigned, line_of, string
from ca.keys import PublicKey, fingerprint, parse_public_key
from ca.policy import Grant, HopGrant, HostGrant
from ca.signer import Signed, Signer
from ca.trust import TrustedKeys
from tests.support import ssh_keygen

NOW = 1_763_000_000.5
FILE_KEYS: dict[str, tuple[str, dict[str, Any]]] = {
    "ed25519": ("ssh-ed25519", {}),
    "ecdsa-256": ("ecdsa-sha2-nistp256", {}),
    "ecdsa-384": ("ecdsa-sha2-nistp384", {}),
    "ecdsa-521": ("ecdsa-sha2-nistp521", {}),
    "rsa-3072": ("ssh-rsa", {"key_size": 3072}),
    "rsa-4096": ("ssh-rsa", {"key_size": 4096}),
}
KEY_KINDS = (*FILE_KEYS, "sk-ed25519", "sk-ecdsa")


def private_key(kind: str = "ed25519", number: int = 0) -> asyncssh.SSHKey:
    """A private key; the same one for the same arguments, for the length of the run."""
    return _private_key(kind, number)


def public_key(kind: str = "ed25519", number: int = 0) -> PublicKey:
    """The public key of `private_key`, or a security key's, which no hardware here could hold."""
    return _public_key(kind, number)


@cache
def _private_key(kind: str, number: int) -> asyncssh.SSHKey:
    algorithm, arguments = FILE_KEYS[kind]
    return asyncssh.generate_private_key(algorithm, **arguments)


@cache
def _public_key(kind: str, number: int) -> PublicKey:
    if kind == "sk-ed25519":
        raw = private_key(number=number).public_data[-32:]
        blob = string(b"sk-ssh-ed25519@openssh.com") + string(raw) + string(b"ssh:")
    elif kind == "sk-ecdsa":
        point = ec.generate_private_key(ec.SECP256R1()).public_key()
        raw = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        blob = string(b"sk-ecdsa-sha2-nistp256@openssh.com") + string(b"nistp256") + string(raw) + string(b"ssh:")
    else:
        blob = private_key(kind, number).public_data
    return parse_public_key(line_of(blob))


def ca_key(number: int = 0) -> tuple[asyncssh.SSHKey, PublicKey]:
    """A CA that no signer of ours knows: with it anything can be signed."""
    return private_key(number=1000 + number), public_key(number=1000 + number)


def certificate(**changes: Any) -> Certificate:
    """A certificate as ours are, with `changes`, unsigned."""
    plain = Certificate(
        kind=Kind.USER,
        key_blob=public_key().blob,
        serial=(int(NOW) * 1000) << 20,
        key_id="alice",
        principals=("alice/:1763000000000000",),
        valid_after=int(NOW) - 60,
        valid_before=int(NOW) + 3600,
        critical=(),
        extensions=(("permit-pty", b""),),
        ca_blob=ca_key()[1].blob,
        nonce=os.urandom(32),
    )
    return replace(plain, **changes)


def signed(unsigned: Certificate, ca: asyncssh.SSHKey | None = None) -> bytes:
    """The bytes of a certificate, signed by `ca` whatever it says of its CA."""
    data = encode_unsigned(unsigned)
    return data + string((ca or ca_key()[0]).sign(data, b"ssh-ed25519"))


def forge(ca: int = 0, **changes: Any) -> bytes:
    """A certificate genuinely signed by `ca_key(ca)`, whatever nonsense it says."""
    key, public = ca_key(ca)
    return signed(certificate(ca_blob=public.blob, **changes), key)


def check_with_openssh(made: Signed, ca: tuple[PublicKey, ...], kind: str, source_address: str | None = None) -> None:
    """Compare a signed certificate, field by field, with what `ssh-keygen -L` reads in it."""
    shown = ssh_keygen.show(made.line)
    read = decode(blob_of(made.line))
    subject = parse_public_key(line_of(read.key_blob))
    assert shown == ssh_keygen.Shown(
        algorithm=CERTIFICATE_TYPES[subject.algorithm],
        kind=kind,
        fingerprint=subject.fingerprint,
        ca_fingerprint=fingerprint(read.ca_blob),
        key_id=made.key_id,
        serial=made.serial,
        valid_after=made.valid_after,
        valid_before=made.valid_before,
        principals=made.principals,
        critical=(f"source-address {source_address}",) if source_address else (),
        extensions=made.extensions,
    )
    assert shown.ca_fingerprint == ca[0].fingerprint


class CheckedSigner:
    """A `Signer` that hands out nothing that OpenSSH reads otherwise."""

    def __init__(self, signer: Signer) -> None:
        self.plain = signer

    @property
    def public(self) -> TrustedKeys:
        return self.plain.public

    def sign_user(self, grant: Grant) -> Signed:
        made = self.plain.sign_user(grant)
        check_with_openssh(made, self.public.user, "user", grant.source_address)
        return made

    def sign_hop(self, grant: HopGrant) -> Signed:
        made = self.plain.sign_hop(grant)
        check_with_openssh(made, self.public.hop, "user")
        return made

    def sign_host(self, grant: HostGrant) -> Signed:
        made = self.plain.sign_host(grant)
        check_with_openssh(made, self.public.host, "host")
        return made
