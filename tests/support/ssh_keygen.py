"""Why: OpenSSH's own reading of a certificate is what counts, so every certificate made in tests passes here."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Shown:
    """What `ssh-keygen -L` prints of a certificate. Times are seconds since the epoch; None means no limit."""

    algorithm: str
    kind: str
    fingerprint: str
    ca_fingerprint: str
    key_id: str
    serial: int
    valid_after: int | None
    valid_before: int | None
    principals: tuple[str, ...]
    critical: tuple[str, ...]
    extensions: tuple[str, ...]


class Unreadable(Exception):
    """OpenSSH does not take it for a certificate."""


def show(line: str) -> Shown:
    """The certificate of one `-cert.pub` line. Raises `Unreadable`."""
    done = subprocess.run(
        ["ssh-keygen", "-L", "-f", "-"],
        input=line.encode() + b"\n",
        capture_output=True,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        timeout=20,
        check=False,
    )
    if done.returncode != 0 or b"Type:" not in done.stdout:
        raise Unreadable(done.stderr.decode("utf-8", "replace"))
    text = done.stdout.decode("utf-8")
    algorithm, kind = _one(r"^        Type: (\S+) (user|host) certificate$", text).groups()
    valid_after, valid_before = _validity(text)
    return Shown(
        algorithm=algorithm,
        kind=kind,
        fingerprint=_one(r"^        Public key: \S+ (SHA256:\S+)$", text)[1],
        ca_fingerprint=_one(r"^        Signing CA: ED25519 (SHA256:\S+) \(using ssh-ed25519\)$", text)[1],
        key_id=_one(r'^        Key ID: "(.*)"\n        Serial: ', text)[1],
        serial=int(_one(r"^        Serial: (\d+)$", text)[1]),
        valid_after=valid_after,
        valid_before=valid_before,
        principals=_listed("Principals", "Critical Options", text),
        critical=_listed("Critical Options", "Extensions", text),
        extensions=_listed("Extensions", None, text),
    )


def fingerprint(line: str) -> str:
    """The fingerprint that `ssh-keygen -l` prints of a public key line. Raises `Unreadable`."""
    done = subprocess.run(
        ["ssh-keygen", "-l", "-f", "-"], input=line.encode(), capture_output=True, timeout=20, check=False
    )
    if done.returncode != 0:
        raise Unreadable(done.stderr.decode("utf-8", "replace"))
    return done.stdout.decode().split()[1]


def _one(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text, re.MULTILINE | re.DOTALL if "Key ID" in pattern else re.MULTILINE)
    if found is None:
        raise Unreadable(text)
    return found


def _validity(text: str) -> tuple[int | None, int | None]:
    found = re.search(r"^        Valid: (?:from|after) (\S+)(?: to (\S+))?$", text, re.MULTILINE)
    if found is None:
        before = re.search(r"^        Valid: before (\S+)$", text, re.MULTILINE)
        return None, _seconds(before[1]) if before else None
    return _seconds(found[1]), _seconds(found[2]) if found[2] else None


def _seconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())


def _listed(heading: str, following: str | None, text: str) -> tuple[str, ...]:
    part = text.split(f"\n        {heading}: ", 1)[1]
    if following is not None:
        part = part.split(f"\n        {following}: ", 1)[0]
    # OpenSSH says this of extensions that are not its own, ours among them.
    lines = [one.strip().removesuffix(" UNKNOWN FLAG OPTION") for one in part.split("\n") if one.startswith(" " * 16)]
    return tuple(lines)
