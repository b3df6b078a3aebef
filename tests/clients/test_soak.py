"""Why: what goes wrong once in ten thousand transfers shows only under many of them, and leaks only in their sum.

64 clients at once move random data both ways through commands, shells, forwards of both directions and sftp, with
half-closes, and some are killed in the midst of it. Every byte is checked, and at the end what is left is counted.
SOAK_SECONDS (default 20) says for how long, SOAK_SEED repeats a run's choices.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest

from tests.clients.counting import errors_in_log, quiet
from tests.support.notebook import descendants
from tests.support.system import Person, System, unix_user

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
SEED = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(1 << 32)))
LIBRARY, PROGRAMS = 56, 8
"""Clients with asyncssh in this process, and with OpenSSH's ssh."""
LIMIT = 90.0
"""Seconds that one action may take while all the others run."""
MEMORY = 48 << 20
"""Bytes that the bastion may have grown by between the end of the warm-up and the end: none is expected, but an
allocator does not give back every page."""
_LATER = hashlib.shake_256(b"after the end").digest(200_000)


@dataclass
class Soak:
    """One run's clients, and what they have done."""

    people: list[Person]
    target: int
    """A port whose service proves what it was sent."""
    folder: Path
    done: Counter[str] = field(default_factory=Counter)
    moved: int = 0

    def content(self, dice: random.Random, most: int = 1_500_000) -> bytes:
        return dice.randbytes(dice.choice((0, 1, 100, 32_768, 70_000, dice.randrange(most))))

    def add(self, what: str, size: int) -> None:
        self.done[what] += 1
        self.moved += size


Action = Callable[[Soak, random.Random, asyncssh.SSHClientConnection], Awaitable[int]]


async def through(conn: asyncssh.SSHClientConnection, what: str | None, content: bytes) -> tuple[bytes, int | None]:
    """What a command (None: a shell) makes of its input, and its status. (asyncssh's `run` takes no empty input.)"""
    async with conn.create_process(what, encoding=None) as process:
        process.stdin.write(content)
        process.stdin.write_eof()
        out = await process.stdout.read()
        await process.wait_closed()
        return out, process.exit_status


async def command(soak: Soak, dice: random.Random, conn: asyncssh.SSHClientConnection) -> int:
    """Both directions at once through `cat`."""
    content = soak.content(dice)
    assert await through(conn, "cat; exit 3", content) == (content, 3)
    return 2 * len(content)


async def half_closed(soak: Soak, dice: random.Random, conn: asyncssh.SSHClientConnection) -> int:
    """The end of input, then output goes on."""
    content, size = soak.content(dice), dice.randrange(400_000)
    out, status = await through(conn, f"sha256sum; head -c {size} /dev/zero", content)
    assert status == 0
    assert out[:64] == hashlib.sha256(content).hexdigest().encode()
    assert out.partition(b"\n")[2] == bytes(size)
    return len(content) + size


async def shell(soak: Soak, dice: random.Random, conn: asyncssh.SSHClientConnection) -> int:
    """A login shell that becomes `cat`."""
    content = soak.content(dice)
    out, _ = await through(conn, None, b"echo begin; exec cat\n" + content)
    assert out.partition(b"begin\n")[2] == content
    return 2 * len(content)


async def terminal(soak: Soak, dice: random.Random, conn: asyncssh.SSHClientConnection) -> int:
    """Lines through a terminal that changes its size."""
    lines = [dice.randbytes(40).hex().encode() for _ in range(dice.randrange(1, 40))]
    async with conn.create_process(
        "stty -echo; echo begin; cat", term_type="xterm", term_size=(80, 24), encoding=None
    ) as process:
        await process.stdout.readuntil(b"begin\r\n")
        for line in lines:
            process.change_terminal_size(dice.randrange(20, 300), dice.randrange(5, 100))
            process.stdin.write(line + b"\n")
            assert await process.stdout.readuntil(b"\r\n") == line + b"\r\n"
        process.stdin.write(b"\x04")
        assert await process.stdout.read() == b""
    return 2 * sum(map(len, lines))


