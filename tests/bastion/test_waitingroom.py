"""Why: people who wait for a browser wait for minutes, and neither they nor a flood of them may be in others' way."""

from __future__ import annotations

from bastion.lobby import Ticket
from bastion.waitingroom import WaitingLimits, WaitingRoom
from ca.errors import Reason, Refusal
from tests.support.clock import Clock

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Rooms:
    """A room, who was dropped from it, and which bounds were reached."""

    def __init__(self, total: int = 4, per_address: int = 3) -> None:
        self.clock = Clock(1000.0)
        self.hits: list[str] = []
        self.dropped: list[str] = []
        self.room = WaitingRoom(
            WaitingLimits(total=total, per_address=per_address, seconds=600.0), clock=self.clock, hit=self.hits.append
        )

    def enter(self, name: str, address: str = HERE) -> Ticket:
        place = self.room.enter(address, lambda: self.dropped.append(name))
        assert isinstance(place, Ticket)
        return place

    def is_refused(self, address: str = HERE) -> bool:
        place = self.room.enter(address, lambda: None)
        return isinstance(place, Refusal) and place.reason is Reason.TOO_MANY


def test_whoever_leaves_gives_the_place_back() -> None:
    rooms = Rooms()
    places = [rooms.enter("a"), rooms.enter("b", THERE)]
    assert (len(rooms.room), rooms.room.addresses) == (2, 2)
    for place in [*places, *places]:
        place.leave()
    assert (len(rooms.room), rooms.room.addresses) == (0, 0)
    assert not rooms.dropped


def test_the_heaviest_address_makes_room_with_its_oldest() -> None:
    rooms = Rooms(total=4)
    rooms.enter("there", THERE)
    for name in ("first", "second", "third"):
        rooms.enter(name)
    rooms.enter("newcomer", THERE)
    assert rooms.dropped == ["first"]
    assert rooms.hits == ["interactive"]
    assert len(rooms.room) == 4


def test_an_address_may_begin_as_many_waits_in_their_time_as_may_wait_there() -> None:
    rooms = Rooms(per_address=3)
    for name in ("a", "b", "c"):
        rooms.enter(name).leave()
    assert rooms.is_refused()
    assert rooms.hits == ["interactive_per_address"]
    rooms.enter("elsewhere", THERE)
    rooms.clock.now += 199
    assert rooms.is_refused()
    rooms.clock.now += 2
    rooms.enter("d").leave()
    assert rooms.is_refused()


def test_waits_that_let_somebody_in_do_not_count() -> None:
    rooms = Rooms(per_address=3)
    for name in ("a", "b", "c", "d", "e"):
        rooms.enter(name).leave()
        rooms.room.give_back(HERE)
    for name in ("f", "g", "h"):
        rooms.enter(name).leave()
    assert rooms.is_refused()
    rooms.room.give_back(HERE)
    rooms.enter("i").leave()
    assert rooms.is_refused()


def test_no_more_waits_are_given_back_than_there_may_be() -> None:
    rooms = Rooms(per_address=3)
    rooms.enter("a").leave()
    for _ in range(10):
        rooms.room.give_back(HERE)
        rooms.room.give_back(THERE)
    for name in ("b", "c", "d"):
        rooms.enter(name).leave()
        rooms.enter(name, THERE).leave()
    assert rooms.is_refused()
    assert rooms.is_refused(THERE)


def test_an_address_makes_room_for_its_own_newcomers() -> None:
    rooms = Rooms(per_address=3)
    for name in ("a", "b", "c"):
        rooms.enter(name)
    rooms.clock.now += 200.5
    rooms.enter("d")
    assert rooms.dropped == ["a"]
    assert rooms.hits == ["interactive_per_address"]


def test_addresses_that_are_quiet_are_forgotten() -> None:
    rooms = Rooms()
    for number in range(100):
        rooms.enter("x", f"198.51.100.{number}").leave()
        rooms.clock.now += 60
    assert len(rooms.room._paces) <= 12


def test_what_was_not_used_is_not_saved_up_beyond_the_bound() -> None:
    rooms = Rooms(per_address=3)
    rooms.enter("a").leave()
    rooms.clock.now += 100_000
    for name in ("b", "c", "d"):
        rooms.enter(name).leave()
    assert rooms.is_refused()
