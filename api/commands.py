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


@dataclass(frozen=True, slots=True)
class FirstLogin:
    """The lines for a first login, for each of the ways that need no more than what a machine has.

    `hubssh` needs Python, `shell` a POSIX shell with curl, `powershell` what Windows 10 and later have. The last two
    stop in the middle, where somebody approves in the browser: `…_begin` and `…_end`. They use a key of their own,
    `~/.ssh/id_hub`, so that no other one is touched.
    """

    hubssh: str
    hubssh_windows: str
    shell_begin: str
    shell_end: str
    powershell_begin: str
    powershell_end: str


def first_login(public_url: str, door: Door, login: str) -> FirstLogin:
    """The lines for this site. `login` is the login name of the server that the last line enters."""
    zone = "" if door.zone == "hub" else f" --zone {door.zone}"
    port = "" if door.port == 22 else f"-p {door.port} "
    key = "~/.ssh/id_hub"
    win = "$HOME\\.ssh\\id_hub"
    return FirstLogin(
        hubssh=f"curl -fsS {public_url}/hubssh -o hubssh && chmod +x hubssh\n./hubssh login {public_url}{zone}\n",
        hubssh_windows=f"curl.exe -fsS {public_url}/hubssh -o hubssh.py\npy hubssh.py login {public_url}{zone}\n",
        shell_begin=(
            "mkdir -p -m 700 ~/.ssh\n"
            f"test -f {key} || ssh-keygen -q -t ed25519 -N '' -f {key}\n"
            f"curl -fsS {public_url}/device -H 'Accept: text/plain' --data-urlencode public_key@$HOME/.ssh/id_hub.pub "
            f"-o {key}.login\n"
            f"grep -v device_code {key}.login\n"
        ),
        shell_end=(
            f"curl -fsS {public_url}/device/token -H 'Accept: text/plain' -d \"$(grep device_code {key}.login)\" "
            f"-o {key}-cert.pub\n"
            f"curl -fsS {public_url}/known_hosts >> ~/.ssh/known_hosts\n"
            f"ssh -i {key} {port}{login}@{door.host}\n"
        ),
        powershell_begin=(
            f"ssh-keygen -t ed25519 -f {win}\n"
            f"$login = Invoke-RestMethod {public_url}/device -Method Post "
            f"-Body @{{public_key = (Get-Content {win}.pub -Raw)}}\n"
            "$login.verification_uri_complete; $login.user_code\n"
        ),
        powershell_end=(
            f"(Invoke-RestMethod {public_url}/device/token -Method Post "
            f"-Body @{{device_code = $login.device_code}}).certificate | Set-Content -Encoding ascii {win}-cert.pub\n"
            f"Invoke-RestMethod {public_url}/known_hosts | Add-Content -Encoding ascii $HOME\\.ssh\\known_hosts\n"
            f"ssh -i {win} {port}{login}@{door.host}\n"
        ),
    )


def size_in_words(size: int) -> str:
    """A number of bytes as people read it: "900 bytes", "1.4 MB", "12 GB"."""
    if size < 1000:
        return f"{size} bytes"
    amount, unit = float(size), 0
    while amount >= 999.5 and unit < len(_UNITS):
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {_UNITS[unit - 1]}" if amount < 9.95 else f"{amount:.0f} {_UNITS[unit - 1]}"


_UNITS = ("kB", "MB", "GB", "TB")
