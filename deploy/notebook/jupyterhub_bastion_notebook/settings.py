"""Exists so that what an administrator or a spawner sets is read once, checked, and explained when it is wrong.

Everything comes from the environment, since that is what spawners set; flags override it. The JupyterHub token has no
flag: what stands on a command line can be read by every process of the machine.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import os
import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

_YES = frozenset({"1", "true", "yes", "on"})

_TEACHING = """
examples:
  jupyterhub-bastion-notebook -- jupyterhub-singleuser --port=8888
      becomes the notebook server and, when SSH_BASTION_ENABLE is 1, runs an SSH server beside it
  jupyterhub-bastion-notebook
      the SSH server alone (a sidecar), until SIGTERM

environment (a flag of the same meaning wins):
  SSH_BASTION_ENABLE           1 or true: start SSH. Anything else: only become COMMAND
  SSH_BASTION_API_URL          the api's address, as https://ssh-api.example.org
  SSH_BASTION_ALLOW_HTTP       1: plain http is good enough to private addresses too
  SSH_BASTION_SSH_PORT         sshd's port; 0 picks a free one (default 0; 2222 is usual in Kubernetes)
  SSH_BASTION_KEY_PORT         port of GET /publickey; 0 picks a free one (default 8080)
  SSH_BASTION_LISTEN           address to listen on; 0.0.0.0: all of IPv4, ::: all of both
                               families (default :: in Kubernetes, else 0.0.0.0)
  SSH_BASTION_AUTHORIZED_KEYS  keys that may log in without a certificate (default ~/.ssh/authorized_keys)
  SSH_BASTION_POLL             seconds between looks at what was revoked and at the api's database (default 15)
  JUPYTERHUB_API_TOKEN         set by JupyterHub; there is no flag for it

