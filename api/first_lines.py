"""The lines for a first login, for each of the ways that need no more than what a machine has.

What they leave is what `ssh alice.hub`, `scp` and editors need: a key of its own with its certificate, the site's
ssh_config and known_hosts in files of their own, and one line that includes the first. They are the same on the second
day: a key that is there stays, files are replaced, and the line is added once.
"""

from dataclasses import dataclass
from urllib.parse import urlencode

from api.client_files import Reach
from api.commands import Door

MAX_NAMED = 20
"""Servers in one line: more is nothing to read, and jump mode knows the others by a pattern."""

_KEY = "id_hub"


@dataclass(frozen=True, slots=True)
class FirstLogin:
    """`hubssh` needs Python, `shell` a POSIX shell with curl, `powershell` what Windows 10 and later have.

    The last two stop in the middle, where somebody approves in the browser: `…_begin` and `…_end`.
    """

    hubssh: str
    hubssh_windows: str
    shell_begin: str
    shell_end: str
    powershell_begin: str
    powershell_end: str


def first_login(public_url: str, door: Door, reach: Reach) -> FirstLogin:
    """The lines for somebody at this site. The last one enters the first of their servers."""
    named = reach.servers[:MAX_NAMED]
    host = named[0].host_name(door.zone)
    zone = "" if door.zone == "hub" else f" --zone {door.zone}"
    asked = [("key", _KEY), *(("server", one.login) for one in named)]
    if reach.direct:
        asked.append(("mode", "direct"))
    elif reach.unix_user is not None:
        asked.append(("user", reach.unix_user))
    config = f"{public_url}/ssh_config?{urlencode(asked)}"
    return FirstLogin(
        hubssh=f"curl -fsS {public_url}/hubssh -o hubssh && chmod +x hubssh\n./hubssh login {public_url}{zone}\n",
        hubssh_windows=f"curl.exe -fsS {public_url}/hubssh -o hubssh.py\npy hubssh.py login {public_url}{zone}\n",
        shell_begin=_shell_begin(public_url),
        shell_end=_shell_end(public_url, config, host),
        powershell_begin=_powershell_begin(public_url),
        powershell_end=_powershell_end(public_url, config, host),
    )


def _shell_begin(public_url: str) -> str:
    key = f"~/.ssh/{_KEY}"
    return (
        "mkdir -p -m 700 ~/.ssh\n"
        f"test -f {key} || ssh-keygen -q -t ed25519 -N '' -f {key}\n"
        f"curl -fsS {public_url}/device -H 'Accept: text/plain' "
        f'--data-urlencode "public_key@$HOME/.ssh/{_KEY}.pub" -o {key}.login\n'
        f"grep -v device_code {key}.login\n"
    )


def _shell_end(public_url: str, config: str, host: str) -> str:
    """ssh refuses a configuration that others may write to, and a file that is a link has to stay one."""
    key, include = f"~/.ssh/{_KEY}", "Include ~/.ssh/jupyterhub_config"
    return (
        f"curl -fsS {public_url}/device/token -H 'Accept: text/plain' -d \"$(grep device_code {key}.login)\" "
        f"-o {key}-cert.pub\n"
        f"curl -fsS {public_url}/known_hosts -o ~/.ssh/jupyterhub_known_hosts\n"
        f"(umask 077; curl -fsS '{config}' -o ~/.ssh/jupyterhub_config; touch ~/.ssh/config)\n"
        f"grep -qxF '{include}' ~/.ssh/config || "
        f"(umask 077; (echo '{include}'; cat ~/.ssh/config) > ~/.ssh/config.hub)\n"
        "test ! -f ~/.ssh/config.hub || (cp ~/.ssh/config.hub ~/.ssh/config && rm ~/.ssh/config.hub)\n"
        f"ssh {host}\n"
    )


def _powershell_begin(public_url: str) -> str:
    key = f"$HOME\\.ssh\\{_KEY}"
    return (
        "New-Item -ItemType Directory -Force $HOME\\.ssh | Out-Null\n"
        f"if (-not (Test-Path {key})) {{ ssh-keygen -q -t ed25519 -f {key} }}\n"
        f'icacls {key} /inheritance:r /grant:r "$(whoami):F" | Out-Null\n'
        f"$login = Invoke-RestMethod {public_url}/device -Method Post "
        f"-Body @{{public_key = (Get-Content {key}.pub -Raw)}}\n"
        "$login.verification_uri_complete; $login.user_code\n"
    )


def _powershell_end(public_url: str, config: str, host: str) -> str:
    """`Set-Content` would change what is not ASCII in a configuration, or begin it with a mark that ssh refuses."""
    folder = "$HOME\\.ssh"
    ascii_file = "Set-Content -Encoding ascii"
    return (
        f"(Invoke-RestMethod {public_url}/device/token -Method Post "
        f"-Body @{{device_code = $login.device_code}}).certificate | {ascii_file} {folder}\\{_KEY}-cert.pub\n"
        f"Invoke-RestMethod {public_url}/known_hosts | {ascii_file} {folder}\\jupyterhub_known_hosts\n"
        f"Invoke-RestMethod '{config}' | {ascii_file} {folder}\\jupyterhub_config\n"
        f"if (-not (Test-Path {folder}\\config)) {{ New-Item -ItemType File {folder}\\config | Out-Null }}\n"
        f"$lines = [IO.File]::ReadAllLines(\"{folder}\\config\"); $include = 'Include ~/.ssh/jupyterhub_config'\n"
        "if ($lines -notcontains $include) "
        f'{{ [IO.File]::WriteAllLines("{folder}\\config", [string[]](@($include) + $lines)) }}\n'
        f"ssh {host}\n"
    )
