"""Why: the idle culler must let a server be in which somebody works, and must not be kept off by keepalives."""

from __future__ import annotations

from bastion.registry import About, Line
from bastion.usage import Usage
from ca.names import Instance, Server

ALICE = Instance(Server("alice"), 17)


def line(carried: int, *, mode: str = "direct", number: int = 1, instance: Instance | None = ALICE) -> Line:
    """A session that began at 1000 and has carried so many bytes."""
    about = About("alice", "alice", 3, "alice", instance, mode, "127.0.0.1", 1000.0)
    return Line(number, about, carried // 2, carried - carried // 2, ending=False)


def test_a_session_that_moves_data_uses_its_server() -> None:
    usage = Usage()
    usage.look(line(0), 1010)
    assert usage.used == {}
    usage.look(line(1), 1020)
    assert usage.used == {ALICE: 1020}


def test_a_session_that_rests_does_not() -> None:
    usage = Usage()
    usage.look(line(500), 1010)
    usage.told(usage.used)
    usage.look(line(500), 1070)
    assert usage.used == {}
    usage.look(line(501), 1130)
    assert usage.used == {ALICE: 1130}


def test_what_is_not_told_yet_is_kept() -> None:
    usage = Usage()
    usage.look(line(1), 1010)
    told = dict(usage.used)
    usage.look(line(2), 1020)
    usage.told(told)
    assert usage.used == {ALICE: 1020}
    usage.told({})
    assert usage.used == {ALICE: 1020}


def test_a_session_between_two_looks_counts() -> None:
    usage = Usage()
    usage.went(line(100), 1003)
    assert usage.used == {ALICE: 1003}


def test_the_keepalives_in_a_tunnel_are_no_use() -> None:
    """Every five seconds 150 bytes; a person at a prompt, or a copy, is more than that."""
    usage = Usage()
    usage.look(line(6000, mode="jump"), 1001)
    assert usage.used == {ALICE: 1001}, "a connection that is made is somebody's work"
    usage.told(usage.used)
    usage.look(line(6000 + 12 * 150, mode="jump"), 1061)
    assert usage.used == {}
    usage.look(line(6000 + 12 * 150 + 8000, mode="jump"), 1121)
    assert usage.used == {ALICE: 1121}


def test_a_keepalive_just_between_two_looks_is_no_use_either() -> None:
    usage = Usage()
    usage.look(line(6000, mode="jump"), 1001)
    usage.told(usage.used)
    usage.look(line(6300, mode="jump"), 1001.5)
    assert usage.used == {}


def test_a_jump_connection_itself_uses_nothing() -> None:
    usage = Usage()
    usage.look(line(10**6, mode="jump", instance=None), 1060)
    assert usage.used == {}
