"""Why: a signed-in user may still be hostile, and so may a pod, which its user owns: memory and others must be safe.

Bounds are checked on what the bastion holds, not on time or on the process's size.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from asyncssh.channel import SSHForwardChannel
from asyncssh.packet import String, UInt32

from bastion.relay.limits import RelayLimits
from tests.bastion.relay.doors import Door, Way, connect
from tests.bastion.relay.raw import Raw, until
from tests.support.sshd import Sshd


async def test_four_gigabytes_of_window_that_nobody_reads_hold_little_memory(door: Door) -> None:
    async with connect(door) as conn:
        chan = await Raw.session(conn, window=0xFFFFFFFF)
        assert await chan._make_request(b"exec", String(b"cat /dev/zero"))
        conn._transport.pause_reading()
        side = door.sides[0]
        await until(lambda: side.full)
        pod = door.pods[0]
        assert pod._holds == 1
        assert not pod._tcp.is_reading()
        assert side._tcp.get_write_buffer_size() <= 2 * door.limits.buffered
        conn.abort()
    await door.next_end()


async def test_a_window_that_is_cut_down_is_counted_once_for_each_channel(sshd: Sshd, tmp_path: Path) -> None:
    hits: list[str] = []
    limits = replace(RelayLimits(), hit=hits.append)
    async with Door(sshd, tmp_path / "door", limits=limits).serving() as door, connect(door) as conn:
        assert len((await conn.run("head -c 5000000 /dev/zero", encoding=None)).stdout) == 5_000_000
        assert "window" not in hits
        for number in (1, 2):
            chan = await Raw.session(conn, window=limits.window)
            chan.send_packet(93, UInt32(1 << 30))
            chan.send_packet(93, UInt32(1 << 30))
            assert await chan._make_request(b"exec", String(b"true"))
            assert hits.count("window") == number
        conn.abort()
    await door.next_end()


async def test_a_key_exchange_that_hangs_stops_the_pod_and_one_that_ends_goes_on(door: Door) -> None:
    async with connect(door) as conn:
        chan = await Raw.session(conn, window=0xFFFFFFFF)
        assert await chan._make_request(b"exec", String(b"cat /dev/zero"))
        conn._transport.pause_reading()
        conn._send_kexinit()
        conn._kexinit_sent = True
        side, pod = door.sides[0], door.pods[0]
        await until(lambda: side._holding_for_kex and pod._holds)
        assert side._deferred_bytes <= 2 * door.limits.buffered
        conn._transport.resume_reading()
        await until(lambda: not side.in_key_exchange and not pod._holds)
        assert side._deferred_bytes == 0
        conn.abort()
    await door.next_end()


async def test_requests_to_a_pod_that_does_not_read_stop_the_client(tmp_path: Path) -> None:
    with Sshd.running(tmp_path / "sshd") as own:
        async with Door(own, tmp_path / "door").serving() as door, connect(door) as conn:
            chan = await Raw.session(conn)
            stopped = own.connections()
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            try:
                side = door.sides[0]
                async with asyncio.timeout(30):
                    while not side._holds:
                        chan._send_request(b"env", String(b"RELAY_A") + String(b"x" * 200_000))
                        await asyncio.sleep(0)
                assert door.pods[0]._tcp.get_write_buffer_size() <= 2 * door.limits.buffered
                assert not side._tcp.is_reading()
            finally:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
                conn.abort()
            await door.next_end()


async def test_a_channel_that_nobody_reads_does_not_stop_its_neighbour(door: Door) -> None:
    async with connect(door) as conn:
        stuck = await Raw.session(conn, window=100_000)
        assert await stuck._make_request(b"exec", String(b"cat /dev/zero"))
        result = await conn.run("head -c 10000000 /dev/zero", encoding=None)
        assert len(result.stdout) == 10_000_000
        conn.abort()
    await door.next_end()


async def test_channels_and_sessions_are_bounded(sshd: Sshd, tmp_path: Path) -> None:
    limits = replace(RelayLimits(), channels=6, sessions=4)
    async with Door(sshd, tmp_path / "door", limits=limits).serving() as door, connect(door) as conn:
        first = [await Raw.session(conn) for _ in range(4)]
        with pytest.raises(asyncssh.ChannelOpenError, match="at most 4 sessions"):
            await Raw.session(conn)
        served: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            served.add(asyncio.current_task())  # type: ignore[arg-type]
            await reader.read()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        writers = [(await conn.open_connection("127.0.0.1", port))[1] for _ in range(2)]
        with pytest.raises(asyncssh.ChannelOpenError, match="at most 6 channels") as refused:
            await conn.open_connection("127.0.0.1", port)
        assert refused.value.code == 4
        for chan in first:
            chan.close()
        await until(lambda: door.sides[0].channels == 2)
        assert (await conn.run("echo again", encoding=None)).stdout == b"again\n"
        for writer in writers:
            writer.close()
        await asyncio.wait(served)
        server.close()


@pytest.mark.parametrize(
    ("packets", "why"),
    [
        ([(94, UInt32(0) + String(b"x" * 250_000))] * 10, "Window exceeded"),
        ([(94, UInt32(0) + UInt32(50) + b"short")], "Malformed channel data"),
        ([(94, UInt32(77) + String(b"x"))], "Invalid channel number"),
        ([(95, UInt32(0) + UInt32(1))], "Malformed channel data"),
        ([(93, UInt32(0) + b"\0")], "Malformed window adjustment"),
        ([(99, UInt32(0))], "Unexpected channel response"),
        ([(96, UInt32(0)), (94, UInt32(0) + String(b"x"))], "Channel not open for sending"),
        ([(97, UInt32(0)), (94, UInt32(0) + String(b"x"))], "not open|Invalid channel number"),
        ([(91, UInt32(0) + UInt32(0) + UInt32(9) + UInt32(9))], "Channel not being opened"),
        ([(92, UInt32(0) + UInt32(1) + String(b"") + String(b""))], "Channel not being opened"),
        ([(90, String(b"session") + UInt32(5) + UInt32(5) + UInt32(0))], "Invalid maximum packet size"),
        ([(98, UInt32(0) + b"\0")], "Incomplete packet"),
        ([(80, b"\0\0\0\xff")], "Incomplete packet"),
        ([(81, b"")], "Unexpected global response"),
    ],
)
async def test_a_broken_rule_ends_that_connection_with_its_name(
    door: Door, packets: list[tuple[int, bytes]], why: str
) -> None:
    async with connect(door) as conn:
        chan = await Raw.session(conn)
        assert chan._send_chan == 0
        assert await chan._make_request(b"exec", String(b"sleep 100"))
        for kind, payload in packets:
            conn.send_packet(kind, payload)
        front = await door.next_end()
        conn.abort()
    assert any(text in str(front.ended[0]) for text in why.split("|")), front.ended


class _AnyKey(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True


async def test_a_pod_opens_nothing_that_was_not_asked_for(door: Door, sshd: Sshd) -> None:
    async def serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
        conn = process.channel.get_connection()
        for kind in (b"forwarded-tcpip", b"auth-agent@openssh.com", b"x11", b"session", b"direct-tcpip"):
            chan = SSHForwardChannel[bytes](conn, asyncio.get_running_loop(), None, "strict", 1 << 20, 32768)
            try:
                await chan._open(kind, String(b"127.0.0.1") + UInt32(1) + String(b"127.0.0.1") + UInt32(1))
                process.stdout.write(b"opened " + kind + b"\n")
            except asyncssh.ChannelOpenError as refused:
                process.stdout.write(b"%d " % refused.code)
        kind, _ = await conn._make_global_request(b"tcpip-forward", String(b"") + UInt32(0))
        process.stdout.write(b"%d" % kind)
        process.exit(0)

    pod = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=_AnyKey,
        server_host_keys=[(sshd.host_key, sshd.host_certificate([sshd.name]))],
        process_factory=serve,
        encoding=None,
        config=None,
        gss_host=None,
    )
    door.pod_port = pod.get_port()
    async with pod:
        answer = await Way.through(door).run("--", "go")
        assert answer.out == b"1 1 1 3 3 82"
        assert not [one for one in door.fronts[0].asked if one.name in {"x11", "forwarded-tcpip"}]
        door.pods[0].abort()
        door.sides[0].abort()


async def test_a_hundred_hostile_handshakes_leave_nothing(door: Door) -> None:
    for start in (b"", b"SSH-2.0-x\r\n", b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n" + b"\xff" * 5000, b"A" * 70_000):
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", door.port)
            writer.write(start)
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])
    for _ in range(100):
        await door.next_end()
    assert (await Way.through(door).run("--", "echo in")).out == b"in\n"
