"""Why: a client that goes while its pod is being dialled must leave nothing, or many such hold memory for long."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import asyncssh
import pytest

from bastion.relay.wire import PodSide
from tests.bastion.relay.doors import Door, connect


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes no connection and refuses none: its queue is full."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(server.getsockname())
        yield server.getsockname()[1]


async def test_a_client_that_leaves_while_its_pod_is_dialled_leaves_nothing(door: Door, silent: int) -> None:
    door.pod_port = silent
    async with connect(door) as conn:
        opening = asyncio.ensure_future(conn.create_process("true"))
        async with asyncio.timeout(20):
            while not door.dials:
                await asyncio.sleep(0.01)
        conn.abort()
        with suppress(asyncssh.Error):
            await opening
    await door.next_end()
    await door.sides[0].wait_closed()
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, PodSide) and one not in door.pods]
