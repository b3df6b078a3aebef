"""Why: jump mode is a tunnel that the relay cannot read, so it must be exact, and end with either end."""

from __future__ import annotations

import asyncio
import hashlib
import shlex
import signal
import socket
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from bastion.relay.limits import RelayLimits
from bastion.relay.tunnel import LEAST_PACKET, TunnelEnd
from tests.bastion.relay.doors import Answer, Door, Way, connect, run
from tests.bastion.relay.raw import until
from tests.support.sshd import Sshd, free_port


def jumping(sshd: Sshd, door: Door, *command: str | bytes) -> list[str | bytes]:
    """ssh to the pod by name, through the door, end to end."""
    proxy = shlex.join([*map(str, Way.through(door).command("-W", "%h:%p"))])
    way = Way(22, sshd.user, sshd.known_hosts, sshd.identity)
    return ["ssh", "-o", f"ProxyCommand={proxy}", *way.options, sshd.name, *command]


@pytest.mark.parametrize("command", [b"echo hello", b"exit 3", b"kill -TERM $$", b"head -c 3000000 /dev/zero"])
async def test_a_jump_ends_as_a_direct_connection_does(sshd: Sshd, door: Door, command: bytes) -> None:
    straight = await Way.direct(sshd).run("--", command)
    jumped = await run(jumping(sshd, door, command))
    # where the whole is in the pod's ssh, only its own name for the other side may differ
    assert jumped == Answer(straight.status, straight.out, straight.err)
    assert door.dials == 0


async def test_twenty_megabytes_go_both_ways(sshd: Sshd, door: Door) -> None:
    content = hashlib.shake_256(b"jump").digest(20_000_000)
    answer = await run(jumping(sshd, door, "cat; echo done"), stdin=content)
    assert answer.out == content + b"done\n"


async def test_half_close_passes_through_a_tunnel(door: Door) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(hashlib.sha256(await reader.read()).hexdigest().encode() + b"x" * 5_000_000)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    door.tunnel_port = server.sockets[0].getsockname()[1]
    content = b"y" * 3_000_000
    async with server:
        answer = await Way.through(door).run("-W", "pod.hub:22", stdin=content)
    assert answer.out == hashlib.sha256(content).hexdigest().encode() + b"x" * 5_000_000
    assert answer.status == 0


async def test_a_server_that_does_not_answer_fails_the_jump(sshd: Sshd, door: Door) -> None:
    door.tunnel_port = free_port()
    answer = await Way.through(door).run("-o", "LogLevel=INFO", "-W", "pod.hub:22")
    assert answer.status == 255
    assert b"SSH port does not answer" in answer.err