async def local_forward(soak: Soak, dice: random.Random, conn: asyncssh.SSHClientConnection) -> int:
    """Several connections to a port at once."""

    async def one() -> int:
        content = soak.content(dice)
        reader, writer = await conn.open_connection("127.0.0.1", soak.target, encoding=None)
        return await _ask(reader, writer, content)

    return sum(await asyncio.gather(*(one() for _ in range(dice.randrange(1, 4)))))


async def remote_forward(soak: Soak, dice: random.Random, conn: asyncssh.SSHClientConnection) -> int:
    """A port in the pod, connected to from there."""
    content = soak.content(dice)
    listener = await conn.start_server(lambda _host, _port: _prove, "127.0.0.1", 0, encoding=None)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.get_port())
    size = await _ask(reader, writer, content)
    listener.close()
    await listener.wait_closed()
    return size


async def sftp(soak: Soak, dice: random.Random, conn: asyncssh.SSHClientConnection) -> int:
    """A file there, read back and removed."""
    content, path = soak.content(dice), str(soak.folder / dice.randbytes(8).hex())
    async with conn.start_sftp_client() as client:
        async with client.open(path, "wb") as file:
            await file.write(content)
        assert (await client.stat(path)).size == len(content)
        async with client.open(path, "rb") as file:
            got: str | bytes = await file.read()
        assert got == content
        await client.remove(path)
    return 2 * len(content)


async def killed(soak: Soak, dice: random.Random, conn: asyncssh.SSHClientConnection) -> int:
    """The client vanishes while data move both ways; what came until then is right."""
    content = dice.randbytes(3_000_000)
    process = await conn.create_process("cat", encoding=None)
    _, writer = await conn.open_connection("127.0.0.1", soak.target, encoding=None)
    process.stdin.write(content)
    writer.write(content)
    size = dice.randrange(1, 1_000_000)
    assert await process.stdout.readexactly(size) == content[:size]
    conn.abort()
    return size


ACTIONS: tuple[Action, ...] = (
    command, command, half_closed, shell, terminal, local_forward, local_forward, remote_forward, sftp,
)  # fmt: skip


async def limited(action: Action, soak: Soak, dice: random.Random, conn: asyncssh.SSHClientConnection) -> int:
    """One action; one that does not end is named."""
    try:
        async with asyncio.timeout(LIMIT):
            return await action(soak, dice, conn)
    except TimeoutError:
        raise AssertionError(f"{action.__name__} did not end in {LIMIT} seconds") from None


async def library_client(soak: Soak, dice: random.Random, more: Callable[[], bool]) -> None:
    """Connections with asyncssh, each for a few actions that run at once."""
    while more():
        person = dice.choice(soak.people)
        conn = await asyncssh.connect(
            "127.0.0.1",
            person.system.port,
            username=person.user,
            client_keys=[(str(person.folder / "id"), str(person.certificate_file))],
            known_hosts=str(person.system.known_hosts),
            config=None,
            agent_path=None,
        )
        async with conn:
            chosen = [dice.choice(ACTIONS) for _ in range(dice.randrange(1, 4))]
            streams = [random.Random(dice.random()) for _ in chosen]
            sizes = await asyncio.gather(
                *(limited(action, soak, own, conn) for action, own in zip(chosen, streams, strict=True))
            )
            for action, size in zip(chosen, sizes, strict=True):
                soak.add(action.__name__, size)
            if dice.random() < 0.3:
                soak.add("killed", await limited(killed, soak, dice, conn))


