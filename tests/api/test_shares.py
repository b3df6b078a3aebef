"""Why: what was shared and is not any more must be closed within seconds, and an absent hub must close nothing."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api import desk
from api.records import instances_in
from api.shares import ShareWatch
from api.sightings import Reported
from ca.trust import Presented, examine
from tests.support.browser import Person
from tests.support.hub import ROOT, Hub
from tests.support.ports import new_key
from tests.support.service import Service, running_service

ACCESS = "access:services!service=ssh"


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(hub, tmp_path / "state", CERTIFICATES_ADMIN_SSH="true") as running:
        yield running


async def certificate(service: Service, user: str, **fields: Any) -> dict[str, Any]:
    token = await service.hub.token(user, [ACCESS])
    answer = await service.request("POST", "/certificates", token, json={"public_key": new_key(), **fields})
    assert answer.status_code == 201, answer.text
    issued: dict[str, Any] = answer.json()
    return issued


def revoked(service: Service) -> set[str]:
    return {str(serial) for serial in service.services.store.snapshot.revocations.serials}


def taken(service: Service) -> set[tuple[str, str]]:
    """Who was taken back which server."""
    shares = service.services.store.snapshot.revocations.shares
    return {(user, str(server)) for user, servers in shares.items() for server in servers}


def opens(service: Service, issued: dict[str, Any]) -> list[str]:
    """The servers that the bastions, and the api before a hop certificate, take a certificate for now."""
    shown = examine(
        b64decode(issued["certificate"].split()[1]),
        service.services.signer.public.user,
        service.services.store.snapshot.revocations,
        service.clock.now,
        None,
    )
    return [str(one.server) for one in shown.instances] if isinstance(shown, Presented) else []


async def enter(service: Service, user: str, issued: dict[str, Any], login: str | None = "alice+gpu") -> None:
    """What a bastion reports of somebody who came in with this certificate."""
    told = Reported(
        id="aa",
        user=user,
        identity=user,
        login=login,
        instance=None if login is None else "1763000000000000",
        serial=issued["serial"],
        mode="jump" if login is None else "direct",
        how="certificate",
        peer="192.0.2.7",
        since=1763000000.5,
        received=1,
        sent=2,
    )
    await service.services.sightings.hear("1" * 32, [told], service.services.now_ms())


def stays(service: Service, user: str, issued: dict[str, Any]) -> list[str]:
    """The servers in which the bastions leave a session that came in with this certificate, as `still_valid` asks."""
    revocations, serial = service.services.store.snapshot.revocations, int(issued["serial"])
    if revocations.names(serial, user):
        return []
    return [str(one.server) for one in revocations.living(serial, user, instances_in(issued["principals"]))]


async def test_what_is_shared_is_in_the_certificate_for_an_hour_and_nothing_else(hub: Hub, service: Service) -> None:
    for name in ("gpu", "private", "page"):
        await hub.start_server("alice", name)
    await hub.start_server("bob")
    await hub.share("alice", "gpu", "bob", ["custom:ssh:connect"])
    await hub.share("alice", "page", "bob", ["access:servers"])
    issued = await certificate(service, "bob")
    assert [one["login"] for one in issued["servers"]] == ["alice+gpu", "bob"]
    assert issued["valid_before"] - int(service.clock.now) == 3600


async def test_an_owner_shares_ssh_herself_and_takes_it_back(hub: Hub, service: Service) -> None:
    """With what `configure(sharing=True)` gives to users, and no administrator: a link that bob accepts."""
    await hub.start_server("alice", "gpu")
    scopes = ["shares!user", "custom:ssh:connect!user"]
    told = " ".join((ROOT / "docs" / "users.md").read_text().split())
    assert " and ".join(f"`{one}`" for one in scopes) in told
    hers = await hub.token("alice", scopes)
    body = {"scopes": ["custom:ssh:connect!server=alice/gpu"]}
    made = await hub.request("POST", "/share-codes/alice/gpu", hers, json=body)
    assert made.status_code == 200, made.text
    async with await hub.login("bob") as bob:
        page = await bob.get(f"{hub.url}{made.json()['accept_url']}")
        assert page.status_code == 200
        xsrf = re.findall(r'name="_xsrf"\s+value="([^"]*)"', page.text)[0]
        data = {"code": made.json()["code"], "_xsrf": xsrf}
        accepted = await bob.post(f"{hub.hub_url}/accept-share", data=data, follow_redirects=False)
        assert accepted.status_code == 302, accepted.text
    issued = await certificate(service, "bob")
    watch = ShareWatch(service.services)
    assert await watch.look() == 0
    back = await hub.request("PATCH", "/shares/alice/gpu", hers, json={"user": "bob"})
    assert back.status_code == 200, back.text
    assert await watch.look() == 1
    assert opens(service, issued) == []


async def test_a_share_of_a_group_counts_as_well(hub: Hub, service: Service) -> None:
    await hub.start_server("alice", "gpu")
    await hub.set_groups("bob", ["team"])
    body = {"group": "team", "scopes": ["custom:ssh:connect!server=alice/gpu"]}
    assert (await hub.request("POST", "/shares/alice/gpu", json=body)).status_code == 200
    issued = await certificate(service, "bob")
    watch = ShareWatch(service.services)
    assert await watch.look() == 0
    await hub.set_groups("bob", [])
    assert await watch.look() == 1
    assert opens(service, issued) == []


async def test_a_share_that_is_taken_back_closes_one_server_to_one_user_and_no_more(hub: Hub, service: Service) -> None:
    for user, name in (("alice", "gpu"), ("alice", "big"), ("bob", "")):
        await hub.start_server(user, name)
    await hub.share("alice", "gpu", "bob")
    await hub.share("alice", "big", "bob")
    both, gpu, big, own = [
        await certificate(service, "bob", **({"server": server} if server else {}))
        for server in ("", "alice+gpu", "alice+big", "bob")
    ]
    hers = await certificate(service, "alice")
    watch = ShareWatch(service.services)
    assert await watch.look() == 0
    state = service.services.roster.state()
    before = state.version
    assert "shares" not in state.body["revocations"], "bastions of before an upgrade know no such field"
    await hub.unshare("alice", "gpu", "bob")
    assert await watch.look() == 1
    assert (taken(service), revoked(service)) == ({("bob", "alice/gpu")}, set())
    assert opens(service, gpu) == []
    assert opens(service, both) == ["alice/big", "bob"]
    state = service.services.roster.state()
    assert state.version != before, "bastions are told at once"
    assert state.body["revocations"]["shares"] == {"bob": {"alice+gpu": service.services.now_ms() + 1}}
    own_list = await desk.own_certificates(service.services, "bob")
    assert sorted([str(one.server) for one in instances_in(it.principals)] for it in own_list) == [
        ["alice/big"],
        ["alice/big", "bob"],
        ["bob"],
    ]
    (line,) = service.events("revoked")
    told = {"by": "shares", "user": "bob", "server": "alice/gpu", "reason": "alice/gpu is not shared any more"}
    assert line == line | told
    assert await watch.look() == 0, "said once, while the others are still looked after"
    for kept, servers in ((big, ["alice/big"]), (own, ["bob"]), (hers, ["alice/big", "alice/gpu"])):
        assert opens(service, kept) == servers
    again = await certificate(service, "bob")
    assert [one["login"] for one in again["servers"]] == ["alice+big", "bob"]
    await hub.unshare("alice", "big", "bob")
    assert await watch.look() == 1
    assert opens(service, both) == ["bob"]


async def test_a_server_that_is_shared_anew_is_in_new_certificates_and_not_in_old_ones(
    hub: Hub, service: Service
) -> None:
    await hub.start_server("alice", "gpu")
    await hub.start_server("bob")
    await hub.share("alice", "gpu", "bob")
    before = await certificate(service, "bob")
    watch = ShareWatch(service.services)
    await hub.unshare("alice", "gpu", "bob")
    assert await watch.look() == 1
    await hub.share("alice", "gpu", "bob")
    service.clock.advance(1)
    after = await certificate(service, "bob")
    assert await watch.look() == 0
    assert (opens(service, before), opens(service, after)) == (["bob"], ["alice/gpu", "bob"])


async def test_a_share_that_no_longer_covers_ssh_is_taken_back(hub: Hub, service: Service) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    issued = await certificate(service, "bob")
    body = {"user": "bob", "scopes": ["custom:ssh:connect!server=alice/gpu"]}
    assert (await hub.request("PATCH", "/shares/alice/gpu", json=body)).status_code == 200
    assert await ShareWatch(service.services).look() == 1
    assert opens(service, issued) == []


async def test_a_user_who_is_gone_or_is_somebody_else_now_has_no_shares(hub: Hub, service: Service) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    by_token = await certificate(service, "bob")
    async with Person(service) as bob:
        page = await bob.log_in("bob")
        assert (await bob.submit(page, "/certificates/form", public_key=new_key())).status_code == 200
    await hub.request("DELETE", "/users/bob")
    await hub.share("alice", "gpu", "bob")  # makes another bob
    watch = ShareWatch(service.services)
    assert await watch.look() == 1
    assert by_token["serial"] not in revoked(service), "it does not say which bob it was; his shares are this one's"
    assert taken(service) == set()
    await hub.request("DELETE", "/users/bob")
    assert await watch.look() == 1
    assert len(revoked(service)) == 2


async def as_administrator(hub: Hub, service: Service) -> dict[str, Any]:
    """A certificate for alice's server, given to an administrator: its audit line."""
    await hub.start_server("alice", "gpu")
    async with Person(service) as admin:
        page = await admin.log_in("admin")
        await admin.submit(page, "/certificates/form", public_key=new_key(), other="alice+gpu")
    issued: dict[str, Any]
    (issued,) = service.events("certificate_issued")
    return issued


