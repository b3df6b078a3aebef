"""Why: the front is open to everybody, so it is fed what no client sends, over real connections, by hypothesis.

Three places: before any key exchange, between key exchange and login, and after login. Each example ends when the
bastion has read all of it; afterwards it must hold nothing, have logged no error, and let its user in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import asyncssh
import pytest
from asyncssh.packet import Boolean, Byte, MPInt, NameList, String, UInt32
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.clients.counting import errors_in_log, quiet
from tests.support.system import Person

MEMORY = 48 << 20
"""Bytes that the bastion may grow by in a hundred hostile connections."""
EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "60"))
Packet = tuple[int, bytes]
hostile = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)

# -- what is sent

blobs = st.one_of(st.binary(max_size=40), st.just(b""), st.integers(1, 200_000).map(bytes))
strings = st.one_of(
    blobs.map(String),
    st.binary(max_size=12),  # no length, or a wrong one
    st.just(UInt32(0xFFFFFFFF) + b"short"),
)
numbers = st.one_of(
    st.integers(0, 5),
    st.sampled_from([2**31 - 1, 2**31, 2**32 - 1, 32_768, 1 << 21]),
    st.integers(0, 2**32 - 1),
).map(UInt32)
flags = st.sampled_from([b"\0", b"\1", b"\xff", b""])


def joined(*parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """The parts one after the other, often cut short or with something appended."""
    whole = st.tuples(*parts).map(b"".join)
    cut = st.tuples(whole, st.integers(0, 200)).map(lambda pair: pair[0][: pair[1]])
    longer = st.tuples(whole, st.binary(max_size=20)).map(b"".join)
    return st.one_of(whole, whole, whole, cut, longer)


def names(*known: str) -> st.SearchStrategy[bytes]:
    return st.one_of(st.sampled_from(known).map(String), st.sampled_from(known).map(String), strings)


KINDS = (
    "session", "direct-tcpip", "direct-streamlocal@openssh.com", "forwarded-tcpip", "x11", "auth-agent@openssh.com",
    "tun@openssh.com", "forwarded-streamlocal@openssh.com",
)  # fmt: skip
REQUESTS = (
    "pty-req", "shell", "exec", "subsystem", "env", "window-change", "signal", "break", "exit-status", "exit-signal",
    "x11-req", "auth-agent-req@openssh.com", "xon-xoff", "eow@openssh.com", "keepalive@openssh.com",
)  # fmt: skip
GLOBALS = (
    "tcpip-forward", "cancel-tcpip-forward", "streamlocal-forward@openssh.com", "no-more-sessions@openssh.com",
    "cancel-streamlocal-forward@openssh.com", "keepalive@openssh.com", "hostkeys-prove-00@openssh.com",
)  # fmt: skip

_session = st.just(String("session") + UInt32(0) + UInt32(1 << 20) + UInt32(32_768))
connection_packets = st.one_of(
    st.tuples(st.just(90), _session),
    st.tuples(st.just(90), joined(names(*KINDS), numbers, numbers, numbers, strings, numbers, strings, numbers)),
    st.tuples(st.just(98), joined(numbers, names(*REQUESTS), flags, strings, numbers, numbers, strings, strings)),
    st.tuples(st.just(98), st.just(UInt32(0) + String("exec") + b"\1" + String("head -c 300000 /dev/zero; cat"))),
    st.tuples(st.sampled_from([93, 94, 95]), joined(numbers, numbers, strings)),
    st.tuples(st.just(94), joined(st.just(UInt32(0)), strings)),
    st.tuples(st.sampled_from([91, 92, 96, 97, 99, 100]), joined(numbers, numbers, numbers, strings)),
    st.tuples(st.just(80), joined(names(*GLOBALS), flags, strings, numbers)),
    st.tuples(st.sampled_from([81, 82]), joined(numbers)),
    st.tuples(st.sampled_from([2, 3, 4, 7]), joined(flags, strings, strings)),
    st.tuples(st.integers(5, 6), strings),
    st.tuples(st.integers(50, 66), joined(strings, strings, strings)),
    st.tuples(st.sampled_from([20, 21, 30, 31, 0, 79, 101, 192, 255]), blobs),
)


# -- how it is sent


async def flood(conn: Any, packets: list[Packet]) -> None:
    """Send all of it, see that the bastion has read it, and leave without a word."""
    try:
        with contextlib.suppress(asyncssh.Error, OSError):
            for kind, payload in packets:
                conn.send_packet(kind, payload)
            await _read(conn)
    finally:
        conn.abort()
        await conn.wait_closed()


async def _read(conn: Any) -> None:
    """The bastion answers a question that follows, or has ended the connection, or we were made to end it."""
    conn.send_packet(80, String("keepalive@openssh.com"), Boolean(True))
    answered = asyncio.ensure_future(conn.heard.wait())
    ended = asyncio.ensure_future(conn.wait_closed())
    _, left = await asyncio.wait({answered, ended}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    assert len(left) < 2, "neither an answer nor the end"
    for one in left:
        one.cancel()


class Raw(asyncssh.SSHClientConnection):
    """A client that sends what it is told, and takes whatever comes."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.heard = asyncio.Event()
        self.welcome = asyncio.Event()

    def _take(self, _kind: int, _number: int, packet: Any) -> None:
        packet.get_remaining_payload()
        self.heard.set()

    def try_next_auth(self, *, next_method: bool = False) -> None:
        """The login is the test's matter, unless it wants to be let in."""
        del next_method
        if self.lets_in:
            super().try_next_auth()
        else:
            self.welcome.set()

    lets_in = False
    _packet_handlers = {  # noqa: RUF012 - asyncssh's own shape
        **asyncssh.SSHClientConnection._packet_handlers,
        **dict.fromkeys((80, 81, 82, *range(90, 101)), _take),
    }


