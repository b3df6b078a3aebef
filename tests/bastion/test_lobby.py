"""Why: who is dropped and who is turned away decides whether a flood keeps people out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.lobby import Bound, Lobby, LobbyLimits, Ticket, block_of, site_of

SMALL = LobbyLimits(start=4, rate=50, full=8, per_address=6, connections=12, connections_per_address=10)


class Crowd:
    """A lobby, and what became of everybody."""

    def __init__(self, limits: LobbyLimits = SMALL, chance: float = 0.0) -> None:
        self.hits: list[str] = []
        self.dropped: list[str] = []
        self.lobby = Lobby(limits, hit=self.hits.append, chance=lambda: chance)

    def enter(self, address: str, name: str = "") -> Ticket | Bound:
        return self.lobby.enter(address, lambda: self.dropped.append(name or address))

    def inside(self, address: str, count: int) -> list[Ticket]:
        """So many that have logged in."""
        tickets = []
        for _ in range(count):
            ticket = self.enter(address)
            assert isinstance(ticket, Ticket)
            ticket.admitted()
            tickets.append(ticket)
        return tickets


def test_nobody_is_dropped_while_there_are_few() -> None:
    crowd = Crowd()
    for number in range(4):
        crowd.enter(f"10.0.0.{number}")
    assert (crowd.lobby.waiting, crowd.dropped, crowd.hits) == (4, [], [])


def test_in_between_a_newcomer_has_the_oldest_of_the_heaviest_address_dropped_with_a_growing_chance() -> None:
    dropped = {}
    for chance in (0.0, 0.49, 0.51, 0.8, 0.99):
        crowd = Crowd(chance=chance)
        for number in range(5):
            crowd.enter("10.0.0.9", f"loud {number}")
        crowd.enter("10.0.0.1", "somebody")
        crowd.enter("10.0.0.2", "somebody else")
        dropped[chance] = crowd.dropped
    assert dropped[0.0] == ["loud 0", "loud 1", "loud 2"]
    assert dropped[0.51] == ["loud 0", "loud 1"]
    assert dropped[0.99] == []
    assert all(not name.startswith("somebody") for names in dropped.values() for name in names)


def test_there_are_never_more_than_full() -> None:
    crowd = Crowd(chance=0.999)
    for number in range(50):
        crowd.enter(f"10.0.{number}.1")
    assert crowd.lobby.waiting == 8
    assert crowd.hits.count(Bound.FULL) == 42
    assert crowd.dropped == [f"10.0.{number}.1" for number in range(42)]


def test_an_address_makes_room_by_itself() -> None:
    crowd = Crowd(LobbyLimits(start=100, rate=0, full=200, per_address=3))
    crowd.enter("10.0.0.1", "somebody")
    for number in range(5):
        crowd.enter("10.0.0.9", f"loud {number}")
    assert crowd.dropped == ["loud 0", "loud 1"]
    assert set(crowd.hits) == {Bound.PER_ADDRESS}


def test_a_whole_ipv6_network_is_weighed_as_one() -> None:
    crowd = Crowd(LobbyLimits(start=10, rate=100, full=12))
    crowd.enter("192.0.2.1", "somebody")
    crowd.enter("192.0.2.1", "somebody else")
    crowd.enter("2001:db8:2:1::1", "third")
    for number in range(40):
        crowd.enter(f"2001:db8:1:{number:x}::1", f"loud {number}")
    assert crowd.lobby.waiting <= 12
    assert all(name.startswith("loud") for name in crowd.dropped)


@pytest.mark.parametrize(
    ("block", "site"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("2001:db8:1:ffff::/64", "2001:db8:1::/48"),
        ("2001:db8:2::/64", "2001:db8:2::/48"),
        ("", ""),
    ],
)
def test_what_may_be_one_customers(block: str, site: str) -> None:
    assert site_of(block) == site


def test_who_is_in_is_never_dropped() -> None:
    crowd = Crowd()
    crowd.inside("10.0.0.1", 6)
    crowd.inside("10.0.0.2", 6)
    assert crowd.enter("10.0.0.3") is Bound.CONNECTIONS
    assert crowd.dropped == []
    assert crowd.hits == [Bound.CONNECTIONS]


def test_an_address_with_all_it_may_have_is_turned_away_and_others_are_not() -> None:
    crowd = Crowd()
    first, *_ = crowd.inside("10.0.0.1", 10)
    assert crowd.enter("10.0.0.1") is Bound.CONNECTIONS_PER_ADDRESS
    assert isinstance(crowd.enter("10.0.0.2"), Ticket)
    first.leave()
    assert isinstance(crowd.enter("10.0.0.1", "waits"), Ticket)
    assert isinstance(crowd.enter("10.0.0.1"), Ticket)
    assert crowd.dropped == ["waits"]


def test_when_all_places_are_taken_those_who_wait_make_room() -> None:
    crowd = Crowd()
    crowd.inside("10.0.0.1", 9)
    for number in range(3):
        crowd.enter("10.0.0.2", f"waits {number}")
    assert isinstance(crowd.enter("10.0.0.3"), Ticket)
    assert crowd.dropped == ["waits 0"]
    assert len(crowd.lobby) == 12


def test_a_proxys_word_moves_a_connection_to_its_true_address() -> None:
    crowd = Crowd()
    ticket = crowd.enter("10.0.0.1")
    assert isinstance(ticket, Ticket)
    assert crowd.lobby.move(ticket, "192.0.2.1") is None
    assert (ticket.block, crowd.lobby.waiting, len(crowd.lobby)) == ("192.0.2.1", 1, 1)
    crowd.inside("192.0.2.2", 10)
    other = crowd.enter("10.0.0.1")
    assert isinstance(other, Ticket)
    assert crowd.lobby.move(other, "192.0.2.2") is Bound.CONNECTIONS_PER_ADDRESS
    assert other.gone
    assert len(crowd.lobby) == 11


def test_it_tells_when_it_is_empty() -> None:
    crowd = Crowd()
    told: list[str] = []
    crowd.lobby.when_empty(lambda: told.append("at once"))
    tickets = crowd.inside("10.0.0.1", 2)
    crowd.lobby.when_empty(lambda: told.append("later"))
    tickets[0].leave()
    tickets[0].leave()
    assert told == ["at once"]
    tickets[1].leave()
    assert told == ["at once", "later"]


def test_a_class_of_300_behind_one_address_passes_on_the_defaults() -> None:
    crowd = Crowd(LobbyLimits())
    for _ in range(300):
        crowd.enter("192.0.2.1")
        crowd.enter("192.0.2.1")
    assert (crowd.lobby.waiting, crowd.dropped, crowd.hits) == (600, [], [])


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(address: str, block: str) -> None:
    assert block_of(address) == block


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["enter", "admit", "leave", "move"])), max_size=120),
    st.floats(0, 0.999),
)
def test_the_counts_are_right_whatever_happens(steps: list[tuple[int, str]], chance: float) -> None:
    crowd = Crowd(chance=chance)
    tickets: list[Ticket] = []
    for number, step in steps:
        address = f"10.0.0.{number}"
        if step == "enter":
            made = crowd.enter(address)
            if isinstance(made, Ticket):
                tickets.append(made)
        elif tickets:
            one = tickets[number % len(tickets)]
            if step == "admit":
                one.admitted()
            elif step == "leave":
                one.leave()
            elif one.waiting:
                crowd.lobby.move(one, address)
        live = [one for one in tickets if not one.gone]
        assert len(crowd.lobby) == len(live) <= SMALL.connections
        assert crowd.lobby.waiting == sum(one.waiting for one in live) <= SMALL.full
    for one in tickets:
        one.leave()
    assert (len(crowd.lobby), crowd.lobby.waiting, crowd.lobby.addresses_waiting) == (0, 0, 0)
