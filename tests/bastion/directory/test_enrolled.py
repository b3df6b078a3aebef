"""The embedded directory: what the api says is read strictly, ages on our clock, and a dead pod is noticed."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.directory.enrolled import HIDE_SECONDS, EnrolledDirectory, read_enrolled, refuses
from bastion.directory.table import Pod, Started, Stopped
from ca.names import Instance, Server
from tests.support.clock import Clock
from tests.support.pods import LIMIT, free_port, key, pod

ENTRY = {
    "login": "alice+gpu",
    "instance": "1763000000000000",
    "address": "127.0.0.1",
    "ssh_port": 40222,
    "key_port": 8080,
    "unix_user": "jovyan",
    "host_key": key(1).line,
}


def test_an_entry_becomes_a_pod() -> None:
    read = read_enrolled([ENTRY])
    assert read.dropped == 0
    assert read.pods == (
        Pod(
            instance=Instance(Server("alice", "gpu"), 1763000000000000),
            address="127.0.0.1",
            ssh_port=40222,
            key_port=8080,
            unix_user="jovyan",
            host_key=key(1),
        ),
    )


def test_a_newer_api_may_say_more() -> None:
    assert len(read_enrolled([{**ENTRY, "added_later": [1]}]).pods) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("login", "alice/gpu"),
        ("login", "Alice"),
        ("login", ""),
        ("login", 7),
        ("instance", "0"),
        ("instance", "-1"),
        ("instance", "1.5"),
        ("instance", "9" * 19),
        ("instance", "9" * 5000),
        ("instance", "²"),
        ("instance", 1763000000000000),
        ("address", "pod.example.org"),
        ("address", ""),
        ("address", None),
        ("address", "127.0.0.1/8"),
        ("ssh_port", 0),
        ("ssh_port", 65536),
        ("ssh_port", True),
        ("ssh_port", "22"),
        ("key_port", 22.0),
        ("unix_user", ""),
        ("unix_user", "a\nb"),
        ("unix_user", "a" * 65),
        ("unix_user", 1000),
        ("host_key", None),
        ("host_key", "ssh-ed25519 AAAA"),
        ("host_key", "x" * 100_000),
        ("host_key", key(1).line + "\n" + key(2).line),
    ],
)
def test_an_entry_that_is_not_as_documented_is_dropped_alone(field: str, value: object) -> None:
    good = {**ENTRY, "login": "bob"}
    read = read_enrolled([{**ENTRY, field: value}, good])
    assert [one.server for one in read.pods] == [Server("bob")]
    assert read.dropped == 1


def test_an_entry_without_a_field_is_dropped() -> None:
    for field in ENTRY:
        assert read_enrolled([{name: value for name, value in ENTRY.items() if name != field}]).dropped == 1


def test_two_entries_for_one_instance_are_both_dropped() -> None:
    assert read_enrolled([ENTRY, {**ENTRY, "address": "127.0.0.2"}]).pods == ()


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(ENTRY)), inner, max_size=7),
    max_leaves=12,
)


@given(json)
def test_no_json_at_all_breaks_the_reader(raw: object) -> None:
    read_enrolled(raw)
    read_enrolled([raw, ENTRY])


async def never_asked(_: Pod) -> bool:
    raise AssertionError("nobody lost a connection")


def directory(clock: Clock | None = None) -> EnrolledDirectory:
    return EnrolledDirectory(clock=clock or Clock(), probe=never_asked)


async def test_before_the_first_answer_nothing_is_known_and_nothing_is_fresh() -> None:
    fresh = directory()
    assert fresh.heard_at is None
    assert not fresh.fresh(0.0)
    assert fresh.running() == ()
    fresh.apply([pod("alice")], "1", None)
    assert not fresh.heard.is_set()
    fresh.apply([pod("alice")], "1", 1000.0)
    assert fresh.heard.is_set()


async def test_the_list_stays_while_the_source_is_silent_and_only_its_age_grows() -> None:
    known = directory()
    known.apply([pod("alice")], "1", 1000.0)
    assert known.fresh(1300.0)
    assert not known.fresh(1301.0)
    assert known.find(Server("alice")) == pod("alice")


async def test_an_api_that_has_not_heard_the_hub_since_its_start_does_not_take_back_what_was_heard() -> None:
    known = directory()
    known.apply([pod("alice")], "1", 1000.0)
    known.apply([pod("alice")], "2", None)
    assert known.heard_at == 1000.0


async def test_consumers_hear_of_starts_and_stops_and_begin_with_what_runs() -> None:
    known = directory()
    known.apply([pod("alice")], "1", 0.0)
    changes = known.changes()
    known.apply([pod("bob")], "2", 0.0)
    async with asyncio.timeout(LIMIT):
        assert await anext(changes) == Stopped(pod("alice"), "Your server alice stopped.")
        assert await anext(changes) == Started(pod("bob"))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


class TestLost:
    """A broken connection is looked into."""

    async def test_a_pod_that_refuses_connections_is_stopped_at_once(self) -> None:
        dead = pod("alice", ssh_port=free_port())
        known = EnrolledDirectory(clock=Clock())
        known.apply([dead, pod("bob")], "1", 0.0)
        changes = known.changes()
        assert await known.lost(dead.instance)
        assert known.find(dead.server) is None
        assert await anext(changes) == Stopped(dead, "Your server alice stopped.")
        assert known.running() == (pod("bob"),)

    async def test_a_pod_that_still_listens_goes_on(self, listener: socket.socket) -> None:
        alive = pod("alice", ssh_port=listener.getsockname()[1])
        known = EnrolledDirectory(clock=Clock())
        known.apply([alive], "1", 0.0)
        assert not await known.lost(alive.instance)
        assert known.find(alive.server) == alive

    async def test_an_address_that_cannot_be_dialled_is_not_a_refusal(self) -> None:
        assert not await refuses(pod("alice", address="255.255.255.255"))

    async def test_an_unknown_instance_is_not_looked_for(self) -> None:
        assert not await directory().lost(pod("alice").instance)

    async def test_the_unchanged_list_does_not_bring_it_back_but_a_new_one_does(self) -> None:
        dead = pod("alice", ssh_port=free_port())
        known = EnrolledDirectory(clock=Clock())
        known.apply([dead], "1", 0.0)
        await known.lost(dead.instance)
        assert known.apply([dead], "1", 0.0) == []
        assert known.apply([dead], "2", 0.0) == [Started(dead)]

    async def test_a_list_that_goes_on_naming_it_is_right_in_the_end(self) -> None:
        dead, clock = pod("alice", ssh_port=free_port()), Clock()
        known = EnrolledDirectory(clock=clock)
        known.apply([dead], "1", 0.0)
        await known.lost(dead.instance)
        clock.advance(HIDE_SECONDS)
        assert known.apply([dead], "1", 0.0) == [Started(dead)]

    async def test_however_many_connections_break_the_pod_is_dialled_once(self) -> None:
        dialled, answer = list[Pod](), asyncio.Event()

        async def probe(one: Pod) -> bool:
            dialled.append(one)
            await answer.wait()
            return True

        known = EnrolledDirectory(clock=Clock(), probe=probe)
        known.apply([pod("alice")], "1", 0.0)
        broken = [asyncio.ensure_future(known.lost(pod("alice").instance)) for _ in range(20)]
        await asyncio.sleep(0)
        answer.set()
        assert await asyncio.gather(*broken) == [True] * 20
        assert dialled == [pod("alice")]

    async def test_a_list_that_arrives_during_the_probe_knows_better(self) -> None:
        known = EnrolledDirectory(clock=Clock(), probe=lambda _: listed())

        async def listed() -> bool:
            known.apply([pod("alice")], "2", 0.0)
            return True

        known.apply([pod("alice")], "1", 0.0)
        assert not await known.lost(pod("alice").instance)
        assert known.find(Server("alice")) == pod("alice")
