"""Which public keys we accept, and how `authorized_keys` lines are read.

Accepted from users: ed25519, ecdsa on the NIST curves, their security-key forms (`sk-…`), and RSA from 3072
bits. A key is compared by its wire bytes, never by its text. asyncssh parses the key, so that a point that is
not on its NIST curve never becomes a `PublicKey`. (For ed25519 nobody checks that before a signature does.)
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import asyncssh

from ca.errors import MalformedKey

MIN_RSA_BITS = 3072
MAX_RSA_BITS = 16384
"""OpenSSH reads no larger number: a larger key could never be used."""
MAX_KEY_BYTES = 8192
"""Wire bytes of one key; RSA with 16384 bits needs about 2100."""

USER_ALGORITHMS = frozenset(
    {
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "ssh-rsa",
    }
)
HOST_ALGORITHMS = USER_ALGORITHMS - {"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"}

_POINTS: Mapping[str, tuple[bytes, int]] = {
    "ecdsa-sha2-nistp256": (b"nistp256", 65),
    "ecdsa-sha2-nistp384": (b"nistp384", 97),
    "ecdsa-sha2-nistp521": (b"nistp521", 133),
    "sk-ecdsa-sha2-nistp256@openssh.com": (b"nistp256", 65),
}
"""The curve that an algorithm stands for, and the bytes of one of its points when not compressed."""

_HOW_TO = "Make one with: ssh-keygen -t ed25519"
_OPTION_NAME = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that was parsed and accepted. Equality is that of the wire bytes."""

    algorithm: str
    blob: bytes = field(repr=False)
    comment: str = field(default="", compare=False)

    @property
    def fingerprint(self) -> str:
        """`SHA256:…` as `ssh-keygen -l` prints it."""
        return fingerprint(self.blob)

    @property
    def line(self) -> str:
        """`algorithm base64`, as in `authorized_keys`, without the comment."""
        return f"{self.algorithm} {base64.b64encode(self.blob).decode('ascii')}"


@dataclass(frozen=True, slots=True)
class AuthorizedKey:
    """One line of an `authorized_keys` file: a key and its options in their order."""

    key: PublicKey
    options: tuple[str, ...] = ()