async def test_a_killed_client_closes_the_tunnels_connection(door: Door) -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await reader.read()
        gone.set()
        writer.close()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    door.tunnel_port = server.sockets[0].getsockname()[1]
    async with server:
        process = await asyncio.create_subprocess_exec(
            *Way.through(door).command("-W", "pod.hub:22"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readexactly(5) == b"hello"
        process.kill()
        await process.communicate()
        await asyncio.wait_for(gone.wait(), 20)
    await door.next_end()


async def test_a_server_that_does_not_read_stops_the_client_and_nothing_piles_up(door: Door) -> None:
    stuck: list[asyncio.StreamWriter] = []
    go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stuck.append(writer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await go.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        size = len(await reader.read())
        writer.write(b"%d" % size)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    door.tunnel_port = server.sockets[0].getsockname()[1]
    async with server:
        running = asyncio.ensure_future(Way.through(door).run("-W", "pod.hub:22", stdin=b"z" * 30_000_000))
        async with asyncio.timeout(20):
            while not (door.sides and any(end.full for end in door.sides[0].tunnels)):
                await asyncio.sleep(0.01)
        assert all(end.buffered <= 2 * door.limits.window for end in door.sides[0].tunnels)
        go.set()
        assert (await asyncio.wait_for(running, 60)).out == b"30000000"


async def test_a_stopped_client_stops_the_server_and_gets_the_rest_later(door: Door) -> None:
    size = 30_000_000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(30):
            writer.write(b"w" * (size // 30))
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    door.tunnel_port = server.sockets[0].getsockname()[1]
    async with server:
        process = await asyncio.create_subprocess_exec(
            *Way.through(door).command("-W", "pod.hub:22"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        got = len(await process.stdout.readexactly(1))
        process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(20):
            while not any(end.waiting for end in door.sides[0].tunnels):
                await asyncio.sleep(0.01)
        assert sum(end.waiting for end in door.sides[0].tunnels) <= 1 << 20
        process.send_signal(signal.SIGCONT)
        got += len(await process.stdout.read())
        assert (got, await process.wait()) == (size, 0)


_TCP_REPAIR = 19  # linux/tcp.h


async def test_a_server_whose_network_failed_is_noticed(sshd: Sshd, tmp_path: Path) -> None:
    """It says nothing, not even goodbye. Linux can make a socket vanish that way (TCP_REPAIR), for root."""
    limits = replace(RelayLimits(), keepalive_seconds=1, keepalive_count=1)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    async with Door(sshd, tmp_path / "door", limits=limits).serving() as door:
        door.tunnel_port = listener.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *Way.through(door).command("-W", "pod.hub:22"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            server, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), 20)
            try:
                server.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
            except PermissionError:
                pytest.skip("only root can make a connection vanish")
            finally:
                server.close()
            assert await asyncio.wait_for(process.wait(), 60) == 0
        finally:
            listener.close()
            if process.returncode is None:
                process.kill()
            await process.communicate()
        await door.next_end()


async def test_a_server_that_takes_nothing_any_more_is_noticed_and_counted(sshd: Sshd, tmp_path: Path) -> None:
    hits: list[str] = []
    limits = replace(RelayLimits(), keepalive_seconds=1, keepalive_count=1, hit=hits.append)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the kernel takes the connection, and nobody reads
        async with Door(sshd, tmp_path / "door", limits=limits).serving() as door:
            door.tunnel_port = listener.getsockname()[1]
            await Way.through(door).run("-W", "pod.hub:22", stdin=b"z" * 30_000_000)
            await door.next_end()
    assert "keepalive_count" in hits


async def test_a_channel_keeps_its_place_until_the_server_has_what_was_sent(door: Door) -> None:
    """Or a client could open, write and close for ever, and what the server does not read would be nobody's."""
    go, content = asyncio.Event(), b"v" * 20_000_000
    got: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await go.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        got.set_result(len(await reader.read()))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    door.tunnel_port = server.sockets[0].getsockname()[1]
    async with server, connect(door) as conn:
        _, writer = await conn.open_connection("pod.hub", 22, encoding=None)
        side = door.sides[0]
        writer.write(content)
        await until(lambda: any(end.full for end in side.tunnels))
        writer.channel.abort()
        leg = next(iter(side.legs.values()))
        await until(lambda: not leg.listens)
        assert (side.channels, len(side.tunnels)) == (1, 1)
        taken = leg.received
        go.set()
        assert await asyncio.wait_for(got, 60) == taken
        await until(lambda: (side.channels, len(side.tunnels)) == (0, 0))


async def test_a_client_that_takes_tiny_packets_gets_no_tunnel(door: Door) -> None:
    async with connect(door) as conn:
        with pytest.raises(asyncssh.ChannelOpenError, match="packets of 1024 bytes at least") as refused:
            await conn.open_connection("pod.hub", 22, max_pktsize=LEAST_PACKET - 1)
        assert refused.value.code == 4
        assert door.sides[0].channels == 0


class Patient:
    """The client's end of a channel: it takes everything, and counts what came in one turn of the loop."""

    def __init__(self) -> None:
        self.got, self.most, self._now = bytearray(), 0, 0
        self.closed = asyncio.Event()

    def data(self, kind: int, size: int, body: bytes) -> None:
        assert int.from_bytes(body[:4], "big") == size == len(body) - 4
        self.got += body[4:]
        if not self._now:
            asyncio.get_running_loop().call_soon(self._turn)
        self._now += 1

    def _turn(self) -> None:
        self.most, self._now = max(self.most, self._now), 0

    def opened(self, window: int, packet: int, extra: bytes) -> None: ...
    def widen(self, more: int) -> None: ...
    def eof(self) -> None: ...
    def close(self) -> None:
        self.closed.set()


async def test_small_packets_are_made_a_few_at_a_time() -> None:
    content = hashlib.shake_256(b"small").digest(300_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(content)
        writer.close()
        await writer.wait_closed()

    client, ended = Patient(), []
    end = TunnelEnd(
        client,
        offered=1 << 30,
        packet=10,
        window=1 << 20,
        buffered=1 << 20,
        silence=0,
        questions=0,
        ended=ended.append,
    )
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        await asyncio.get_running_loop().create_connection(lambda: end, *server.sockets[0].getsockname())
        end.start()
        await until(lambda: len(client.got) == len(content))
        end.eof()
        await asyncio.wait_for(client.closed.wait(), 20)
    assert bytes(client.got) == content
    assert ended == [end]
    assert client.most <= 2 * 64  # a turn's own, and a read that comes in the same one


def test_the_tunnel_module_knows_no_ssh_library() -> None:
    text = Path("bastion/relay/tunnel.py").read_text()
    assert "import asyncssh" not in text
    assert "from asyncssh" not in text
