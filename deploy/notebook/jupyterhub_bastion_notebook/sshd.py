"""Exists to turn an enrolment into an sshd that lets in one principal and one account, and nobody else.

OpenSSH's sshd does the work, with a configuration that is ours alone: nothing under /etc/ssh is read. What differs
between its versions is asked of the installed one (`sshd -T`), never guessed from a version number.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PRIVSEP = Path("/run/sshd")
_PROBE = 'SetEnv PROBE="a\\\\b"'

# Strongest first. What the installed sshd does not offer by itself is left out; SHA-1, finite groups,
# NIST curves for key exchange and encrypt-and-MAC are in no list.
_KEX = (
    "mlkem768x25519-sha256",
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
)
_CIPHERS = (
    "chacha20-poly1305@openssh.com",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "umac-128-etm@openssh.com")
_HOST_KEYS = "ssh-ed25519-cert-v01@openssh.com,ssh-ed25519"
_SHA1_SIGNATURES = frozenset({"ssh-rsa", "ssh-rsa-cert-v01@openssh.com", "ssh-dss", "ssh-dss-cert-v01@openssh.com"})


class SshdError(Exception):
    """sshd cannot be used here; the text is a sentence that says what to do."""


@dataclass(frozen=True)
class Sshd:
    """The installed sshd and what it says about itself."""

    program: str
    """Absolute: sshd starts itself anew from this path."""
    defaults: Mapping[str, str]
    """Its own settings, keyword in lower case -> value."""

    @property
    def escapes(self) -> bool:
        """Whether backslashes inside quotes mean something in its configuration."""
        return self.defaults.get("setenv", "") == "PROBE=a\\b"

    def check(self, configuration: Path) -> None:
        """Let sshd read a configuration before it has to live with it. Raises SshdError."""
        done = _run([self.program, "-t", "-f", str(configuration)])
        if done.returncode != 0:
            raise SshdError(f"sshd refuses its configuration: {_last_line(done.stderr)}.")

    def command(self, configuration: Path) -> list[str]:
        """How to run it: in the foreground, its log on standard error."""
        return [self.program, "-D", "-e", "-f", str(configuration)]


@dataclass(frozen=True)
class Account:
    """The account that this process, and so every session, runs as."""

    name: str
    uid: int
    home: Path
    shell: str


@dataclass(frozen=True)
class Plan:
    """Everything one configuration is made of. Paths hold no quote, backslash or line break."""

    listen: tuple[str, ...]
    port: int
    host_key: Path
    host_certificate: Path
    trusted_user_ca: Path
    principals: Path
    revoked_keys: Path
    """There must always be such a file: without it sshd lets nobody in."""
    authorized_keys: Path
    account: Account
    environment: bytes
    """The `SetEnv` line."""
    session_script: Path | None = None
    """Runs each session in the server's HOME; None when that is the account's own."""
    sftp_server: str = "internal-sftp"


def account() -> Account:
    """The account of this process. Raises SshdError when there is none."""
    uid = os.getuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise SshdError(
            f"The user id {uid} has no line in /etc/passwd, and sshd logs in by name, so SSH stays off: "
            "add one in the image or at its start."
        ) from None
    return Account(name=entry.pw_name, uid=uid, home=Path(entry.pw_dir), shell=entry.pw_shell)


def find(host_key: Path) -> Sshd:
    """The installed sshd. Raises SshdError."""
    program = next((p for p in ("/usr/sbin/sshd", shutil.which("sshd")) if p and os.access(p, os.X_OK)), None)
    if program is None:
        raise SshdError("There is no sshd in this image, so SSH stays off: install openssh-server.")
    if os.getuid() == 0 and not _PRIVSEP.exists():
        # A root sshd locks its unauthenticated half into this empty folder; packages leave making it to an init system.
        _PRIVSEP.mkdir(mode=0o755, parents=True)
    program = os.path.abspath(program)  # noqa: PTH100 - a link may be how the distribution chooses, so not resolved
    done = _run([program, "-T", "-f", "/dev/null", "-h", str(host_key), "-o", _PROBE])
    if done.returncode != 0:
        raise SshdError(f"sshd does not run here, so SSH stays off: {_last_line(done.stderr)}.")
    return Sshd(program=program, defaults=settings_shown(done.stdout))


def settings_shown(output: bytes) -> dict[str, str]:
    """What `sshd -T` prints, keyword in lower case -> value. Up to OpenSSH 10.0 keywords come in lower case, by 10.6
    as the manual writes them."""
    pairs = (line.partition(" ") for line in output.decode("utf-8", "replace").splitlines())
    return {keyword.lower(): value for keyword, _, value in pairs}


def is_locked(account: Account) -> bool:
    """Whether sshd will refuse the account whatever key comes; only a root sshd can see that, and so can we."""
    try:
        lines = Path("/etc/shadow").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith(f"{account.name}:!") for line in lines)


def find_sftp_server() -> str | None:
    """The sftp-server program, where distributions keep it, or on PATH where an sshd was lent to the image."""
    places = ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh", "/usr/libexec", "/usr/lib/misc")
    known = (f"{place}/sftp-server" for place in places)
    return next((program for program in known if os.access(program, os.X_OK)), None) or shutil.which("sftp-server")


def make_host_key(path: Path) -> str:
    """The public host key's line, "algorithm base64". Makes the key unless a good one is there. Raises SshdError."""
    keygen = shutil.which("ssh-keygen")
    if keygen is None:
        raise SshdError("There is no ssh-keygen in this image, so SSH stays off: install openssh-server.")
    shown = _run([keygen, "-y", "-P", "", "-f", str(path)])
    if shown.returncode != 0 or not shown.stdout.startswith(b"ssh-ed25519 "):
        path.unlink(missing_ok=True)
        Path(f"{path}.pub").unlink(missing_ok=True)
        made = _run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)])
        if made.returncode != 0:
            raise SshdError(f"No host key could be made: {_last_line(made.stderr)}.")
        shown = _run([keygen, "-y", "-P", "", "-f", str(path)])
    return " ".join(shown.stdout.decode("ascii", "replace").split()[:2])


