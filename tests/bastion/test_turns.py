"""Why: the order of turns decides who waits when hundreds log in at once."""

from __future__ import annotations

import asyncio

import pytest

from bastion.turns import REMEMBER_SECONDS, Turns


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


class Flood:
    """Sites that each always have the next connection waiting, each step of which costs two milliseconds."""

    def __init__(self, addresses: list[str], *, steps: int = 1) -> None:
        self.clock = Clock()
        self.turns = Turns(clock=self.clock)
        self.on = True
        self.steps = steps
        for number, address in enumerate(addresses):
            self._go_on(address, number, 0)

    def _go_on(self, address: str, number: int, taken: int) -> None:
        def step() -> None:
            self.clock.now += 0.002
            if self.on:
                new = taken + 1 >= self.steps
                self._go_on(address, number + 1_000_000 if new else number, 0 if new else taken + 1)

        self.turns.want(address, number, step, taken)

    async def login(self, address: str, steps: int = 6) -> float:
        """How long one login takes, from its first step to its last."""
        began = self.clock.now
        for taken in range(steps):
            await self.turns.wait(address, 0, taken)
        took = self.clock.now - began
        self.turns.arrived(address)
        return took

    async def ends(self) -> None:
        self.on = False
        async with asyncio.timeout(20):
            while len(self.turns):
                await asyncio.sleep(0)

    async def goes_on(self, seconds: float) -> None:
        end = self.clock.now + seconds
        async with asyncio.timeout(20):
            while self.clock.now < end:
                await asyncio.sleep(0)


MANY = [f"198.51.{number // 256}.{number % 256}" for number in range(600)]
ONE_48 = [f"2001:db8:1:{number:x}::/64" for number in range(600)]


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("flooding", [MANY, ONE_48], ids=["600 addresses", "a /48"])
async def test_a_flood_from_many_addresses_delays_a_login_from_elsewhere_by_less_than_a_second(
    flooding: list[str], steps: int
) -> None:
    flood = Flood(flooding, steps=steps)
    await flood.goes_on(2.0 * steps)
    for address in ("192.0.2.1", "2001:db8:2:1::/64"):
        assert await flood.login(address) < 1
    await flood.ends()


async def test_a_flood_that_has_just_begun_delays_the_first_step_alone() -> None:
    flood = Flood(MANY)
    first = await flood.login("192.0.2.1", steps=1)
    assert await flood.login("192.0.2.2") <= first + 0.1
    await flood.ends()
    flood = Flood(ONE_48)
    assert await flood.login("192.0.2.1") < 0.1
    await flood.ends()


async def test_a_class_behind_one_address_gets_in_during_a_flood_as_it_did_before_others_logged_in() -> None:
    """Each of them who gets in shows that the address is no flood."""
    flood = Flood(MANY)
    await flood.goes_on(2.0)
    began = flood.clock.now
    for _ in range(300):
        await flood.login("192.0.2.1")
    assert flood.clock.now - began < 10
    await flood.ends()


async def test_who_goes_on_without_ever_logging_in_is_as_those_who_begin_again_and_again() -> None:
    flood = Flood(MANY[:50], steps=10**9)
    await flood.goes_on(4.0)
    assert await flood.login("192.0.2.1") < 0.1
    await flood.ends()


async def test_what_a_site_has_had_is_forgotten_after_a_minute() -> None:
    flood = Flood(["192.0.2.1"])
    await flood.goes_on(2.0)
    await flood.ends()
    flood.clock.now += REMEMBER_SECONDS
    order: list[str] = []
    flood.turns.want("192.0.2.1", 1, lambda: order.append("was loud"))
    flood.turns.want("192.0.2.2", 1, lambda: order.append("other"))
    await flood.ends()
    assert order == ["was loud", "other"]


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
