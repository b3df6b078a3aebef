"""Why: whoever approves a login gives a certificate away; what it opens is asked of a real JupyterHub, late."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from api import device, issue
from api.device import Browser, Collected, Described
from api.errors import HubUnavailable
from api.guesses import OF_SESSION, Guesses
from api.logins import Begun, Kind, NewLogin, TooFast
from api.session import Session
from api.starting import Waiting
from ca.errors import Reason, Refusal
from ca.keys import parse_public_key
from tests.support.hub import LIMIT, Hub
from tests.support.ports import Ports, new_key, open_ports
from tests.support.ssh_keygen import fingerprint, show

HOME = "192.0.2.7"


class Scene:
    """One api, and people at browsers."""

    def __init__(self, hub: Hub, ports: Ports) -> None:
        self.hub, self.ports, self.services = hub, ports, ports.services
        self.guesses = Guesses(ports.clock)
        self.line = new_key()

    async def begin(self, kind: Kind = Kind.DEVICE, address: str | None = HOME, **wishes: object) -> Begun:
        new = NewLogin(kind, parse_public_key(self.line), address, **wishes)  # type: ignore[arg-type]
        begun = await device.begin(self.services, new, address)
        assert isinstance(begun, Begun)
        return begun

    async def browser(self, user: str, peer: str | None = HOME, typed: str = "", *, admin: bool = False) -> Browser:
        made = (await self.hub.user(user))["created"]
        session = Session(secrets.token_hex(4), user, admin, "f", int(self.ports.clock()) - 60, made)
        return Browser(session, peer, typed)

    async def approve(self, begun: Begun, browser: Browser) -> Described | Refusal:
        return await device.approve(self.services, self.guesses, browser, begun.user_code)

    async def collect(self, begun: Begun, kind: Kind = Kind.DEVICE) -> Collected | Waiting | TooFast | Refusal:
        self.ports.clock.advance(3)
        return await device.collect(self.services, begun.device_code, HOME, kind)

    def lines(self) -> list[tuple[str, object]]:
        return [(line["audit"].removeprefix("device_login_"), line.get("reason")) for line in self.ports.events()]


@pytest.fixture
def scene(hub: Hub, ports: Ports) -> Scene:
    return Scene(hub, ports)


def reason(answer: object) -> str:
    answer = answer.problem if isinstance(answer, Described) else answer
    assert isinstance(answer, Refusal), answer
    return str(answer.reason)


async def test_one_click_gives_the_client_a_certificate_of_whoever_clicked(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice", "gpu")
    begun = await scene.begin()
    assert await scene.collect(begun) == Waiting()
    alice = await scene.browser("alice")
    shown = await device.describe(scene.services, scene.guesses, alice, begun.user_code)
    assert isinstance(shown, Described)
    assert (shown.must_type, shown.anothers, shown.problem) == (False, False, None)
    assert [str(one.server) for one in shown.opens] == ["alice/gpu"]
    assert isinstance(await scene.approve(begun, alice), Described)
    collected = await scene.collect(begun)
    assert isinstance(collected, Collected)
    certificate = show(collected.issued.signed.line)
    assert (certificate.key_id, certificate.fingerprint) == ("alice", fingerprint(scene.line))
    assert certificate.valid_before == alice.session.ends_at
    assert (collected.user, collected.renew_until) == ("alice", alice.session.at + 86400)
    record = await scene.services.store.certificate(certificate.serial)
    assert record is not None
    assert (record.how, record.login_at, record.user_made) == ("device", alice.session.at, alice.session.made)
    assert [name for name, _ in scene.lines()] == ["begun", "approved", "certificate_issued"]
    assert reason(await scene.collect(begun)) == "invalid_grant"


async def test_of_many_clients_with_the_same_code_one_gets_a_certificate(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice")
    begun = await scene.begin(Kind.INTERACTIVE)
    await scene.approve(begun, await scene.browser("alice"))
    answers = await asyncio.gather(*(scene.collect(begun, Kind.INTERACTIVE) for _ in range(6)))
    assert sum(isinstance(one, Collected) for one in answers) == 1
    assert {reason(one) for one in answers if not isinstance(one, Collected)} == {"invalid_grant"}
    assert len(scene.ports.events("certificate_issued")) == 1


async def test_elsewhere_the_code_has_to_be_typed(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice")
    begun = await scene.begin()
    for peer in ("198.51.100.1", None):
        browser = await scene.browser("alice", peer)
        shown = await device.describe(scene.services, scene.guesses, browser, begun.user_code)
        assert isinstance(shown, Described)
        assert shown.must_type
        assert reason(await scene.approve(begun, browser)) == "wrong_code"
        wrong = await scene.browser("alice", peer, "BBBB-BBBB")
        assert reason(await scene.approve(begun, wrong)) == "wrong_code"
    assert await scene.collect(begun) == Waiting()
    typed = await scene.browser("alice", None, begun.user_code.lower())
    assert isinstance(await scene.approve(begun, typed), Described)
    assert [name for name, why in scene.lines() if why == "wrong_code"] == ["refused"] * 4


async def test_a_client_without_a_known_address_always_needs_the_code_typed(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice")
    begun = await scene.begin(address=None)
    assert reason(await scene.approve(begun, await scene.browser("alice", None))) == "wrong_code"


async def test_the_key_of_another_user_is_shown_as_such_and_needs_the_code_typed(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice")
    await hub.start_server("bob")
    first = await scene.begin()
    await scene.approve(first, await scene.browser("alice"))
    assert isinstance(await scene.collect(first), Collected)
    begun = await scene.begin()
    bob = await scene.browser("bob")
    shown = await device.describe(scene.services, scene.guesses, bob, begun.user_code)
    assert isinstance(shown, Described)
    assert (shown.anothers, shown.must_type) == (True, True)
    assert reason(await scene.approve(begun, bob)) == "wrong_code"
    again = await device.describe(scene.services, scene.guesses, await scene.browser("alice"), begun.user_code)
    assert isinstance(again, Described)
    assert (again.anothers, again.must_type) == (False, False)


async def test_denied_is_denied(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice")
    begun = await scene.begin()
    alice = await scene.browser("alice")
    denied = await device.deny(scene.services, scene.guesses, alice, begun.user_code)
    assert not isinstance(denied, Refusal)
    assert reason(await scene.approve(begun, alice)) == "wrong_code"
    for _ in range(2):
        assert reason(await scene.collect(begun)) == "access_denied"
    assert scene.lines() == [("begun", None), ("denied", None), ("refused", "wrong_code")]


async def test_time_runs_out_before_and_after_the_approval(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice")
    alice = await scene.browser("alice")
    begun = await scene.begin()
    scene.ports.clock.advance(600)
    assert reason(await scene.approve(begun, alice)) == "wrong_code"
    assert reason(await scene.collect(begun)) == "expired_token"
    begun = await scene.begin()
    await scene.approve(begun, alice)
    scene.ports.clock.advance(600)
    assert reason(await scene.collect(begun)) == "expired_token"
    assert not scene.ports.events("certificate_issued")


async def test_what_stops_after_the_click_is_not_in_the_certificate(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice")
    await hub.start_server("alice", "gpu")
    begun = await scene.begin()
    await scene.approve(begun, await scene.browser("alice"))
    await hub.stop_server("alice", "gpu")
    collected = await scene.collect(begun)
    assert isinstance(collected, Collected)
    assert [str(one.server) for one in collected.issued.instances] == ["alice"]


async def test_a_login_that_earns_nothing_is_over(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice")
    begun = await scene.begin()
    await scene.approve(begun, await scene.browser("alice"))
    await hub.stop_server("alice")
    assert reason(await scene.collect(begun)) == "no_server"
    await hub.start_server("alice")
    assert reason(await scene.collect(begun)) == "invalid_grant"
    assert [line["reason"] for line in scene.ports.events("certificate_refused")] == ["no_server"]


async def test_nobody_can_approve_what_would_open_nothing(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice")
    begun = await scene.begin(server="alice")
    bob = await scene.browser("bob")
    answer = await scene.approve(begun, bob)
    assert isinstance(answer, Described)
    assert reason(answer) == "server_not_running"
    assert await scene.collect(begun) == Waiting()
    assert scene.lines() == [("begun", None), ("refused", "server_not_running")]


async def test_an_administrator_gives_away_no_more_than_the_own_servers(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice")
    begun = await scene.begin(server="alice")
    answer = await scene.approve(begun, await scene.browser("admin", admin=True))
    assert isinstance(answer, Described)
    assert reason(answer) == "server_not_running"


async def test_a_name_that_was_given_to_somebody_else_gets_nothing(hub: Hub, scene: Scene) -> None:
    await hub.start_server("carol")
    begun = await scene.begin()
    await scene.approve(begun, await scene.browser("carol"))
    await hub.stop_server("carol")
    await hub.request("DELETE", "/users/carol")
    await hub.start_server("carol")
    assert reason(await scene.collect(begun)) == "not_a_user"


async def test_revoking_a_user_revokes_what_was_approved_and_not_fetched(hub: Hub, scene: Scene) -> None:
    await hub.start_server("alice")
    begun = await scene.begin()
    await scene.approve(begun, await scene.browser("alice"))
    await issue.revoke_user(scene.services, "alice", "admin", "test")
    assert reason(await scene.collect(begun)) == "access_denied"


async def test_guessing_codes_ends_soon_for_a_session_and_for_a_person(scene: Scene) -> None:
    begun = await scene.begin()

    async def guess(browser: Browser, code: str) -> str:
        return reason(await device.describe(scene.services, scene.guesses, browser, code))

    alice = await scene.browser("alice")
    tried = await asyncio.gather(*(guess(alice, "BBBB-BBBB") for _ in range(50)))
    assert tried.count("wrong_code") == OF_SESSION
    assert set(tried) == {"wrong_code", "too_many"}
    assert await guess(alice, begun.user_code) == "too_many"
    told = [await guess(await scene.browser("alice"), "BBBB-BBBB") for _ in range(20)]
    assert told.count("wrong_code") == 10
    assert isinstance(
        await device.describe(scene.services, scene.guesses, await scene.browser("bob"), begun.user_code), Described
    )
    assert len(scene.ports.events("device_login_refused")) == 71
    scene.ports.clock.advance(599)
    assert reason(await device.describe(scene.services, scene.guesses, alice, "BBBB-BBBB")) == "too_many"
    scene.ports.clock.advance(1)
    assert await guess(alice, "BBBB-BBBB") == Reason.WRONG_CODE


async def test_codes_that_are_right_do_not_count_as_guesses(hub: Hub, scene: Scene) -> None:
    alice, begun = await scene.browser("alice"), await scene.begin()
    for _ in range(OF_SESSION + 5):
        assert isinstance(await device.describe(scene.services, scene.guesses, alice, begun.user_code), Described)


@pytest.fixture
async def starting(hub: Hub, tmp_path: Path) -> AsyncIterator[Scene]:
    async with open_ports(hub, tmp_path / "starting", SERVERS_START="true") as ports:
        yield Scene(hub, ports)


async def test_a_server_that_was_asked_for_and_stops_again_ends_the_login(hub: Hub, starting: Scene) -> None:
    begun = await starting.begin(start=True, server="alice")
    shown = await starting.approve(begun, await starting.browser("alice"))
    assert isinstance(shown, Described)
    assert shown.starts is not None
    assert await hub.server("alice") is not None
    await hub.stop_server("alice")
    assert reason(await starting.collect(begun)) == "start_failed"
    assert reason(await starting.collect(begun)) == "invalid_grant"
    assert [line["reason"] for line in starting.ports.events("certificate_refused")] == ["start_failed"]


def opened(answer: object) -> list[str]:
    assert isinstance(answer, Collected), answer
    return [str(one.server) for one in answer.issued.instances]


@pytest.mark.parametrize(("only", "opens"), [(False, ["alice", "alice/gpu"]), (True, ["alice/gpu"])])
async def test_starting_a_server_takes_away_no_other_unless_it_was_asked_for_alone(
    hub: Hub, starting: Scene, only: bool, opens: list[str]
) -> None:
    for name in ("", "gpu"):
        await hub.start_server("alice", name)
    await hub.stop_server("alice", "gpu")
    begun = await starting.begin(start=True, server="gpu", only=only)
    shown = await starting.approve(begun, await starting.browser("alice"))
    assert isinstance(shown, Described)
    assert str(shown.starts) == "alice/gpu", "others that run are no reason not to start it"
    with anyio.fail_after(LIMIT):
        while isinstance(answer := await starting.collect(begun), Waiting):
            await asyncio.sleep(0.05)
    assert opened(answer) == opens


async def test_a_server_that_cannot_be_started_is_no_login_to_the_others(hub: Hub, starting: Scene) -> None:
    await hub.start_server("alice")
    begun = await starting.begin(start=True, server="nothing", only=False)
    assert reason(await starting.approve(begun, await starting.browser("alice"))) == "server_not_running"


async def test_a_server_that_was_asked_for_and_fails_is_no_login_to_the_others(hub: Hub, starting: Scene) -> None:
    for name in ("", "gpu"):
        await hub.start_server("alice", name)
    await hub.stop_server("alice", "gpu")
    begun = await starting.begin(start=True, server="gpu", only=False)
    await starting.approve(begun, await starting.browser("alice"))
    await hub.stop_server("alice", "gpu")
    assert reason(await starting.collect(begun)) == "start_failed"


async def test_the_client_waits_until_the_servers_pod_takes_ssh_but_not_for_ever(hub: Hub, starting: Scene) -> None:
    await hub.start_server("alice")
    begun = await starting.begin(start=True)
    await starting.approve(begun, await starting.browser("alice"))
    waiting = await starting.collect(begun)
    assert isinstance(waiting, Waiting)
    assert "SSH" in waiting.message
    starting.ports.clock.advance(200)
    assert isinstance(await starting.collect(begun), Collected)


async def test_a_server_that_is_nobodys_or_somebody_elses_is_not_started(hub: Hub, starting: Scene) -> None:
    for server in ("bob", "nothing", "alice+nothing"):
        begun = await starting.begin(start=True, server=server)
        assert reason(await starting.approve(begun, await starting.browser("alice"))) == "server_not_running"
    assert await hub.server("bob") is None
    assert not starting.ports.events("server_asked")


async def test_whoever_approves_in_a_loop_is_slowed_down(hub: Hub, tmp_path: Path) -> None:
    async with open_ports(hub, tmp_path / "slow", LIMITS_CERTIFICATES="2") as ports:
        scene = Scene(hub, ports)
        await hub.start_server("alice")
        alice = await scene.browser("alice")
        answers = [await scene.approve(await scene.begin(), alice) for _ in range(4)]
        assert [isinstance(one, Refusal) for one in answers] == [False, False, True, True]
        assert reason(answers[-1]) == "too_many"


async def test_while_jupyterhub_is_away_nothing_is_used_up(own_hub: Hub, tmp_path: Path) -> None:
    async with open_ports(own_hub, tmp_path / "state", HUB_TIMEOUT="5") as ports:
        scene = Scene(own_hub, ports)
        await own_hub.start_server("alice")
        begun, alice = await scene.begin(), await scene.browser("alice")
        other = await scene.begin()
        assert isinstance(await scene.approve(begun, alice), Described)
        own_hub.halt()
        with pytest.raises(HubUnavailable):
            await scene.approve(other, alice)
        with pytest.raises(HubUnavailable):
            await scene.collect(begun)
        own_hub.start()
        assert await scene.collect(other) == Waiting()
        assert isinstance(await scene.collect(begun), Collected)
