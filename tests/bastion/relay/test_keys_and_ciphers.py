"""Why: bulk data takes steps of our own, which must give way to asyncssh's whenever keys or ciphers are not plain."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest
from asyncssh.encryption import Encryption

from bastion.relay.limits import RelayLimits, default_algorithms
from bastion.relay.wire_cipher import GcmCipher
from bastion.relay.wire_client import ClientSide
from bastion.relay.wire_link import Link
from bastion.relay.wire_pod import PodSide
from tests.bastion.relay.doors import ALGORITHMS, Door, Way, connect
from tests.support.sshd import Sshd

SIZE = 6 << 20
CHACHA = "chacha20-poly1305@openssh.com"
AES_128_GCM = "aes128-gcm@openssh.com"


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> Counter[type]:
    """How often keys were exchanged, by the kind of connection."""
    seen: Counter[type] = Counter()
    theirs = Link.send_newkeys

    def counted(self: Link, k: bytes, h: bytes) -> None:
        seen[type(self)] += 1
        theirs(self, k, h)

    monkeypatch.setattr(Link, "send_newkeys", counted)
    return seen


@pytest.fixture
def received_by(monkeypatch: pytest.MonkeyPatch) -> set[type[Encryption]]:
    """The kinds of ciphers with which the client's side took what came last, in each connection."""
    seen: set[type[Encryption]] = set()
    theirs = Link.let_go

    def noted(self: Link) -> None:
        if isinstance(self, ClientSide) and self._recv_encryption is not None:
            seen.add(type(self._recv_encryption))
        theirs(self)

    monkeypatch.setattr(Link, "let_go", noted)
    return seen


async def _echoes(door: Door, content: bytes, *options: str) -> None:
    """There and back at once, and every byte the same."""
    answer = await Way.through(door).run(*options, "--", "cat; exit 3", stdin=content)
    assert (answer.status, answer.err) == (3, b"")
    assert hashlib.sha256(answer.out).digest() == hashlib.sha256(content).digest()


async def test_the_client_may_exchange_keys_as_often_as_it_likes(
    door: Door, content: bytes, exchanges: Counter[type]
) -> None:
    await _echoes(door, content, "-c", AES_128_GCM, "-o", "RekeyLimit=1M")
    assert exchanges[ClientSide] >= 5


async def test_the_bastion_exchanges_keys_on_both_sides(
    sshd: Sshd, tmp_path: Path, content: bytes, exchanges: Counter[type]
) -> None:
    async with Door(sshd, tmp_path / "door", limits=RelayLimits(rekey_bytes=1 << 20)).serving() as door:
        await _echoes(door, content, "-c", AES_128_GCM)
    assert min(exchanges[ClientSide], exchanges[PodSide]) >= 5


async def test_everybody_exchanges_keys_at_once(tmp_path: Path, content: bytes, exchanges: Counter[type]) -> None:
    with Sshd.running(tmp_path / "sshd", ["RekeyLimit 1M"]) as own:
        async with Door(own, tmp_path / "door", limits=RelayLimits(rekey_bytes=1 << 20)).serving() as door:
            await _echoes(door, content, "-c", AES_128_GCM, "-o", "RekeyLimit=1M")
    assert min(exchanges[ClientSide], exchanges[PodSide]) >= 5


async def test_keys_may_be_ageless(sshd: Sshd, tmp_path: Path, content: bytes, exchanges: Counter[type]) -> None:
    async with Door(sshd, tmp_path / "door", limits=RelayLimits(rekey_seconds=0)).serving() as door:
        await _echoes(door, content, "-c", AES_128_GCM)
    assert exchanges == {ClientSide: 1, PodSide: 1}


async def test_a_key_that_is_too_old_is_replaced(
    sshd: Sshd, tmp_path: Path, content: bytes, exchanges: Counter[type]
) -> None:
    async with (
        Door(sshd, tmp_path / "door", limits=RelayLimits(rekey_seconds=3600)).serving() as door,
        connect(door, encryption_algs=[AES_128_GCM]) as conn,
    ):
        assert (await conn.run("cat", input=content, encoding=None)).stdout == content
        assert exchanges[ClientSide] == 1
        door.sides[0]._rekey_time = door.pods[0]._rekey_time = 0.0
        assert (await conn.run("cat", input=content, encoding=None)).stdout == content
        assert (exchanges[ClientSide], exchanges[PodSide]) == (2, 2)


