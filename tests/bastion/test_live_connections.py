"""Why: whoever is in is not thrown out because something is unclear for a while, and nothing new begins meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bastion import server
from bastion.admission import Admission, DoorRules, How
from bastion.auth import Authenticator
from bastion.authority import RawKeys, Word
from bastion.directory.table import Pod, Table
from bastion.house import House
from bastion.inside import Inside
from bastion.knowledge import Known
from bastion.registry import Limits, Registry
from bastion.relay.front import ChannelOpen, ToPod, Tunnel
from bastion.relay.meanings import DirectTcp, Session
from bastion.server import Door
from ca.errors import Reason, Refusal
from ca.limits import ALL, Capability
from ca.revocation import Revocations
from ca.trust import TrustedKeys
from tests.support.clock import Clock
from tests.support.pods import LIMIT, key, pod

ALICE = pod("alice", uid="one", names=("jupyter-alice.hub",))
SECOND = pod("alice", uid="two", run=2)
BOB = pod("bob", uid="b")
JUMP = Admission(
    identity="alice",
    how=How.CERTIFICATE,
    login="jump",
    key=key(1),
    target=None,
    instances=(ALICE.instance,),
    capabilities=ALL,
    expires_at=5000.0,
    serial=1 << 40,
)
WORD = Word("hub", TrustedKeys(), Revocations(), 1000.0, RawKeys(True, ALL))
DIRECT = replace(JUMP, login="alice", target=ALICE.instance)


class Link:
    """A client's connection or tunnel that keeps what it was told at the end."""

    peer = ("127.0.0.1", 1)
    transferred = (0, 0)
    left = alone = False

    def __init__(self) -> None:
        self.told: list[str] = []
        self.ended = asyncio.Event()

    def close(self, sentence: str = "") -> None:
        self.told.append(sentence)
        self.ended.set()

    def abort(self) -> None:
        self.ended.set()


class Reach:
    """Every pod is the one that enrolled."""

    async def verify(self, seen: Pod) -> Refusal | None:
        return None


@dataclass
class Bastion:
    """Real rules, table and registry; no pod is dialled."""

    table: Table = field(default_factory=Table)
    clock: Clock = field(default_factory=lambda: Clock(1000.0))
    wall: Clock = field(default_factory=lambda: Clock(1000.0))
    registry: Registry[Inside] = field(default_factory=lambda: Registry(Limits()))
    cut_at_expiry: bool = False

    def __post_init__(self) -> None:
        self.known = Known(300.0, WORD)
        self.table.replace([ALICE, BOB], 1000.0)
        authenticator = Authenticator(
            knowledge=self.known,
            directory=cast("Any", self.table),
            keys=cast("Any", None),
            rules=DoorRules(),
            max_age=300.0,
            wall=self.wall,
            clock=self.clock,
        )
        self.house = cast(
            "House",
            SimpleNamespace(
                authenticator=authenticator,
                browser=None,
                directory=self.table,
                registry=self.registry,
                reach=Reach(),
                note=lambda _: None,
                wall=self.wall,
                zone=lambda: "hub",
                cut_at_expiry=self.cut_at_expiry,
            ),
        )

    def comes(self, admission: Admission) -> tuple[Door, Link]:
        """Somebody who was admitted so; the link says whether it lasted."""
        link = Link()
        door = Door(self.house, cast("Any", link))
        door._proven = (admission.login, b"", admission)
        door.authenticated(admission.login, b"")
        return door, link

    def hears(self, revocations: Revocations) -> None:
        """Somebody was revoked: everybody is looked at again, as when the api says so."""
        self.known.hear(replace(WORD, revocations=revocations))
        self.registry.revise(lambda session: session.still_valid())


def opens(door: Door, host: str, port: int = 22) -> ToPod | Tunnel | Refusal:
    return door.decide_open(ChannelOpen(1, "direct-tcpip", DirectTcp(host, port, "127.0.0.1", 1), b""))


async def begins(door: Door, host: str = "alice.hub") -> tuple[Refusal | None, Link]:
    """A tunnel, up to where it would be dialled."""
    decided, link = opens(door, host), Link()
    assert isinstance(decided, Tunnel)
    assert decided.prepare is not None
    return await decided.prepare(cast("Any", link)), link


def reason(decided: object) -> Reason:
    assert isinstance(decided, Refusal)
    return decided.reason


# -- which forwards of a direct login are for the pod


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("postgres.hub", 5432),
        ("proxy-public.hub", 80),
        ("alice.hub", 8888),
        ("jupyter-alice.hub", 8888),
        ("bob.hub", 8888),
        ("localhost", 22),
    ],
)
async def test_a_service_that_is_called_like_a_server_is_for_the_pod_to_dial(host: str, port: int) -> None:
    """A namespace may have the zone's name."""
    door, _ = Bastion().comes(DIRECT)
    assert opens(door, host, port) == ToPod()


async def test_a_forward_that_only_looks_like_a_jump_still_needs_its_capability() -> None:
    door, _ = Bastion().comes(replace(DIRECT, capabilities=ALL - {Capability.LOCAL_FORWARD}))
    refused = opens(door, "postgres.hub", 5432)
    assert reason(refused) is Reason.NOT_PERMITTED
    assert cast("Refusal", refused).sentence.startswith("local-forward is not permitted to you here")


