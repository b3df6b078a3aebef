"""Why: the pod, and the jump host that the bastion is compared with, are OpenSSH's own sshd with certificates of ours.

Its configuration is Debian's default where it matters for speed: no algorithm is chosen here.
"""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from bench.credentials import Credentials
from bench.processes import running
from ca.keys import PublicKey, parse_key_blob

BINARY = "/usr/sbin/sshd"
START_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Sshd:
    """A running sshd."""

    port: int
    host_key: PublicKey
    process: Process


@asynccontextmanager
async def sshd(
    folder: Path,
    credentials: Credentials,
    names: Sequence[str],
    principals: Sequence[str],
    authorities: Sequence[PublicKey],
    pin: Sequence[str],
    port: int,
) -> AsyncIterator[Sshd]:
    """An sshd that is `names` to its clients and lets in certificates of `authorities` with one of `principals`."""
    folder.mkdir(exist_ok=True)
    (folder / "home").mkdir(exist_ok=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its privilege separation needs it
    key = asyncssh.generate_private_key("ssh-ed25519")
    private(folder / "host", key.export_private_key())
    host_key = parse_key_blob(key.public_data)
    (folder / "host-cert.pub").write_text(credentials.host(host_key, *names)[0] + "\n")
    (folder / "authorities").write_text("".join(f"{one.line}\n" for one in authorities))
    (folder / "principals").write_text("".join(f"{one}\n" for one in principals))
    (folder / "config").write_text("\n".join(_config(folder, port)) + "\n")
    log = folder / "log"
    with log.open("wb") as errors:
        async with running([*pin, BINARY, "-D", "-e", "-f", str(folder / "config")], stderr=errors) as process:
            await wait_for(log, b"Server listening on", process)
            yield Sshd(port, host_key, process)


def private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(data)


async def wait_for(log: Path, words: bytes, process: Process) -> bytes:
    """Wait until the log holds `words`; everything in it. Raises `RuntimeError` if the process ends or takes long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + START_SECONDS
    while words not in (said := log.read_bytes()):
        if process.returncode is not None or loop.time() > end:
            raise RuntimeError(f"a server did not start: {said.decode(errors='replace')[-1500:]}")
        await asyncio.sleep(0.02)
    return said


def _config(folder: Path, port: int) -> tuple[str, ...]:
    return (
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {folder}/host",
        f"HostCertificate {folder}/host-cert.pub",
        f"PidFile {folder}/pid",
        f"TrustedUserCAKeys {folder}/authorities",
        f"AuthorizedPrincipalsFile {folder}/principals",
        "AuthorizedKeysFile none",
        "PermitRootLogin prohibit-password",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PrintMotd no",
        "PrintLastLog no",
        # The shell's start-up files of whoever runs this are no part of what is measured.
        f"SetEnv HOME={folder}/home",
        "MaxSessions 64",
        "MaxStartups 2000",
        "Subsystem sftp internal-sftp",
    )
