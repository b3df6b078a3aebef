"""The files that an SSH client needs: text made from settings and public keys alone, and the client itself.

`known_hosts` is one line for the bastion and every server behind it. `ssh_config` makes `ssh alice.hub`,
`ssh alice+gpu.hub`, `scp`, `git` and editors work by name, through the bastion and end to end.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from api.settings import BastionSettings
from ca.keys import PublicKey

STANDARD_PORT = 22

CLIENT = Path(__file__).parent / "static" / "hubssh"
"""A link to `deploy/client/hubssh.py`: one file in the repository, and a copy of it in a wheel."""


def authority_lines(keys: Iterable[PublicKey]) -> str:
    """Public CA keys, one a line, as sshd's `TrustedUserCAKeys` reads them."""
    return "".join(f"{key.line}\n" for key in keys)


def known_hosts(bastion: BastionSettings, zone: str, keys: Iterable[PublicKey]) -> str:
    """`@cert-authority` lines: one for each host CA key, naming the bastion and the whole zone.

    OpenSSH reads every line that matches, so the keys of a rotation stand beside each other.
    """
    names = [_known_host(host, bastion.port) for host in bastion.hosts]
    # The second form is for servers whose SSH port is not 22.
    pattern = ",".join((*names, f"*.{zone}", f"[*.{zone}]:*"))
    return "".join(f"@cert-authority {pattern} {key.line}\n" for key in keys)


def ssh_config(bastion: BastionSettings, zone: str, unix_user: str, public_url: str, names: Iterable[str] = ()) -> str:
    """A file for `Include`, or for `ssh -F`.

    The server's name is the host name, so `unix_user` is whoever the servers run as: sessions go end to end to the
    pod's own sshd, through the bastion. `names` are host names for the pickers of editors, which show no patterns.
    """
    hosts = " ".join((*names, f"*.{zone}"))
    return f"""\
# SSH into JupyterHub servers: ssh alice.{zone}, ssh alice+gpu.{zone}
# Keep this file as ~/.ssh/jupyterhub_config and write at the top of ~/.ssh/config:
#     Include ~/.ssh/jupyterhub_config
# Host keys: curl -fsS {public_url}/known_hosts -o ~/.ssh/jupyterhub_known_hosts
# Get a certificate at {public_url}/ and keep it beside your key, as the page says.

Host jupyterhub-bastion
    HostName {bastion.hosts[0]}
    Port {bastion.port}
    User {bastion.jump_login}
    UserKnownHostsFile ~/.ssh/jupyterhub_known_hosts
    StrictHostKeyChecking yes

Host {hosts}
    User {unix_user}
    ProxyJump jupyterhub-bastion
    UserKnownHostsFile ~/.ssh/jupyterhub_known_hosts
    StrictHostKeyChecking yes
"""


def _known_host(host: str, port: int) -> str:
    return host if port == STANDARD_PORT else f"[{host}]:{port}"


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is served. `etag` changes with its content."""

    content: bytes
    etag: str


@lru_cache(maxsize=1)
def hubssh() -> File | None:
    """The command line client, one file; None where this service was installed without it."""
    try:
        content = CLIENT.read_bytes()
    except OSError:
        return None
    return File(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
