"""Why: people copy what the documentation says into scripts, so it is read from there and run as it stands."""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path

from ca.certificate import blob_of, decode
from tests.support.hub import ROOT
from tests.support.system import ACCESS, Person, System


def written(document: str, heading: str, words: str) -> str:
    """The one block below a heading of a page that holds these words."""
    text = (ROOT / "docs" / document).read_text()
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", section, re.MULTILINE)]
    (found,) = [block for block in blocks if words in block]
    return found.strip()


def here(system: System, text: str) -> str:
    """The same for this system: its addresses, and a command that every server has."""
    return (
        text.replace("https://ssh.example.org", system.url)
        .replace("ssh.example.org", "127.0.0.1")
        .replace("2222", str(system.port))
        .replace("nvidia-smi", "'echo in $JUPYTERHUB_SERVER_NAME'")
    )


def shell(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", text],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


async def header(system: System, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "header").touch(mode=0o600)
    (folder / "header").write_text(f"Authorization: token {await system.hub.token('alice', [ACCESS])}\n")


async def test_a_ci_job_gets_a_certificate_and_runs_a_command(system: System) -> None:
    folder = system.folder / "ci"
    await header(system, folder)
    script = here(system, written("users.md", "Scripts and CI", "#!/bin/sh"))
    done = shell(folder, script)
    assert done.returncode != 0  # it does not run yet
    assert "You have no running server alice/gpu" in done.stderr
    await system.start_server("alice", "gpu")
    for _ in range(2):
        done = shell(folder, script)
        assert (done.returncode, done.stdout) == (0, "in gpu\n"), done
    assert (folder / "key-cert.pub").read_text().startswith("ssh-ed25519-cert-v01@openssh.com ")


async def test_a_notebook_gets_one_for_itself_alone(system: System) -> None:
    for name in ("gpu", "other"):
        if await system.hub.server("alice", name) is None:
            await system.start_server("alice", name)
    alice = system.person("alice", "-notebook")
    await alice.certificate()
    command = here(system, written("users.md", "Scripts and CI", "JUPYTERHUB_API_TOKEN"))
    prepare = "cd $(mktemp -d) && ssh-keygen -q -t ed25519 -N '' -f key && "
    done = alice.ssh("alice+gpu", prepare + command)
    assert done.returncode == 0, done
    certificate = decode(blob_of(done.stdout.decode()))
    assert [name.partition(":")[0] for name in certificate.principals] == ["alice/gpu"]
    assert certificate.valid_before - certificate.valid_after == 3660
    asked = command.replace('"lifetime\\": 3600', '"server\\": \\"alice+other\\"')
    assert asked != command
    done = alice.ssh("alice+gpu", prepare + asked)
    assert done.returncode == 22
    assert b"server_not_running" in done.stdout


async def test_what_was_lost_is_revoked_as_the_page_says(system: System) -> None:
    if await system.hub.server("alice", "gpu") is None:
        await system.start_server("alice", "gpu")
    folder = system.folder / "lost"
    await header(system, folder)
    lines = here(system, written("users.md", "When a key or a laptop is lost", "/revocations")).splitlines()
    assert len(lines) == 3
    for line in lines:
        alice: Person = system.person("alice", f"-lost-{lines.index(line)}")
        serial = (await alice.certificate(server="alice+gpu"))["serial"]
        assert alice.ssh("alice+gpu", "echo in").stdout == b"in\n"
        done = shell(folder, re.sub(r'"serial": "\d+"', f'"serial": "{serial}"', line))
        assert (done.returncode, done.stdout) == (0, ""), done
        system.wait(
            "the bastion to hear of it", lambda alice=alice: alice.ssh("alice+gpu", "echo in").returncode == 255
        )


async def test_an_sshd_elsewhere_gets_its_list_as_the_page_says(system: System) -> None:
    if await system.hub.server("alice", "gpu") is None:
        await system.start_server("alice", "gpu")
    mine, other = system.person("alice", "-listed"), system.person("alice", "-unlisted")
    serial = (await mine.certificate())["serial"]
    await other.certificate()
    command = here(system, written("administrators.md", "Revocation", "krl.new"))
    folder = system.folder / "elsewhere"
    await header(system, folder)
    (folder / "good.pub").write_text(f"{other.public_key}\n")
    body = f"-H 'Content-Type: application/json' -d '{{\"serial\": \"{serial}\"}}'"
    assert shell(folder, f"curl -sSf {system.url}/revocations -H @header {body}").returncode == 0
    assert shell(folder, command).returncode == 0
    for person, revoked in ((mine, 1), (other, 0)):
        asked = ["ssh-keygen", "-Q", "-f", str(folder / "revoked_keys"), str(person.certificate_file)]
        assert subprocess.run(asked, capture_output=True, check=False).returncode == revoked
