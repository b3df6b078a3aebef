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
from ca.names import Server

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


@dataclass(frozen=True, slots=True)
class Reach:
    """How somebody's ssh gets in, as far as it differs from person to person.

    `servers` are named one by one for the pickers of editors, which show no patterns. `key` is the file in ~/.ssh
    beside which the certificate lies; None: one that ssh tries by itself. `direct`: jump mode is closed to them, so
    every name leads to the bastion, which tells the servers apart by their login names. `unix_user`: whoever their
    servers run as, where that is not the same for everybody.
    """

    servers: tuple[Server, ...] = ()
    key: str | None = None
    direct: bool = False
    unix_user: str | None = None


EVERYBODY = Reach()


def ssh_config(bastion: BastionSettings, zone: str, unix_user: str, public_url: str, reach: Reach = EVERYBODY) -> str:
    """A file for `Include`, or for `ssh -F`. `unix_user` is whoever the servers run as."""
    identity = f"    IdentityFile ~/.ssh/{reach.key}\n    IdentitiesOnly yes\n" if reach.key else ""
    trust = "    UserKnownHostsFile ~/.ssh/jupyterhub_known_hosts\n    StrictHostKeyChecking yes\n"
    make = _direct if reach.direct else _jump
    return f"""\
# SSH into JupyterHub servers: ssh alice.{zone}, ssh alice+gpu.{zone}
# Keep this file as ~/.ssh/jupyterhub_config and write at the top of ~/.ssh/config:
#     Include ~/.ssh/jupyterhub_config
# Host keys: curl -fsS {public_url}/known_hosts -o ~/.ssh/jupyterhub_known_hosts
# Get a certificate at {public_url}/ and keep it beside your key, as the page says.

{make(bastion, zone, reach.unix_user or unix_user, reach.servers, identity + trust)}"""


def _jump(bastion: BastionSettings, zone: str, unix_user: str, servers: Iterable[Server], common: str) -> str:
    """End to end: the server's name is the host name, and the login is to the pod's own sshd. The port is said, since
    somebody's own `Host *` may say another, which the bastion does not lead to."""
    hosts = " ".join((*(one.host_name(zone) for one in servers), f"*.{zone}"))
    return f"""\
Host jupyterhub-bastion
    HostName {bastion.hosts[0]}
    Port {bastion.port}
    User {bastion.jump_login}
{common}
Host {hosts}
    Port {STANDARD_PORT}
    User {unix_user}
    ProxyJump jupyterhub-bastion
{common}"""


def _direct(bastion: BastionSettings, zone: str, _: str, servers: Iterable[Server], common: str) -> str:
    """ssh cannot make a user of a host name, so each server has a line of its own."""
    named = "".join(f"Host {one.host_name(zone)}\n    User {one.login}\n\n" for one in servers)
    return f"""\
# The user is what stands before .{zone}. For a server that is not here: ssh alice+new@alice+new.{zone}
{named}Host *.{zone}
    HostName {bastion.hosts[0]}
    Port {bastion.port}
{common}"""


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
