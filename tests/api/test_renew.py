"""Why: a renewal needs no person, so it must never give more than the person would get, nor after they could."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api import renewals
from api.renew import still_running
from ca.claims import Claims, TokenKind
from ca.errors import Refusal
from ca.names import Instance, Server, unquote
from tests.support.holder import Holder, logged_in
from tests.support.hub import Hub
from tests.support.service import Service, refused, running_service
from tests.support.ssh_keygen import show
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


async def test_a_renewed_certificate_is_for_the_same_key_and_the_same_runs(alice: Holder) -> None:
    alice.service.clock.advance(6 * 3600)
    told = alice.renewed(await alice.renew()).told
    first, second = show(alice.told["certificate"]), show(told["certificate"])
    assert (first.key_id, first.fingerprint, first.principals) == (second.key_id, second.fingerprint, second.principals)
    assert second.valid_before == alice.service.clock() + 12 * 3600
    assert (told["user"], told["renew_until"]) == ("alice", alice.told["renew_until"])
    (line,) = [line for line in alice.service.events("certificate_issued") if line["how"] == "renew"]
    assert line["serial"] == told["serial"]


async def test_renewals_end_a_day_after_the_login_and_so_does_the_last_certificate(alice: Holder) -> None:
    service, end = alice.service, alice.told["renew_until"]
    service.clock.advance(11 * 3600)
    second = alice.renewed(await alice.renew())
    service.clock.now = end - 2 * 3600
    third = second.renewed(await second.renew())
    assert third.told["valid_before"] == end
    service.clock.now = end - 1
    assert third.renewed(await third.renew()).told["valid_before"] == end
    service.clock.now = end
    refused(await third.renew(), 403, "expired")


async def test_a_login_that_is_a_day_old_is_over_though_the_certificate_is_not(hub: Hub, tmp_path: Path) -> None:
    async with running_service(hub, tmp_path / "state", CERTIFICATES_RENEW_FOR="3600") as service:
        await hub.start_server("alice")
        alice = await logged_in(service, "alice", tmp_path)
        service.clock.advance(3600)
        assert "hubssh login" in refused(await alice.renew(), 403, "expired")
        assert [line["how"] for line in service.events("certificate_refused")] == ["renew"]


async def test_renewals_can_be_switched_off(hub: Hub, tmp_path: Path) -> None:
    async with running_service(hub, tmp_path / "state", CERTIFICATES_RENEW_FOR="0") as service:
        await hub.start_server("alice")
        alice = await logged_in(service, "alice", tmp_path)
        assert alice.told["renew_until"] <= service.clock()
        refused(await alice.renew(), 403, "not_permitted")


async def test_a_lifetime_may_be_asked_for_as_everywhere(alice: Holder) -> None:
    assert alice.renewed(await alice.renew(lifetime=600)).told["valid_before"] == alice.service.clock() + 600
    refused(await alice.renew(lifetime=5), 400, "bad_lifetime")
    refused(await alice.renew(lifetime=1 << 31), 400, "bad_request")
    refused(await alice.renew(lifetime="x"), 400, "bad_request")
    refused(await alice.renew(server="alice"), 400, "bad_request")


async def test_a_server_that_stopped_or_was_restarted_is_said_to_be(hub: Hub, alice: Holder) -> None:
    await hub.stop_server("alice")
    assert refused(await alice.renew(), 403, "server_stopped") == "Your server alice is stopped: hubssh start"
    await hub.start_server("alice")
    assert "restarted: hubssh login" in refused(await alice.renew(), 403, "server_restarted")
    assert len(alice.service.events("certificate_refused")) == 2


async def test_of_several_servers_those_that_run_still_are_renewed(hub: Hub, service: Service, tmp_path: Path) -> None:
    await hub.start_server("alice")
    await hub.start_server("alice", "gpu")
    alice = await logged_in(service, "alice", tmp_path)
    await hub.stop_server("alice", "gpu")
    await hub.start_server("alice", "gpu")
    renewed = alice.renewed(await alice.renew())
    assert [one["login"] for one in renewed.told["servers"]] == ["alice"]
    await hub.stop_server("alice")
    only = await logged_in(service, "alice", tmp_path, server="alice+gpu")
    await hub.stop_server("alice", "gpu")
    assert refused(await only.renew(), 403, "server_stopped").endswith("alice/gpu is stopped: hubssh start gpu")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("", "hubssh start"),
        ("gpu", "hubssh start gpu"),
        ("My GPU", 'hubssh start "=4dy=20=47=50=55"'),
        ("big box; rm -rf ~", "hubssh start big=20box=3b=20rm=20-rf=20=7e"),
        ("-h", 'hubssh start "=2dh"'),
    ],
)
def test_the_line_that_starts_a_server_can_be_pasted_whatever_its_name(name: str, line: str) -> None:
    stopped = Instance(Server("alice", name), 5)
    answer = still_running((stopped,), Claims("alice", TokenKind.BROWSER))
    assert isinstance(answer, Refusal)
    assert answer.sentence == f"Your server {stopped.server} is stopped: {line}"
    words = shlex.split(line)[2:]
    assert [unquote(one) for one in words] == ([name] if name else [])


async def test_a_share_that_was_taken_back_is_renewed_no_more(hub: Hub, service: Service, tmp_path: Path) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    bob = await logged_in(service, "bob", tmp_path)
    again = bob.renewed(await bob.renew())
    assert again.told["valid_before"] == service.clock() + 3600
    await hub.unshare("alice", "gpu", "bob")
    assert "not shared with you any more" in refused(await again.renew(), 403, "server_stopped")


async def test_groups_are_asked_again(hub: Hub, tmp_path: Path) -> None:
    rules = '{"guests": {"deny": ["exec"]}}'
    async with running_service(hub, tmp_path / "state", CERTIFICATES_GROUPS=rules) as service:
        await hub.start_server("alice")
        alice = await logged_in(service, "alice", tmp_path)
        await hub.set_groups("alice", ["guests"])
        renewed = alice.renewed(await alice.renew())
        assert len(renewed.told["extensions"]) < len(alice.told["extensions"])


async def test_what_was_got_with_a_token_is_not_renewed(hub: Hub, service: Service, tmp_path: Path) -> None:
    await hub.start_server("alice")
    holder = Holder(service, make_key(tmp_path), {})
    body = {"public_key": public_line(holder.key)}
    holder.told = (await service.request("POST", "/certificates", await hub.token("alice", [ACCESS]), json=body)).json()
    assert "token" in refused(await holder.renew(), 403, "not_permitted")


async def test_a_revoked_certificate_renews_nothing(alice: Holder) -> None:
    await alice.ask("DELETE", f"/certificates/{alice.told['serial']}")
    refused(await alice.renew(), 403, "revoked")


async def test_what_was_renewed_goes_with_what_it_was_renewed_from(hub: Hub, alice: Holder, tmp_path: Path) -> None:
    service = alice.service
    other = await logged_in(service, "alice", tmp_path)
    second = alice.renewed(await alice.renew())
    third = second.renewed(await second.renew())
    token = await hub.token("alice", [ACCESS])
    await service.request("DELETE", f"/certificates/{alice.told['serial']}", token)
    for one in (alice, second, third):
        refused(await one.renew(), 403, "revoked")
    assert (await other.renew()).status_code == 201
    assert len(service.events("revoked")) == 3


async def test_a_renewal_that_meets_a_revocation_leaves_nothing_that_counts(
    hub: Hub, alice: Holder, tmp_path: Path
) -> None:
    other = await logged_in(alice.service, "alice", tmp_path)
    token, path = await hub.token("alice", [ACCESS]), f"/certificates/{alice.told['serial']}"
    answers = await asyncio.gather(
        *(alice.renew() for _ in range(4)), alice.service.request("DELETE", path, token), alice.renew()
    )
    for answer in answers:
        if answer.status_code == 201:
            refused(await alice.renewed(answer).renew(), 403, "revoked")
    listed = (await other.ask("GET", "/certificates")).json()["certificates"]
    assert [one["serial"] for one in listed] == [other.told["serial"]]


@pytest.mark.parametrize("what", [{"user": "alice"}, {"server": "alice"}])
async def test_a_watermark_ends_renewals(hub: Hub, alice: Holder, what: dict[str, str]) -> None:
    token = await hub.token("alice", [ACCESS])
    assert (await alice.service.request("POST", "/revocations", token, json=what)).status_code == 204
    refused(await alice.renew(), 403, "revoked")


async def test_a_stolen_key_cannot_pile_up_certificates(alice: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewals, "MAX_COUNTING", 3)
    for _ in range(3):
        alice.renewed(await alice.renew())
    refused(await alice.renew(), 429, "too_many")
