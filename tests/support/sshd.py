"""Why: what the bastion is measured against is OpenSSH's own sshd, so tests run the real one, as a pod does.

    with Sshd.running(directory) as sshd: ...

An sshd on a loopback port with keys of its own, started by whoever runs the tests (root or not), for that same user.
It takes `user_key` (in its authorized_keys) and any certificate of `user_ca` for the user's name, and shows a host
certificate of `host_ca` for `name`.
"""

from __future__ import annotations

import getpass
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from tests.support.processes import die_with_parent

BINARY = "/usr/sbin/sshd"
_START_SECONDS = 15.0


def free_port() -> int:
    """A loopback port that was free a moment ago; whoever uses it tries again when it was taken since."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Sshd:
    """A running sshd."""

    directory: Path
    name: str = "pod.hub"
    user: str = field(default_factory=getpass.getuser)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    user_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    user_ca: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    host_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    host_ca: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))

    @classmethod
    @contextmanager
    def running(cls, directory: Path, extra: Sequence[str] = ()) -> Iterator[Sshd]:
        """Start one with these lines added to its configuration; it ends with the block."""
        sshd = cls(directory)
        sshd.start(extra)
        try:
            yield sshd
        finally:
            sshd.stop()

    @property
    def identity(self) -> Path:
        """The file of `user_key`, for `ssh -i`."""
        return self.directory / "identity"

    @property
    def known_hosts(self) -> Path:
        """A known_hosts file that knows this sshd by its CA and by its address."""
        return self.directory / "known_hosts"

    def certificate(self, key: asyncssh.SSHKey, principal: str | None = None) -> asyncssh.SSHCertificate:
        """A user certificate of `user_ca` for that key, valid for a day, with every permission."""
        return self.user_ca.generate_user_certificate(
            key, "test", principals=[principal or self.user], valid_after="-1m", valid_before="+1d"
        )

    def host_certificate(
        self, principals: Sequence[str], valid_before: str = "+1d", ca: asyncssh.SSHKey | None = None
    ) -> asyncssh.SSHCertificate:
        """A host certificate for `host_key`; for longer than a run of all tests takes, which one sshd may serve."""
        return (ca or self.host_ca).generate_host_certificate(
            self.host_key, "test", principals=list(principals), valid_after="-10m", valid_before=valid_before
        )

    def start(self, extra: Sequence[str] = (), *, write_keys: bool = True) -> None:
        """Write keys and configuration, start, and wait until it listens."""
        if not Path(BINARY).exists():
            raise RuntimeError(f"{BINARY} is missing: install OpenSSH's server (Debian: openssh-server)")
        if write_keys:
            self._write_keys()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its privilege separation needs it
        for _ in range(5):
            self.port = free_port()
            if self._started(extra):
                break
        else:
            raise RuntimeError("sshd found no port")
        self.known_hosts.write_text(
            f"@cert-authority {self.name} {_line(self.host_ca)}\n[127.0.0.1]:{self.port} {_line(self.host_key)}\n"
        )

    def stop(self) -> None:
        """End the listener and every connection that it still has."""
        if self.process is None:
            return
        children = _children(self.process.pid)
        self.process.terminate()
        self.process.wait(10)
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.process = None
        for child in children:
            try:
                os.kill(child, signal.SIGTERM)
            except ProcessLookupError:
                continue

    def connections(self) -> list[int]:
        """The processes that serve connections."""
        return [] if self.process is None else _children(self.process.pid)

    def _write_keys(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        _private(self.directory / "host", self.host_key)
        _private(self.identity, self.user_key)
        (self.directory / "host-cert.pub").write_bytes(self.host_certificate([self.name]).export_certificate())
        (self.directory / "user_ca").write_bytes(self.user_ca.export_public_key())
        (self.directory / "authorized_keys").write_bytes(self.user_key.export_public_key())

    def _started(self, extra: Sequence[str]) -> bool:
        config = self.directory / "sshd_config"
        config.write_text("\n".join((*self._lines(), *extra)) + "\n")
        self.process = subprocess.Popen(
            [BINARY, "-D", "-e", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - it calls two system calls
        )
        said = b""
        stderr = self.process.stderr
        end = time.monotonic() + _START_SECONDS
        while stderr is not None and time.monotonic() < end:
            if select.select([stderr], [], [], 0.5)[0]:
                more = os.read(stderr.fileno(), 4096)
                said += more
                if b"Server listening on" in said:
                    return True
                if not more:
                    break
        self.process.kill()
        self.process.wait()
        if stderr is not None:
            stderr.close()
        if b"Address already in use" in said:
            return False
        raise RuntimeError(f"sshd did not start: {said.decode(errors='replace')}")

    def _lines(self) -> tuple[str, ...]:
        here = self.directory
        xauth = shutil.which("xauth") or "/usr/bin/xauth"
        return (
            f"ListenAddress 127.0.0.1:{self.port}",
            f"HostKey {here}/host",
            f"HostCertificate {here}/host-cert.pub",
            f"PidFile {here}/pid",
            f"AuthorizedKeysFile {here}/authorized_keys",
            f"TrustedUserCAKeys {here}/user_ca",
            f"AllowUsers {self.user}",
            "PermitRootLogin prohibit-password",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "AllowAgentForwarding yes",
            "AllowTcpForwarding yes",
            "AllowStreamLocalForwarding yes",
            "X11Forwarding yes",
            f"XAuthLocation {xauth}",
            "PrintMotd no",
            "PrintLastLog no",
            # bash, started by sshd, reads ~/.bashrc unless it is a nested shell: what is in there is no part of a test
            f"SetEnv XAUTHORITY={here}/Xauthority SHLVL=1",
            "AcceptEnv LANG LC_* RELAY_*",
            "MaxSessions 64",
            "MaxStartups 200",
            "LogLevel INFO",
            "Subsystem sftp internal-sftp",
            "Subsystem fails /bin/sh -c 'echo no luck >&2; exit 7'",
        )


def _line(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


def _private(path: Path, key: asyncssh.SSHKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key.export_private_key())


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in tasks.read_text().split()] if tasks.exists() else []