async def raw(person: Person, *, enter: bool) -> Raw:
    """Connected as far as a login (`enter`), or as far as its beginning."""
    loop = asyncio.get_running_loop()
    options = asyncssh.SSHClientConnectionOptions(
        username=person.user,
        client_keys=[(str(person.folder / "id"), str(person.certificate_file))],
        known_hosts=None,
        config=None,
        agent_path=None,
        host="127.0.0.1",
        port=person.system.port,
    )
    options.waiter = loop.create_future()

    def make() -> Raw:
        made = Raw(loop, options, wait="auth")
        made.lets_in = enter
        return made

    _, conn = await loop.create_connection(make, "127.0.0.1", person.system.port)
    async with asyncio.timeout(60):
        if enter:
            await options.waiter
        else:
            options.waiter.add_done_callback(lambda waiter: waiter.cancelled() or waiter.exception())
            await conn.welcome.wait()
            conn._auth_complete = True  # or it would keep to itself what is not for this phase
    return conn


# -- the tests


@pytest.fixture
def unharmed(alice: Person) -> Iterator[None]:
    """Afterwards the bastion holds no more than before, has logged no error, and its user gets in."""
    system = alice.system
    assert alice.ssh("alice", "true").returncode == 0
    before = anyio.run(quiet, system)
    yield
    after = anyio.run(quiet, system, before)
    assert after.rss - before.rss < MEMORY, (before.rss, after.rss)
    assert not errors_in_log(system)
    done = alice.ssh("alice", "echo still in")
    assert (done.returncode, done.stdout) == (0, b"still in\n")