sshd (package openssh-server) must be installed in the image. No root is needed.
"""


class SettingsError(Exception):
    """A setting that cannot be used; the text is a sentence for whoever set it and never holds a secret."""


@dataclass(frozen=True)
class Settings:
    """What this program needs to know, all of it."""

    enabled: bool
    command: tuple[str, ...]
    """The notebook server to become; empty: run alone."""
    api_url: str = ""
    """Without a slash at its end."""
    token: str = field(default="", repr=False)
    ssh_port: int = 0
    key_port: int = 8080
    listen: str = "0.0.0.0"  # noqa: S104 - the bastion comes from another machine
    """`0.0.0.0`: all of IPv4; `::`: all of both families."""
    authorized_keys: Path = Path()
    home: Path = Path()
    """Where sessions start: the notebook server's HOME, which need not be the account's."""
    poll: float = 15.0
    """Seconds between two looks at the api's news."""
    storage_key: str = ""
    """Names the runtime folder: the same for a restarted container of the same server."""
    storage_dies_with_pod: bool = False
    """In Kubernetes, memory-backed storage ends with the pod, so the host key is left for a restarted container."""


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Settings from the command line and the environment.

    Raises SettingsError for values that cannot be used; only when SSH is enabled, so that a server without it is
    never bothered. Leaves through SystemExit for --help and for unknown flags, as argparse does.
    """
    before, command = _split(arguments)
    flags = _parser().parse_args(before)
    enabled = flags.enable or environ.get("SSH_BASTION_ENABLE", "").strip().lower() in _YES
    if not enabled:
        return Settings(enabled=False, command=command)

    def value(flag: str | None, name: str, default: str) -> str:
        return flag if flag is not None else environ.get(name, "").strip() or default

    in_pod = bool(environ.get("KUBERNETES_SERVICE_HOST"))
    home = Path(environ.get("HOME") or _account_home())
    if not home.is_absolute():
        raise SettingsError(f"HOME must be an absolute path, not {str(home)!r}.")
    return Settings(
        enabled=True,
        command=command,
        api_url=check_url(
            value(flags.api_url, "SSH_BASTION_API_URL", ""),
            private_http=environ.get("SSH_BASTION_ALLOW_HTTP", "").strip().lower() in _YES,
        ),
        token=_token(environ.get("JUPYTERHUB_API_TOKEN", "")),
        ssh_port=_port(value(flags.ssh_port, "SSH_BASTION_SSH_PORT", "0"), "SSH_BASTION_SSH_PORT"),
        key_port=_port(value(flags.key_port, "SSH_BASTION_KEY_PORT", "8080"), "SSH_BASTION_KEY_PORT"),
        # The bastion dials the address that Kubernetes names first for a pod, of whichever family that is.
        listen=_address(value(flags.listen, "SSH_BASTION_LISTEN", "::" if in_pod else "0.0.0.0")),  # noqa: S104
        authorized_keys=_keys_path(
            value(flags.authorized_keys, "SSH_BASTION_AUTHORIZED_KEYS", str(home / ".ssh/authorized_keys")), home
        ),
        home=home,
        poll=_seconds(value(flags.poll, "SSH_BASTION_POLL", "15"), "SSH_BASTION_POLL"),
        storage_key=_storage_key(environ),
        storage_dies_with_pod=in_pod,
    )


def check_url(url: str, *, private_http: bool) -> str:
    """The api's address without its last slash, or SettingsError: the JupyterHub token travels to it.

    https to anywhere; plain http only where nobody else can listen: this machine, names that exist only inside a
    cluster (one label, or ending in .svc or .svc.cluster.local) and, if the administrator says so, private addresses.
    """
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise SettingsError("SSH_BASTION_API_URL is not a URL.") from None
    if not url:
        raise SettingsError("SSH_BASTION_API_URL is not set: it must be the address of the bastion's api.")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise SettingsError("SSH_BASTION_API_URL must look like https://ssh-api.example.org.")
    if parts.username is not None or parts.password is not None:
        raise SettingsError("SSH_BASTION_API_URL must not hold a user name or a password.")
    if re.search(r"[^\x21-\x7e]", url):
        raise SettingsError("SSH_BASTION_API_URL holds a blank or a character that no URL has.")
    if parts.scheme == "http" and not _http_will_do(host, private_http=private_http):
        raise SettingsError(
            f"SSH_BASTION_API_URL must begin with https: plain http to {host} would show the JupyterHub token to the "
            "network (plain http is accepted to this machine and to names inside the cluster, and to private "
            "addresses with SSH_BASTION_ALLOW_HTTP=1)."
        )
    return url.rstrip("/")


def _http_will_do(host: str, *, private_http: bool) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return bool(re.fullmatch(r"[a-z0-9-]+|[a-z0-9.-]+\.svc(\.cluster\.local)?", host))
    return address.is_loopback or (private_http and address.is_private and not address.is_unspecified)


def _split(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    if "--" not in arguments:
        return list(arguments), ()
    at = list(arguments).index("--")
    return list(arguments[:at]), tuple(arguments[at + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jupyterhub-bastion-notebook",
        usage="%(prog)s [options] [-- COMMAND ...]",
        description="Become the notebook server COMMAND and run an SSH server beside it that ends when it ends.",
        epilog=_TEACHING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--enable", action="store_true", help="as SSH_BASTION_ENABLE=1")
    parser.add_argument("--api-url", metavar="URL")
    parser.add_argument("--ssh-port", metavar="PORT")
    parser.add_argument("--key-port", metavar="PORT")
    parser.add_argument("--listen", metavar="ADDRESS")
    parser.add_argument("--authorized-keys", metavar="FILE")
    parser.add_argument("--poll", metavar="SECONDS")
    return parser


def _token(token: str) -> str:
    if not token:
        raise SettingsError("JUPYTERHUB_API_TOKEN is not set: this must run as a server that JupyterHub started.")
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise SettingsError("JUPYTERHUB_API_TOKEN holds a blank or a character that no token has.")
    return token


def _port(text: str, name: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise SettingsError(f"{name} must be a port number from 0 to 65535, not {text!r}.")
    return int(text)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise SettingsError(f"SSH_BASTION_LISTEN must be an IP address, not {text!r}.") from None


def _seconds(text: str, name: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86400:
        raise SettingsError(f"{name} must be a number of seconds between 0.1 and 86400, not {text!r}.")
    return seconds


def _keys_path(text: str, home: Path) -> Path:
    path = home / text[2:] if text.startswith("~/") else Path(text)
    if not path.is_absolute() or re.search(r'["\\\x00-\x1f\x7f]', str(path)):
        raise SettingsError(
            "SSH_BASTION_AUTHORIZED_KEYS must be an absolute path without quotes, backslashes or line breaks."
        )
    return path


def _account_home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"


def _storage_key(environ: Mapping[str, str]) -> str:
    names = ("JUPYTERHUB_USER", "JUPYTERHUB_SERVER_NAME", "JUPYTERHUB_SERVICE_PREFIX")
    text = "\0".join(environ.get(name, "") for name in names)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
