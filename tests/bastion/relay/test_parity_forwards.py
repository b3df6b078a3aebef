"""Why: forwards of every kind must work as with a plain sshd, and without a listener on the bastion."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

from bastion.relay.front import ChannelOpen
from bastion.relay.meanings import ForwardedTcp
from tests.bastion.relay.doors import Door, Way, master, run
from tests.bastion.relay.doors_pty import on_terminal
from tests.support.sshd import free_port

CONTENT = hashlib.shake_256(b"forward").digest(500_000)
PROOF = hashlib.sha256(CONTENT).hexdigest().encode()


async def _prove(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads to the end, and only then answers: needs half-close in both directions."""
    writer.write(hashlib.sha256(await reader.read()).hexdigest().encode())
    writer.close()
    await writer.wait_closed()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(CONTENT)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def service() -> AsyncIterator[int]:
    server = await asyncio.start_server(_prove, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: paths of unix sockets are at most 107 bytes long."""
    made = Path(tempfile.mkdtemp(prefix="relay-"))
    yield made
    shutil.rmtree(made)


async def test_local_forwards_carry_parallel_connections(door: Door, service: int, short: Path) -> None:
    way, port = Way.through(door), free_port()
    async with master(way, short / "mux", "-L", f"127.0.0.1:{port}:127.0.0.1:{service}"):
        answers = await asyncio.gather(*(_ask_port(port) for _ in range(10)))
    assert answers == [PROOF] * 10


async def test_a_refused_target_does_not_end_the_others(door: Door, service: int, short: Path) -> None:
    way, good, bad, closed = Way.through(door), free_port(), free_port(), free_port()
    forwards = ["-L", f"127.0.0.1:{good}:127.0.0.1:{service}", "-L", f"127.0.0.1:{bad}:127.0.0.1:{closed}"]
    async with master(way, short / "mux", *forwards):
        reader, writer = await asyncio.open_connection("127.0.0.1", bad)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        await writer.wait_closed()
        assert await _ask_port(good) == PROOF


async def test_a_dynamic_forward_speaks_socks(door: Door, service: int, short: Path) -> None:
    way, port = Way.through(door), free_port()
    async with master(way, short / "mux", "-D", f"127.0.0.1:{port}"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x05\x01\x00")
        assert await reader.readexactly(2) == b"\x05\x00"
        writer.write(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack(">H", service))
        assert (await reader.readexactly(10))[1] == 0
        assert await ask(reader, writer) == PROOF


async def test_standard_input_and_output_are_joined_to_a_port(door: Door, service: int) -> None:
    answer = await Way.through(door).run("-W", f"127.0.0.1:{service}", stdin=CONTENT)
    assert (answer.status, answer.out) == (0, PROOF)


async def test_a_refused_target_of_w_fails_with_the_sshds_reason(door: Door) -> None:
    answer = await Way.through(door).run("-o", "LogLevel=INFO", "-W", f"127.0.0.1:{free_port()}")
    assert answer.status == 255
    assert b"Connection refused" in answer.err


async def test_a_remote_forward_on_a_port_that_the_pod_chooses_works_until_it_is_cancelled(
    door: Door, service: int, short: Path
) -> None:
    way = Way.through(door)
    async with master(way, short / "mux") as control:
        made = await run(way.command(*control, "-O", "forward", "-R", f"0:127.0.0.1:{service}"))
        assert made.status == 0, made
        port = int(made.out.split()[-1])
        answers = await asyncio.gather(*(_ask_port(port) for _ in range(5)))
        assert answers == [PROOF] * 5
        asked = [one for one in door.fronts[0].asked if isinstance(one, ChannelOpen)]
        assert [type(one.meaning) for one in asked] == [ForwardedTcp] * 5
        cancelled = await run(way.command(*control, "-O", "cancel", "-R", f"0:127.0.0.1:{service}"))
        assert cancelled.status == 0, cancelled
        await _refuses(port)


async def test_unix_sockets_are_forwarded_both_ways(door: Door, short: Path) -> None:
    way = Way.through(door)
    server = await asyncio.start_unix_server(_prove, short / "service")
    forwards = ["-L", f"{short}/near:{short}/service", "-R", f"{short}/far:{short}/service"]
    async with server, master(way, short / "mux", *forwards) as control:
        assert (await way.run(*control, "--", "true")).status == 0
        for path in (short / "near", short / "far"):
            assert await ask(*await asyncio.open_unix_connection(path)) == PROOF


async def test_the_agent_answers_many_at_once_and_only_who_asked_for_it(door: Door, short: Path) -> None:
    way, key = Way.through(door), asyncssh.generate_private_key("ssh-ed25519")
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", str(short / "agent"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert agent.stdout is not None
        await asyncio.wait_for(agent.stdout.readline(), 20)
        (short / "key").touch(0o600)
        (short / "key").write_bytes(key.export_private_key())
        added = await run(["ssh-add", str(short / "key")], env={"SSH_AUTH_SOCK": str(short / "agent")})
        assert added.status == 0, added
        script = "for i in 1 2 3 4 5 6 7 8; do ssh-add -l & done; wait"
        answer = await way.run("-A", "-o", f"IdentityAgent={short}/agent", "--", script)
        without = await way.run("-o", f"IdentityAgent={short}/agent", "--", "echo ${SSH_AUTH_SOCK-none}")
    finally:
        agent.terminate()
        await agent.wait()
    assert answer.out.count(key.get_fingerprint().encode()) == 8, answer
    assert without.out == b"none\n"


_X_CLIENT = """
import os, socket, struct, subprocess
display = os.environ["DISPLAY"]
cookie = bytes.fromhex(subprocess.run(["xauth", "list", display], capture_output=True).stdout.split()[2].decode())
number = int(display.split(":")[1].split(".")[0])
s = socket.create_connection(("127.0.0.1", 6000 + number))
name = b"MIT-MAGIC-COOKIE-1"
s.sendall(b"l\\0" + struct.pack("<HHHHH", 11, 0, len(name), len(cookie), 0) + name + b"\\0\\0" + cookie)
print(s.recv(100).decode(), cookie.hex())
"""


async def test_an_x11_cookie_is_swapped_and_the_display_answers(door: Door, short: Path) -> None:
    cookie, got = os.urandom(16), asyncio.get_running_loop().create_future()

    async def display(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.set_result(await reader.readexactly(12 + 20 + 16))
        writer.write(b"hello from X")
        writer.close()
        await writer.wait_closed()

    server, number = await _display(display)
    (short / "client.py").write_text(_X_CLIENT)
    authority = {"XAUTHORITY": str(short / "authority"), "DISPLAY": f"127.0.0.1:{number}"}
    made = await run(["xauth", "-q", "add", f"127.0.0.1:{number}", ".", cookie.hex()], env=authority)
    assert made.status == 0, made
    way = Way.through(door)
    async with server:
        answer = await way.run("-Y", "--", f"{sys.executable} {short}/client.py", env=authority)
        without = await way.run("--", "echo ${DISPLAY-none}", env=authority)
    said, fake = answer.out.decode().rsplit(" ", 1)
    assert said == "hello from X", answer
    assert (await got)[-16:] == cookie != bytes.fromhex(fake)
    assert without.out == b"none\n"


async def test_nothing_listens_on_the_bastion_for_any_of_it(door: Door, service: int, short: Path) -> None:
    before = _listening()
    way = Way.through(door)
    async with master(way, short / "mux", "-R", f"{short}/far:{short}/none") as control:
        made = await run(way.command(*control, "-O", "forward", "-R", f"0:127.0.0.1:{service}"))
        port = int(made.out.split()[-1])
        assert port in _listening(os_wide=True)
        assert _listening() == before


async def test_a_terminal_and_a_forward_share_a_connection(door: Door, service: int) -> None:
    port = free_port()
    command = Way.through(door).command("-tt", "-L", f"127.0.0.1:{port}:127.0.0.1:{service}", "--", "echo up; cat")
    async with on_terminal(command) as (terminal, _):
        await terminal.until(b"up")
        assert await _ask_port(port) == PROOF
        terminal.type(b"still here\r")
        await terminal.until(b"still here\r\nstill here")


async def _ask_port(port: int) -> bytes:
    return await ask(*await asyncio.open_connection("127.0.0.1", port))


async def _refuses(port: int) -> None:
    """OpenSSH's client does not wait for the answer when it cancels, so the pod may listen for a moment more."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:  # it was in the queue of a socket that closed
                continue
            writer.close()
            with contextlib.suppress(ConnectionResetError):
                await writer.wait_closed()


async def _display(serve: object) -> tuple[asyncio.Server, int]:
    for number in range(200, 400):
        try:
            return await asyncio.start_server(serve, "127.0.0.1", 6000 + number), number  # type: ignore[arg-type]
        except OSError:
            continue
    raise AssertionError("no display number is free")


def _listening(*, os_wide: bool = False) -> set[int]:
    """Ports on which this process (which is the bastion here), or anybody, listens on IPv4."""
    inodes = {str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()}
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and (os_wide or f"socket:[{fields[9]}]" in inodes):
            found.add(int(fields[1].split(":")[1], 16))
    return found
