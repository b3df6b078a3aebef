"""Why: what somebody revoked must be over everywhere at once, and nothing else with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.e2e.test_lifetime import pod_port
from tests.support.hub import ROOT, Hub, free_port, no_tls
from tests.support.postgresql import binaries, running_postgresql
from tests.support.system import ACCESS, POD_SIDE, Person, Process, System, unix_user


@pytest.fixture
async def alice(system: System) -> Person:
    """With two servers that run; her certificates name both."""
    for name in ("one", "two"):
        if await system.hub.server("alice", name) is None:
            await system.start_server("alice", name)
    folder = system.folder / "person-alice-revoking"
    person = Person(system, "alice", folder) if folder.exists() else system.person("alice", "-revoking")
    await person.certificate()
    return person


async def revoke(system: System, by: str, **what: str) -> None:
    token = await system.hub.token(by, [ACCESS])
    async with httpx.AsyncClient(verify=no_tls(), trust_env=False, timeout=60) as client:
        answer = await client.post(f"{system.url}/revocations", json=what, headers={"Authorization": f"token {token}"})
    assert answer.status_code == 204, answer.text


def operate(system: System, *arguments: str) -> str:
    """`python -m api …` as an operator types it on the api's machine; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "api", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **system.api.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done
    return done.stdout


def direct(person: Person, server: str) -> tuple[str, ...]:
    return (f"{person.user}+{server}@127.0.0.1",)


def through(person: Person, server: str) -> tuple[str, ...]:
    return ("-o", f"ProxyCommand={person.jump_command()}", f"{unix_user()}@{person.user}+{server}.hub")


class Live:
    """A session in each mode to each of these servers."""

    def __init__(self, stack: ExitStack, person: Person, *servers: str) -> None:
        self.clients: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        for server in servers:
            for mode, arguments in (("direct", direct(person, server)), ("jump", through(person, server))):
                session = person.session(*arguments, "echo in; cat", port=mode == "direct")
                client = self.clients[server, mode] = stack.enter_context(session)
                assert pipe(client.stdout).readline() == b"in\n"

    def cut(self, server: str) -> dict[str, bytes]:
        """Wait until both sessions to a server have ended; what they said."""
        said: dict[str, bytes] = {}
        for mode in ("direct", "jump"):
            client = self.clients.pop((server, mode))
            said[mode] = pipe(client.stderr).read()
            assert client.wait(timeout=30) == 255
        return said

    def go_on(self) -> None:
        """Whether those that are left answer."""
        for client in self.clients.values():
            pipe(client.stdin).write(b"here\n")
            assert pipe(client.stdout).readline() == b"here\n"


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def entered(person: Person, server: str) -> list[bool]:
    """Whether a new connection gets in: direct, jump."""
    login = f"{person.user}+{server}"
    return [done.stdout == b"in\n" for done in (person.ssh(login, "echo in"), person.jump(f"{login}.hub", "echo in"))]


async def test_a_revoked_server_is_closed_to_live_and_new_sessions_and_the_other_stays_open(
    system: System, alice: Person
) -> None:
    with ExitStack() as stack:
        live = Live(stack, alice, "one", "two")
        await revoke(system, "alice", server="alice+one")
        said = live.cut("one")
        assert b"revoked" in said["direct"]
        live.go_on()
    assert entered(alice, "one") == [False, False]
    assert entered(alice, "two") == [True, True]
    await alice.certificate()
    assert entered(alice, "one") == [True, True]


async def test_a_revoked_certificate_is_cut_everywhere_and_another_of_the_same_user_is_not(
    system: System, alice: Person
) -> None:
    other = system.person("alice", "-other")
    await other.certificate()
    with ExitStack() as stack:
        live, others = Live(stack, alice, "one", "two"), Live(stack, other, "one")
        serial = (await alice.certificate(server="alice+one"))["serial"]
        live.go_on()
        await revoke(system, "alice", serial=serial)
        live.go_on()  # they came with the certificate before
        assert entered(alice, "one") == [False, False]
        mine = (await alice.certificate())["serial"]
        own = Live(stack, alice, "two")
        await revoke(system, "alice", serial=mine)
        said = own.cut("two")
        assert b"Your certificate was revoked" in said["direct"]
        live.go_on()
        others.go_on()
    assert entered(alice, "two") == [False, False]
    assert entered(other, "one") == [True, True]


