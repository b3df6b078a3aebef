"""Why: whoever polls with invented codes must not take the database from those who log in."""

from __future__ import annotations

import asyncio

import pytest

from api.errors import Refused
from api.lines import Line, Room
from ca.errors import Reason

ROOM = Room(at_once=3, of_network=2, waiting=6, waiting_of_network=4)


async def test_requests_of_one_network_wait_for_each_other_and_for_nobody_else() -> None:
    line, inside, go_on = Line(ROOM, "logins"), list[str](), asyncio.Event()

    async def one(address: str) -> Reason | None:
        try:
            async with line.turn(address):
                inside.append(address)
                await go_on.wait()
        except Refused as error:
            return error.refusal.reason
        return None

    crowd = [asyncio.create_task(one(f"2001:db8:0:{number}::1")) for number in range(8)]
    honest = asyncio.create_task(one("192.0.2.1"))
    while len(inside) < ROOM.at_once:
        await asyncio.sleep(0)
    assert inside[-1] == "192.0.2.1"
    go_on.set()
    answers = await asyncio.gather(*crowd, honest)
    assert answers.count(None) == ROOM.of_network + ROOM.waiting_of_network + 1
    assert answers.count(Reason.TOO_MANY) == 2


async def test_many_networks_have_a_bound_as_well() -> None:
    line = Line(ROOM, "logins")
    held = [line.turn(f"192.0.2.{number}") for number in range(ROOM.at_once)]
    for turn in held:
        await turn.__aenter__()
    waiting = [asyncio.create_task(line.turn(f"198.51.100.{number}").__aenter__()) for number in range(ROOM.waiting)]
    await asyncio.sleep(0)
    with pytest.raises(Refused) as refused:
        await line.turn("203.0.113.1").__aenter__()
    assert refused.value.refusal.reason == Reason.UNAVAILABLE
    for turn in held:
        await turn.__aexit__(None, None, None)
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