def run(attack: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(120):
            await attack()

    asyncio.run(limited())


@hostile
@given(packets=st.lists(connection_packets, min_size=1, max_size=40))
def test_any_sequence_of_packets_after_login(alice: Person, unharmed: None, packets: list[Packet]) -> None:
    async def attack() -> None:
        await flood(await raw(alice, enter=True), packets)

    run(attack)


def _signed(blob: bytes) -> st.SearchStrategy[bytes]:
    """Login requests around a genuine certificate, whole and damaged."""
    damaged = st.tuples(st.integers(0, len(blob) - 1), st.integers(1, 255)).map(
        lambda at: blob[: at[0]] + bytes([blob[at[0]] ^ at[1]]) + blob[at[0] + 1 :]
    )
    cut = st.integers(0, len(blob)).map(lambda at: blob[:at])
    keys = st.one_of(st.just(blob), damaged, cut, blobs)
    users = names("alice", "jump", "alice+gpu", "a\0b", "\n", "x" * 300, "=", "../..")
    algorithms = names("ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519", "rsa-sha2-512", "sk-ssh-ed25519@openssh.com")
    signatures = st.one_of(
        st.just(b""),
        strings,
        st.binary(min_size=64, max_size=64).map(lambda s: String(String("ssh-ed25519") + String(s))),
    )
    method = names("publickey", "none", "password", "hostbased", "keyboard-interactive", "gssapi-with-mic")
    return joined(
        users,
        names("ssh-connection", "ssh-userauth"),
        method,
        flags,
        algorithms,
        keys.map(String),
        signatures,
    )


_BROWSER = b"".join(map(String, ("alice", "ssh-connection", "keyboard-interactive", "", "")))
"""Somebody who has no key asks to log in with a browser."""


@hostile
@given(data=st.data())
def test_any_sequence_of_packets_before_login(alice: Person, unharmed: None, data: st.DataObject) -> None:
    blob = asyncssh.read_certificate(str(alice.certificate_file)).public_data
    packets = data.draw(
        st.lists(
            st.one_of(
                st.tuples(st.just(50), _signed(blob)),
                st.tuples(st.just(50), _signed(blob)),
                st.tuples(st.just(50), st.just(_BROWSER)),
                st.tuples(st.just(61), st.one_of(st.just(UInt32(0)), joined(numbers, strings, strings))),
                st.tuples(st.just(5), names("ssh-userauth", "ssh-connection")),
                connection_packets,
            ),
            min_size=1,
            max_size=15,
        )
    )

    async def attack() -> None:
        await flood(await raw(alice, enter=False), packets)

    run(attack)


def _framed(payload: bytes) -> bytes:
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


_LISTS = st.lists(
    st.sampled_from(
        [
            b"curve25519-sha256",
            b"mlkem768x25519-sha256",
            b"ssh-ed25519",
            b"aes128-gcm@openssh.com",
            b"none",
            b"",
            b"x,y",
        ]
    ),
    max_size=4,
).map(NameList)
_GOOD = [
    NameList([name])
    for name in (
        b"mlkem768x25519-sha256", b"ssh-ed25519", *[b"aes128-gcm@openssh.com"] * 2,
        *[b"hmac-sha2-256-etm@openssh.com"] * 2, *[b"none"] * 2, b"", b"",
    )
]  # fmt: skip
_kexinit = st.one_of(
    st.just(Byte(20) + bytes(16) + b"".join(_GOOD) + b"\0" + UInt32(0)),
    joined(st.just(Byte(20) + bytes(16)), *[_LISTS] * 10, flags, numbers),
)
_first_packets = st.one_of(
    _kexinit,
    joined(st.sampled_from([30, 31, 32, 34]).map(Byte), strings),
    st.tuples(st.just(Byte(30)), st.integers(0, 2000).map(lambda n: String(bytes(n)))).map(b"".join),
    st.integers(-5, 2**70).map(lambda n: Byte(30) + MPInt(n)),
    connection_packets.map(lambda packet: Byte(packet[0]) + packet[1]),
)
_versions = st.one_of(
    st.just(b"SSH-2.0-OpenSSH_9.2\r\n"),
    st.just(b"SSH-2.0-OpenSSH_9.2\r\n"),
    st.sampled_from(
        [b"SSH-1.5-x\r\n", b"SSH-2.0-\xff\xfe\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\r\n" * 50]
    ),
    st.binary(max_size=300),
)
_bytes_on_the_wire = st.one_of(
    st.lists(_first_packets.map(_framed), max_size=8).map(b"".join),
    st.lists(_first_packets.map(_framed), max_size=8).map(b"".join),
    st.binary(max_size=400),
    st.sampled_from([b"\xff" * 64, b"\0" * 64, struct.pack(">IB", 35_000, 4) + bytes(34_000)]),
)


@hostile
@given(version=_versions, rest=_bytes_on_the_wire)
def test_any_bytes_before_keys_are_exchanged(alice: Person, unharmed: None, version: bytes, rest: bytes) -> None:
    async def attack() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", alice.system.port)
        writer.write(version + rest)
        with contextlib.suppress(OSError):
            writer.write_eof()
            await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    run(attack)


async def test_a_hundred_that_stop_in_the_middle_leave_room_for_a_user(alice: Person, unharmed: None) -> None:
    """Half of a version, half of a packet, half of a login; none goes on."""
    starts = (b"SSH-2.", b"SSH-2.0-x\r\n", b"SSH-2.0-x\r\n" + _framed(Byte(20) + bytes(16))[:20], b"")
    held = [await asyncio.open_connection("127.0.0.1", alice.system.port) for _ in range(100)]
    for number, (_, writer) in enumerate(held):
        writer.write(starts[number % len(starts)])
    slow = [await raw(alice, enter=False) for _ in range(10)]
    done = await asyncio.to_thread(alice.ssh, "alice", "echo in")
    assert (done.returncode, done.stdout) == (0, b"in\n")
    for conn in slow:
        conn.abort()
        await conn.wait_closed()
    for _, writer in held:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