async def no_administrator_any_more(hub: Hub, watch: ShareWatch) -> None:
    """The right is taken away, for as long as one look takes, which ends one thing."""
    try:
        await hub.request("PATCH", "/users/admin", json={"admin": False})
        assert await watch.look() == 1
    finally:
        await hub.request("PATCH", "/users/admin", json={"admin": True})


async def test_an_administrators_certificate_rests_on_being_one(hub: Hub, service: Service) -> None:
    issued = await as_administrator(hub, service)
    assert issued["as_admin"] is True
    watch = ShareWatch(service.services)
    assert await watch.look() == 0
    await no_administrator_any_more(hub, watch)
    assert revoked(service) == {issued["serial"]}


async def test_a_second_replica_finds_it_done(hub: Hub, service: Service) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    await certificate(service, "bob")
    watches = ShareWatch(service.services), ShareWatch(service.services)
    assert [await watch.look() for watch in watches] == [0, 0]
    await hub.unshare("alice", "gpu", "bob")
    assert [await watch.look() for watch in watches] == [1, 0]


async def test_a_watch_that_begins_later_knows_the_certificates_from_before(hub: Hub, service: Service) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    await certificate(service, "bob")
    await hub.unshare("alice", "gpu", "bob")
    service.clock.advance(600)
    assert await ShareWatch(service.services).look() == 1


