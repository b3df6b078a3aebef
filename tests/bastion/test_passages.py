"""Why: what nobody will ever end must not be begun, and a tunnel says nothing of a pod to whoever has no key in it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bastion.admission import Admission, How
from bastion.directory.table import Pod, Table
from bastion.house import House
from bastion.registry import About, Limits, Registry
from bastion.relay.front import Tunnel
from bastion.server import Door
from bastion.tunnels import Tunnels
from ca.errors import Refusal
from ca.limits import ALL
from tests.support.pods import key, pod

BOB = pod("bob")


class Reach:
    """Looks at a pod's host key as long as a test wants."""

    def __init__(self) -> None:
        self.asked, self.released = asyncio.Event(), asyncio.Event()

    async def verify(self, seen: Pod) -> Refusal | None:
        self.asked.set()
        await self.released.wait()
        return None


class Link:
    """A client's connection or tunnel of which nothing is asked here."""

    peer = ("127.0.0.1", 1)
    transferred = (0, 0)

    def close(self, sentence: str = "") -> None:
        """There is nobody to tell."""


@dataclass
class Bench:
    """Real registry, table and rules; the pods' keys and dialling are a test's."""

    reach: Reach = field(default_factory=Reach)
    table: Table = field(default_factory=Table)
    registry: Registry[Any] = field(default_factory=lambda: Registry(Limits(total=100, per_user=3)))
    lists: bool = True

    def house(self, **more: Any) -> House:
        async def lists(seen: Pod, shown: object) -> bool:
            return self.lists

        authenticator = SimpleNamespace(
            lists=lists,
            informed=lambda: None,
            may_enter=lambda _: None,
            still_valid=lambda _: None,
            expired=lambda _: None,
            may_jump_into=lambda *_: None,
        )
        parts = {"authenticator": authenticator, "directory": self.table, "registry": self.registry}
        rest = {"reach": self.reach, "note": lambda _: None, "wall": lambda: 0.0, "zone": lambda: "hub"}
        return cast("House", SimpleNamespace(**{"browser": None, "cut_at_expiry": False, **parts, **rest, **more}))

    def tunnels(self) -> Tunnels:
        def describe(admission: Admission, instance: Any, mode: Any, name: str) -> About:
            return About(admission.identity, None, None, "jump", instance, str(mode), "127.0.0.1", 0.0, name=name)

        return Tunnels(
            self.house(),
            "s",
            "127.0.0.1",
            describe,
            noted=lambda _, refusal: refusal,
            part=lambda _: None,
            why=lambda: "client",
        )


RAW = Admission(
    identity="key:SHA256:x", how=How.KEY, login="jump", key=key(1), target=None, instances=(), capabilities=ALL
)


async def test_a_tunnel_whose_client_left_while_its_pod_was_looked_at_is_not_registered() -> None:
    """Else each of them would count as a session of that person for as long as the process lives."""
    bench = Bench()
    bench.table.put(BOB)
    for _ in range(5):
        bench.reach = Reach()
        tunnel = bench.tunnels().open(BOB.server, 22, RAW)
        assert isinstance(tunnel, Tunnel)
        assert tunnel.prepare is not None
        preparing = asyncio.create_task(tunnel.prepare(Link()))
        await asyncio.wait_for(bench.reach.asked.wait(), 20)
        tunnel.ended()
        bench.reach.released.set()
        assert isinstance(await preparing, Refusal)
    assert len(bench.registry) == 0


@pytest.mark.parametrize(("lists", "said"), [(True, "not ready"), (False, "does not open that destination")])
async def test_only_whom_a_pod_lists_is_told_that_it_is_not_ready(lists: bool, said: str) -> None:
    bench = Bench(lists=lists)
    bench.table.put(replace(BOB, ready=False))
    tunnel = bench.tunnels().open(BOB.server, 22, RAW)
    assert isinstance(tunnel, Tunnel)
    assert tunnel.prepare is not None
    refused = await tunnel.prepare(Link())
    assert isinstance(refused, Refusal)
    assert said in refused.sentence
    assert len(bench.registry) == 0


def door(bench: Bench, admission: Admission) -> Door:
    made = Door(bench.house(cut_at_expiry=True), cast("Any", Link()))
    made._proven = ("alice", b"", admission)
    return made


async def test_a_connection_that_ended_is_not_kept_in_memory_until_its_certificate_expires() -> None:
    bench = Bench()
    inside = door(bench, replace(RAW, how=How.CERTIFICATE, expires_at=12 * 3600.0))
    inside.authenticated("alice", b"")
    assert len(bench.registry) == 1
    inside.closed(None)
    gone = weakref.ref(inside)
    del inside
    gc.collect()
    assert gone() is None


async def test_a_connection_that_ended_before_it_was_let_in_is_not_registered() -> None:
    bench = Bench()
    late = door(bench, RAW)
    late.closed(None)
    late.authenticated("alice", b"")
    assert len(bench.registry) == 0
