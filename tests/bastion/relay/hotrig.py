"""Why: what asyncssh's own steps do with a stream of packets is the measure of what ours do with it.

`Rig` is two joined connections after authentication, without sockets: packets are fed to one, and what both say is read
by whoever holds the peers' keys. `hot=False` makes both take asyncssh's own steps throughout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache

import asyncssh
from asyncssh.encryption import get_encryption
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bastion.relay.answers import Slot
from bastion.relay.front import ChannelOpen
from bastion.relay.limits import RelayLimits
from bastion.relay.wire_channel import Leg
from bastion.relay.wire_cipher import Workbench
from bastion.relay.wire_link import GlobalReply, Link, Offered, OpenFailure
from bastion.relay.wire_pressure import Feeder

GCM = b"aes128-gcm@openssh.com"
WINDOW = 1 << 20
CHANNELS = 3


class Peer:
    """Holds the key of one direction: makes packets, or reads them."""

    def __init__(self, number: int) -> None:
        self.key, self.iv = bytes([number]) * 16, bytes([number]) * 12
        self._aead = AESGCM(self.key)
        self._count = int.from_bytes(self.iv[4:], "big")

    def _nonce(self) -> bytes:
        nonce = self.iv[:4] + self._count.to_bytes(8, "big")
        self._count += 1
        return nonce

    def seal(self, packet: bytes) -> bytes:
        """Padding length, payload and padding, as they are to be sent."""
        head = len(packet).to_bytes(4, "big")
        return head + self._aead.encrypt(self._nonce(), packet, head)

    def packet(self, kind: int, payload: bytes) -> bytes:
        padding = -(2 + len(payload)) % 16
        padding += 16 if padding < 4 else 0
        return self.seal(bytes([padding, kind]) + payload + b"p" * padding)

    def read(self, stream: bytes) -> list[tuple[int, bytes]]:
        """The packets of a stream, checked as strictly as the protocol is."""
        found = []
        while stream:
            size = int.from_bytes(stream[:4], "big")
            assert size % 16 == 0
            packet = self._aead.decrypt(self._nonce(), stream[4 : 20 + size], stream[:4])
            assert packet[0] >= 4
            found.append((packet[1], packet[2 : -packet[0]]))
            stream = stream[20 + size :]
        return found


class Sink(asyncio.Transport):
    """A transport that keeps what it was given, as asyncio's may: the object, not its bytes of that moment."""

    def __init__(self, *, keeps: bool) -> None:
        super().__init__()
        self._given: list[bytes | memoryview] = []
        self._keeps = keeps
        self.writes = 0

    def write(self, data: object) -> None:
        assert isinstance(data, bytes | bytearray | memoryview)
        self.writes += 1
        self._given.append(data if self._keeps and isinstance(data, memoryview) else bytes(data))

    @property
    def written(self) -> bytes:
        return b"".join(bytes(one) for one in self._given)

    def get_write_buffer_size(self) -> int:
        return 1 if self._keeps else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False


class Side(Link, asyncssh.SSHServerConnection):
    """A connection of the rig."""

    hot = True
    turn_seconds = 1000.0

    def __init__(self, options: asyncssh.SSHServerConnectionOptions, limits: RelayLimits, bench: Workbench) -> None:
        self.set_up(limits, bench)
        super().__init__(asyncio.get_running_loop(), options, None, None, None)
        self.heard: list[object] = []
        self.ended: list[str] = []

    def _takes_over(self) -> bool:
        return self.hot and super()._takes_over()

    def sends_fast(self) -> bool:
        return self.hot and super().sends_fast()

    def feeders(self) -> list[Feeder]:
        return []

    async def across(self) -> Link:
        raise AssertionError("everything is joined already")

    def judge_open(self, asked: ChannelOpen, kind: bytes) -> OpenFailure | Callable[[Leg, Offered], Awaitable[None]]:
        self.heard.append(("open", kind, asked.channel))
        return OpenFailure(1, "no")

    def wish(self, leg: Leg, name: bytes, payload: bytes, slot: Slot[int] | None) -> None:
        self.heard.append(("request", leg.number, name, payload, slot is not None))
        leg.far.request(name, payload, slot)

    def judge_global(self, name: bytes, payload: bytes, slot: Slot[GlobalReply]) -> None:
        self.heard.append(("global", name, payload))
        slot.answer(b"")

    def _force_close(self, exc: Exception | None) -> None:
        if not self.is_gone:
            self.ended.append(f"{type(exc).__name__}: {exc}")
        super()._force_close(exc)


