"""OpenSSH certificates as bytes, both ways. The one place that knows the wire format.

Source: OpenSSH's PROTOCOL.certkeys. A certificate is

    string   type          "ssh-ed25519-cert-v01@openssh.com"
    string   nonce
    …        public key    the fields of the subject key, without its type
    uint64   serial
    uint32   kind          1 user, 2 host
    string   key id
    string   principals    strings, one after the other
    uint64   valid after   seconds since the epoch, included
    uint64   valid before  seconds since the epoch, excluded
    string   critical      name, data: sorted by name, each once
    string   extensions    the same
    string   reserved      empty
    string   CA key
    string   signature     over everything before it

The decoder is strict: names out of order or repeated, trailing bytes, bytes in `reserved` and text that is not
UTF-8 are refused, since a certificate that two programs read differently is how restrictions get lost.
"""

import base64
import binascii
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache

from ca.errors import MalformedCertificate

MAX_CERTIFICATE_BYTES = 65536
FOREVER = 0xFFFFFFFFFFFFFFFF

CERTIFICATE_TYPES: Mapping[str, str] = {
    "ssh-ed25519": "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256": "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384": "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521": "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "ssh-rsa": "ssh-rsa-cert-v01@openssh.com",
    "sk-ssh-ed25519@openssh.com": "sk-ssh-ed25519-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com": "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
}
_PLAIN_TYPES = {certificate: plain for plain, certificate in CERTIFICATE_TYPES.items()}
_KEY_FIELDS = {
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "ssh-rsa": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}


class Kind(IntEnum):
    """Whom a certificate is for."""

    USER = 1
    HOST = 2


@dataclass(frozen=True, slots=True)
class Certificate:
    """Every field of a certificate. Nothing in here has been verified. Equality is that of what is signed."""

    kind: int
    key_blob: bytes = field(repr=False)
    serial: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical: tuple[tuple[str, bytes], ...]
    extensions: tuple[tuple[str, bytes], ...]
    ca_blob: bytes = field(repr=False)
    nonce: bytes = field(repr=False)
    signed: bytes = field(repr=False, compare=False, default=b"")
    signature: bytes = field(repr=False, compare=False, default=b"")


def string(data: bytes) -> bytes:
    """RFC 4251 `string`: four bytes of length, then the bytes."""
    return struct.pack(">I", len(data)) + data


def algorithm_of(blob: bytes) -> str:
    """The algorithm name with which a key or certificate blob begins, or "" where there is none."""
    length = int.from_bytes(blob[:4], "big")
    name = blob[4 : 4 + length]
    return name.decode("ascii") if 0 < length <= 64 and len(name) == length and name.isascii() else ""


def is_certificate(blob: bytes) -> bool:
    """Whether the blob says of itself that it is an OpenSSH certificate of a type that we know."""
    return algorithm_of(blob) in _PLAIN_TYPES


def encode_unsigned(certificate: Certificate) -> bytes:
    """The bytes that the CA signs. Options are written in the order given: the caller sorts."""
    algorithm = algorithm_of(certificate.key_blob)
    key_fields = certificate.key_blob[4 + len(algorithm) :]
    return b"".join(
        (
            string(CERTIFICATE_TYPES[algorithm].encode("ascii")),
            string(certificate.nonce),
            key_fields,
            struct.pack(">QI", certificate.serial, certificate.kind),
            string(certificate.key_id.encode("utf-8")),
            string(b"".join(string(name.encode("utf-8")) for name in certificate.principals)),
            struct.pack(">QQ", certificate.valid_after, certificate.valid_before),
            string(_encode_options(certificate.critical)),
            string(_encode_options(certificate.extensions)),
            string(b""),
            string(certificate.ca_blob),
        )
    )


def line_of(blob: bytes, comment: str = "") -> str:
    """A certificate blob as the one line of a `-cert.pub` file."""
    text = f"{algorithm_of(blob)} {base64.b64encode(blob).decode('ascii')}"
    return f"{text} {comment}" if comment else text


