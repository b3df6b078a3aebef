"""Why: programs use libraries, and a library asks for other things than ssh does, in another order.

The version is the one that the project pins, which is also the oldest that its lock allows.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.support.system import Person, unix_user


@pytest.fixture(params=["direct", "jump"])
async def conn(alice: Person, request: pytest.FixtureRequest) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Connected, with nothing but alice's key and certificate."""
    chosen: dict[str, Any] = {
        "client_keys": [(str(alice.folder / "id"), str(alice.certificate_file))],
        "known_hosts": str(alice.system.known_hosts),
        "config": None,
        "agent_path": None,
    }
    where = ("127.0.0.1", alice.system.port)
    if request.param == "direct":
        async with asyncssh.connect(*where, username="alice", **chosen) as direct:
            yield direct
        return
    async with (
        asyncssh.connect(*where, username="jump", **chosen) as door,
        door.connect_ssh("alice.hub", 22, username=unix_user(), **chosen) as inner,
    ):
        yield inner


def test_the_library_is_the_one_that_the_lock_allows() -> None:
    assert version("asyncssh") == "2.24.1"


async def test_commands_their_streams_and_their_ends(conn: asyncssh.SSHClientConnection) -> None:
    content = os.urandom(2_000_000)
    done = await conn.run("cat; echo err >&2; exit 5", input=content, encoding=None)
    assert (done.stdout, done.stderr, done.exit_status) == (content, b"err\n", 5)
    done = await conn.run("kill -KILL $$", encoding=None)
    assert done.exit_signal is not None
    assert done.exit_signal[0] == "KILL"


async def test_a_terminal_that_changes_its_size(conn: asyncssh.SSHClientConnection) -> None:
    script = "stty -echo; stty size; read -r go; stty size"
    async with conn.create_process(script, term_type="xterm", term_size=(80, 24)) as process:
        assert await process.stdout.readuntil("\r\n") == "24 80\r\n"
        process.change_terminal_size(123, 45)
        process.stdin.write("go\n")
        assert await process.stdout.readuntil("\r\n") == "45 123\r\n"


async def test_sftp_with_many_requests_at_once(conn: asyncssh.SSHClientConnection, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(200):
        (source / f"f\u00fcr {number}").write_bytes(os.urandom(number * 50))
    async with conn.start_sftp_client() as sftp:
        await sftp.put(str(source), str(tmp_path / "there"), recurse=True)
        await sftp.get(str(tmp_path / "there"), str(tmp_path / "back"), recurse=True)
        big = os.urandom(10_000_000)
        async with sftp.open(str(tmp_path / "big"), "wb") as file:
            await file.write(big)
    assert (tmp_path / "big").read_bytes() == big
    assert {one.name: one.read_bytes() for one in (tmp_path / "back").iterdir()} == {
        one.name: one.read_bytes() for one in source.iterdir()
    }


async def test_forwards_both_ways(conn: asyncssh.SSHClientConnection) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read())[::-1])
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        local = await conn.forward_local_port("127.0.0.1", 0, "127.0.0.1", port)
        remote = await conn.forward_remote_port("127.0.0.1", 0, "127.0.0.1", port)
        socks = await conn.forward_socks("127.0.0.1", 0)
        for one in (local, remote):
            content = os.urandom(300_000)
            reader, writer = await asyncio.open_connection("127.0.0.1", one.get_port())
            writer.write(content)
            writer.write_eof()
            assert await reader.read() == content[::-1]
            writer.close()
            await writer.wait_closed()
        for listener in (local, remote, socks):
            listener.close()
            await listener.wait_closed()
