"""Why: one command and one click, and then everything that speaks SSH finds the servers by name."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from deploy.client.hubssh import ssh_folder
from tests.client.laptop import Laptop, laptop, words
from tests.support.system import System

pytestmark = pytest.mark.hub


async def test_after_one_click_plain_ssh_reaches_every_server_by_name(alice: Laptop) -> None:
    await alice.runs("", "gpu")
    done = await alice.login()
    assert done.returncode == 0
    assert "You are alice at" in done.stdout
    assert "gpu.hub" in done.stdout
    for host in ("alice.hub", "gpu.hub", "alice+gpu.hub"):
        entered = alice.ssh(host, "echo in as $JUPYTERHUB_SERVER_NAME")
        assert (entered.returncode, entered.stderr) == (0, ""), entered.stderr
    assert alice.says("gpu.hub", "echo $JUPYTERHUB_SERVER_NAME") == "gpu\n"


async def test_in_ones_own_home_nothing_has_to_be_told(alice: Laptop) -> None:
    if not Path(ssh_folder()).is_dir() or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("this account may not put another folder in the place of its ~/.ssh")
    await alice.runs("", "gpu")
    alice.at_home = True
    await alice.logged_in()
    assert (alice.ssh_folder / "config").read_text().splitlines()[1] == "Include ~/.ssh/hubssh/config"
    assert str(alice.ssh_folder) not in (alice.ssh_folder / "hubssh" / "config").read_text()
    entered = alice.ssh("gpu.hub", "echo in")
    assert (entered.stdout, entered.stderr) == ("in\n", "")
    alice.half_over()
    before = alice.certificate.read_text()
    assert alice.says("alice.hub", "echo in") == "in\n"
    assert alice.certificate.read_text() != before
    assert alice.hubssh("doctor").returncode == 0
    await alice.system.hub.stop_server("alice", "gpu")
    alice.half_over()
    assert alice.ssh("gpu.hub", "true").stderr == "hubssh: Your server alice/gpu is stopped: hubssh start gpu\n"
    assert alice.hubssh("logout").returncode == 0
    assert list(alice.ssh_folder.iterdir()) == []


async def test_files_are_the_person_s_alone_and_ssh_finds_them(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in alice.site_folder.iterdir()}
    public = modes.pop("id_ed25519.pub")
    assert public & 0o022 == 0
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(alice.site_folder.stat().st_mode) == 0o700
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", str(alice.certificate)], capture_output=True, text=True, check=True
    )
    assert 'Key ID: "alice"' in shown.stdout


async def test_scp_sftp_and_git_find_the_server_too(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    file = alice.folder / "data.txt"
    file.write_text("seven\n")
    assert alice.run("scp", str(file), "alice.hub:data.txt").returncode == 0
    assert alice.says("alice.hub", "cat data.txt") == "seven\n"
    assert alice.run("scp", "alice.hub:data.txt", str(alice.folder / "back.txt")).returncode == 0
    assert (alice.folder / "back.txt").read_text() == "seven\n"
    assert alice.ssh("alice.hub", "git init -q --bare work.git").returncode == 0
    home = alice.ssh("alice.hub", "pwd").stdout.strip()
    ssh = " ".join(["ssh", *alice.options()])
    listed = subprocess.run(
        ["git", "ls-remote", f"alice.hub:{home}/work.git"],
        env={**alice.environment(), "GIT_SSH_COMMAND": ssh},
        capture_output=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr


async def test_direct_mode_needs_no_jump_host(alice: Laptop) -> None:
    await alice.runs("direct")
    await alice.logged_in("--mode", "direct")
    assert alice.says("direct.hub", "echo in") == "in\n"
    assert alice.says("alice+direct.hub", "echo in") == "in\n"
    assert "ProxyJump" not in (alice.ssh_folder / "hubssh" / "config").read_text()
    await alice.logged_in("--mode", "auto")
    assert "ProxyJump" in (alice.ssh_folder / "hubssh" / "config").read_text()


async def test_with_an_agent_key_and_certificate_are_in_it_for_their_time(alice: Laptop) -> None:
    await alice.runs("")
    with alice.with_agent():
        await alice.logged_in()
        held = subprocess.run(["ssh-add", "-l"], env=alice.environment(), capture_output=True, text=True, check=True)
        assert "(ED25519-CERT)" in held.stdout
        assert alice.says("alice.hub", "echo in") == "in\n"
        await alice.logged_in()
        again = subprocess.run(["ssh-add", "-l"], env=alice.environment(), capture_output=True, text=True, check=True)
        assert len(again.stdout.splitlines()) == 2  # the key and its newest certificate
        alice.hubssh("logout")
        left = subprocess.run(["ssh-add", "-l"], env=alice.environment(), capture_output=True, text=True, check=False)
        assert "no identities" in left.stdout


async def test_without_wanting_an_agent_none_is_asked(alice: Laptop) -> None:
    await alice.runs("")
    with alice.with_agent():
        await alice.logged_in("--no-agent")
        await alice.logged_in()  # what was said once stays so
        held = subprocess.run(["ssh-add", "-l"], env=alice.environment(), capture_output=True, text=True, check=False)
        assert "no identities" in held.stdout
        await alice.logged_in("--agent")
        held = subprocess.run(["ssh-add", "-l"], env=alice.environment(), capture_output=True, text=True, check=False)
        assert "(ED25519-CERT)" in held.stdout


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
async def test_ones_own_key_gets_the_certificate_and_nothing_is_put_beside_it(alice: Laptop, kind: str) -> None:
    await alice.runs("")
    key = alice.folder / f"my {kind} key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(key)], check=True)
    await alice.logged_in("--key", str(key))
    assert alice.says("alice.hub", "echo in") == "in\n"
    assert sorted(path.name for path in alice.folder.glob("my*")) == [key.name, f"{key.name}.pub"]
    alice.half_over()
    assert alice.told("renew")["certificate"]["valid"]
    alice.hubssh("logout")
    assert key.exists()


async def test_a_key_that_only_an_agent_holds_does_as_well(alice: Laptop) -> None:
    await alice.runs("")
    key = alice.folder / "elsewhere"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "yubi", "-f", str(key)], check=True)
    with alice.with_agent():
        subprocess.run(["ssh-add", "-q", str(key)], env=alice.environment(), check=True)
        key.unlink()
        Path(f"{key}.pub").unlink()
        await alice.logged_in("--key", "agent:yubi")
        assert alice.says("alice.hub", "echo in") == "in\n"
        assert alice.told("renew")["user"] == "alice"
        missing = alice.hubssh("login", alice.system.url, "--key", "agent:nobody", "--no-browser")
        assert missing.returncode == 1
        assert "The agent has 0 keys like that. It holds: SHA256:" in missing.stderr


async def test_no_in_the_browser_is_no(alice: Laptop) -> None:
    await alice.runs("")
    done = await alice.login(then="deny")
    assert done.returncode == 1
    assert words(done)[-1] == "hubssh: You said no in the browser, so there is no certificate."
    assert not (alice.ssh_folder / "config").exists()
    await alice.login()
    before = alice.certificate.read_text()
    await alice.login(then="deny")
    assert alice.certificate.read_text() == before
    assert alice.says("alice.hub", "echo in") == "in\n"


async def test_another_user_s_approval_is_given_back_unless_it_is_meant(alice: Laptop) -> None:
    await alice.runs("")
    await laptop(alice.system, alice.folder, "bob").runs("")
    await alice.logged_in()
    before = alice.certificate.read_text()
    done = await alice.login(by="bob")
    assert done.returncode == 1
    assert "bob approved this, and so far you were alice here" in words(done)[-1]
    assert alice.certificate.read_text() == before
    (issued,) = [one for one in alice.system.audit("api", "certificate_issued") if one["user"] == "bob"]
    assert issued["serial"] in [one.get("serial") for one in alice.system.audit("api", "revoked")]
    done = await alice.login("--other-user", by="bob")
    assert done.returncode == 0, done.stderr
    assert alice.says("bob.hub", "echo in") == "in\n"


async def test_a_server_is_started_and_entered_with_one_click(system: System, tmp_path: Path) -> None:
    alice = laptop(system, tmp_path / "laptop")
    await alice.runs("first")
    await alice.logged_in()
    await system.hub.stop_server("alice", "first")
    done = await alice.login("first", command="start")
    assert done.returncode == 0, done.stderr
    assert alice.says("first.hub", "echo in") == "in\n"


async def test_the_very_first_login_may_start_the_server(system: System, tmp_path: Path) -> None:
    bob = laptop(system, tmp_path / "laptop", "bob")
    if await system.hub.server("bob"):
        await system.hub.stop_server("bob")
    done = await bob.login("--start")
    assert done.returncode == 0, done.stderr
    assert bob.says("bob.hub", "echo in") == "in\n"


async def test_a_server_that_is_started_meanwhile_is_in_the_certificate(system: System, tmp_path: Path) -> None:
    bob = laptop(system, tmp_path / "laptop", "bob")
    if await system.hub.server("bob"):
        await system.hub.stop_server("bob")
    done = await bob.login(then="approve once a server runs")
    assert done.returncode == 0, done.stderr
    assert bob.says("bob.hub", "echo in") == "in\n"


async def test_logging_out_revokes_and_leaves_nothing(alice: Laptop) -> None:
    await alice.runs("")
    alice.ssh_folder.mkdir(mode=0o700)
    (alice.ssh_folder / "config").write_text("Host mine\n    HostName mine.example.org\n")
    await alice.logged_in()
    alice.told("renew")  # there are two certificates now, and both have to die
    saved = alice.folder / "stolen"
    for path in alice.site_folder.iterdir():
        saved.mkdir(exist_ok=True)
        (saved / path.name).write_bytes(path.read_bytes())
    (saved / "id_ed25519").chmod(0o600)
    done = alice.hubssh("logout")
    assert "is revoked and removed" in done.stdout
    assert [path.name for path in alice.ssh_folder.iterdir()] == ["config"]
    assert (alice.ssh_folder / "config").read_text() == "Host mine\n    HostName mine.example.org\n"
    revoked = [one for one in alice.system.audit("api", "revoked") if one["by"] == "alice"]
    assert len(revoked) >= 2
    stolen = subprocess.run(
        ["ssh", "-F", "none", "-i", str(saved / "id_ed25519"), "-o", f"UserKnownHostsFile={saved / 'known_hosts'}",
         "-o", "BatchMode=yes", "-o", "IdentityAgent=none", "-p", str(alice.system.port), "alice@127.0.0.1", "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert stolen.returncode == 255
    assert "revoked" in stolen.stderr


@pytest.mark.parametrize("url", ["hub", "http"])
def test_an_address_that_is_not_the_service_is_told_apart(alice: Laptop, url: str) -> None:
    address = {"hub": alice.system.hub.url, "http": "http://ssh.example.org"}[url]
    done = alice.hubssh("login", address)
    assert done.returncode == 1
    assert {"hub": "is JupyterHub itself", "http": "not fetched over plain http"}[url] in done.stderr


def test_without_a_login_every_command_says_how_to_get_one(alice: Laptop) -> None:
    for command in ("list", "status", "start", "stop", "renew", "logout", "doctor"):
        done = alice.hubssh(command)
        assert done.returncode == 1
        assert "hubssh login https://" in done.stderr + done.stdout
    told = alice.hubssh("status", "--json")
    assert '"error": "not_logged_in"' in told.stdout
