"""Why: a certificate is valid only while its server runs: four places enforce it, and each is tried here."""

from __future__ import annotations

import subprocess

from tests.support.system import Person, System, unix_user


async def entered(system: System, user: str, server: str = "") -> Person:
    await system.start_server(user, server)
    person = system.person(user, f"-{server}")
    await person.certificate()
    return person


def pod_port(system: System, login: str) -> str:
    """The port of a pod's own sshd, as its enrolment says."""
    import httpx

    secret = (system.state / "internal-secret").read_text().strip()
    state = httpx.get(
        f"http://127.0.0.1:{system.internal_port}/internal/state",
        headers={"Authorization": f"Bearer {secret}"},
        trust_env=False,
    ).json()
    return str(next(one["ssh_port"] for one in state["enrolled"] if one["login"] == login))


async def test_stopping_a_server_ends_its_sessions_with_a_sentence(system: System) -> None:
    alice = await entered(system, "alice", "stopped")
    with alice.session("alice+stopped@127.0.0.1", "echo in; cat") as client:
        assert client.stdout is not None
        assert client.stderr is not None
        assert client.stdout.readline() == b"in\n"
        await system.hub.stop_server("alice", "stopped", wait=False)
        said = client.stderr.read()
        assert client.wait(timeout=30) == 255
    assert b"alice/stopped stopped" in said or b"has stopped" in said
    refused = alice.ssh("alice+stopped", "true")
    assert refused.returncode == 255
    assert b"alice/stopped is not running" in refused.stderr


async def test_a_certificate_from_before_a_restart_is_dead_everywhere(system: System) -> None:
    alice = await entered(system, "alice", "again")
    await system.hub.stop_server("alice", "again")
    await system.start_server("alice", "again")
    direct = alice.ssh("alice+again", "true")
    assert direct.returncode == 255
    assert b"was restarted" in direct.stderr
    jump = alice.jump("alice+again.hub", "true")
    assert jump.returncode == 255
    at_the_pod = alice.run(
        "ssh", "-o", "HostKeyAlias=alice+again.hub", "-p", pod_port(system, "alice+again"),
        f"{unix_user()}@127.0.0.1", "true", port=False,
    )  # fmt: skip
    assert at_the_pod.returncode == 255
    assert b"Permission denied" in at_the_pod.stderr
    await alice.certificate()
    assert alice.ssh("alice+again", "echo fresh").stdout == b"fresh\n"
    assert alice.jump("alice+again.hub", "echo fresh").stdout == b"fresh\n"
    reasons = {line["reason"] for line in system.audit("bastion", "connection_refused")}
    assert "server_restarted" in reasons


async def test_a_certificate_outlives_a_restart_of_jupyterhub(own_system: System) -> None:
    system = own_system
    alice = await entered(system, "alice")
    with alice.session("alice@127.0.0.1", "echo in; cat") as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == b"in\n"
        system.hub.restart()
        assert alice.ssh("alice", "echo still").stdout == b"still\n"
        client.stdin.write(b"here\n")
        assert client.stdout.readline() == b"here\n"


async def test_a_server_that_is_killed_takes_its_sshd_and_sessions_along(system: System) -> None:
    alice = await entered(system, "alice", "killed")
    pid = await system.hub.server_pid("alice", "killed")
    with alice.session("alice+killed@127.0.0.1", "echo in; cat") as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"in\n"
        subprocess.run(["kill", "-9", str(pid)], check=True)
        assert client.wait(timeout=30) == 255
