"""The options of both connections, every one that matters written out.

asyncssh's defaults read the process's own `~/.ssh`, its agent and its host name (a DNS look-up), offer SHA-1 and set no
keepalive. This is the one place where options are made; nothing here is private to asyncssh.
"""

import asyncio
import getpass
import os
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache

import asyncssh
from asyncssh.kex import get_kex_algs
from asyncssh.public_key import SSHLocalKeyPair

from bastion.relay.limits import Algorithms, RelayLimits

VERSION = "jupyterhub-bastion"
"""What stands in the identification string: a name, no version."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """One of the bastion's host keys, with its certificate where it has one."""

    key: asyncssh.SSHKey = field(repr=False)
    certificate: asyncssh.SSHCertificate | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PodLogin:
    """How the bastion logs in at a pod."""

    username: str
    key: asyncssh.SSHKey = field(repr=False)
    certificate: asyncssh.SSHCertificate | None = field(default=None, repr=False)


def server_options(
    owner: Callable[[], asyncssh.SSHServer], host_keys: Sequence[HostKey], limits: RelayLimits, algorithms: Algorithms
) -> asyncssh.SSHServerConnectionOptions:
    """For connections from clients. Public keys only; everything that asyncssh would do for a session is off."""
    return asyncssh.SSHServerConnectionOptions(
        server_factory=owner,
        server_host_keys=[
            (host.key, host.certificate) if host.certificate is not None else host.key for host in host_keys
        ],
        send_server_host_keys=False,
        server_version=VERSION,
        config=None,
        host_based_auth=False,
        public_key_auth=True,
        kbdint_auth=False,
        password_auth=False,
        authorized_client_keys=None,
        known_client_hosts=None,
        trust_client_host=False,
        gss_host=None,
        gss_kex=False,
        gss_auth=False,
        allow_pty=False,
        line_editor=False,
        agent_forwarding=False,
        x11_forwarding=False,
        allow_scp=False,
        sftp_factory=None,
        process_factory=None,
        session_factory=None,
        rdns_lookup=False,
        encoding=None,
        utf8_decode_errors="replace",
        login_timeout=limits.login_seconds,
        keepalive_interval=limits.keepalive_seconds,
        keepalive_count_max=limits.keepalive_count,
        tcp_keepalive=True,
        rekey_bytes=limits.rekey_bytes,
        rekey_seconds=limits.rekey_seconds,
        x509_trusted_certs=None,
        kex_algs=offered_kex(algorithms),
        encryption_algs=list(algorithms.ciphers),
        mac_algs=list(algorithms.macs),
        compression_algs=list(algorithms.compression),
        signature_algs=list(algorithms.signatures),
    )


def pod_options(
    owner: Callable[[], asyncssh.SSHClient], login: PodLogin, name: str, limits: RelayLimits, algorithms: Algorithms
) -> asyncssh.SSHClientConnectionOptions:
    """For one connection to a pod whose host certificate must name `name`.

    A copy of what all pods' connections have in common, since making options takes as long as a signature.
    """
    options = copy(_of_every_pod(limits, algorithms))
    options.protocol_factory = owner
    options.host = options.host_key_alias = name
    options.username = login.username
    options.client_keys = [SSHLocalKeyPair(login.key, None, login.certificate, None)]
    options.waiter = asyncio.get_running_loop().create_future()
    return options


@lru_cache(maxsize=8)
def _of_every_pod(limits: RelayLimits, algorithms: Algorithms) -> asyncssh.SSHClientConnectionOptions:
    """`known_hosts` is empty rather than None: None would switch the check off, empty leaves it to the owner."""
    need_no_local_user()
    return asyncssh.SSHClientConnectionOptions(
        client_version=VERSION,
        config=None,
        known_hosts=([], [], []),
        server_host_key_algs=list(algorithms.host_keys),
        server_host_keys_handler=None,
        username="",
        password=None,
        client_keys=None,
        client_host_keysign=False,
        client_host_keys=None,
        preferred_auth=["publickey"],
        disable_trivial_auth=True,
        host_based_auth=False,
        public_key_auth=True,
        kbdint_auth=False,
        password_auth=False,
        agent_path=None,
        agent_forwarding=False,
        pkcs11_provider=None,
        gss_host=None,
        gss_kex=False,
        gss_auth=False,
        gss_delegate_creds=False,
        x11_forwarding=False,
        proxy_command=None,
        tunnel=None,
        utf8_decode_errors="replace",
        connect_timeout=None,
        login_timeout=0,  # `connect_pod` looks at the time, and tells an end by time from others
        keepalive_interval=limits.keepalive_seconds,
        keepalive_count_max=limits.keepalive_count,
        tcp_keepalive=True,
        rekey_bytes=limits.rekey_bytes,
        rekey_seconds=limits.rekey_seconds,
        x509_trusted_certs=None,
        x509_trusted_cert_paths=[],
        kex_algs=offered_kex(algorithms),
        encryption_algs=list(algorithms.ciphers),
        mac_algs=list(algorithms.macs),
        compression_algs=["none"],
        signature_algs=list(algorithms.signatures),
    )


def need_no_local_user() -> None:
    """Give the process's user a name where it has none, as in containers that run under a number of their own.

    asyncssh asks for it before it makes a client's options, for files of settings that are not read here, and
    refuses to go on without; the environment is where it says that a name can be given.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = VERSION


def offered_kex(algorithms: Algorithms) -> list[str]:
    """The key exchanges that this installation has: sntrup761 comes with a library that need not be there."""
    known = get_kex_algs()
    return [name for name in algorithms.kex if name.encode("ascii") in known]