@pytest.mark.parametrize("port", [22, ALICE.ssh_port])
async def test_a_direct_login_reaches_ssh_ports_by_tunnels_alone_whoever_runs(port: int) -> None:
    door, _ = Bastion().comes(DIRECT)
    assert isinstance(opens(door, "alice.hub", port), Tunnel)
    assert reason(opens(door, "bob.hub", port)) is Reason.WRONG_TARGET
    assert opens(door, "carol.hub", port) == opens(door, "bob.hub", port), "carol's does not run"


async def test_a_jump_login_has_no_pod_that_would_dial_other_ports() -> None:
    door, _ = Bastion().comes(JUMP)
    for host in ("alice.hub", "bob.hub", "postgres.hub", "localhost"):
        assert reason(opens(door, host, 8888)) is Reason.WRONG_TARGET


# -- what is known is too old


async def test_a_live_jump_connection_opens_no_tunnel_on_what_is_too_old_and_keeps_those_it_has() -> None:
    bastion = Bastion()
    door, link = bastion.comes(JUMP)
    assert (await begins(door))[0] is None
    bastion.clock.now += 301
    assert reason(opens(door, "alice.hub")) is Reason.UNAVAILABLE
    assert reason(opens(door, "bob.hub")) is Reason.UNAVAILABLE, "nobody learns what else there is"
    bastion.hears(Revocations(serials=frozenset({7})))
    await bastion.registry.settled()
    assert (len(bastion.registry), link.told) == (2, [])


async def test_a_tunnel_whose_pod_was_looked_at_for_too_long_is_not_registered() -> None:
    bastion = Bastion()
    door, _ = bastion.comes(JUMP)
    decided = opens(door, "alice.hub")
    assert isinstance(decided, Tunnel)
    assert decided.prepare is not None
    bastion.clock.now += 301
    assert reason(await decided.prepare(cast("Any", Link()))) is Reason.UNAVAILABLE
    assert len(bastion.registry) == 1


# -- two pods claim one server


async def test_a_second_pod_that_claims_a_server_and_somebody_elses_revocation_end_no_session() -> None:
    bastion = Bastion()
    _, direct = bastion.comes(DIRECT)
    door, jump = bastion.comes(JUMP)
    refused, tunnel = await begins(door)
    assert refused is None
    bastion.table.put(SECOND)
    bastion.hears(Revocations(serials=frozenset({7})))
    await bastion.registry.settled()
    assert direct.told == jump.told == tunnel.told == []
    assert len(bastion.registry) == 3


async def test_while_two_pods_claim_a_server_nothing_new_goes_there_and_the_reason_is_said() -> None:
    bastion = Bastion()
    inside, _ = bastion.comes(DIRECT)
    door, _ = bastion.comes(JUMP)
    decided = opens(door, "alice.hub")
    assert isinstance(decided, Tunnel)
    assert decided.prepare is not None
    bastion.table.put(SECOND)
    for refused in (
        opens(door, "alice.hub"),
        await decided.prepare(cast("Any", Link())),
        inside.decide_open(ChannelOpen(1, "session", Session(), b"")),
    ):
        assert reason(refused) is Reason.AMBIGUOUS_SERVER
    _, late = bastion.comes(DIRECT)
    assert "Two pods claim to be alice" in late.told[0]
    bobs, _ = bastion.comes(replace(JUMP, identity="bob", instances=(BOB.instance,)))
    assert reason(opens(bobs, "alice.hub")) is Reason.WRONG_TARGET, "nobody else learns of it"


async def test_a_channel_that_comes_while_its_server_stops_is_told_which_server_and_what_to_do() -> None:
    bastion = Bastion()
    inside, _ = bastion.comes(DIRECT)
    bastion.table.replace([], 1000.0)
    refusal = inside.decide_open(ChannelOpen(1, "session", Session(), b""))
    assert reason(refusal) is Reason.SERVER_STOPPED
    assert isinstance(refusal, Refusal)
    assert refusal.sentence.startswith("Your server alice is not running with SSH. Start it")


async def test_a_session_ends_when_its_pod_is_none_of_those_that_claim_the_server() -> None:
    bastion = Bastion()
    _, direct = bastion.comes(DIRECT)
    door, _ = bastion.comes(JUMP)
    _, tunnel = await begins(door)
    bastion.table.replace([SECOND, replace(SECOND, instance=pod("alice", run=3).instance)], 1000.0)
    bastion.registry.revise(lambda session: session.still_valid())
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(direct.ended.wait(), tunnel.ended.wait())
    assert "is not running" in direct.told[0]
    assert "is not running" in tunnel.told[0]


# -- expiry that cuts


class WallClock(Clock):
    """Tells that somebody looked at it."""

    def __init__(self) -> None:
        super().__init__(1000.0)
        self.looked = asyncio.Event()

    def __call__(self) -> float:
        self.looked.set()
        return super().__call__()


async def test_a_clock_that_was_set_back_does_not_keep_a_session_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOOK_AT_EXPIRY", 0.02)
    wall = WallClock()
    _, link = Bastion(wall=wall, cut_at_expiry=True).comes(replace(DIRECT, expires_at=1000.01))
    wall.now = 500.0
    wall.looked.clear()
    async with asyncio.timeout(LIMIT):
        await wall.looked.wait()
        assert link.told == []
        wall.now = 1001.0
        await link.ended.wait()
    assert "has expired" in link.told[0]


async def test_a_clock_that_was_set_forward_or_a_machine_that_slept_does_not_cut_hours_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "LOOK_AT_EXPIRY", 0.02)
    bastion = Bastion(cut_at_expiry=True)
    _, link = bastion.comes(DIRECT)
    bastion.wall.now = 5000.0
    async with asyncio.timeout(LIMIT):
        await link.ended.wait()
    assert "has expired" in link.told[0]