async def program_client(soak: Soak, dice: random.Random, more: Callable[[], bool]) -> None:
    """OpenSSH's ssh, in both modes; a third of them are killed."""
    while more():
        person, content = dice.choice(soak.people), dice.randbytes(dice.randrange(1, 2_000_000))
        way = [*person.options(), f"{person.user}@127.0.0.1"]
        if dice.random() < 0.3:
            way = [
                *person.options(port=False),
                "-o",
                f"ProxyCommand={person.jump_command()}",
                f"{unix_user()}@{person.user}.hub",
            ]
        process = await asyncio.create_subprocess_exec(
            "ssh", *way, "cat",
            env=person.environment(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        if dice.random() < 0.3:
            await _kill_in_the_midst(process, content, dice)
            soak.add("killed program", 0)
            continue
        async with asyncio.timeout(LIMIT):
            got, _ = await process.communicate(content)
        assert got == content
        assert process.returncode == 0
        soak.add("program", 2 * len(content))


async def _kill_in_the_midst(process: asyncio.subprocess.Process, content: bytes, dice: random.Random) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(content)
    size = dice.randrange(1, len(content) + 1)
    assert await process.stdout.readexactly(size) == content[:size]
    process.kill()
    await process.communicate()


async def _ask(
    reader: asyncssh.SSHReader[bytes] | asyncio.StreamReader,
    writer: asyncssh.SSHWriter[bytes] | asyncio.StreamWriter,
    content: bytes,
) -> int:
    writer.write(content)
    writer.write_eof()
    answer = await reader.read(-1)
    assert answer == hashlib.sha256(content).hexdigest().encode() + _LATER
    writer.close()
    await writer.wait_closed()
    return len(content) + len(answer)


async def _prove(
    reader: asyncssh.SSHReader[bytes] | asyncio.StreamReader,
    writer: asyncssh.SSHWriter[bytes] | asyncio.StreamWriter,
) -> None:
    try:
        digest = hashlib.sha256()
        while block := await reader.read(1 << 16):
            digest.update(block)
        writer.write(digest.hexdigest().encode() + _LATER)
        await writer.drain()
    except (OSError, asyncssh.Error):
        pass  # the client was killed
    finally:
        writer.close()


@asynccontextmanager
async def proving() -> AsyncIterator[int]:
    server = await asyncio.start_server(_prove, "127.0.0.1", 0, backlog=500)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def soak_for(soak: Soak, seed: int, seconds: float) -> None:
    """Every client at least once, and again until the time is over."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    kinds = [library_client] * LIBRARY + [program_client] * PROGRAMS
    async with asyncio.TaskGroup() as group:
        for number, kind in enumerate(kinds):
            group.create_task(kind(soak, random.Random(seed * 1000 + number), _until(end)))


def _until(end: float) -> Callable[[], bool]:
    loop, first = asyncio.get_running_loop(), [True]

    def more() -> bool:
        begun, first[:] = not first, []
        return not begun or loop.time() < end

    return more


@pytest.mark.timeout(240 + 3 * SECONDS)
async def test_every_byte_arrives_and_nothing_is_left_behind(
    system: System, alice: Person, bob: Person, tmp_path: Path
) -> None:
    people = [alice, bob]
    print(f"SOAK_SEED={SEED}")
    pods = [await system.hub.server_pid(one.user) for one in people]
    idle = [set(descendants(pod)) for pod in pods]
    async with proving() as target:
        soak = Soak(people, target, tmp_path)
        await soak_for(soak, SEED, 0)
        before = await quiet(system)
        await soak_for(soak, SEED + 1, SECONDS)
        after = await quiet(system, before)
    print(dict(soak.done), f"{soak.moved / 1e6:.0f} MB", before.rss >> 20, after.rss >> 20)
    assert after.rss - before.rss < MEMORY
    assert system.command("sessions").stdout == "No sessions.\n"
    system.wait("the pods' sessions to end", lambda: [set(descendants(pod)) for pod in pods] == idle)
    assert not errors_in_log(system)
    assert set(soak.done) >= {action.__name__ for action in ACTIONS} | {"killed", "program"}
