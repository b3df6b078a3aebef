"""Why: whoever reads audit lines later has to learn how a session ended, and whoever was cut has to learn it now."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.site import LIMIT, Client, Site, site

STOPPED = "Your server alice stopped."


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, SHUTDOWN_GRACE="0") as made:
        await made.start()
        yield made


async def line(of: Site, name: str, number: int = 0) -> dict[str, Any]:
    """An audit line with that name, when it is written."""
    await of.until(f"a line {name}", lambda: len(of.audit(name)) > number)
    return of.audit(name)[number]


async def tunnel(of: Site, *options: str) -> Client:
    """`ssh -W` to alice's server, which has begun to speak."""
    client = await of.ssh(of.folder / "alice", *options, "-W", "alice.hub:22", login="jump")
    assert client.process.stdout is not None
    async with asyncio.timeout(LIMIT):
        assert (await client.process.stdout.readline()).startswith(b"SSH-2.0-OpenSSH")
    return client


async def answers(client: Client) -> bool:
    """Whether the sshd at the other end goes on with its protocol."""
    assert client.process.stdin is not None
    assert client.process.stdout is not None
    client.process.stdin.write(b"SSH-2.0-x\r\n")
    async with asyncio.timeout(LIMIT):
        return len(await client.process.stdout.read(1)) == 1


async def ended(client: Client) -> tuple[int, bytes]:
    """Exit status and errors of a client that ends by itself."""
    async with asyncio.timeout(LIMIT):
        status = await client.process.wait()
    return status, (await client.ends())[2]


async def test_a_session_whose_pod_was_killed_did_not_end_by_its_client(one: Site) -> None:
    client = await one.ssh(one.key("alice"), "cat")
    assert await client.talks(b"in")
    for pid in one.sshd.connections():
        os.kill(pid, signal.SIGKILL)
    status, errors = await ended(client)
    assert (status, b"The connection to your server was lost" in errors) == (255, True)
    assert (await line(one, "session_closed"))["why"] == "pod"


async def test_a_session_and_a_tunnel_that_their_client_left_say_so(one: Site) -> None:
    direct = await one.ssh(one.key("alice"), "cat")
    assert await direct.talks(b"in")
    assert (await direct.ends())[0] == 0
    assert (await line(one, "session_closed"))["why"] == "client"
    jump = await tunnel(one)
    jump.process.kill()
    opened, closed = await line(one, "tunnel_opened"), await line(one, "tunnel_closed")
    told = ("session", "tunnel", "identity", "principal", "peer")
    assert [closed[name] for name in told] == [opened[name] for name in told]
    assert opened["tunnel"] == f"{opened['session']}.1"
    assert closed["why"] == "client"
    assert closed["bytes_out"] > len(b"SSH-2.0-OpenSSH")
    assert (await line(one, "session_closed", 1))["why"] == "client"


async def test_a_tunnel_whose_pod_was_killed_did_not_end_by_its_client(one: Site) -> None:
    one.key("alice")
    jump = await tunnel(one)
    for pid in one.sshd.connections():
        os.kill(pid, signal.SIGKILL)
    await ended(jump)
    assert (await line(one, "tunnel_closed"))["why"] == "pod"


async def test_a_tunnel_that_came_to_nothing_has_a_last_line_too(one: Site) -> None:
    one.key("alice")
    jump = await tunnel(one)  # the pod's host key has been looked at
    one.sshd.stop()
    await ended(jump)
    await line(one, "tunnel_closed")
    status, _, _ = await (await one.ssh(one.folder / "alice", "-W", "alice.hub:22", login="jump")).ends()
    assert status == 255
    closed = await line(one, "tunnel_closed", 1)
    assert (closed["why"], closed["bytes_in"], closed["bytes_out"]) == ("pod", 0, 0)


async def test_whoever_jumped_into_a_server_that_stops_reads_why_and_two_lines_say_it(one: Site) -> None:
    one.key("alice")
    jump = await tunnel(one)
    one.api.change(version="2", enrolled=[])
    status, errors = await ended(jump)
    assert (status, STOPPED.encode() in errors) == (255, True)
    assert (await line(one, "tunnel_closed"))["why"] == STOPPED
    assert (await line(one, "session_closed"))["why"] == STOPPED


async def test_two_tunnels_of_one_connection_that_are_cut_at_once_end_it_with_the_sentence(one: Site) -> None:
    one.key("alice")
    shared = ("-S", str(one.folder / "master"))
    master = await tunnel(one, "-M", *shared)
    second = await tunnel(one, *shared)
    one.api.change(version="2", enrolled=[])
    status, errors = await ended(master)
    assert (status, STOPPED.encode() in errors) == (255, True)
    await ended(second)
    assert [(await line(one, "tunnel_closed", number))["why"] for number in (0, 1)] == [STOPPED, STOPPED]
    assert (await line(one, "session_closed"))["why"] == STOPPED


async def test_a_jump_connection_with_another_tunnel_stays_when_one_is_cut(one: Site) -> None:
    one.key("alice")
    shared = ("-S", str(one.folder / "master"))
    master = await tunnel(one, "-M", *shared)
    second = await tunnel(one, *shared)
    _, first_tunnel, second_tunnel = await one.sessions()
    assert (await one.command("cut", f"session:{second_tunnel['id']}"))[0] == 0
    await ended(second)
    cut = await line(one, "tunnel_closed")
    assert cut["tunnel"].endswith(".2")
    assert cut["why"] == "An administrator ended your session."
    assert await answers(master)
    assert not one.audit("session_closed")
    assert (await one.command("cut", f"session:{first_tunnel['id']}"))[0] == 0
    status, errors = await ended(master)
    assert (status, b"An administrator ended your session." in errors) == (255, True)
    assert (await line(one, "session_closed"))["why"] == "An administrator ended your session."


async def test_a_tunnel_ends_for_the_reason_for_which_its_connection_was_cut(one: Site) -> None:
    one.key("alice")
    jump = await tunnel(one)
    connection, _ = await one.sessions()
    assert (await one.command("cut", f"session:{connection['id']}"))[0] == 0
    status, errors = await ended(jump)
    assert (status, b"An administrator ended your session." in errors) == (255, True)
    assert (await line(one, "tunnel_closed"))["why"] == "An administrator ended your session."