async def test_a_revoked_user_is_out_everywhere_until_the_next_certificate(system: System, alice: Person) -> None:
    await system.start_server("bob")
    bob = system.person("bob")
    await bob.certificate()
    with ExitStack() as stack:
        live = Live(stack, alice, "one", "two")
        his = stack.enter_context(bob.session("bob@127.0.0.1", "echo in; cat"))
        assert pipe(his.stdout).readline() == b"in\n"
        operate(system, "revoke", "--user", "alice", "--why", "lost laptop")
        live.cut("one")
        live.cut("two")
        pipe(his.stdin).write(b"here\n")
        assert pipe(his.stdout).readline() == b"here\n"
    assert entered(alice, "one") == [False, False]
    assert "lost laptop" in operate(system, "revocations")
    await alice.certificate()
    assert entered(alice, "one") == [True, True]


async def test_the_pods_own_sshd_refuses_what_is_revoked_without_any_bastion(system: System, alice: Person) -> None:
    port = pod_port(system, "alice+one")

    def at_the_pod() -> bool:
        options = ("-o", "HostKeyAlias=alice+one.hub", "-p", port, f"{unix_user()}@127.0.0.1")
        done = alice.run("ssh", *options, "echo in", port=False)
        assert done.returncode == 0 or b"Permission denied" in done.stderr, done
        return done.stdout == b"in\n"

    assert at_the_pod()
    await revoke(system, "alice", server="alice+two")
    assert at_the_pod()
    await revoke(system, "alice", user="alice")
    system.wait("the pod to hear of it", lambda: not at_the_pod())
    await alice.certificate()
    assert at_the_pod()


# -- several replicas ----------------------------------------------------------------------------------------------


@pytest.fixture
def replicas(hub_release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Process]]:
    """Two apis on one PostgreSQL: people speak with the first, the bastion with the second."""
    if binaries() is None:
        pytest.skip("PostgreSQL's server (initdb, postgres) is not installed")
    folder: Path = tmp_path_factory.mktemp("replicas")
    with running_postgresql(tmp_path_factory.mktemp("postgresql")) as address:
        hub = Hub(tmp_path_factory.mktemp("hub"), hub_release, pod_environment=POD_SIDE)
        internal = free_port()
        system = System(
            hub,
            folder,
            bastion_settings={"BASTION_API_URL": f"http://127.0.0.1:{internal}"},
            api_settings={"SSH_API_DATABASE_URL": address},
        )
        environment = {
            **system.api.environment,
            "SSH_API_LISTEN_PORT": str(free_port()),
            "SSH_API_INTERNAL_PORT": str(internal),
        }
        other = Process("api2", ["-m", "api", "serve"], environment, folder / "api2.log", folder / "api2.audit")
        try:
            hub.start()
            system.start_api()
            other.start()
            system.wait("the second api to listen", lambda: '"port": "internal"' in other.last_words, other)
            system.start_bastion()
            system.known_hosts.write_text(system.get("/known_hosts"))
            yield system, other
        finally:
            try:
                system.stop()
                other.end()
            finally:
                hub.stop()


async def test_a_bastion_hears_of_what_another_replica_was_told(replicas: tuple[System, Process]) -> None:
    system, _ = replicas
    for name in ("one", "two"):
        await system.start_server("alice", name)
    alice = system.person("alice")
    await alice.certificate()
    with ExitStack() as stack:
        live = Live(stack, alice, "one", "two")
        await revoke(system, "alice", server="alice+one")
        live.cut("one")
        live.go_on()
        await revoke(system, "alice", user="alice")
        live.cut("two")
    assert entered(alice, "two") == [False, False]
