"""Why: who enrols a host key receives people's sessions, so every token that is not the pod's own must fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from ca.keys import parse_public_key
from tests.support.hub import Hub
from tests.support.ports import Ports, new_key, open_ports
from tests.support.ssh_keygen import show


async def refused(ports: Ports, token: str, status: int, error: str) -> None:
    """The token enrols nothing, and one audit line says why."""
    answer = await ports.enrol(token)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert len(answer.json()["error_description"]) > 20
    assert [line["reason"] for line in ports.events()] == [error]
    assert ports.services.store.snapshot.enrolments == ()


async def test_a_servers_own_token_enrols_that_server(hub: Hub, ports: Ports) -> None:
    started = (await hub.start_server("alice", "gpu"))["started"]
    key = new_key()
    answer = await ports.enrol(await hub.server_token("alice", "gpu"), host_key=key)
    assert answer.status_code == 200, answer.text
    pod = answer.json()
    assert (pod["owner"], pod["server"], pod["login"]) == ("alice", "gpu", "alice+gpu")
    assert pod["principal"] == f"alice/gpu:{pod['instance']}"
    assert int(pod["instance"]) % 1_000_000 == int(started[:-1].partition(".")[2].ljust(6, "0"))
    shown = show(pod["host_certificate"])
    assert (shown.kind, shown.principals, shown.critical, shown.extensions) == ("host", ("alice+gpu.hub",), (), ())
    assert shown.fingerprint == parse_public_key(key).fingerprint
    assert shown.ca_fingerprint == ports.services.signer.public.host[0].fingerprint
    assert shown.valid_before == pod["valid_before"] == int(ports.clock.now) + 86400
    assert pod["user_ca"] == [one.line for one in ports.services.signer.public.user]
    assert pod["hop_ca"] == [one.line for one in ports.services.signer.public.hop]
    assert pod["epoch"] == (await ports.public("GET", "/enrolments/epoch")).json()["epoch"]
    assert [line["audit"] for line in ports.events()] == ["host_certificate_issued", "enrolled"]
    assert await ports.listed() == ["alice+gpu"]


async def test_the_default_server_and_names_of_all_kinds_enrol(hub: Hub, ports: Ports) -> None:
    for owner, login in (("alice", "alice"), ("Bob.Smith@example.org", "=42ob.=53mith=40example.org"), ("ünï", None)):
        await hub.start_server(owner)
        answer = await ports.enrol(await hub.server_token(owner))
        assert answer.status_code == 200, answer.text
        assert login in (None, answer.json()["login"])
        assert show(answer.json()["host_certificate"]).principals == (answer.json()["host_name"],)


async def test_a_collaborators_token_for_a_shared_server_enrols_nothing(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    await refused(ports, await hub.token("bob", ["access:servers!server=alice/gpu"]), 403, "not_yours")


async def test_a_token_that_an_admin_left_in_a_server_enrols_nothing(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice", "gpu")
    await refused(ports, await hub.token("admin", ["access:servers!server=alice/gpu"]), 403, "not_yours")


@pytest.mark.parametrize(
    "scopes",
    [
        ["access:services!service=ssh"],
        ["access:services!service=other"],
        ["read:users!user=alice"],
        ["access:servers!user=alice"],
        ["access:servers!server=alice/gpu", "access:servers!server=alice/"],
        None,
    ],
)
async def test_no_other_token_of_the_owner_enrols(hub: Hub, ports: Ports, scopes: list[str] | None) -> None:
    await hub.start_server("alice", "gpu")
    await refused(ports, await hub.token("alice", scopes), 403, "wrong_token")


async def test_a_service_enrols_nothing(hub: Hub, ports: Ports) -> None:
    await refused(ports, hub.other_token, 403, "not_a_user")


async def test_a_token_that_jupyterhub_does_not_know_is_refused(ports: Ports) -> None:
    await refused(ports, "0" * 32, 401, "invalid_token")


async def test_the_token_of_a_run_that_ended_is_refused(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice", "gpu")
    token = await hub.server_token("alice", "gpu")
    await hub.stop_server("alice", "gpu")
    await refused(ports, token, 401, "invalid_token")


async def test_a_server_that_does_not_run_is_told_to_try_again(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice", "gpu")
    token = await hub.token("alice", ["access:servers!server=alice/gpu"])
    await hub.stop_server("alice", "gpu")
    await refused(ports, token, 409, "server_not_running")


async def test_a_request_without_a_token_is_refused(ports: Ports) -> None:
    answer = await ports.public("POST", "/enrolments", json={})
    assert answer.status_code in (400, 401)
    body = {"host_key": new_key(), "ssh_port": 40222, "key_port": 40080, "unix_user": "jovyan"}
    answer = await ports.public("POST", "/enrolments", json=body)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_the_same_key_may_enrol_again_and_tell_new_ports(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice")
    token, key = await hub.server_token("alice"), new_key()
    first = (await ports.enrol(token, host_key=key)).json()
    again = await ports.enrol(token, host_key=key, ssh_port=40333)
    assert again.status_code == 200
    assert again.json()["withdraw_token"] != first["withdraw_token"]
    (enrolled,) = ports.services.roster.listed
    assert (enrolled.ssh_port, enrolled.host_key) == (40333, parse_public_key(key))


async def test_the_first_host_key_of_a_run_stays(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice")
    token, key = await hub.server_token("alice"), new_key()
    await ports.enrol(token, host_key=key)
    answer = await ports.enrol(token)
    assert (answer.status_code, answer.json()["error"]) == (409, "host_key_conflict")
    assert ports.events("enrolment_refused")[-1]["fingerprint"] != parse_public_key(key).fingerprint
    (enrolled,) = ports.services.roster.listed
    assert enrolled.host_key == parse_public_key(key)


async def test_withdrawing_does_not_make_room_for_another_key(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice")
    token, key = await hub.server_token("alice"), new_key()
    withdraw = (await ports.enrol(token, host_key=key)).json()["withdraw_token"]
    assert (await ports.public("DELETE", "/enrolments", withdraw)).status_code == 204
    assert (await ports.enrol(token)).status_code == 409
    assert (await ports.enrol(token, host_key=key)).status_code == 200
    assert await ports.listed() == ["alice"]


async def test_one_host_key_does_not_stand_for_two_servers(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice")
    await hub.start_server("bob")
    key = new_key()
    await ports.enrol(await hub.server_token("alice"), host_key=key)
    answer = await ports.enrol(await hub.server_token("bob"), host_key=key)
    assert (answer.status_code, answer.json()["error"]) == (409, "host_key_conflict")
    assert await ports.listed() == ["alice"]


async def test_the_next_run_enrols_a_key_of_its_own_and_ends_the_one_before(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice")
    key = new_key()
    first = (await ports.enrol(await hub.server_token("alice"), host_key=key)).json()
    await hub.stop_server("alice")
    await hub.start_server("alice")
    second = (await ports.enrol(await hub.server_token("alice"), host_key=key)).json()
    assert first["instance"] != second["instance"]
    assert [str(one.instance.id) for one in ports.services.store.snapshot.enrolments] == [second["instance"]]


async def test_a_withdraw_token_ends_just_its_enrolment_and_needs_no_jupyterhub(own_hub: Hub, tmp_path: Path) -> None:
    async with open_ports(own_hub, tmp_path / "state", HUB_TIMEOUT="5") as ports:
        for owner in ("alice", "bob"):
            await own_hub.start_server(owner)
        withdraw = (await ports.enrol(await own_hub.server_token("alice"))).json()["withdraw_token"]
        await ports.enrol(await own_hub.server_token("bob"))
        own_hub.kill()
        for _ in range(2):
            assert (await ports.public("DELETE", "/enrolments", withdraw)).status_code == 204
        assert await ports.listed() == ["bob"]
        assert (await ports.public("DELETE", "/enrolments", "no such token")).status_code == 401
        assert (await ports.public("DELETE", "/enrolments")).status_code == 401
        assert [line["route"] for line in ports.events("request_refused")] == ["/enrolments", "/enrolments"]
        assert withdraw not in (tmp_path / "state" / "api.sqlite").read_bytes().decode("latin-1")


async def test_an_enrolment_without_jupyterhub_says_what_is_away_and_leaves_nothing(lone: Ports) -> None:
    answer = await lone.enrol("0" * 32)
    assert (answer.status_code, answer.json()["error"]) == (503, "hub_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert lone.services.store.snapshot.enrolments == ()


@pytest.mark.parametrize("peer", ["10.0.0.7", "192.0.2.1", "2001:db8::1"])
async def test_an_address_outside_the_pods_networks_enrols_nothing(hub: Hub, ports: Ports, peer: str) -> None:
    await hub.start_server("alice")
    answer = await ports.enrol(await hub.server_token("alice"), peer=peer)
    assert (answer.status_code, answer.json()["error"]) == (403, "address_not_allowed")


async def test_the_address_is_the_connections_own_whatever_a_header_says(hub: Hub, ports: Ports) -> None:
    await hub.start_server("alice")
    body = {"host_key": new_key(), "ssh_port": 40222, "key_port": 40080, "unix_user": "jovyan"}
    headers = {"X-Forwarded-For": "127.0.0.66", "Forwarded": "for=127.0.0.66"}
    token = await hub.server_token("alice")
    await ports.public("POST", "/enrolments", token, json=body, headers=headers, peer="127.0.0.5")
    assert [one.address for one in ports.services.roster.listed] == ["127.0.0.5"]


@pytest.mark.parametrize(
    "change",
    [
        {"host_key": "ssh-ed25519 AAAA"},
        {"host_key": ""},
        {"host_key": "ssh-ed25519 AAAA\nssh-ed25519 AAAA"},
        {"host_key": 7},
        {"host_key": new_key("ssh-rsa", key_size=2048)},
        {"host_key": "x" * 20_000},
        {"host_key": "\ud800"},
        {"ssh_port": 22},
        {"ssh_port": 1023},
        {"ssh_port": 0},
        {"ssh_port": 65536},
        {"ssh_port": -1},
        {"ssh_port": "40222"},
        {"ssh_port": 40222.5},
        {"ssh_port": True},
        {"ssh_port": None},
        {"key_port": 40222},
        {"key_port": 80},
        {"unix_user": ""},
        {"unix_user": "root,alice"},
        {"unix_user": "../etc"},
        {"unix_user": "jo vyan"},
        {"unix_user": "jovyan\n"},
        {"unix_user": "ünï"},
        {"unix_user": "a" * 40},
        {"address": "127.0.0.1"},
        {"owner": "bob"},
        {"principals": ["bob/:1"]},
        {"names\n": 1},
    ],
)
async def test_bad_fields_get_a_sentence_and_leave_nothing(hub: Hub, ports: Ports, change: dict[str, object]) -> None:
    await hub.start_server("alice")
    answer = await ports.enrol(await hub.server_token("alice"), **change)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error", "error_description"}
    assert len(answer.json()["error_description"]) > 15
    assert ports.services.store.snapshot.enrolments == ()
    assert ports.events("host_certificate_issued") == []


async def test_a_pod_with_an_address_of_its_own_may_use_port_22(hub: Hub, tmp_path: Path) -> None:
    await hub.start_server("alice")
    async with open_ports(hub, tmp_path / "state", PODS_NETWORKS="10.0.0.0/8") as ports:
        answer = await ports.enrol(await hub.server_token("alice"), ssh_port=22, peer="10.1.2.3")
        assert answer.status_code == 200, answer.text
        assert [(one.address, one.ssh_port) for one in ports.services.roster.listed] == [("10.1.2.3", 22)]