def fingerprint(blob: bytes) -> str:
    """OpenSSH's SHA-256 fingerprint of a key's wire bytes."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")


def parse_key_blob(blob: bytes, *, algorithms: frozenset[str] = USER_ALGORITHMS, comment: str = "") -> PublicKey:
    """The key in SSH wire format (RFC 4253 section 6.6). Raises `MalformedKey` with a sentence."""
    if len(blob) > MAX_KEY_BYTES:
        raise MalformedKey(f"The public key is longer than {MAX_KEY_BYTES} bytes.")
    length = int.from_bytes(blob[:4], "big")
    algorithm = blob[4 : 4 + length].decode("ascii", "replace") if 0 < length <= 64 else ""
    if "-cert-v0" in algorithm:
        raise MalformedKey("That is a certificate. Send the public key it was made from (the .pub file).")
    if algorithm not in algorithms:
        shown = algorithm if algorithm.isprintable() and algorithm else "unknown"
        raise MalformedKey(f"Keys of type {shown} are not accepted. {_HOW_TO}")
    try:
        key = asyncssh.public_key.decode_ssh_public_key(blob)
    except (asyncssh.KeyImportError, ValueError, OverflowError):
        raise MalformedKey(f"The {algorithm} public key is damaged. Copy the whole line of the .pub file.") from None
    if key.public_data != blob or (algorithm in _POINTS and not _plain_point(algorithm, blob)):
        raise MalformedKey(f"The {algorithm} public key is not in its canonical form.")
    if algorithm == "ssh-rsa" and not MIN_RSA_BITS <= (bits := _rsa_bits(blob)) <= MAX_RSA_BITS:
        raise MalformedKey(f"RSA keys need {MIN_RSA_BITS} to {MAX_RSA_BITS} bits; this one has {bits}. {_HOW_TO}")
    return PublicKey(algorithm=algorithm, blob=blob, comment=comment)


def parse_public_key(text: str | bytes, *, algorithms: frozenset[str] = USER_ALGORITHMS) -> PublicKey:
    """Exactly one public key, as it stands in a `.pub` file: type, base64, optional comment.

    Raises `MalformedKey` with a sentence that says what to send instead.
    """
    line = _one_line(text)
    if "PRIVATE KEY" in line:
        raise MalformedKey(
            "That is a private key. Never send it anywhere; since it has left your machine, make a new one "
            "(ssh-keygen -t ed25519) and send the .pub file."
        )
    parts = line.split(None, 2)
    if len(parts) < 2:
        raise MalformedKey(f"Send one line: the type, the key and a comment, as in a .pub file. {_HOW_TO}")
    blob = _decode(parts[1])
    comment = parts[2] if len(parts) == 3 and parts[2].isprintable() and len(parts[2]) <= 256 else ""
    key = parse_key_blob(blob, algorithms=algorithms, comment=comment)
    if parts[0] != key.algorithm:
        raise MalformedKey("The type before the key and the type inside it differ.")
    return key


def parse_authorized_keys(text: str | bytes, *, max_keys: int = 1000) -> tuple[AuthorizedKey, ...]:
    """The usable lines of an `authorized_keys` file (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").

    Comments, blank lines, lines that cannot be read, keys that we do not accept and `cert-authority` lines are
    passed over: one bad line never hides the others. Options are kept, since they limit what the key may do.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    found: list[AuthorizedKey] = []
    # sshd ends a line at a newline only. Were other separators to end one here, what follows them in the comment
    # of a restricted key would count as a key of its own, without the restrictions.
    for line in text.split("\n"):
        if len(found) >= max_keys:
            break
        entry = _authorized_line(line.strip(" \t\r"))
        if entry is not None:
            found.append(entry)
    return tuple(found)


def _authorized_line(line: str) -> AuthorizedKey | None:
    if not line or line.startswith("#") or len(line) > 4 * MAX_KEY_BYTES:
        return None
    options: tuple[str, ...] = ()
    if line.replace("\t", " ").partition(" ")[0] not in USER_ALGORITHMS:
        split = _split_options(line)
        if split is None:
            return None
        options, line = split
    if any(option.lower().partition("=")[0] == "cert-authority" for option in options):
        return None
    try:
        return AuthorizedKey(key=parse_public_key(line), options=options)
    except MalformedKey:
        return None


def _split_options(line: str) -> tuple[tuple[str, ...], str] | None:
    """Options and the rest of the line; commas and blanks inside double quotes do not split. None: unreadable."""
    options: list[str] = []
    current = ""
    quoted = False
    chars: Iterator[tuple[int, str]] = enumerate(line)
    for at, char in chars:
        if char == "\\" and line[at + 1 : at + 2] == '"':
            current += '\\"'
            next(chars)
        elif char == '"':
            quoted = not quoted
            current += char
        elif not quoted and char in ", \t":
            if not _OPTION_NAME.fullmatch(current.partition("=")[0]):
                return None
            options.append(current)
            current = ""
            if char != ",":
                return tuple(options), line[at:].strip()
        else:
            current += char
    return None


def _one_line(text: str | bytes) -> str:
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedKey("The public key is not text. Send the line of the .pub file.") from None
    if len(text) > 4 * MAX_KEY_BYTES:
        raise MalformedKey("That is far too long for a public key. Send the one line of the .pub file.")
    line = text.strip()
    if "PRIVATE KEY" not in line and len(line.splitlines()) > 1:
        raise MalformedKey("Send exactly one public key, on one line.")
    return line


def _decode(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise MalformedKey("The key is not base64 text. Copy the whole line of the .pub file.") from None


def _rsa_bits(blob: bytes) -> int:
    """Bits of the modulus; `blob` is a well-formed ssh-rsa key (string type, mpint e, mpint n)."""
    return int.from_bytes(_fields(blob)[1], "big").bit_length()


def _plain_point(algorithm: str, blob: bytes) -> bool:
    """Whether the curve inside is the one outside and the point is not compressed (RFC 5656 section 3.1).

    asyncssh takes compressed points, and a curve under another one's name; OpenSSH takes neither.
    """
    curve, point = _fields(blob)
    wanted, size = _POINTS[algorithm]
    return curve == wanted and len(point) == size and point[0] == 4


def _fields(blob: bytes) -> tuple[bytes, bytes]:
    """The second and third string of a key that was parsed: curve and point, or an RSA key's e and n."""
    at = 0
    fields: list[bytes] = []
    for _ in range(3):
        size = int.from_bytes(blob[at : at + 4], "big")
        fields.append(blob[at + 4 : at + 4 + size])
        at += 4 + size
    return fields[1], fields[2]