async def test_what_has_expired_and_let_in_nobody_who_is_there_still_is_not_asked_about(
    hub: Hub, service: Service
) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    issued = await certificate(service, "bob")
    await enter(service, "bob", issued)
    watch = ShareWatch(service.services)
    await watch.look()
    await hub.unshare("alice", "gpu", "bob")
    service.clock.advance(3601)
    await service.services.sightings.hear("1" * 32, [], service.services.now_ms())
    assert await watch.look() == 0
    assert taken(service) == set()


@pytest.mark.parametrize("login", ["alice+gpu", None], ids=["a session there", "a jump connection"])
@pytest.mark.parametrize("late", [False, True], ids=["watched from the beginning", "watched since"])
async def test_a_session_that_outlives_its_certificate_is_closed_when_the_share_is_taken_back(
    hub: Hub, service: Service, login: str | None, late: bool
) -> None:
    await hub.start_server("alice", "gpu")
    await hub.start_server("bob")
    await hub.share("alice", "gpu", "bob")
    issued = await certificate(service, "bob")
    watch = ShareWatch(service.services)
    if not late:
        assert await watch.look() == 0
    service.clock.advance(3601)
    await enter(service, "bob", issued, login)
    assert await watch.look() == 0
    assert await watch.look() == 0
    await hub.unshare("alice", "gpu", "bob")
    assert await watch.look() == 1
    assert (taken(service), revoked(service)) == ({("bob", "alice/gpu")}, set())
    assert stays(service, "bob", issued) == ["bob"]
    assert await watch.look() == 0


async def test_a_session_goes_with_the_share_also_after_everything_else_that_was_issued_stopped_to_count(
    hub: Hub, service: Service
) -> None:
    """`revoke --everyone` ends no session by itself; so what let it in is looked after still."""
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    issued = await certificate(service, "bob")
    await enter(service, "bob", issued)
    await service.services.store.revoke_everyone(service.services.now_ms())
    watch = ShareWatch(service.services)
    assert await watch.look() == 0
    assert stays(service, "bob", issued) == ["alice/gpu"]
    await hub.unshare("alice", "gpu", "bob")
    assert await watch.look() == 1
    assert stays(service, "bob", issued) == []


async def test_a_session_that_outlives_its_certificate_goes_with_its_user(hub: Hub, service: Service) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    issued = await certificate(service, "bob")
    service.clock.advance(3601)
    await enter(service, "bob", issued)
    watch = ShareWatch(service.services)
    assert await watch.look() == 0
    await hub.request("DELETE", "/users/bob")
    assert await watch.look() == 1
    assert revoked(service) == {issued["serial"]}


async def test_an_administrators_session_that_outlives_its_certificate_rests_on_being_one(
    hub: Hub, service: Service
) -> None:
    issued = await as_administrator(hub, service)
    service.clock.now = issued["valid_before"] + 1
    await enter(service, "admin", issued)
    watch = ShareWatch(service.services)
    assert await watch.look() == 0
    await no_administrator_any_more(hub, watch)
    assert revoked(service) == {issued["serial"]}


async def test_a_session_whose_certificate_is_not_known_ends_nothing(hub: Hub, service: Service) -> None:
    await enter(service, "nobody", {"serial": "17"})
    await enter(service, "nobody", {"serial": "9" * 20})
    assert await ShareWatch(service.services).look() == 0


async def test_a_hub_that_is_away_takes_nothing_back(own_hub: Hub, tmp_path: Path) -> None:
    await own_hub.make_users()
    await own_hub.start_server("alice", "gpu")
    await own_hub.share("alice", "gpu", "bob")
    async with running_service(own_hub, tmp_path / "state") as service:
        issued = await certificate(service, "bob")
        watch = ShareWatch(service.services)
        own_hub.halt()
        assert await watch.look() == 0
        assert taken(service) == set()
        own_hub.start()
        assert await watch.look() == 0
        await own_hub.unshare("alice", "gpu", "bob")
        assert await watch.look() == 1
        assert opens(service, issued) == []
