"""Why: "no idea why I cannot connect" is the worst thing about SSH: one command names the first thing that is wrong."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from threading import Thread

import pytest

from tests.ca.makers import public_key
from tests.client.laptop import Laptop

pytestmark = pytest.mark.hub


def told(alice: Laptop, *words: str) -> dict[str, str]:
    """Every step with its state, where nothing is wrong."""
    return {one["what"]: one["state"] for one in alice.told("doctor", *words)["findings"]}


async def test_where_nothing_is_wrong_it_says_so_from_clock_to_pod(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    chain = ["OpenSSH", "login", "network", "clock", "configuration", "bastion", "host key", "certificate", "server"]
    assert told(alice) == dict.fromkeys([*chain, "pod", "capability"], "ok")
    done = alice.hubssh("doctor")
    assert done.returncode == 0
    assert done.stdout.endswith("Everything works.\n")


async def test_the_clock(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    alice.ahead = 600
    found = alice.wrong()
    assert found["what"] == "clock"
    assert found["said"] == "The clock of this machine is 10 minutes ahead"
    assert "set it" in found["cure"]
    alice.ahead = -600
    assert alice.wrong()["said"] == "The clock of this machine is 10 minutes behind"
    refused = alice.hubssh("list")
    assert refused.returncode == 1
    assert "The clock of this machine is 10 minutes behind: set it" in refused.stderr


async def test_the_service_is_away(own_alice: Laptop) -> None:
    alice = own_alice
    await alice.runs("")
    await alice.logged_in()
    alice.system.api.end()
    found = alice.wrong()
    assert found["what"] == "network"
    assert "cannot be reached" in found["said"]
    assert found["cure"] == "check your network, VPN and proxy"


async def test_the_hub_is_away(own_alice: Laptop) -> None:
    alice = own_alice
    await alice.runs("")
    await alice.logged_in()
    alice.system.hub.halt()
    found = alice.wrong()
    assert found["what"] == "JupyterHub"
    assert found["cure"] == "wait a minute and try again"
    assert alice.says("alice.hub", "echo in") == "in\n"  # what runs can be entered all the same


async def test_the_bastion_is_away(own_alice: Laptop) -> None:
    alice = own_alice
    await alice.runs("")
    await alice.logged_in()
    alice.system.bastion.end()
    found = alice.wrong()
    assert found["what"] == "bastion"
    assert f"127.0.0.1 port {alice.system.port} cannot be reached" in found["said"]
    with socket.create_server(("127.0.0.1", alice.system.port)) as other:
        other.settimeout(60)

        # Something else listens there, as a proxy that wants a login does.
        def answer() -> None:
            client, _ = other.accept()
            client.sendall(b"HTTP/1.0 407 no\r\n")
            client.close()

        thread = Thread(target=answer)
        thread.start()
        assert alice.wrong()["said"].endswith("does not speak SSH")
        thread.join()


async def test_a_bastion_that_hangs_up_has_shown_no_host_key(own_alice: Laptop) -> None:
    alice = own_alice
    await alice.runs("")
    await alice.logged_in()
    alice.system.bastion.end()
    with socket.create_server(("127.0.0.1", alice.system.port)) as other:
        other.settimeout(60)
        thread = Thread(target=greet, args=(other, 2))
        thread.start()
        found = alice.wrong()
        thread.join()
    assert found["what"] == "host key"
    assert "ends the connection before anybody can log in" in found["said"]


def greet(listening: socket.socket, times: int) -> None:
    """Say what an SSH server says first, and hang up."""
    for _ in range(times):
        client, _ = listening.accept()
        client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        client.close()


async def test_a_wrong_host_key(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    known = alice.site_folder / "known_hosts"
    line = known.read_text()
    names = line.split()[1]
    known.write_text(f"@cert-authority {names} {public_key(number=99).line}\n")
    refused = alice.ssh("alice.hub", "true")
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr
    found = alice.wrong()
    assert found["what"] == "host key"
    assert "shows a host key that is not its own" in found["said"]
    assert "do not connect" in found["cure"]
    await alice.logged_in()
    assert known.read_text() == line
    assert alice.says("alice.hub", "echo in") == "in\n"


async def test_the_configuration(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    config = alice.ssh_folder / "config"
    config.write_text(f"Host *\n    ForwardAgent no\n{config.read_text()}")
    found = alice.wrong()
    assert found["what"] == "configuration"
    assert "does not begin with the line Include" in found["said"]
    await alice.logged_in()
    (alice.site_folder / "id_ed25519").chmod(0o644)
    found = alice.wrong()
    assert "can be read by others" in found["said"]
    assert found["cure"] == f"chmod 600 {alice.site_folder / 'id_ed25519'}"
    (alice.site_folder / "id_ed25519").chmod(0o600)
    (alice.site_folder / "known_hosts").unlink()
    assert "known_hosts is missing" in alice.wrong()["said"]


async def test_an_ended_certificate(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    kept = alice.site()["certificate"]
    alice.remember(
        certificate={**kept, "valid_after": kept["valid_after"] - 90000, "valid_before": kept["valid_after"]}
    )
    found = alice.wrong()
    assert found["what"] == "certificate"
    assert found["said"].startswith("Your certificate ended at ")
    assert found["cure"] == "hubssh login"


async def test_a_revoked_certificate(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    await alice.revoke(alice.site()["certificate"]["serial"])
    found = alice.wrong()
    assert (found["what"], "revoked" in found["said"]) == ("certificate", True)


async def test_a_stopped_server(alice: Laptop) -> None:
    await alice.runs("", "gpu")
    await alice.logged_in()
    await alice.system.hub.stop_server("alice", "gpu")
    found = alice.wrong("gpu")
    assert (found["what"], found["said"]) == ("server", "Your server alice/gpu is stopped")
    assert found["cure"] == "hubssh start gpu"


async def test_a_server_that_there_is_not(alice: Laptop) -> None:
    await alice.runs("")
    await alice.logged_in()
    assert alice.wrong("nothing")["said"].startswith("You have no server alice/nothing. Yours: ")


async def test_a_pod_without_ssh(alice: Laptop) -> None:
    await alice.runs("")
    await alice.system.hub.start_server("alice", "plain", ssh=False)
    await alice.logged_in()
    found = alice.wrong("plain")
    assert (found["what"], found["said"]) == ("pod", "alice/plain runs without SSH")
    assert "start it in JupyterHub with Enable SSH ticked" in found["cure"]


async def test_what_is_not_permitted_is_a_note_and_no_fault(own_system_without_forwarding: Laptop) -> None:
    alice = own_system_without_forwarding
    await alice.runs("")
    await alice.logged_in()
    found = alice.told("doctor")["findings"][-1]
    assert found["state"] == "note"
    assert found["said"] == "not permitted to you: forwarding with -R, X11 forwarding"
    assert alice.says("alice.hub", "echo in") == "in\n"  # by itself not end to end, which would be closed
    refused = alice.hubssh("start", "gpu")
    assert "This site does not let SSH clients start servers: start it in JupyterHub (http://" in refused.stderr
    assert "switched off" in alice.hubssh("stop").stderr


async def test_not_logged_in(alice: Laptop) -> None:
    done = alice.hubssh("doctor", "--json")
    (openssh, login) = json.loads(done.stdout)["findings"]
    assert openssh["state"] == "ok"
    assert (login["what"], login["state"]) == ("login", "wrong")
    assert login["cure"].startswith("hubssh login https://")


def test_without_openssh_that_is_the_first_thing(alice: Laptop) -> None:
    alice.extra["PATH"] = str(alice.folder)
    found = alice.wrong()
    assert (found["what"], found["cure"]) == ("OpenSSH", "install OpenSSH's client")
    assert not Path(alice.ssh_folder).exists()