def configuration(plan: Plan, sshd: Sshd) -> bytes:
    """The text of sshd's configuration for a plan."""
    lines = [
        f"Port {plan.port}",
        *(f"ListenAddress {address}" for address in plan.listen),
        f"HostKey {_path(plan.host_key)}",
        f"HostCertificate {_path(plan.host_certificate)}",
        f"TrustedUserCAKeys {_path(plan.trusted_user_ca)}",
        f"AuthorizedPrincipalsFile {_pattern(plan.principals)}",
        f"RevokedKeys {_path(plan.revoked_keys)}",
        f"AuthorizedKeysFile {_pattern(plan.authorized_keys)}",
        f"AllowUsers {_user_pattern(plan.account.name)}",
        f"PermitRootLogin {'prohibit-password' if plan.account.uid == 0 else 'no'}",
        # Homes on shared volumes are often group-writable, and our own folder is below one that is for everybody:
        # sshd would silently refuse keys and principals there. Our files are 0600 in a folder that only we may enter.
        "StrictModes no",
        "AuthenticationMethods publickey",
        "PubkeyAuthentication yes",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "HostbasedAuthentication no",
        "PermitEmptyPasswords no",
        "PidFile none",
        "LogLevel INFO",
        "AllowAgentForwarding yes",
        "AllowTcpForwarding yes",
        "AllowStreamLocalForwarding yes",
        "StreamLocalBindUnlink yes",
        "X11Forwarding yes",
        "X11UseLocalhost yes",
        "GatewayPorts no",
        "PermitTunnel no",
        "PermitUserEnvironment no",
        "AcceptEnv LANG LC_*",
        "UseDNS no",
        "PrintMotd no",
        "PrintLastLog no",  # rootless, it would only complain about a file it may not write
        "ClientAliveInterval 30",
        "ClientAliveCountMax 4",
        # Everybody comes from the bastion's address, and editors open many sessions over one connection.
        "MaxSessions 200",
        "MaxStartups 100:30:200",
        "MaxAuthTries 20",
        "LoginGraceTime 60",
        f"Subsystem sftp {plan.sftp_server}",
        *_algorithms(sshd.defaults),
        *_known("UsePAM no", sshd.defaults),
        *_known("PerSourcePenalties no", sshd.defaults),
        *_session_lines(plan),
    ]
    return "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n" + plan.environment


def _session_lines(plan: Plan) -> list[str]:
    if plan.session_script is None:
        return []
    # Started through sh because memory-backed folders are often mounted noexec. The account's ~/.ssh/rc belongs to
    # whoever else uses the account. The script needs to know which key it was: see session.py.
    return [f'ForceCommand /bin/sh "{plan.session_script}"', "ExposeAuthInfo yes", "PermitUserRC no"]


def _algorithms(defaults: Mapping[str, str]) -> list[str]:
    lines = [f"HostKeyAlgorithms {_HOST_KEYS}"]
    for keyword, wanted in (("KexAlgorithms", _KEX), ("Ciphers", _CIPHERS), ("MACs", _MACS)):
        offered = defaults.get(keyword.lower(), "").split(",")
        chosen = [name for name in wanted if name in offered]
        if chosen:
            lines.append(f"{keyword} {','.join(chosen)}")
    # The second is what it was called before OpenSSH 8.5.
    for keyword in ("PubkeyAcceptedAlgorithms", "PubkeyAcceptedKeyTypes"):
        offered = [name for name in defaults.get(keyword.lower(), "").split(",") if name]
        if offered:
            lines.append(f"{keyword} {','.join(name for name in offered if name not in _SHA1_SIGNATURES)}")
    return lines


def _known(line: str, defaults: Mapping[str, str]) -> list[str]:
    return [line] if line.split(maxsplit=1)[0].lower() in defaults else []


def _path(path: Path) -> str:
    return f'"{path}"'


def _pattern(path: Path) -> str:
    return _path(Path(str(path).replace("%", "%%")))  # sshd expands %h, %u and the like here


def _user_pattern(name: str) -> str:
    # AllowUsers reads `user@host` and wildcards: whatever is special stands for "one character".
    return re.sub(r"[^A-Za-z0-9._$-]", "?", name)


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").split("\n")
    return next((line.strip().rstrip(".") for line in reversed(lines) if line.strip()), "it does not say why")