@pytest.mark.parametrize(
    ("options", "ours"),
    [
        (("-c", AES_128_GCM), True),
        (("-c", "aes256-gcm@openssh.com"), True),
        (("-c", "aes256-ctr"), False),
        (("-c", "aes128-ctr", "-m", "hmac-sha2-512-etm@openssh.com"), False),
        (("-c", CHACHA), False),
        (("-C", "-c", AES_128_GCM), True),
        (("-C", "-c", "aes128-ctr"), False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_every_cipher_carries_the_same_bytes(
    sshd: Sshd,
    tmp_path: Path,
    content: bytes,
    options: tuple[str, ...],
    ours: bool,
    received_by: set[type[Encryption]],
) -> None:
    algorithms = replace(ALGORITHMS, ciphers=(*ALGORITHMS.ciphers, CHACHA))
    async with Door(sshd, tmp_path / "door", algorithms=algorithms).serving() as door:
        await _echoes(door, content, *options)
        await door.next_end()
        assert received_by == {GcmCipher} if ours else GcmCipher not in received_by


@pytest.mark.parametrize("compression", [("zlib@openssh.com", "none"), ("none",)])
async def test_compression_is_carried_where_it_is_offered(
    sshd: Sshd, tmp_path: Path, content: bytes, compression: tuple[str, ...], received_by: set[type[Encryption]]
) -> None:
    algorithms = replace(ALGORITHMS, compression=compression)
    async with Door(sshd, tmp_path / "door", algorithms=algorithms).serving() as door:
        await _echoes(door, content, "-C", "-c", AES_128_GCM)
        await door.next_end()
        assert (GcmCipher in received_by) is (compression == ("none",))


@pytest.mark.parametrize("command", ["cat >/dev/null", f"head -c {SIZE} /dev/zero"], ids=["sending", "receiving"])
async def test_a_client_that_prefers_another_cipher_is_asked_to_change_when_it_copies_much(
    door: Door, content: bytes, command: str, exchanges: Counter[type], received_by: set[type[Encryption]]
) -> None:
    answer = await Way.through(door).run("-c", f"aes128-ctr,{AES_128_GCM}", "--", command, stdin=content)
    assert answer.status == 0
    assert len(answer.out) in {0, SIZE}
    await door.next_end()
    assert exchanges[ClientSide] == 2
    assert received_by == {GcmCipher}


async def test_a_client_that_changes_keeps_every_byte(door: Door, content: bytes, exchanges: Counter[type]) -> None:
    await _echoes(door, content, "-c", f"aes128-ctr,{AES_128_GCM}")
    assert exchanges[ClientSide] == 2


async def test_dropbear_gets_in_with_what_it_knows(door: Door, content: bytes, exchanges: Counter[type]) -> None:
    knows = {"encryption_algs": [CHACHA, "aes128-ctr"], "mac_algs": ["hmac-sha2-256"]}
    async with connect(door, client_version="dropbear_2022.83", **knows) as conn:
        assert conn.get_extra_info("send_cipher") == CHACHA
        assert (await conn.run("cat", input=content, encoding=None)).stdout == content
    assert exchanges[ClientSide] == 1
    with pytest.raises(asyncssh.KeyExchangeFailed):
        await connect(door, **knows)


async def test_a_site_may_offer_what_old_clients_know(
    sshd: Sshd, tmp_path: Path, content: bytes, exchanges: Counter[type]
) -> None:
    also = ("hmac-sha2-256", "ecdh-sha2-nistp256", CHACHA)
    algorithms = default_algorithms(fast_aes=True, also=also)
    async with Door(sshd, tmp_path / "door", algorithms=algorithms).serving() as door:
        knows = {
            "kex_algs": ["ecdh-sha2-nistp256"],
            "encryption_algs": ["aes128-ctr"],
            "mac_algs": ["hmac-sha1", "hmac-sha2-256"],
        }
        async with connect(door, **knows) as conn:
            assert conn.get_extra_info("send_mac") == "hmac-sha2-256"
            assert (await conn.run("cat", input=content, encoding=None)).stdout == content
        await _echoes(door, content, "-c", CHACHA)
        await _echoes(door, content)
    assert exchanges[ClientSide] >= 3


@pytest.mark.parametrize(
    ("ciphers", "size"),
    [(f"aes128-ctr,{AES_128_GCM}", 1000), ("aes128-ctr", SIZE), (f"{AES_128_GCM},aes128-ctr", SIZE)],
    ids=["little", "nothing better", "the best already"],
)
async def test_a_client_with_nothing_to_gain_is_left_alone(
    door: Door, content: bytes, ciphers: str, size: int, exchanges: Counter[type]
) -> None:
    await _echoes(door, content[:size], "-c", ciphers)
    assert exchanges[ClientSide] == 1


async def test_without_aes_instructions_nobody_is_asked_to_change(
    sshd: Sshd, tmp_path: Path, content: bytes, exchanges: Counter[type]
) -> None:
    async with Door(sshd, tmp_path / "door", algorithms=default_algorithms(fast_aes=False)).serving() as door:
        await _echoes(door, content, "-c", f"{CHACHA},{AES_128_GCM}")
        assert exchanges[ClientSide] == 1


def _flipped(packet: bytes, _mac: bytes) -> tuple[bytes, bytes]:
    return packet[:-1] + bytes([packet[-1] ^ 1]), b""


@pytest.mark.parametrize("change", [_flipped, lambda packet, mac: (packet[:8] + b"\xff" + packet[9:], mac)])
async def test_a_forged_packet_ends_that_connection_and_is_not_passed_on(
    door: Door, change: Callable[[bytes, bytes], tuple[bytes, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(door, encryption_algs=[AES_128_GCM]) as conn:
        process = await conn.create_process("cat", encoding=None)
        process.stdin.write(b"first")
        assert await process.stdout.readexactly(5) == b"first"
        cipher = conn._send_encryption
        theirs = cipher.encrypt_packet

        def forged(seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
            sealed, mac = theirs(seq, header, packet)
            return change(sealed + mac, b"")

        monkeypatch.setattr(cipher, "encrypt_packet", forged)
        process.stdin.write(b"second")
        front = await door.next_end()
        assert "MAC verification failed" in str(front.ended[0])
        assert door.pods[0].transferred == (5, 5)
        conn.abort()


async def test_a_pod_that_forges_ends_the_clients_connection_too(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connect(door, encryption_algs=[AES_128_GCM]) as conn:
        process = await conn.create_process("cat", encoding=None)
        process.stdin.write(b"first")
        assert await process.stdout.readexactly(5) == b"first"
        cipher = door.pods[0]._recv_encryption
        assert isinstance(cipher, GcmCipher)
        cipher.took()  # from here on no packet of the pod's can be genuine
        process.stdin.write(b"second")
        front = await door.next_end()
        assert front.ended == [None]  # the bastion ended it, in order
        assert door.sides[0].transferred[1] == 5
        conn.abort()