def blob_of(line: str) -> bytes:
    """The blob of a `-cert.pub` line. Raises `MalformedCertificate`."""
    parts = line.split()
    if len(parts) < 2 or len(line) > 2 * MAX_CERTIFICATE_BYTES or len(line.strip().splitlines()) != 1:
        raise MalformedCertificate("That is not the one line of a certificate file.")
    try:
        blob = base64.b64decode(parts[1].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise MalformedCertificate("The certificate is not base64 text.") from None
    if algorithm_of(blob) != parts[0]:
        raise MalformedCertificate("The type before the certificate and the type inside it differ.")
    return blob


def decode(blob: bytes) -> Certificate:
    """Read a certificate. Raises `MalformedCertificate`. Verifies nothing."""
    if len(blob) > MAX_CERTIFICATE_BYTES:
        raise MalformedCertificate("The certificate is too long.")
    reader = _Reader(blob)
    plain = _PLAIN_TYPES.get(reader.text())
    if plain is None:
        raise MalformedCertificate("The certificate's type is not known.")
    nonce = reader.string()
    key_start = reader.at
    for _ in range(_KEY_FIELDS[plain]):
        reader.string()
    key_blob = string(plain.encode("ascii")) + blob[key_start : reader.at]
    serial, kind = reader.number(8), reader.number(4)
    key_id = reader.text()
    principals = _decode_principals(reader.string())
    valid_after, valid_before = reader.number(8), reader.number(8)
    critical, extensions = _decode_options(reader.string()), _decode_options(reader.string())
    if reader.string():
        raise MalformedCertificate("The certificate uses the reserved field.")
    ca_blob = reader.string()
    signed = blob[: reader.at]
    signature = reader.string()
    reader.end()
    return Certificate(
        kind=kind,
        key_blob=key_blob,
        serial=serial,
        key_id=key_id,
        principals=principals,
        valid_after=valid_after,
        valid_before=valid_before,
        critical=critical,
        extensions=extensions,
        ca_blob=ca_blob,
        nonce=nonce,
        signed=signed,
        signature=signature,
    )


class _Reader:
    """Takes fields off the front of a byte string; anything missing is malformed."""

    __slots__ = ("_data", "_size", "at")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._size = len(data)
        self.at = 0

    def number(self, size: int) -> int:
        end = self.at + size
        if end > self._size:
            raise MalformedCertificate("The certificate ends too early.")
        value = int.from_bytes(self._data[self.at : end], "big")
        self.at = end
        return value

    def string(self) -> bytes:
        start = self.at + 4
        end = start + int.from_bytes(self._data[self.at : start], "big")
        if end > self._size:
            raise MalformedCertificate("The certificate ends too early.")
        self.at = end
        return self._data[start:end]

    def text(self) -> str:
        try:
            return self.string().decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedCertificate("The certificate holds text that is not UTF-8.") from None

    def more(self) -> bool:
        return self.at < self._size

    def end(self) -> None:
        if self.more():
            raise MalformedCertificate("The certificate has bytes after its end.")


# Nearly every certificate carries one of a few lists of options: both ways they are worth remembering.
@lru_cache(maxsize=64)
def _encode_options(options: tuple[tuple[str, bytes], ...]) -> bytes:
    return b"".join(string(name.encode("ascii")) + string(data) for name, data in options)


@lru_cache(maxsize=64)
def _decode_options(data: bytes) -> tuple[tuple[str, bytes], ...]:
    reader = _Reader(data)
    options: list[tuple[str, bytes]] = []
    while reader.more():
        name = reader.text()
        if options and name <= options[-1][0]:
            raise MalformedCertificate("The certificate's options are repeated or out of order.")
        options.append((name, reader.string()))
    return tuple(options)


def _decode_principals(data: bytes) -> tuple[str, ...]:
    reader = _Reader(data)
    names: list[str] = []
    while reader.more():
        names.append(reader.text())
        if len(names) > 1024:
            raise MalformedCertificate("The certificate names too many principals.")
    return tuple(names)
