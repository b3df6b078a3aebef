"""Why: stock macOS and Windows have no Python, so a first login must work with what is there, as the page shows it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from api.client_files import Reach
from api.commands import Door
from api.first_lines import FirstLogin, first_login
from ca.names import Server
from deploy.client.hubssh import ssh_folder
from tests.client.laptop import Laptop
from tests.support.hub import LIMIT, ROOT, no_tls
from tests.support.system import unix_user

CLOSED = "Match final host *.hub\n    ServerAliveInterval 61\n"
"""What somebody had in ~/.ssh/config before."""


def lines(alice: Laptop, *names: str, direct: bool = False) -> FirstLogin:
    reach = Reach(tuple(Server("alice", name) for name in names or ("",)), direct=direct, unix_user=unix_user())
    return first_login(alice.system.url, Door("127.0.0.1", alice.system.port, "hub"), reach)


@pytest.fixture
def home(alice: Laptop) -> Laptop:
    """alice, where her folder can be the account's home: OpenSSH looks there, whatever HOME says."""
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("this account may not put another folder in the place of its home")
    return alice


def shell(alice: Laptop, script: str, *, home: bool = True) -> str:
    """What a shell prints that runs these lines. `home`: in a world of its own, where her folder is the home."""
    mount = 'mount --bind "$0" "$1" && shift && exec "$@"'
    away = ["unshare", "--mount", "sh", "-c", mount, str(alice.folder), str(Path(ssh_folder()).parent)]
    done = subprocess.run(
        [*(away if home else []), "sh", "-e", "-c", script],
        env=alice.environment(),
        cwd=alice.folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def log_in(alice: Laptop, made: FirstLogin) -> str:
    """Both halves, with somebody who approves between them; what the last line's session prints."""
    shown = shell(alice, made.shell_begin)
    assert "device_code" not in shown
    fields = dict(line.split("=", 1) for line in shown.splitlines())
    assert fields["verification_uri_complete"] == f"{alice.system.url}/activate?code={fields['user_code']}"
    await alice.decide(f"{fields['verification_uri']} Code: {fields['user_code']}", "approve", "alice")
    return shell(alice, made.shell_end.rstrip() + " echo in")


@pytest.mark.hub
def test_a_home_with_a_blank_in_its_name_does(tmp_path: Path) -> None:
    home, curl = tmp_path / "al ice", tmp_path / "bin" / "curl"
    for folder in (home, curl.parent):
        folder.mkdir()
    curl.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$HOME/asked"\necho shown > "$HOME/.ssh/id_hub.login"\n')
    curl.chmod(0o700)
    made = first_login("https://ssh.example.org", Door("ssh.example.org", 2222, "hub"), Reach((Server("alice"),)))
    environment = {"PATH": f"{curl.parent}:{os.environ['PATH']}", "HOME": str(home)}
    done = subprocess.run(["sh", "-e", "-c", made.shell_begin], env=environment, capture_output=True, check=True)
    assert done.stdout == b"shown\n"
    assert f"public_key@{home}/.ssh/id_hub.pub" in (home / "asked").read_text().splitlines()
    assert (home / ".ssh" / "id_hub.pub").exists()


async def test_with_openssh_and_curl_alone_every_tool_knows_the_servers_by_name(home: Laptop) -> None:
    await home.runs("", "gpu")
    assert await log_in(home, lines(home, "", "gpu")) == "in\n"
    assert (home.folder / ".ssh").stat().st_mode & 0o777 == 0o700
    assert shell(home, "ssh alice+gpu.hub 'echo $JUPYTERHUB_SERVER_NAME'") == "gpu\n"
    named = (home.ssh_folder / "jupyterhub_config").read_text()
    assert "Host alice.hub alice+gpu.hub *.hub\n" in named, "VS Code lists what is named here"
    assert not (home.ssh_folder / "known_hosts").exists()


@pytest.mark.hub
async def test_the_lines_of_the_second_day_ask_nothing_and_add_nothing(home: Laptop) -> None:
    await home.runs("")
    home.ssh_folder.mkdir(mode=0o700)
    dotfiles = home.folder / "dotfiles"
    dotfiles.write_text(CLOSED)
    dotfiles.chmod(0o600)
    (home.ssh_folder / "config").symlink_to(dotfiles)
    assert await log_in(home, lines(home)) == "in\n"
    key = (home.ssh_folder / "id_hub").read_bytes()
    before = {one.name: one.read_text() for one in home.ssh_folder.iterdir()}
    assert await log_in(home, lines(home)) == "in\n"
    after = {one.name: one.read_text() for one in home.ssh_folder.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"id_hub-cert.pub", "id_hub.login"}
    assert (home.ssh_folder / "id_hub").read_bytes() == key
    assert (home.ssh_folder / "config").is_symlink()
    assert dotfiles.read_text() == f"Include ~/.ssh/jupyterhub_config\n{CLOSED}"


@pytest.mark.hub
async def test_where_jump_mode_is_closed_the_names_lead_through_the_bastion(home: Laptop) -> None:
    await home.runs("", "gpu")
    assert await log_in(home, lines(home, "", "gpu", direct=True)) == "in\n"
    assert shell(home, "ssh alice+gpu.hub 'echo $JUPYTERHUB_SERVER_NAME'") == "gpu\n"
    modes = {line["mode"] for line in home.system.audit("bastion") if "mode" in line and line["login"] == "alice+gpu"}
    assert modes == {"direct"}


@pytest.mark.hub
async def test_before_somebody_approved_the_second_half_leaves_no_certificate(home: Laptop) -> None:
    await home.runs("")
    shell(home, lines(home).shell_begin)
    with pytest.raises(AssertionError, match="400"):
        shell(home, lines(home).shell_end)
    assert not (home.folder / ".ssh" / "id_hub-cert.pub").exists()


@pytest.mark.hub
async def test_the_requests_that_powershell_makes_get_what_ssh_needs(home: Laptop) -> None:
    """`Invoke-RestMethod` itself was not run, for want of PowerShell: it posts a form and reads JSON, as here."""
    await home.runs("")
    made = lines(home)
    shell(home, "mkdir -p .ssh; ssh-keygen -q -t ed25519 -N '' -f .ssh/id_hub")
    key = home.folder / ".ssh" / "id_hub"
    (config,) = re.findall(r"Invoke-RestMethod '([^']+)'", made.powershell_end)
    async with httpx.AsyncClient(verify=no_tls(), trust_env=False, base_url=home.system.url) as client:
        begun = (await client.post("/device", data={"public_key": Path(f"{key}.pub").read_text()})).json()
        await home.decide(f"{begun['verification_uri']} Code: {begun['user_code']}", "approve", "alice")
        taken = (await client.post("/device/token", data={"device_code": begun["device_code"]})).json()
        files = {
            "id_hub-cert.pub": taken["certificate"],
            "jupyterhub_known_hosts": (await client.get("/known_hosts")).text,
            "jupyterhub_config": (await client.get(config)).text,
            "config": "Include ~/.ssh/jupyterhub_config\n",
        }
    for name, text in files.items():  # Set-Content ends lines so
        (home.ssh_folder / name).write_text(text.replace("\n", "\r\n"))
    assert shell(home, made.powershell_end.splitlines()[-1] + " echo in") == "in\n"


def test_powershell_begins_on_a_fresh_windows_and_asks_nothing_on_the_second_day() -> None:
    made = first_login("https://ssh.example.org", Door("ssh.example.org", 22, "hub"), Reach((Server("alice"),)))
    folder, key, owner, *_ = made.powershell_begin.splitlines()
    assert folder == r"New-Item -ItemType Directory -Force $HOME\.ssh | Out-Null"
    assert key.startswith(r"if (-not (Test-Path $HOME\.ssh\id_hub)) { ssh-keygen ")
    assert owner == r'icacls $HOME\.ssh\id_hub /inheritance:r /grant:r "$(whoami):F" | Out-Null'
    assert "if ($lines -notcontains $include)" in made.powershell_end
    assert "Add-Content" not in made.powershell_end, "nothing grows from day to day"


@pytest.mark.hub
async def test_hubssh_as_the_site_serves_it_needs_no_installation(alice: Laptop, tmp_path: Path) -> None:
    await alice.runs("")
    fetch, run = lines(alice).hubssh.splitlines()
    shell(alice, fetch, home=False)
    program = alice.folder / "hubssh"
    assert os.access(program, os.X_OK)
    assert run == f"./hubssh login {alice.system.url}"
    alice.program = program
    await alice.logged_in()
    program.unlink()  # ssh does not need the download any more
    alice.half_over()
    before = alice.certificate.read_text()
    assert alice.says("alice.hub", "echo in") == "in\n"
    assert alice.certificate.read_text() != before


def test_a_site_with_other_names_says_so_in_its_line() -> None:
    door = Door("ssh.example.org", 22, "notebooks.example.org")
    made = first_login("https://ssh.example.org", door, Reach((Server("alice", "My GPU"), Server("alice"))))
    assert made.hubssh.endswith("login https://ssh.example.org --zone notebooks.example.org\n")
    assert made.shell_end.endswith("\nssh alice+=4dy=20=47=50=55.notebooks.example.org\n")
    assert "server=alice%2B%3D4dy%3D20%3D47%3D50%3D55&server=alice'" in made.shell_end


def test_the_lines_in_the_documentation_are_these() -> None:
    made = first_login("https://ssh.example.org", Door("ssh.example.org", 2222, "hub"), Reach((Server("alice"),)))
    document = (ROOT / "docs" / "users.md").read_text()
    for script in (getattr(made, name) for name in made.__slots__):
        assert "".join(f"    {line}\n" for line in script.splitlines()) in document
