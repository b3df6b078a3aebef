"""Why: what a site does not permit must not be had, however somebody comes, and the person is told what it is."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.test_lifetime import pod_port
from tests.support.hub import Hub
from tests.support.system import POD_SIDE, Person, System

GROUPS = {
    "remote": {"allow": ["subsystem", "local-forward"]},
    "forwards": {"allow": ["local-forward", "streamlocal"]},
    "quiet": {"allow": ["subsystem", "local-forward", "streamlocal"], "deny": ["exec"]},
}


@pytest.fixture(scope="module")
def strict(hub_release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A site that permits commands only, and to the group "remote" subsystems and forwards as well; to "forwards" the
    latter without the former; less for raw keys."""
    hub = Hub(tmp_path_factory.mktemp("hub"), hub_release, pod_environment=POD_SIDE)
    system = System(
        hub,
        tmp_path_factory.mktemp("system"),
        api_settings={
            "SSH_API_CERTIFICATES_CAPABILITIES": "exec",
            "SSH_API_CERTIFICATES_GROUPS": json.dumps(GROUPS),
            "SSH_API_CERTIFICATES_RAW_KEY_CAPABILITIES": "exec,pty,local-forward,streamlocal",
        },
    )
    with system.running():
        yield system


@pytest.fixture
async def alice(strict: System, request: pytest.FixtureRequest) -> Person:
    await strict.hub.make_users()
    if await strict.hub.server("alice") is None:
        await strict.start_server("alice")
    person = strict.person("alice", f"-{request.node.name}")
    await person.certificate()
    return person


async def test_what_is_permitted_works(alice: Person) -> None:
    assert alice.ssh("alice", "echo in").stdout == b"in\n"


async def test_a_refusal_names_the_capability_and_whom_to_ask(strict: System, alice: Person) -> None:
    for arguments, capability in (
        (["-tt", "alice@127.0.0.1", "true"], b"pty"),
        (["-s", "alice@127.0.0.1", "sftp"], b"subsystem"),
        (["-W", "127.0.0.1:22", "alice@127.0.0.1"], b"local-forward"),
    ):
        said = alice.run("ssh", *arguments).stderr
        assert capability + b" is not permitted to you here. Ask the administrator" in said, said
    reasons = {(line["action"], line["reason"]) for line in strict.audit("bastion", "action_refused")}
    assert {("pty-req", "not_permitted"), ("subsystem", "not_permitted")} <= reasons


async def test_jump_mode_is_closed_to_whoever_lacks_what_a_pod_could_restore(alice: Person) -> None:
    refused = alice.jump("alice.hub", "true")
    assert refused.returncode == 255
    assert b"Jump mode is closed to you" in refused.stderr


async def test_a_group_may_have_more_than_the_site(strict: System, alice: Person) -> None:
    await strict.hub.set_groups("alice", ["remote"])
    await alice.certificate()
    forwarded = alice.run("ssh", "-W", f"127.0.0.1:{strict.port}", "alice@127.0.0.1")
    assert forwarded.stdout.startswith(b"SSH-2.0-"), forwarded.stderr
    await strict.hub.set_groups("alice", [])


def no_way_to_its_sshd(strict: System, person: Person) -> None:
    """By none of the names that a pod has for itself is its own sshd reached through the bastion."""
    port = pod_port(strict, "alice")
    for host in ("localhost", "127.0.0.1", "127.9.9.9", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"):
        done = person.run("ssh", "-W", f"{host}:{port}", "alice@127.0.0.1")
        assert b"local-forward is not permitted to you here" in done.stderr, (host, done.stderr)
        assert done.stdout == b""


@pytest.mark.parametrize("group", ["forwards", "quiet"])
async def test_forwards_do_not_give_back_what_was_denied(strict: System, alice: Person, group: str) -> None:
    """The pod's own sshd lets in whoever the bastion does, and a certificate cannot tell it to run no commands."""
    await strict.hub.set_groups("alice", [group])
    await alice.certificate()
    no_way_to_its_sshd(strict, alice)
    await strict.hub.set_groups("alice", [])


async def test_raw_keys_have_no_more_than_certificates_have(strict: System, alice: Person) -> None:
    legacy = strict.person("alice", "-legacy")
    keys = strict.home("alice") / ".ssh" / "authorized_keys"
    keys.parent.mkdir(mode=0o700, exist_ok=True)
    keys.write_text(legacy.public_key + "\n")
    strict.command("refresh-keys")
    assert legacy.ssh("alice", "echo in").stdout == b"in\n"
    assert b"pty is not permitted" in legacy.run("ssh", "-tt", "alice@127.0.0.1", "tty").stderr
    assert b"subsystem is not permitted" in legacy.run("ssh", "-s", "alice@127.0.0.1", "sftp").stderr
    no_way_to_its_sshd(strict, legacy)
