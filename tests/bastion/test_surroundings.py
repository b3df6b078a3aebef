"""Why: a process without descriptors accepts nobody and says nothing, so its bounds have to fit into what it has."""

from __future__ import annotations

import asyncio
import resource
import sys

import pytest

from bastion.bounds import lobby_limits, room_for, session_limits, waiting_limits
from bastion.settings import read_settings
from bastion.surroundings import Room
from tests.support.site import LIMIT

SAY = (
    "import resource; from bastion.surroundings import make_room_for as m; print(m({0}, {1}), resource.getrlimit(7)[0])"
)


async def room(connections: int, tunnels: int, soft: int, hard: int) -> tuple[str, int]:
    """What a process makes of limits of its own, and its soft limit after that."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SAY.format(connections, tunnels)), stdout=asyncio.subprocess.PIPE, preexec_fn=limited
    )
    async with asyncio.timeout(LIMIT):
        said, _ = await process.communicate()
    made, _, left = said.decode().strip().rpartition(" ")
    return made, int(left)


async def test_there_are_descriptors_for_each_connection_with_its_pod_and_for_each_tunnel() -> None:
    made, soft = await room(500, 700, 256, 4096)
    assert made == str(Room(500, 700))
    assert soft >= 2 * 500 + 700


@pytest.mark.parametrize("hard", [600, 1000])
async def test_where_there_are_too_few_connections_and_tunnels_shrink_to_what_there_is(hard: int) -> None:
    made, soft = await room(500, 700, 256, hard)
    assert soft == hard
    connections, tunnels = (int(part.partition("=")[2]) for part in made.strip("Rom()").split(", "))
    assert 0 < 2 * connections + tunnels <= hard - 256


async def test_few_that_are_wanted_do_not_become_more_for_want_of_descriptors() -> None:
    assert (await room(2, 700, 256, 600))[0].startswith("Room(connections=2,")


def test_what_there_is_room_for_is_what_a_process_lets_in() -> None:
    settings = read_settings(
        {"BASTION_WORKERS": "2", "BASTION_LIMITS_CONNECTIONS": "80", "BASTION_LIMITS_TUNNELS": "60"}
    )
    assert room_for(settings) == Room(40, 30)
    few = Room(20, 10)
    assert lobby_limits(settings, few).connections == 20
    assert waiting_limits(settings, few).total == 10
    assert session_limits(settings, few).total == 30
