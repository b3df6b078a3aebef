"""Why: proofs are made by the real ssh-keygen; a security key is played by a few lines, which ssh-keygen verifies."""

from __future__ import annotations

import base64
import hashlib
import struct
import subprocess
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NAMESPACE = "jupyterhub-bastion"


def make_key(folder: Path, name: str = "id", kind: str = "ed25519", *options: str) -> Path:
    """A private key file, made by ssh-keygen."""
    path = folder / name
    _run("ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-C", "alice@laptop", "-f", str(path))
    return path


def public_line(key: Path) -> str:
    return Path(f"{key}.pub").read_text().strip()


def sign(key: Path, message: bytes, namespace: str = NAMESPACE, *options: str) -> bytes:
    """The signature that `ssh-keygen -Y sign` makes, without its armour."""
    done = _run("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(key), *options, given=message)
    lines = done.stdout.decode().splitlines()
    return base64.b64decode("".join(lines[1:-1]))


def verified_by_openssh(folder: Path, line: str, message: bytes, signature: bytes) -> bool:
    """What `ssh-keygen -Y verify` says."""
    text = base64.b64encode(signature).decode()
    armoured = "\n".join(text[at : at + 70] for at in range(0, len(text), 70))
    (folder / "signature").write_text(f"-----BEGIN SSH SIGNATURE-----\n{armoured}\n-----END SSH SIGNATURE-----\n")
    (folder / "signers").write_text(f'alice namespaces="{NAMESPACE}" {line}\n')
    options = ("-n", NAMESPACE, "-I", "alice", "-s", str(folder / "signature"), "-f", str(folder / "signers"))
    return _run("ssh-keygen", "-Y", "verify", *options, given=message, check=False).returncode == 0


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class SecurityKey:
    """A key as a token holds it. `flags` is what it says of whoever was there: 1 is "touched"."""

    def __init__(self, kind: str) -> None:
        self.algorithm = f"sk-{kind}@openssh.com".encode()
        application = string(b"ssh:")
        self._ed = ed25519.Ed25519PrivateKey.generate() if "ed25519" in kind else None
        self._ec = None if self._ed else ec.generate_private_key(ec.SECP256R1())
        if self._ed is not None:
            point = string(self._ed.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        else:
            assert self._ec is not None
            raw = self._ec.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            point = string(b"nistp256") + string(raw)
        self.blob = string(self.algorithm) + point + application

    @property
    def line(self) -> str:
        return f"{self.algorithm.decode()} {base64.b64encode(self.blob).decode()}"

    def sign(self, message: bytes, flags: int = 1, namespace: str = NAMESPACE) -> bytes:
        """A whole signature (PROTOCOL.sshsig, PROTOCOL.u2f)."""
        digest = hashlib.sha512(message).digest()
        inner = b"SSHSIG" + string(namespace.encode()) + string(b"") + string(b"sha512") + string(digest)
        tail = struct.pack(">BI", flags, 7)
        signed = hashlib.sha256(b"ssh:").digest() + tail + hashlib.sha256(inner).digest()
        if self._ed is not None:
            made = self._ed.sign(signed)
        else:
            assert self._ec is not None
            made = b"".join(string(_mpint(one)) for one in decode_dss_signature(self._ec.sign(signed, _ECDSA)))
        signature = string(self.algorithm) + string(made) + tail
        fields = (self.blob, namespace.encode(), b"", b"sha512", signature)
        return b"SSHSIG" + struct.pack(">I", 1) + b"".join(string(one) for one in fields)


_ECDSA = ec.ECDSA(hashes.SHA256())


def _mpint(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def _run(*command: str, given: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    done: Any = subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(done.stderr.decode("utf-8", "replace"))
    found: subprocess.CompletedProcess[bytes] = done
    return found
