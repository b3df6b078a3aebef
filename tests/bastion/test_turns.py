"""Why: the order of turns decides who waits when hundreds log in at once."""

from __future__ import annotations

import asyncio

import pytest

from bastion.turns import Turns


class Clock:
    """Time goes on by what steps cost."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Room:
    """Turns whose steps cost a millisecond each, and the order in which they were taken."""

    def __init__(self, budget: float = 0.003) -> None:
        self.clock = Clock()
        self.turns = Turns(budget, self.clock)
        self.taken: list[str] = []
        self.done = asyncio.Event()

    def want(self, address: str, number: int) -> None:
        def step() -> None:
            self.clock.now += 0.001
            self.taken.append(f"{address}{number}")
            if not len(self.turns):
                self.done.set()

        self.turns.want(address, number, step)


async def test_addresses_take_turns_and_within_one_the_first_comes_first() -> None:
    room = Room()
    for number in (3, 1, 2):
        room.want("loud", number)
    room.want("quiet", 9)
    await room.done.wait()
    assert room.taken == ["loud1", "quiet9", "loud2", "loud3"]


async def test_between_rounds_everybody_else_is_served() -> None:
    room = Room()
    loop = asyncio.get_running_loop()
    for number in range(7):
        room.want("loud", number)
    for _ in range(2):
        loop.call_soon(room.taken.append, "else")
        await asyncio.sleep(0)
    await room.done.wait()
    assert room.taken == ["loud0", "loud1", "loud2", "else", "loud3", "loud4", "loud5", "else", "loud6"]


async def test_a_newcomer_from_elsewhere_waits_for_one_step_of_each_address() -> None:
    room = Room(budget=0.0)
    for number in range(300):
        room.want("loud", number)
    await asyncio.sleep(0)
    room.want("quiet", 300)
    await room.done.wait()
    assert room.taken.index("quiet300") <= 2


async def test_a_step_that_fails_takes_nobody_elses_turn() -> None:
    room = Room()
    failed: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: failed.append(about))

    def fails() -> None:
        raise ZeroDivisionError

    room.turns.want("broken", 1, fails)
    room.want("quiet", 2)
    await room.done.wait()
    assert room.taken == ["quiet2"]
    assert [type(about["exception"]) for about in failed] == [ZeroDivisionError]


async def test_a_task_goes_on_in_its_turn_and_is_the_last_of_a_round() -> None:
    room = Room()

    async def login(number: int) -> None:
        await room.turns.wait("loud", number)
        room.taken.append(f"task{number}")

    tasks = [asyncio.create_task(login(number)) for number in (1, 2)]
    await asyncio.sleep(0)
    room.want("loud", 3)
    room.want("quiet", 9)
    tasks[0].cancel()
    await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    await room.done.wait()
    assert room.taken == ["quiet9", "task2", "loud3"]
    assert len(room.turns) == 0


async def test_one_connection_may_wish_for_two_turns() -> None:
    room = Room()
    room.want("loud", 1)
    room.want("loud", 1)
    await room.done.wait()
    assert room.taken == ["loud1", "loud1"]


@pytest.mark.parametrize("count", [0, 1, 50])
async def test_nothing_is_left(count: int) -> None:
    room = Room()
    for number in range(count):
        room.want("a", number)
    if count:
        await room.done.wait()
    assert (len(room.turns), len(room.taken)) == (0, count)
