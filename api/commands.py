"""The lines that people copy: what to type once the certificate lies beside the key.

Kept as text made by pure functions, so that the page, the JSON answer and the documentation can be tested
against plain OpenSSH. Everything in these lines comes from our settings and our name grammar (letters, digits
and `.`, `_`, `-`, `=`, `+`), so nothing needs quoting in any shell.
"""

from dataclasses import dataclass

from ca.keys import PublicKey
from ca.names import Server

_FILE_NAMES = {
    "ssh-ed25519": "id_ed25519",
    "ssh-rsa": "id_rsa",
    "sk-ssh-ed25519@openssh.com": "id_ed25519_sk",
    "sk-ecdsa-sha2-nistp256@openssh.com": "id_ecdsa_sk",
}


@dataclass(frozen=True, slots=True)
class Door:
    """How the bastion is reached from outside."""

    host: str
    port: int
    zone: str
    jump_login: str = "jump"


@dataclass(frozen=True, slots=True)
class Commands:
    """What to type for one server. `jump` is None where the server's Unix user is not known yet. `code` opens the
    server in VS Code, once ssh_config knows its name."""

    ssh: str
    download: str
    upload: str
    jump: str | None
    code: str


def commands_for(door: Door, server: Server, unix_user: str | None) -> Commands:
    """The commands for `server`; ssh's own default port is left out."""
    port = "" if door.port == 22 else f"-p {door.port} "
    copy = "" if door.port == 22 else f"-P {door.port} "
    via = f"{door.jump_login}@{door.host}" + ("" if door.port == 22 else f":{door.port}")
    jump = f"ssh -J {via} {unix_user}@{server.host_name(door.zone)}" if unix_user else None
    return Commands(
        ssh=f"ssh {port}{server.login}@{door.host}",
        download=f"scp {copy}{server.login}@{door.host}:results.csv .",
        upload=f"scp {copy}data.csv {server.login}@{door.host}:",
        jump=jump,
        code=f"code --remote ssh-remote+{server.host_name(door.zone)}",
    )


def key_file_name(key: PublicKey) -> str:
    """What `ssh-keygen` calls a key of this type, without `.pub`."""
    return _FILE_NAMES.get(key.algorithm, "id_ecdsa")


def certificate_file_name(key: PublicKey) -> str:
    """Where ssh looks for the certificate: next to the key, `<key>-cert.pub`."""
    return f"{key_file_name(key)}-cert.pub"


def in_words(seconds: float) -> str:
    """A length of time as people say it: "12 hours", "1 hour 5 minutes", "less than a minute"."""
    minutes = int(seconds // 60)
    if minutes < 1:
        return "less than a minute"
    days, rest = divmod(minutes, 24 * 60)
    hours, minutes = divmod(rest, 60)
    parts = [(days, "day"), (hours, "hour"), (minutes, "minute")]
    said = [f"{count} {word}" + ("" if count == 1 else "s") for count, word in parts if count]
    return " ".join(said[:2])


def size_in_words(size: int) -> str:
    """A number of bytes as people read it: "900 bytes", "1.4 MB", "12 GB"."""
    if size < 1000:
        return f"{size} bytes"
    amount, unit = float(size), 0
    while amount >= 999.5 and unit < len(_UNITS):
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {_UNITS[unit - 1]}" if amount < 9.95 else f"{amount:.0f} {_UNITS[unit - 1]}"


_UNITS = ("kB", "MB", "GB", "TB")
