"""Why: sessions are seen and ended elsewhere than where they live, and end with the share that they rest on."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.hub import LIMIT, Hub, no_tls
from tests.support.system import ACCESS, POD_SIDE, Person, System, unix_user


@pytest.fixture(scope="module")
def shared(hub_release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A site of two bastion processes that looks after shares often, since tests wait for it."""
    hub = Hub(tmp_path_factory.mktemp("hub"), hub_release, pod_environment=POD_SIDE)
    system = System(
        hub,
        tmp_path_factory.mktemp("system"),
        api_settings={"SSH_API_HUB_SHARES_INTERVAL": "0.5"},
        bastion_settings={"BASTION_WORKERS": "2"},
    )
    with system.running():
        yield system


class Account:
    """A user with a token for the api."""

    def __init__(self, system: System, token: str) -> None:
        self._url = system.url
        self._headers = {"Authorization": f"token {token}"}
        self._wait = system.wait

    def _request(self, method: str, path: str) -> httpx.Response:
        return httpx.request(
            method, f"{self._url}{path}", headers=self._headers, verify=no_tls(), trust_env=False, timeout=LIMIT
        )

    def sessions(self) -> list[dict[str, Any]]:
        answer = self._request("GET", "/sessions")
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["sessions"]
        return found

    def sees(self, *expected: tuple[str, str, str]) -> list[dict[str, Any]]:
        """Wait until the list is this: user, server and mode of each, in any order."""

        def shown() -> list[tuple[str, str, str]]:
            return sorted((one["user"], one["server"] or "", one["mode"]) for one in self.sessions())

        self._wait(f"the sessions to be {expected}", lambda: shown() == sorted(expected))
        return self.sessions()

    def end(self, session: str) -> int:
        return self._request("DELETE", f"/sessions/{session}").status_code


async def account(system: System, user: str) -> Account:
    return Account(system, await system.hub.token(user, [ACCESS]))


