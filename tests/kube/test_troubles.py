"""Why: Kubernetes knows of a stop before JupyterHub does; the bastion acts on it, whatever the API goes through."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator

import anyio
import httpx
import pytest

from bastion.metrics import PREFIX
from tests.kube.conftest import KubeSystem, running
from tests.support.hub import LIMIT, free_port, no_tls
from tests.support.kube.store import timestamp
from tests.support.system import ACCESS, Person

STOPPED = b"Your server alice stopped."
QUICK = {
    "BASTION_DIRECTORY_WATCH_SECONDS": "1",
    "BASTION_DIRECTORY_MAX_AGE": "8",
    "BASTION_ACTIVITY_INTERVAL": "0.5",
}


def metric(quick: KubeSystem, name: str) -> float:
    """What the bastion tells Prometheus."""
    port = quick.system.bastion.environment["BASTION_METRICS_PORT"]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", verify=no_tls(), trust_env=False).text
    (value,) = [line.split()[1] for line in text.splitlines() if line.startswith(f"{PREFIX}{name} ")]
    return float(value)


@pytest.fixture(scope="module")
def quick(hub_release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeSystem]:
    """A system whose bastion notices within seconds what otherwise takes it half a minute."""
    yield from running(hub_release, tmp_path_factory, settings={**QUICK, "BASTION_METRICS_PORT": str(free_port())})


@pytest.fixture
async def alice(quick: KubeSystem, request: pytest.FixtureRequest) -> AsyncIterator[Person]:
    """Alice, with a server and a certificate for it."""
    await quick.hub.make_users()
    await quick.with_ssh("alice")
    person = quick.system.person("alice", f"-{request.node.name}")
    await person.certificate()
    yield person
    await quick.hub.clean()


@contextlib.contextmanager
def session(alice: Person) -> Iterator[subprocess.Popen[bytes]]:
    """A shell that has answered once."""
    with alice.session("alice@127.0.0.1", "echo here; cat") as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"here\n", client.stderr and client.stderr.read()
        yield client


def echoes(client: subprocess.Popen[bytes]) -> bool:
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(b"still\n")
    return client.stdout.readline() == b"still\n"


async def last_words(client: subprocess.Popen[bytes]) -> bytes:
    """What a session said at its end."""
    assert client.stderr is not None
    with anyio.fail_after(LIMIT):
        return await anyio.to_thread.run_sync(client.stderr.read)


def forget(quick: KubeSystem) -> None:
    """Delete the pod behind the hub's back."""
    quick.cluster.delete(quick.cluster.pod_of("alice")["metadata"]["name"])


async def test_a_pod_deleted_behind_the_hubs_back_ends_its_sessions_while_the_hub_still_counts_on_it(
    quick: KubeSystem, alice: Person
) -> None:
    with session(alice) as client:
        forget(quick)
        assert STOPPED in await last_words(client)
        model = await quick.hub.server("alice")
        assert model is not None
        assert model["ready"]
    refused = alice.ssh("alice", "true")
    assert refused.returncode == 255
    assert b"alice is not running with SSH" in refused.stderr


async def test_the_end_of_the_api_server_ends_nobodys_session_and_its_return_tells_what_was_missed(
    quick: KubeSystem, alice: Person
) -> None:
    with session(alice) as client:
        quick.cluster.kill()
        assert echoes(client)
        assert alice.ssh("alice", "true").returncode == 0
        forget(quick)
        quick.cluster.restart()
        assert STOPPED in await last_words(client)


async def test_a_history_that_was_compacted_meanwhile_hides_no_stop(quick: KubeSystem, alice: Person) -> None:
    with session(alice) as client:
        quick.cluster.kill()
        forget(quick)
        quick.cluster.compact()
        quick.cluster.restart()
        assert STOPPED in await last_words(client)


async def test_a_watch_that_was_cut_without_a_word_hides_no_stop(quick: KubeSystem, alice: Person) -> None:
    with session(alice) as client:
        quick.cluster.cut_silently("ssh-bastion-server/notebook")
        # Its node is away, too: only the mark says that the pod is to go.
        name = quick.cluster.pod_of("alice")["metadata"]["name"]
        quick.cluster.patch(name, {"metadata": {"deletionTimestamp": timestamp()}})
        assert STOPPED in await last_words(client)


async def test_when_nothing_is_heard_for_too_long_nobody_new_gets_in_and_everybody_inside_stays(
    quick: KubeSystem, alice: Person
) -> None:
    with session(alice) as client:
        quick.cluster.kill()
        with anyio.fail_after(LIMIT):
            while (refused := await anyio.to_thread.run_sync(alice.ssh, "alice", "true")).returncode == 0:
                pass
        assert b"lets nobody new in" in refused.stderr
        with anyio.fail_after(LIMIT):  # the api's word, which may be the older one, grows old at eight seconds as well
            while metric(quick, "directory_age_seconds") <= 8:
                await anyio.sleep(0.1)
        assert metric(quick, "fresh") == 0
        assert echoes(client)
        quick.cluster.restart()
        with anyio.fail_after(LIMIT):
            while (await anyio.to_thread.run_sync(alice.ssh, "alice", "true")).returncode != 0:
                pass
        with anyio.fail_after(LIMIT):
            while metric(quick, "fresh") == 0:
                await anyio.sleep(0.1)
        assert echoes(client)


async def test_with_the_hub_away_certificates_go_on_and_stops_are_noticed(quick: KubeSystem, alice: Person) -> None:
    quick.hub.halt()
    try:
        assert alice.ssh("alice", "true").returncode == 0
        with session(alice) as client:
            forget(quick)
            assert STOPPED in await last_words(client)
    finally:
        quick.hub.start()


async def test_a_pod_in_which_somebody_works_is_active_and_its_session_can_be_ended_from_elsewhere(
    quick: KubeSystem, alice: Person
) -> None:
    async def last_activity() -> str:
        server = await quick.hub.server("alice")
        assert server is not None
        return str(server["last_activity"])

    headers = {"Authorization": f"token {await quick.hub.token('alice', [ACCESS])}"}
    url = f"{quick.system.url}/sessions"
    with session(alice) as client:
        async with httpx.AsyncClient(verify=no_tls(), trust_env=False, headers=headers) as http:
            with anyio.fail_after(LIMIT):
                while not (found := (await http.get(url)).json()["sessions"]):
                    await anyio.sleep(0.1)
                before = await last_activity()
                assert echoes(client)
                while await last_activity() == before:
                    await anyio.sleep(0.1)
            assert [(one["user"], one["server"]) for one in found] == [("alice", "alice")]
            assert (await http.delete(f"{url}/{found[0]['id']}")).status_code == 204
        assert client.stderr is not None
        assert b"You ended this session in the browser." in client.stderr.read()
