"""Why: whoever owns a server writes its `authorized_keys` herself, so a key there must not open what is denied her."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from bastion.admission import Admission, DoorRules
from bastion.auth import Authenticator
from bastion.authority import RawKeys, Word
from bastion.directory.table import Pod, Table
from bastion.knowledge import Known
from bastion.pubkeys import Listing
from ca.errors import Reason, Refusal
from ca.keys import PublicKey
from ca.limits import ALL, Capability
from ca.names import Instance, Server
from ca.revocation import Revocations
from ca.trust import TrustedKeys
from tests.support.pods import key

KEY = key(5)
RUN = 1763766746279903
NARROW = frozenset({Capability.PTY})


class Listed:
    """Pods that all list the key."""

    def __init__(self, pods: Iterable[Pod]) -> None:
        self._pods = tuple(pods)

    async def lookup(self, shown: PublicKey, server: Server | None) -> tuple[Listing, ...]:
        assert shown == KEY
        return tuple(Listing(one, ()) for one in self._pods if server in (None, one.server))


class Running(Table):
    """A table that was heard just now."""

    def fresh(self, _now: float, _max_age: float = 0) -> bool:
        return True


def pod(owner: str) -> Pod:
    return Pod(Instance(Server(owner), RUN), "127.0.0.1", 2222, 8080, "jovyan", None, uid=owner)


def door(owners: dict[str, frozenset[Capability]], *names: str, starting: tuple[str, ...] = ()) -> Authenticator:
    """The door of a site where alice's and others' pods, as `names` say, list the key. Those of `starting` are up and
    not ready."""
    pods, table = [replace(pod(name), ready=name not in starting) for name in names], Running()
    for one in pods:
        table.put(one)
    word = Word("hub", TrustedKeys(), Revocations(), 0.0, RawKeys(True, ALL, owners))
    return Authenticator(
        knowledge=Known(300, word),
        directory=table,  # type: ignore[arg-type]
        keys=Listed(pods),
        rules=DoorRules(),
        max_age=300,
        wall=lambda: 0.0,
        clock=lambda: 0.0,
    )


async def judged(authenticator: Authenticator, login: str) -> Admission | Refusal | None:
    return await authenticator.judge(login, KEY.blob, "192.0.2.1")


async def test_a_key_may_do_no_more_in_a_server_than_its_owner() -> None:
    authenticator = door({"alice": NARROW}, "alice", "bob")
    for login, expected in (("alice", NARROW), ("bob", ALL)):
        admission = await judged(authenticator, login)
        assert isinstance(admission, Admission)
        assert admission.capabilities == expected


async def test_a_key_opens_nothing_in_the_server_of_somebody_for_whom_ssh_is_switched_off() -> None:
    refusal = await judged(door({"alice": frozenset()}, "alice"), "alice")
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.NOTHING_GRANTED


@pytest.mark.parametrize("theirs", [frozenset(), NARROW])
async def test_jump_mode_is_closed_to_a_key_that_only_such_a_server_lists(theirs: frozenset[Capability]) -> None:
    refusal = await judged(door({"alice": theirs}, "alice"), "jump")
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.NOT_PERMITTED


async def test_jump_mode_leads_to_the_others_that_list_the_key_and_to_no_such_server() -> None:
    authenticator = door({"alice": NARROW}, "alice", "bob")
    admission = await judged(authenticator, "jump")
    assert isinstance(admission, Admission)
    assert [one.server.owner for one in admission.instances] == ["bob"]
    assert authenticator.may_jump_into(pod("bob"), admission) is None
    refusal = authenticator.may_jump_into(pod("alice"), admission)
    assert refusal is not None
    assert refusal.reason is Reason.NOT_PERMITTED


@pytest.mark.parametrize("login", ["alice", "jump"])
async def test_whoever_a_pod_lists_is_told_that_it_is_not_ready(login: str) -> None:
    refusal = await judged(door({}, "alice", starting=("alice",)), login)
    assert isinstance(refusal, Refusal)
    assert refusal.sentence == "Your server alice is not ready at the moment. Try again in a minute."


async def test_a_pod_that_is_not_ready_says_nothing_to_a_key_that_it_does_not_list() -> None:
    authenticator = door({}, "alice", "bob", starting=("alice", "bob"))
    stranger = replace(authenticator, keys=Listed([pod("carol")]))
    for login in ("alice", "jump"):
        assert await judged(stranger, login) is None
        assert not await stranger.offer(login, KEY.blob)


async def test_a_pod_that_is_not_ready_keeps_a_key_from_no_other_that_lists_it() -> None:
    admission = await judged(door({}, "alice", "bob", starting=("alice",)), "jump")
    assert isinstance(admission, Admission)
    assert [one.server.owner for one in admission.instances] == ["bob"]


async def test_while_nobody_knows_which_servers_run_each_plain_key_is_told_so_whether_a_pod_lists_it_or_not() -> None:
    knowing = door({}, "alice")
    unheard = replace(knowing, directory=Table())  # type: ignore[arg-type]
    stale = replace(knowing, clock=lambda: 301.0)
    for authenticator in (unheard, stale):
        for login in ("alice", "nobody", "jump"):
            for shown in (KEY, key(6)):  # the cache is not asked: it knows the first one only
                assert await authenticator.offer(login, shown.blob)
                refusal = await authenticator.judge(login, shown.blob, "192.0.2.1")
                assert isinstance(refusal, Refusal)
                assert refusal.reason is Reason.UNAVAILABLE


async def test_that_is_told_once_and_only_where_plain_keys_count() -> None:
    unheard = replace(door({}, "alice"), directory=Table())  # type: ignore[arg-type]
    assert not await unheard.offer("alice", KEY.blob, told=True)
    assert await unheard.judge("alice", KEY.blob, "192.0.2.1", told=True) is None
    assert not await unheard.offer("alice", b"no key")
    closed = replace(unheard, rules=DoorRules(raw_keys=False))
    assert not await closed.offer("alice", KEY.blob)
    assert await judged(closed, "alice") is None
