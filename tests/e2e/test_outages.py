"""Why: each part may be killed at any moment: what runs goes on, and what cannot be known is not called stopped."""

from __future__ import annotations

import signal
import subprocess

from tests.support.system import Person, System


async def at_home(system: System) -> Person:
    await system.start_server("alice")
    person = system.person("alice")
    await person.certificate()
    assert person.ssh("alice", "echo in").stdout == b"in\n"
    return person


def talks(client: subprocess.Popen[bytes], word: bytes) -> bool:
    """Whether a running `cat` still answers."""
    if client.stdin is None or client.stdout is None:
        return False
    client.stdin.write(word + b"\n")
    return client.stdout.readline() == word + b"\n"


async def test_without_the_api_sessions_go_on_and_a_cached_hop_certificate_opens_new_ones(own_system: System) -> None:
    system = own_system
    alice = await at_home(system)
    with alice.session("alice@127.0.0.1", "cat") as client:
        assert talks(client, b"before")
        system.api.end(signal.SIGKILL)
        assert talks(client, b"after")
        assert alice.ssh("alice", "echo cached").stdout == b"cached\n"
        assert alice.jump("alice.hub", "echo jumped").stdout == b"jumped\n"
        other = system.person("alice", "-other-key")
        other.certificate_file.write_text(alice.certificate_file.read_text())
        system.start_api()
        assert talks(client, b"with the api again")


async def test_without_the_api_somebody_new_is_told_what_is_unavailable(own_system: System) -> None:
    system = own_system
    await system.start_server("bob")
    bob = system.person("bob")
    await bob.certificate()
    system.api.end(signal.SIGKILL)
    refused = bob.ssh("bob", "echo in")
    assert refused.returncode != 0
    assert b"cannot be reached" in refused.stderr
    assert bob.jump("bob.hub", "echo jumped").stdout == b"jumped\n"


async def test_without_the_hub_nothing_is_called_stopped(own_system: System) -> None:
    system = own_system
    alice = await at_home(system)
    with alice.session("alice@127.0.0.1", "cat") as client:
        assert talks(client, b"before")
        system.hub.kill()
        before = system.api.log.stat().st_size
        system.wait("the api to notice", lambda: system.api.log.stat().st_size > before, system.api)
        assert talks(client, b"after")
        assert alice.ssh("alice", "echo unknown is not stopped").returncode == 0
        system.hub.start()
        assert talks(client, b"and after it came back")


async def test_a_killed_bastion_comes_back_by_itself(own_system: System) -> None:
    system = own_system
    alice = await at_home(system)
    system.bastion.end(signal.SIGKILL)
    assert alice.ssh("alice", "true").returncode == 255
    system.start_bastion()
    await system.listed("alice")
    assert alice.ssh("alice", "echo back").stdout == b"back\n"


async def test_a_bastion_that_ends_tells_its_sessions(own_system: System) -> None:
    system = own_system
    alice = await at_home(system)
    with alice.session("alice@127.0.0.1", "cat") as client:
        assert talks(client, b"in")
        assert system.bastion.running is not None
        system.bastion.running.send_signal(signal.SIGTERM)
        assert client.stderr is not None
        assert b"shutting down" in client.stderr.readline() + client.stderr.readline()
        assert talks(client, b"time to save")
        assert client.stdin is not None
        client.stdin.close()
        assert client.wait(timeout=30) == 0
        assert system.bastion.running.wait(timeout=30) == 0
        system.bastion.running = None


async def test_a_lost_database_ends_old_certificates_and_nothing_else(own_system: System) -> None:
    system = own_system
    alice = await at_home(system)
    with alice.session("alice@127.0.0.1", "cat") as client:
        assert talks(client, b"before")
        for file in system.state.glob("api.sqlite*"):
            file.unlink()
        system.wait("the old certificate to be refused", lambda: alice.ssh("alice", "true").returncode == 255)
        assert talks(client, b"after")
        await system.listed("alice")
        assert b"was revoked" in alice.ssh("alice", "true").stderr
        await alice.certificate()
        system.wait("the new certificate to be good", lambda: alice.ssh("alice", "true").returncode == 0)
        assert talks(client, b"all the time")
