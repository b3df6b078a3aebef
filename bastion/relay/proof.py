"""Whether a signature proves that the client holds the key it names.

Only the signature is judged here: whether the key may enter, or who signed the certificate around it, is the front's
matter. The bytes that are signed (RFC 4252 section 7) hold the session id, the login name, the algorithm and the key or
certificate, so each is compared with what the request said. SHA-1 signatures (`ssh-rsa`) prove nothing, and a
security key must have been touched.
"""

from collections.abc import Mapping

import asyncssh
from asyncssh.public_key import decode_ssh_public_key

from ca.certificate import algorithm_of, decode, is_certificate, string
from ca.errors import MalformedCertificate, MalformedKey
from ca.keys import parse_key_blob

_SIGNATURES: Mapping[str, frozenset[str]] = {
    "ssh-ed25519": frozenset({"ssh-ed25519"}),
    "ecdsa-sha2-nistp256": frozenset({"ecdsa-sha2-nistp256"}),
    "ecdsa-sha2-nistp384": frozenset({"ecdsa-sha2-nistp384"}),
    "ecdsa-sha2-nistp521": frozenset({"ecdsa-sha2-nistp521"}),
    "sk-ssh-ed25519@openssh.com": frozenset({"sk-ssh-ed25519@openssh.com"}),
    "sk-ecdsa-sha2-nistp256@openssh.com": frozenset({"sk-ecdsa-sha2-nistp256@openssh.com"}),
    "ssh-rsa": frozenset({"rsa-sha2-256", "rsa-sha2-512"}),
}
_CERTIFICATE = "-cert-v01@openssh.com"
_REQUEST = b"\x32"  # SSH_MSG_USERAUTH_REQUEST
MAX_SIGNATURE_BYTES = 8192


def proves(blob: bytes, request: bytes, signature: bytes, session_id: bytes) -> bool:
    """Whether `signature` over session id and `request` was made with the key of `blob`.

    `request` is the authentication request from its message number to the key blob, as it was received.
    """
    if len(signature) > MAX_SIGNATURE_BYTES:
        return False
    key_blob = _subject(blob)
    if key_blob is None:
        return False
    algorithm = _named_algorithm(request, blob)
    key_type = algorithm_of(key_blob)
    if algorithm is None or not _fits(algorithm, algorithm_of(signature), key_type, certificate=blob != key_blob):
        return False
    key = decode_ssh_public_key(key_blob)
    key.set_touch_required(True)
    try:
        return key.verify(string(session_id) + request, signature)
    except (asyncssh.Error, ValueError, OverflowError):
        return False


def _subject(blob: bytes) -> bytes | None:
    """The wire form of the key itself, without the certificate around it; None where we do not accept it."""
    try:
        key_blob = decode(blob).key_blob if is_certificate(blob) else blob
        return parse_key_blob(key_blob).blob
    except (MalformedCertificate, MalformedKey):
        return None


def _named_algorithm(request: bytes, blob: bytes) -> str | None:
    """The algorithm that a well-formed publickey request names for exactly this blob."""
    tail = string(blob)
    if request[:1] != _REQUEST or not request.endswith(tail):
        return None
    fields: list[bytes] = []
    at = 1
    for _ in range(3):
        size = int.from_bytes(request[at : at + 4], "big")
        fields.append(request[at + 4 : at + 4 + size])
        at += 4 + size
    _, service, method = fields
    if service != b"ssh-connection" or method != b"publickey" or request[at : at + 1] == b"\0":
        return None
    name = request[at + 1 : len(request) - len(tail)]
    algorithm = algorithm_of(name)
    return algorithm if name == string(algorithm.encode("ascii")) else None


def _fits(algorithm: str, signed_with: str, key_type: str, *, certificate: bool) -> bool:
    """Whether request, signature and key speak of one algorithm."""
    if signed_with not in _SIGNATURES[key_type] or algorithm.endswith(_CERTIFICATE) != certificate:
        return False
    plain = algorithm.removesuffix(_CERTIFICATE)
    if plain.startswith("sk-"):
        plain += "@openssh.com" if certificate else ""
    # OpenSSH before 7.8 names an RSA certificate `ssh-rsa-cert-v01@openssh.com` whatever it signs with.
    return plain == signed_with or (certificate and plain == key_type == "ssh-rsa")
