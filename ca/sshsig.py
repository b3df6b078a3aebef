"""Whether somebody holds a private key, without an SSH connection: signatures as `ssh-keygen -Y sign` makes them.

Source: OpenSSH's PROTOCOL.sshsig. A signature is

    byte[6]  "SSHSIG"
    uint32   version        1
    string   public key
    string   namespace      what it is for, so that a signature for one thing is none for another
    string   reserved       empty
    string   hash           "sha512" here; OpenSSH has "sha256" as well
    string   signature      as SSH has them, over "SSHSIG", namespace, reserved, hash and the hash of the message

Accepted are the keys that `ca.keys` accepts, each with its own signature algorithm. RSA signs with SHA-2 only, and a
security key must have been touched (PROTOCOL.u2f: the flag "user present").
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncssh

from ca.certificate import string
from ca.errors import MalformedKey, MalformedSignature
from ca.keys import PublicKey, parse_key_blob

MAX_SIGNATURE_BYTES = 16384
MAGIC = b"SSHSIG"
VERSION = 1
HASH = b"sha512"

_SIGNATURE_ALGORITHMS: Mapping[str, frozenset[bytes]] = {
    "ssh-rsa": frozenset({b"rsa-sha2-256", b"rsa-sha2-512"}),
}
"""Where the signature is not called as the key is. `ssh-rsa` itself is RSA with SHA-1."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that was read. Nothing in here has been verified."""

    key: PublicKey
    namespace: bytes
    algorithm: bytes
    signature: bytes = field(repr=False)

    def is_of(self, message: bytes, namespace: bytes) -> bool:
        """Whether the key's holder signed exactly `message`, for `namespace`."""
        if self.namespace != namespace:
            return False
        digest = hashlib.sha512(message).digest()
        signed = MAGIC + string(namespace) + string(b"") + string(HASH) + string(digest)
        key = asyncssh.public_key.decode_ssh_public_key(self.key.blob)
        key.set_touch_required(True)
        return key.verify(signed, self.signature)


def parse_signature(blob: bytes) -> Signature:
    """A signature, without the armour of the file. Raises `MalformedSignature` with a sentence."""
    if len(blob) > MAX_SIGNATURE_BYTES:
        raise MalformedSignature("The signature is too long.")
    if blob[:6] != MAGIC or blob[6:10] != VERSION.to_bytes(4, "big"):
        raise MalformedSignature("That is not a signature of ssh-keygen -Y sign.")
    key_blob, namespace, reserved, hashed, signature = _strings(blob[10:], 5)
    if reserved:
        raise MalformedSignature("The signature holds something in a field that has to be empty.")
    if hashed != HASH:
        raise MalformedSignature("The signature is over another hash than sha512.")
    try:
        key = parse_key_blob(key_blob)
    except MalformedKey as error:
        raise MalformedSignature(str(error)) from None
    (algorithm,) = _strings(signature, 1, more=True)
    if algorithm not in _SIGNATURE_ALGORITHMS.get(key.algorithm, {key.algorithm.encode("ascii")}):
        raise MalformedSignature("The signature is of a kind that is not accepted for its key.")
    return Signature(key=key, namespace=namespace, algorithm=algorithm, signature=signature)


def _strings(data: bytes, count: int, *, more: bool = False) -> list[bytes]:
    """The first `count` strings (RFC 4251 section 5) of `data`, and nothing after them unless `more` may be."""
    found: list[bytes] = []
    at = 0
    for _ in range(count):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if at + 4 > len(data) or end > len(data):
            raise MalformedSignature("The signature ends too early.")
        found.append(data[at + 4 : end])
        at = end
    if at != len(data) and not more:
        raise MalformedSignature("The signature has bytes after its end.")
    return found
