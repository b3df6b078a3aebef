"""How much one connection may take, and which algorithms it may speak.

Every number has a default that serves an interactive user with an editor attached, and is an argument of the relay:
nothing here reads settings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


def _nobody(limit: str) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Bounds of one client connection and of the pod's connection behind it."""

    signed_attempts: int = 6
    """Keys proven by signature before the client is sent away (sshd's MaxAuthTries)."""
    probes: int = 40
    """Keys offered without a signature, and requests for other methods, before the client is sent away."""
    login_seconds: float = 60.0
    """From the TCP connection to the end of authentication (sshd's LoginGraceTime)."""
    channels: int = 256
    """Channels open or being opened at once, of every kind and in both directions."""
    sessions: int = 32
    """Of these, sessions (sshd's MaxSessions)."""
    window: int = 2 << 20
    """Bytes that may be on their way in one channel and direction, however large a window the receiver offers."""
    packet: int = 64 << 10
    """Largest channel packet that either side is told it may send."""
    buffered: int = 1 << 20
    """Bytes waiting for one TCP connection before reading from the other side stops."""
    deferred: int = 16 << 20
    """Bytes waiting for a key exchange to end before the connection that holds it up is dropped."""
    unanswered: int = 256
    """Requests that wait for an answer, per channel, and global ones per connection. With so many the peer waits."""
    keepalive_seconds: float = 30.0
    """Silence before the peer is asked whether it is still there; 0 never asks. Both sides are asked."""
    keepalive_count: int = 3
    """Unanswered questions before the peer counts as gone, that is after (count + 1) × seconds."""
    rekey_bytes: int = 16 << 30
    """Sent with one key before the bastion asks for new ones. Both sides; clients and pods may ask more often.

    Some clients end when a server asks in the middle of a copy, so it is asked as late as is safe: AES is good for
    2^32 blocks (64 GiB; RFC 4344, 3.2), and the smallest packets number less than 2^31 in 16 GiB (3.1).
    """
    rekey_seconds: float = 0.0
    """Age of a key from which the bastion asks for new ones when it sends something; 0 never asks, as in OpenSSH."""
    dial_seconds: float = 10.0
    """To reach a pod's port, for tunnels and for the TCP part of the pod's connection."""
    pod_login_seconds: float = 20.0
    """To be logged in at the pod, from the TCP connection on."""
    farewell: float = 2.0
    """To tell a person why the connection ends, before it is cut without a word."""
    hit: Callable[[str], None] = field(default=_nobody, repr=False, compare=False)
    """Told the name of a bound above each time it is reached, to be counted. Must not wait or raise."""


@dataclass(frozen=True, slots=True)
class Algorithms:
    """What is offered, best first. The client's order decides, so what must not be chosen is not offered."""

    kex: tuple[str, ...]
    ciphers: tuple[str, ...]
    macs: tuple[str, ...]
    signatures: tuple[str, ...]
    host_keys: tuple[str, ...]
    """Accepted from pods: certificates first, then bare keys."""
    compression: tuple[str, ...] = ("none",)
    """Not by default: a packet of 256 KB can unpack to 256 MB. Clients that ask for compression go on without."""


# curve25519 is for clients that know no ML-KEM. No client needs NIST curves or finite groups that has the rest below.
_KEX = (
    "mlkem768x25519-sha256",
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
)
_GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_CTR = ("aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
_SIGNATURES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
_HOST_KEYS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")


_CHACHA20 = "chacha20-poly1305@openssh.com"

OLDER_KEX = (
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
)
OLDER_MACS = ("hmac-sha2-256", "hmac-sha2-512")
OLDER = (*OLDER_KEX, _CHACHA20, *OLDER_MACS)
"""What a site may offer besides, after everything else, to clients that know nothing better. No SHA-1 is among it."""


def default_algorithms(*, fast_aes: bool, also: Sequence[str] = ()) -> Algorithms:
    """The lists for a machine with (`fast_aes`) or without AES instructions.

    With them chacha20 is not offered: OpenSSH's clients prefer it, and it costs the bastion about twice as much.
    Without them it comes first. No SHA-1, no encrypt-and-MAC, no compression. `also` are names among `OLDER`.
    """
    ciphers = _GCM + _CTR if fast_aes else (_CHACHA20, *_GCM, *_CTR)
    certificates = tuple(f"{name}-cert-v01@openssh.com" for name in _HOST_KEYS)
    return Algorithms(
        kex=_KEX + tuple(name for name in OLDER_KEX if name in also),
        ciphers=ciphers + tuple(name for name in (_CHACHA20,) if name in also and name not in ciphers),
        macs=_MACS + tuple(name for name in OLDER_MACS if name in also),
        signatures=_SIGNATURES,
        host_keys=certificates + _HOST_KEYS,
    )


def has_fast_aes(cpuinfo: str) -> bool:
    """Whether the text of `/proc/cpuinfo` names AES instructions (x86 `flags`, ARM `Features`). Empty: assume so."""
    words = {
        word
        for line in cpuinfo.splitlines()
        if line.partition(":")[0].strip() in {"flags", "Features"}
        for word in line.partition(":")[2].split()
    }
    return not words or "aes" in words