@contextlib.contextmanager
def inside(person: Person, *arguments: str, port: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """A session in which a command waits."""
    with person.session(*arguments, "echo in; cat", port=port) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"in\n"
        yield client


def last_words(client: subprocess.Popen[bytes]) -> bytes:
    """What a session that was cut says."""
    assert client.stderr is not None
    said = client.stderr.read()
    assert client.wait(timeout=LIMIT) == 255
    return said


async def test_people_see_who_is_in_their_servers_and_end_it(shared: System) -> None:
    await shared.start_server("alice", "seen")
    await shared.start_server("bob")
    await shared.hub.share("alice", "seen", "bob")
    alice, bob = shared.person("alice", "-seen"), shared.person("bob", "-seen")
    for person in (alice, bob):
        await person.certificate()
    hers, his = await account(shared, "alice"), await account(shared, "bob")
    proxy = f"ProxyCommand={alice.jump_command()}"
    with (
        inside(alice, "alice+seen@127.0.0.1") as direct,
        inside(alice, "-o", proxy, "-l", unix_user(), "alice+seen.hub", port=False) as jump,
        inside(bob, "alice+seen@127.0.0.1") as guest,
        inside(bob, "bob@127.0.0.1") as own,
    ):
        seen = hers.sees(
            ("alice", "alice/seen", "direct"), ("alice", "alice/seen", "jump"), ("bob", "alice/seen", "direct")
        )
        known = his.sees(("bob", "alice/seen", "direct"), ("bob", "bob", "direct"))
        assert {one["peer"] for one in seen} == {"127.0.0.1"}
        by = {(one["user"], one["mode"]): one["id"] for one in seen}
        assert his.end(by["alice", "direct"]) == 403
        assert hers.end(next(one["id"] for one in known if one["server"] == "bob")) == 403
        assert hers.end(by["bob", "direct"]) == 204
        assert b"The owner of alice/seen ended this session." in last_words(guest)
        assert hers.end(by["alice", "jump"]) == 204
        last_words(jump)
        assert hers.end(by["alice", "direct"]) == 204
        assert b"You ended this session in the browser." in last_words(direct)
        hers.sees()
        his.sees(("bob", "bob", "direct"))
        assert own.poll() is None
    assert bob.ssh("alice+seen", "echo again").stdout == b"again\n", "nothing was revoked"
    ended = {(line["by"], line["identity"]) for line in shared.audit("api", "session_ended")}
    assert {("alice", "bob"), ("alice", "alice")} <= ended


async def test_a_share_that_is_taken_back_cuts_the_sessions_that_it_opened(shared: System) -> None:
    for name in ("gpu", "kept"):
        await shared.start_server("alice", name)
        await shared.hub.share("alice", name, "bob", ["custom:ssh:connect"])
    gpu, kept = shared.person("bob", "-gpu"), shared.person("bob", "-kept")
    await gpu.certificate(server="alice+gpu")
    await kept.certificate(server="alice+kept")
    with (
        inside(gpu, "alice+gpu@127.0.0.1") as direct,
        inside(gpu, "-o", f"ProxyCommand={gpu.jump_command()}", "-l", unix_user(), "alice+gpu.hub", port=False) as jump,
        inside(kept, "alice+kept@127.0.0.1") as other,
    ):
        await shared.hub.unshare("alice", "gpu", "bob")
        assert b"Your access to alice/gpu was revoked." in last_words(direct)
        last_words(jump)
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(b"still\n")
        assert other.stdout.readline() == b"still\n"
    refused = gpu.ssh("alice+gpu", "true")
    assert refused.returncode == 255
    assert (await gpu.ask(await shared.hub.token("bob", [ACCESS]), server="alice+gpu")).status_code == 409


async def test_a_share_that_is_taken_back_leaves_the_guest_in_servers_of_his_own(shared: System) -> None:
    """One certificate names both, as every login makes it; so whoever shares and takes back ends nothing else."""
    await shared.start_server("alice", "lent")
    await shared.start_server("bob", "mine")
    await shared.hub.share("alice", "lent", "bob", ["custom:ssh:connect"])
    bob = shared.person("bob", "-lent")
    issued = await bob.certificate()
    assert {"alice+lent", "bob+mine"} <= {one["login"] for one in issued["servers"]}
    proxy = f"ProxyCommand={bob.jump_command()}"
    with (
        inside(bob, "alice+lent@127.0.0.1") as direct,
        inside(bob, "-o", proxy, "-l", unix_user(), "alice+lent.hub", port=False) as jump,
        inside(bob, "bob+mine@127.0.0.1") as own,
        inside(bob, "-o", proxy, "-l", unix_user(), "bob+mine.hub", port=False) as own_jump,
    ):
        await shared.hub.unshare("alice", "lent", "bob")
        assert b"Your access to alice/lent was revoked." in last_words(direct)
        last_words(jump)
        for kept in (own, own_jump):
            assert kept.stdin is not None
            assert kept.stdout is not None
            kept.stdin.write(b"still\n")
            assert kept.stdout.readline() == b"still\n"
    refused = bob.ssh("alice+lent", "true")
    assert refused.returncode == 255
    assert b"does not open that login" in refused.stderr
    assert bob.jump("alice+lent.hub", "true").returncode == 255
    assert bob.ssh("bob+mine", "echo in").stdout == b"in\n"
    shared.bastion.end()
    shared.start_bastion()
    await shared.listed("alice", "lent")
    assert bob.ssh("alice+lent", "true").returncode == 255, "a restart brings nothing back"
    assert bob.ssh("bob+mine", "echo in").stdout == b"in\n"


async def test_a_hub_that_is_away_leaves_shared_sessions_alone(shared: System) -> None:
    await shared.start_server("alice", "steady")
    await shared.hub.share("alice", "steady", "bob")
    bob = shared.person("bob", "-steady")
    await bob.certificate(server="alice+steady")
    with inside(bob, "alice+steady@127.0.0.1") as client:
        shared.hub.halt()
        shared.wait("the api to ask in vain", lambda: "shares_not_known" in shared.api.log.read_text())
        shared.hub.start()
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"still\n")
        assert client.stdout.readline() == b"still\n"


async def test_sessions_come_back_to_the_list_when_the_api_does(shared: System) -> None:
    await shared.start_server("alice", "long")
    alice = shared.person("alice", "-long")
    await alice.certificate(server="alice+long")
    hers = await account(shared, "alice")
    with inside(alice, "alice+long@127.0.0.1") as client:
        (before,) = hers.sees(("alice", "alice/long", "direct"))
        shared.api.end()
        (shared.state / "api.sqlite").unlink()
        shared.start_api()
        (after,) = hers.sees(("alice", "alice/long", "direct"))
        assert after["id"] == before["id"]
        assert client.poll() is None
