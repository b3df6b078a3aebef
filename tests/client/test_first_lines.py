"""Why: stock macOS and Windows have no Python, so a first login must work with what is there, as the page shows it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import pytest

from api.commands import Door, FirstLogin, first_login
from tests.client.laptop import Laptop
from tests.support.hub import LIMIT, ROOT, no_tls


def lines(alice: Laptop) -> FirstLogin:
    return first_login(alice.system.url, Door("127.0.0.1", alice.system.port, "hub"), "alice")


def shell(alice: Laptop, script: str, **more: str) -> str:
    """What a shell prints that runs these lines, with alice's home. OpenSSH alone looks for the account's own."""
    strict = f"-o UserKnownHostsFile={alice.folder}/.ssh/known_hosts -F none -o BatchMode=yes"
    script = script.replace("ssh -i", f"ssh {strict} -i")
    done = subprocess.run(
        ["sh", "-e", "-c", script],
        env={**alice.environment(), **more},
        cwd=alice.folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.hub
async def test_with_openssh_and_curl_alone(alice: Laptop) -> None:
    await alice.runs("")
    shown = shell(alice, lines(alice).shell_begin)
    assert "device_code" not in shown
    fields = dict(line.split("=", 1) for line in shown.splitlines())
    assert fields["verification_uri_complete"] == f"{alice.system.url}/activate?code={fields['user_code']}"
    await alice.decide(f"{fields['verification_uri']} Code: {fields['user_code']}", "approve", "alice")
    assert shell(alice, lines(alice).shell_end.rstrip() + " echo in") == "in\n"
    assert (alice.folder / ".ssh").stat().st_mode & 0o777 == 0o700


@pytest.mark.hub
async def test_before_somebody_approved_the_second_half_leaves_no_certificate(alice: Laptop) -> None:
    await alice.runs("")
    shell(alice, lines(alice).shell_begin)
    with pytest.raises(AssertionError, match="400"):
        shell(alice, lines(alice).shell_end)
    assert not (alice.folder / ".ssh" / "id_hub-cert.pub").exists()


@pytest.mark.hub
async def test_the_requests_that_powershell_makes_get_a_certificate(alice: Laptop) -> None:
    """`Invoke-RestMethod` itself was not run, for want of PowerShell: it posts a form and reads JSON, as here."""
    await alice.runs("")
    shell(alice, "mkdir -p .ssh; ssh-keygen -q -t ed25519 -N '' -f .ssh/id_hub")
    key = alice.folder / ".ssh" / "id_hub"
    async with httpx.AsyncClient(verify=no_tls(), trust_env=False, base_url=alice.system.url) as client:
        begun = (await client.post("/device", data={"public_key": Path(f"{key}.pub").read_text()})).json()
        await alice.decide(f"{begun['verification_uri']} Code: {begun['user_code']}", "approve", "alice")
        taken = (await client.post("/device/token", data={"device_code": begun["device_code"]})).json()
        known = (await client.get("/known_hosts")).text
    Path(f"{key}-cert.pub").write_text(f"{taken['certificate']}\r\n")  # Set-Content ends lines so
    (alice.folder / ".ssh" / "known_hosts").write_text(known.replace("\n", "\r\n"))
    enter = lines(alice).powershell_end.splitlines()[-1].replace("$HOME\\.ssh\\", f"{alice.folder}/.ssh/")
    assert shell(alice, enter + " echo in") == "in\n"


@pytest.mark.hub
async def test_hubssh_as_the_site_serves_it_needs_no_installation(alice: Laptop, tmp_path: Path) -> None:
    await alice.runs("")
    fetch, run = lines(alice).hubssh.splitlines()
    shell(alice, fetch)
    program = alice.folder / "hubssh"
    assert os.access(program, os.X_OK)
    assert run == f"./hubssh login {alice.system.url}"
    alice.program = program
    await alice.logged_in()
    program.unlink()  # ssh does not need the download any more
    alice.half_over()
    before = alice.certificate.read_text()
    assert alice.ssh("alice.hub", "echo in").stdout == "in\n"
    assert alice.certificate.read_text() != before


def test_a_site_with_other_names_says_so_in_its_line() -> None:
    made = first_login("https://ssh.example.org", Door("ssh.example.org", 22, "notebooks.example.org"), "alice")
    assert made.hubssh.endswith("login https://ssh.example.org --zone notebooks.example.org\n")
    assert made.shell_end.endswith("ssh -i ~/.ssh/id_hub alice@ssh.example.org\n")


def test_the_lines_in_the_documentation_are_these() -> None:
    made = first_login("https://ssh.example.org", Door("ssh.example.org", 2222, "hub"), "alice")
    document = (ROOT / "docs" / "users.md").read_text()
    for script in (getattr(made, name) for name in made.__slots__):
        assert "".join(f"    {line}\n" for line in script.splitlines()) in document
