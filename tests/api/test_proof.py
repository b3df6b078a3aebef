"""Why: a proof of possession stands where a login would, so each word of it is changed and tried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.holder import Holder, logged_in
from tests.support.hub import Hub
from tests.support.service import Service, refused, running_service
from tests.support.sshsig import make_key, public_line

ACCESS = "access:services!service=ssh"


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(hub, tmp_path / "state") as running:
        yield running


@pytest.fixture
async def alice(hub: Hub, service: Service, tmp_path: Path) -> Holder:
    await hub.start_server("alice")
    return await logged_in(service, "alice", tmp_path)


async def get(holder: Holder, authorization: str) -> httpx.Response:
    return await holder.service.request("GET", "/certificates", headers={"Authorization": authorization})


async def test_whoever_holds_the_key_sees_and_revokes_the_certificates_of_its_user(
    hub: Hub, service: Service, alice: Holder, tmp_path: Path
) -> None:
    listed = await alice.ask("GET", "/certificates")
    assert [one["serial"] for one in listed.json()["certificates"]] == [alice.told["serial"]]
    assert (await alice.ask("GET", "/servers")).json()["user"] == "alice"
    assert (await alice.ask("GET", "/sessions")).json() == {"sessions": []}
    await hub.start_server("bob")
    bob = await logged_in(service, "bob", tmp_path)
    refused(await bob.ask("DELETE", f"/certificates/{alice.told['serial']}"), 403, "not_yours")
    assert (await alice.ask("DELETE", f"/certificates/{alice.told['serial']}")).status_code == 204
    refused(await alice.ask("GET", "/certificates"), 403, "revoked")
    assert (await bob.ask("GET", "/certificates")).status_code == 200


async def test_a_key_revokes_its_own_certificates_and_no_other_of_its_user(
    service: Service, alice: Holder, tmp_path: Path
) -> None:
    laptop = await logged_in(service, "alice", tmp_path)
    older = await logged_in(service, "alice", tmp_path, alice.key)
    refused(await alice.ask("DELETE", f"/certificates/{laptop.told['serial']}"), 403, "not_yours")
    assert [line["route"] for line in service.events("request_refused")] == ["/certificates"]
    assert (await alice.ask("DELETE", f"/certificates/{older.told['serial']}")).status_code == 204
    renewed = alice.renewed(await alice.renew())
    assert (await alice.ask("DELETE", f"/certificates/{alice.told['serial']}")).status_code == 204
    refused(await renewed.ask("GET", "/certificates"), 403, "revoked")
    listed = (await laptop.ask("GET", "/certificates")).json()["certificates"]
    assert [one["serial"] for one in listed] == [laptop.told["serial"]]


async def test_what_a_servers_own_token_got_opens_that_server_and_is_not_its_owners_account(
    hub: Hub, tmp_path: Path
) -> None:
    async with running_service(hub, tmp_path / "starting", SERVERS_START="true") as service:
        await hub.start_server("alice")
        laptop = await logged_in(service, "alice", tmp_path)
        thief = Holder(service, make_key(tmp_path, "thief"), {})
        body = {"public_key": public_line(thief.key)}
        answer = await service.request("POST", "/certificates", await hub.server_token("alice"), json=body)
        thief.told = answer.json()
        for method, path in (
            ("GET", "/servers"),
            ("DELETE", "/servers/alice"),
            ("GET", "/sessions"),
            ("DELETE", "/sessions/aa"),
            ("GET", "/certificates"),
            ("DELETE", f"/certificates/{laptop.told['serial']}"),
            ("DELETE", f"/certificates/{thief.told['serial']}"),
        ):
            refused(await thief.ask(method, path), 403, "not_permitted")
        refused(await thief.renew(), 403, "not_permitted")
        assert {line["route"] for line in service.events("request_refused")} == {"proof"}
        assert (await laptop.ask("GET", "/certificates")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/revocations"), ("POST", "/certificates"), ("GET", "/sessions?everybody=true")]
)
async def test_a_proof_opens_nothing_else(alice: Holder, method: str, path: str) -> None:
    given = {"user": "alice"} if path == "/revocations" else {"public_key": "x"} if method == "POST" else None
    answer = await alice.ask(method, path, given)
    assert answer.status_code in (401, 403)


@pytest.mark.parametrize(
    "changes",
    [
        {"signed": {"method": "DELETE"}},
        {"signed": {"url": "https://evil.example/certificates"}},
        {"signed": {"url": "http://127.0.0.1/certificates"}},
        {"signed": {"nonce": "0" * 32}},
        {"signed": {"serial": "1"}},
        {"signed": {"time": "1"}},
        {"signed": {"body": b"x"}},
        {"namespace": "file"},
        {"serial": "1234567890"},
        {"serial": "0"},
        {"serial": "9" * 30},
        {"nonce": "0" * 31},
        {"nonce": "G" * 32},
        {"time": "soon"},
        {"time": "-5"},
        {"signature": "AAAA"},
        {"signature": ""},
        {"signature": "="},
        {"more": "x"},
    ],
    ids=str,
)
async def test_a_proof_of_something_else_is_none(alice: Holder, changes: dict[str, object]) -> None:
    authorization = alice.proof("GET", "/certificates", **changes)
    refused(await get(alice, authorization), 401, "invalid_proof")
    assert [line["reason"] for line in alice.service.events("request_refused")] == ["invalid_proof"]


@pytest.mark.parametrize("text", ["", "SSHSIG", "SSHSIG ,,,", 'SSHSIG serial="1"', "sshsig \xff", "SSHSIGx"])
async def test_what_is_no_proof_is_refused(alice: Holder, text: str) -> None:
    answer = await alice.service.request("GET", "/certificates", headers={b"Authorization": text.encode("latin-1")})
    assert answer.status_code == 401


async def test_the_key_of_somebody_else_proves_nothing(alice: Holder, tmp_path: Path) -> None:
    other = make_key(tmp_path, "other")
    refused(await get(alice, alice.proof("GET", "/certificates", key=other)), 401, "invalid_proof")


async def test_a_proof_counts_once(alice: Holder) -> None:
    authorization = alice.proof("GET", "/certificates")
    answers = await asyncio.gather(*(get(alice, authorization) for _ in range(5)))
    assert sorted(one.status_code for one in answers) == [200, 401, 401, 401, 401]
    refused(await get(alice, authorization), 401, "invalid_proof")
    alice.service.clock.advance(61)
    refused(await get(alice, authorization), 401, "clock_off")


async def test_a_clock_that_is_wrong_is_told_the_right_time(alice: Holder) -> None:
    now = int(alice.service.clock())
    for seconds, how in ((600, "600 seconds ahead"), (-600, "600 seconds behind")):
        answer = await get(alice, alice.proof("GET", "/certificates", time=str(now + seconds)))
        sentence = refused(answer, 401, "clock_off")
        assert how in sentence
        assert "UTC" in sentence
        assert "date" in answer.headers
    for seconds in (-60, 60):
        assert (await get(alice, alice.proof("GET", "/certificates", time=str(now + seconds)))).status_code == 200


async def test_an_expired_certificate_proves_nothing(alice: Holder) -> None:
    alice.service.clock.now = alice.told["valid_before"] - 1
    assert (await alice.ask("GET", "/certificates")).status_code == 200
    alice.service.clock.advance(1)
    refused(await alice.ask("GET", "/certificates"), 403, "expired")


async def test_query_and_quoting_are_signed_as_they_were_sent(alice: Holder) -> None:
    assert (await alice.ask("GET", "/certificates?a=%20b&c")).status_code == 200
    authorization = alice.proof("GET", "/certificates?a=1")
    answer = await alice.service.request("GET", "/certificates?a=2", headers={"Authorization": authorization})
    refused(answer, 401, "invalid_proof")


async def test_a_name_that_was_given_to_somebody_else_is_not_the_holders(
    hub: Hub, service: Service, tmp_path: Path
) -> None:
    await hub.start_server("carol")
    carol = await logged_in(service, "carol", tmp_path)
    await hub.stop_server("carol")
    await hub.request("DELETE", "/users/carol")
    refused(await carol.ask("GET", "/certificates"), 403, "not_a_user")
    await hub.user("carol")
    refused(await carol.ask("GET", "/certificates"), 403, "not_a_user")
    refused(await carol.renew(), 403, "not_a_user")


async def test_a_certificate_is_not_of_a_user_who_was_made_after_it(hub: Hub, service: Service, tmp_path: Path) -> None:
    await hub.start_server("carol")
    for seconds, status in ((0, 200), (-120, 403)):
        holder = Holder(service, make_key(tmp_path, f"id{seconds}"), {})
        service.clock.advance(seconds)
        body = {"public_key": public_line(holder.key)}
        token = await hub.token("carol", [ACCESS])
        holder.told = (await service.request("POST", "/certificates", token, json=body)).json()
        assert (await holder.ask("GET", "/certificates")).status_code == status
    await hub.stop_server("carol")
    await hub.request("DELETE", "/users/carol")


async def test_the_holder_starts_and_stops_servers_where_the_site_lets_people_do_that(hub: Hub, tmp_path: Path) -> None:
    async with running_service(hub, tmp_path / "starting", SERVERS_START="true") as service:
        await hub.start_server("alice")
        alice = await logged_in(service, "alice", tmp_path)
        assert (await alice.ask("DELETE", "/servers/alice")).status_code == 202
        refused(await alice.ask("POST", "/servers/bob"), 409, "no_server")
        assert [line["action"] for line in service.events("server_asked")] == ["stop"]