@dataclass
class Seen:
    """What came of a stream."""

    heard: list[object]
    ended: list[str]
    passed_on: list[tuple[int, bytes]]
    answered: list[tuple[int, bytes]]
    numbers: tuple[int, ...]


@cache
def _options() -> asyncssh.SSHServerConnectionOptions:
    return asyncssh.SSHServerConnectionOptions(
        server_factory=asyncssh.SSHServer,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        gss_host=None,
        config=None,
        login_timeout=0,
    )


class Rig:
    """Two joined connections with `CHANNELS` channels open between them."""

    def __init__(self, *, hot: bool, keeps: bool = False, window: int = WINDOW, turn: float = 1000.0) -> None:
        options = _options()
        limits, bench = RelayLimits(keepalive_seconds=0), Workbench()
        self.peer = Peer(1)
        self._readers = {"near": Peer(2), "far": Peer(4)}
        self.near, self.far = (self._side(options, limits, bench, hot) for _ in range(2))
        self.near.turn_seconds = turn
        self.sinks = {"near": Sink(keeps=keeps), "far": Sink(keeps=keeps)}
        self._authenticated(self.near, self.sinks["near"], self.peer, self._readers["near"])
        self._authenticated(self.far, self.sinks["far"], Peer(3), self._readers["far"])
        for number in range(CHANNELS):
            near = self.near.make_leg(None)
            far = self.far.make_leg(None)
            near.far, far.far = far, near
            near.remote, far.remote = 70 + number, 80 + number
            near.opened(window, 1 << 15, b"")
            far.opened(window, 1 << 15, b"")
        for name, sink in self.sinks.items():
            self._readers[name].read(sink.written)
            sink._given.clear()
            sink.writes = 0

    def _side(
        self, options: asyncssh.SSHServerConnectionOptions, limits: RelayLimits, bench: Workbench, hot: bool
    ) -> Side:
        side = Side(options, limits, bench)
        side.hot = hot
        return side

    def _authenticated(self, side: Side, sink: Sink, receive: Peer, send: Peer) -> None:
        side._transport = side._tcp = sink
        side._recv_encryption = get_encryption(GCM, receive.key, receive.iv)
        side._send_encryption = get_encryption(GCM, send.key, send.iv)
        side._recv_blocksize = side._send_blocksize = side._recv_macsize = 16
        side._send_enchdrlen = 1
        side._auth_complete = side._kex_complete = True
        side._strict_kex = True
        side._rekey_time = time.monotonic() + 1000
        side._recv_handler = side._recv_pkthdr
        side._enc_alg_cs = side._enc_alg_sc = GCM

    def feed(self, chunk: bytes) -> None:
        """Some bytes from the peer, as asyncio gives them."""
        if self.near.is_gone:
            return  # a transport that is aborted gives nothing
        while chunk:
            buffer = self.near.get_buffer(-1)
            part = chunk[: len(buffer)]
            buffer[: len(part)] = part
            self.near.buffer_updated(len(part))
            chunk = chunk[len(part) :]

    async def seen(self, chunks: Sequence[bytes]) -> Seen:
        """Feed all of them, with turns of the loop between them."""
        for chunk in chunks:
            self.feed(chunk)
            while self.near._rested:
                await asyncio.sleep(0)
            for _ in range(4):
                await asyncio.sleep(0)
        return self.result()

    def result(self) -> Seen:
        near, far = self.near, self.far
        legs = [leg for side in (near, far) for leg in side.legs.values()]
        return Seen(
            near.heard,
            near.ended + far.ended,
            self._readers["far"].read(self.sinks["far"].written),
            self._readers["near"].read(self.sinks["near"].written),
            (
                near._recv_seq,
                near._send_seq,
                far._send_seq,
                near._rekey_bytes_sent,
                far._rekey_bytes_sent,
                int(near._auth_final),
                *(number for leg in legs for number in (leg.number, leg.received, leg.sent, leg._inbound.granted)),
            ),
        )

    def close(self) -> None:
        """Nothing is left to run."""
        for side in (self.near, self.far):
            side.abort()
