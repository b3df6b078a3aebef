"""Why: the legacy keys' three tiers are a promise in minutes, so the running bastion is given a clock that jumps.

The bastion runs in this process, with everything else as real as elsewhere: OpenSSH's client, a pod's sshd and its
`GET /publickey`, and JupyterHub.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

from bastion.service import Bastion
from bastion.settings import read_settings
from tests.support.clock import Clock
from tests.support.pods import pod
from tests.support.system import Person, System

MINUTE = 60.0


@dataclass
class Door:
    """A bastion in this process, and the clock of its key cache."""

    bastion: Bastion
    clock: Clock


@asynccontextmanager
async def door_of(system: System) -> AsyncIterator[Door]:
    """The system's bastion, taken over by this process."""
    clock = Clock(1000.0)
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        bastion = await Bastion.make(read_settings(system.bastion.environment), stack, clock)
        task = asyncio.create_task(bastion.run(stop))
        async with asyncio.timeout(60):
            await bastion.informed.wait()
            while not bastion.directory.running():
                await asyncio.sleep(0.01)
        try:
            yield Door(bastion, clock)
        finally:
            stop.set()
            await task


@pytest.fixture
async def alone(own_system: System) -> System:
    """A system whose own bastion has ended, with one running server of alice's."""
    await own_system.start_server("alice")
    own_system.bastion.end(signal.SIGTERM)
    (own_system.home("alice") / ".ssh").mkdir(mode=0o700, exist_ok=True)
    return own_system


def lists(system: System, *people: Person) -> None:
    """What alice's pod lists from now on."""
    text = "".join(f"{person.public_key}\n" for person in people)
    (system.home("alice") / ".ssh" / "authorized_keys").write_text(text)


async def enters(person: Person) -> tuple[bool, bool]:
    """Whether the bastion lets the key in, in direct mode and in jump mode."""
    direct = await asyncio.to_thread(person.ssh, "alice", "true")
    jump = await asyncio.to_thread(person.run, "ssh", "-W", "alice.hub:22", "jump@127.0.0.1")
    return direct.returncode == 0, jump.stdout.startswith(b"SSH-2.0-")


BOTH, NEITHER = (True, True), (False, False)


async def test_each_tier_lets_in_exactly_whom_it_may(alone: System) -> None:
    old, new = alone.person("alice", "-old"), alone.person("alice", "-new")
    lists(alone, old)
    async with door_of(alone) as door:
        assert await enters(old) == BOTH, "nothing was ever fetched: the cache is rebuilt"

        lists(alone, new)
        door.clock.advance(1 * MINUTE)
        assert await enters(new) == NEITHER, "younger than two minutes: the cache alone answers"

        door.clock.advance(2 * MINUTE)
        assert await enters(new) == NEITHER, "older: only pods that are not in the cache are asked"

        door.clock.advance(12 * MINUTE)
        assert await enters(new) == BOTH, "fifteen minutes since the last full rebuild: everything is fetched anew"
        assert await enters(old) == NEITHER, "and the key that was replaced inside the running server is dead"


async def test_an_unknown_key_has_missing_pods_asked_after_two_minutes(alone: System) -> None:
    late = alone.person("alice", "-late")
    lists(alone)
    async with door_of(alone) as door:
        assert await enters(late) == NEITHER
        (pod,) = door.bastion.directory.running()
        lists(alone, late)
        door.bastion.keys.forget(pod)
        assert await enters(late) == NEITHER, "the last update is younger than two minutes"
        door.clock.advance(2 * MINUTE)
        assert await enters(late) == BOTH


async def test_rebuilding_by_hand_finds_a_new_key_at_once(alone: System) -> None:
    new = alone.person("alice", "-new")
    lists(alone)
    async with door_of(alone) as door:
        assert await enters(new) == NEITHER
        lists(alone, new)
        counts = await door.bastion.keys.refresh()
        assert (counts.pods, counts.keys, counts.failed) == (1, 1, 0)
        assert await enters(new) == BOTH


async def test_a_key_with_restrictions_enters_by_jump_only(alone: System) -> None:
    limited = alone.person("alice", "-limited")
    (alone.home("alice") / ".ssh" / "authorized_keys").write_text(f'command="echo only" {limited.public_key}\n')
    async with door_of(alone):
        direct = await asyncio.to_thread(limited.ssh, "alice", "true")
        assert direct.returncode == 255
        assert b"use ssh -J" in direct.stderr
        assert (await enters(limited)) == (False, True)


async def drown(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A pod that answers with 100 MB."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
    with suppress(OSError):
        for _ in range(1600):
            writer.write(b"A" * 65536)
            await writer.drain()
    writer.close()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A pod that never answers."""
    with suppress(OSError):
        await reader.read()
    writer.close()


async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A pod that answers what is no answer."""
    writer.write(b"\x00\xff garbage\r\n\r\n" * 100)
    writer.close()


async def test_pods_that_hang_or_lie_delay_nobody_else(alone: System) -> None:
    alice = alone.person("alice", "-patient")
    lists(alone, alice)
    servers = [await asyncio.start_server(answer, "127.0.0.1", 0) for answer in (drown, hang, lie)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    async with door_of(alone) as door:
        assert await enters(alice) == BOTH
        alone.api.end(signal.SIGKILL)  # from now on only this test says what runs
        (real,) = door.bastion.directory.running()
        hostile = [pod(f"mallory{number}", port=port) for number, port in enumerate([*ports, 9])]
        door.bastion.directory.apply([real, *hostile], "with-hostile-pods", door.bastion.directory.heard_at)
        door.clock.advance(15 * MINUTE)
        assert await enters(alice) == BOTH, "a rebuild waits for the login's own pod only"
        counts = await door.bastion.keys.refresh()
        assert (counts.pods, counts.failed) == (1, 4)
    for server in servers:
        server.close()
