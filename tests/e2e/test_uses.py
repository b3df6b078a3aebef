"""Why: three uses carry everything: an issued certificate, the login that gets it, and the legacy key."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from tests.support.browser import form
from tests.support.system import Person, System, unix_user

BULK = 200 << 20


@pytest.fixture(scope="module")
async def _servers_of_alice(system: System) -> None:
    await system.start_server("alice")
    await system.start_server("alice", "gpu")


@pytest.fixture
async def alice(system: System, request: pytest.FixtureRequest) -> Person:
    """Alice, with a default server, a server gpu, and a certificate for both."""
    for server in ("", "gpu"):
        if await system.hub.server("alice", server) is None:
            await system.start_server("alice", server)
    person = system.person("alice", f"-{request.node.name}")
    await person.certificate()
    return person


async def test_an_issued_certificate_opens_the_default_server(alice: Person) -> None:
    done = alice.ssh("alice", "echo $JUPYTERHUB_USER")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"alice\n", b"")


async def test_it_opens_a_named_server_by_its_login_name(alice: Person) -> None:
    done = alice.ssh("alice+gpu", "echo $JUPYTERHUB_USER $JUPYTERHUB_SERVER_NAME")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"alice gpu\n", b"")


async def test_jump_mode_reaches_both_end_to_end(alice: Person) -> None:
    for host in ("alice.hub", "alice+gpu.hub"):
        done = alice.jump(host, "echo $JUPYTERHUB_USER")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"alice\n", b"")


async def test_the_exit_status_of_a_command_comes_back(alice: Person) -> None:
    assert alice.ssh("alice", "exit 3").returncode == 3
    assert alice.jump("alice.hub", "exit 3").returncode == 3


async def test_scp_copies_both_ways(alice: Person, tmp_path: Path) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(1 << 20))
    there = f"alice@127.0.0.1:{tmp_path}/there"
    for flags in ([], ["-O"]):
        assert alice.run("scp", *flags, str(sent), there).returncode == 0
        assert alice.run("scp", *flags, there, str(back)).returncode == 0
        assert back.read_bytes() == sent.read_bytes()


async def test_sftp_works_in_the_servers_home(system: System, alice: Person) -> None:
    done = alice.run("sftp", "-b", "-", "alice@127.0.0.1", data=b"mkdir of-sftp\npwd\n")
    assert done.returncode == 0, done.stderr
    assert f"{system.home('alice')}".encode() in done.stdout
    assert (system.home("alice") / "of-sftp").is_dir()


async def test_a_copy_of_200_mb_arrives_whole(alice: Person, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    digest = hashlib.sha256()
    with sent.open("wb") as file:
        for _ in range(BULK >> 20):
            block = os.urandom(1 << 20)
            digest.update(block)
            file.write(block)
    assert alice.run("scp", str(sent), f"alice@127.0.0.1:{tmp_path}/there").returncode == 0
    done = alice.ssh("alice", f"sha256sum < {tmp_path}/there")
    assert done.stdout.split()[0].decode() == digest.hexdigest()


async def test_one_line_in_known_hosts_answers_for_the_bastion_and_every_server(system: System) -> None:
    lines = system.known_hosts.read_text().splitlines()
    assert len(lines) >= 1
    assert all(line.startswith("@cert-authority ") for line in lines if not line.startswith("#"))


async def test_the_login_in_the_browser_gets_a_certificate_through_the_form(system: System) -> None:
    await system.hub.make_users()
    if await system.hub.server("bob") is None:
        await system.start_server("bob")
    bob = system.person("bob", "-browser")
    async with system.hub.browser() as browser:
        page = await system.hub.log_in_here(browser, f"{system.url}/login", "bob")
        assert page.status_code == 200
        wanted = form(page, "/certificates/form")
        answer = await browser.post(
            wanted.action,
            data={**wanted.fields, "public_key": bob.public_key},
            headers={"Origin": system.url},
        )
    found = re.search(r"ssh-ed25519-cert-v01@openssh.com [A-Za-z0-9+/=]+", answer.text)
    assert found is not None, answer.text
    bob.certificate_file.write_text(found[0] + "\n")
    assert bob.ssh("bob", "echo $JUPYTERHUB_USER").stdout == b"bob\n"


async def test_people_may_type_a_name_as_they_know_it(system: System) -> None:
    await system.start_server("Bob.Smith@example.org".lower())
    person = system.person("bob.smith@example.org")
    await person.certificate()
    for login in ("bob.smith=40example.org", "bob.smith@example.org", "Bob.Smith@Example.org"):
        done = person.run("ssh", "-l", login, "127.0.0.1", "echo $JUPYTERHUB_USER")
        assert done.stdout == b"bob.smith@example.org\n", done.stderr


async def test_a_key_in_authorized_keys_opens_both_modes_without_a_certificate(system: System) -> None:
    if await system.hub.server("alice") is None:
        await system.start_server("alice")
    legacy = system.person("alice", "-legacy")
    keys = system.home("alice") / ".ssh" / "authorized_keys"
    keys.parent.mkdir(mode=0o700, exist_ok=True)
    assert legacy.ssh("alice", "true").returncode == 255
    with keys.open("a") as file:
        file.write(legacy.public_key + "\n")
    system.command("refresh-keys")
    done = legacy.ssh("alice", "echo $JUPYTERHUB_USER")
    assert (done.returncode, done.stdout) == (0, b"alice\n"), done.stderr
    done = legacy.jump("alice.hub", "echo $JUPYTERHUB_USER")
    assert (done.returncode, done.stdout) == (0, b"alice\n"), done.stderr
    opened = [line for line in system.audit("bastion", "session_opened") if line["how"] == "key"]
    assert {line["identity"] for line in opened} == {f"key:{opened[0]['fingerprint']}"}


async def test_the_operators_commands_show_and_cut_sessions(system: System, alice: Person) -> None:
    assert "pods answered with" in system.command("refresh-keys").stdout
    with alice.session("alice@127.0.0.1", "echo in; cat") as client:
        assert client.stdout is not None
        assert client.stderr is not None
        assert client.stdout.readline() == b"in\n"
        assert "alice" in system.command("sessions").stdout
        assert system.command("cut", "alice", "--why", "Maintenance begins.").stdout == "1 session told to end.\n"
        assert b"Maintenance begins." in client.stderr.read()
        assert client.wait() == 255
    assert unix_user() not in system.command("sessions").stdout
    assert system.command("cut", "a,b").returncode == 1
