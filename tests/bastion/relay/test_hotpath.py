"""Why: the steps that we replaced must do what asyncssh's do, with every stream that a peer can send."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from asyncssh.encryption import GCMEncryption, get_encryption
from asyncssh.packet import Boolean, String, UInt32
from hypothesis import given, settings
from hypothesis import strategies as st

from bastion.relay.ciphers import better_ciphers
from bastion.relay.wire_cipher import PACKET, GcmCipher, Workbench
from tests.bastion.relay.hotrig import CHANNELS, GCM, WINDOW, Peer, Rig, Seen

DATA, ADJUST, EXTENDED, EOF, CLOSE, REQUEST, SUCCESS = 94, 93, 95, 96, 97, 98, 99


def _both(
    stream: bytes, cuts: Sequence[int] = (), *, keeps: bool = False, window: int = WINDOW, turn: float = 1000.0
) -> tuple[Seen, Seen]:
    """What our steps, and then asyncssh's, make of a stream that arrives cut at these places."""
    marks = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(marks) if end > start]

    async def run(hot: bool) -> Seen:
        rig = Rig(hot=hot, keeps=keeps, window=window, turn=turn)
        seen = await rig.seen(chunks)
        rig.close()
        await asyncio.sleep(0)
        return seen

    return asyncio.run(run(True)), asyncio.run(run(False))


def _data(channel: int, body: bytes) -> tuple[int, bytes]:
    return DATA, UInt32(channel) + String(body)


CHANNEL = st.integers(0, CHANNELS - 1) | st.integers(0, CHANNELS - 1) | st.sampled_from([CHANNELS, 99, 0xFFFFFFFF])
BODY = st.binary(max_size=60) | st.integers(0, 40_000).map(bytes)
COMMON = st.builds(_data, st.integers(0, CHANNELS - 1), BODY) | st.builds(
    lambda channel, more: (ADJUST, UInt32(channel) + UInt32(more)), st.integers(0, 2), st.integers(0, 1 << 21)
)
ODD = st.one_of(
    st.builds(_data, CHANNEL, BODY),
    st.builds(
        lambda channel, size, body: (DATA, UInt32(channel) + UInt32(size) + body), CHANNEL, st.integers(0, 99), BODY
    ),
    st.builds(lambda channel, body: (ADJUST, UInt32(channel) + body), CHANNEL, st.binary(max_size=9)),
    st.builds(lambda channel, body: (EXTENDED, UInt32(channel) + UInt32(1) + String(body)), CHANNEL, BODY),
    st.builds(lambda kind, channel: (kind, UInt32(channel)), st.sampled_from([EOF, CLOSE, SUCCESS, 100]), CHANNEL),
    st.builds(
        lambda channel, want, body: (REQUEST, UInt32(channel) + String(b"x@example.org") + Boolean(want) + body),
        CHANNEL,
        st.booleans(),
        st.binary(max_size=20),
    ),
    st.builds(lambda want: (80, String(b"y@example.org") + Boolean(want)), st.booleans()),
    st.just((1, UInt32(11) + String(b"bye") + String(b""))),
    st.just((90, String(b"session") + UInt32(5) + UInt32(99) + UInt32(99))),
    st.builds(
        lambda kind, body: (kind, body), st.sampled_from([1, 2, 3, 4, 5, 20, 21, 30, 52, 60, 81, 91, 92, 192]), BODY
    ),
)
PACKETS = st.lists(COMMON, max_size=12) | st.lists(COMMON | COMMON | ODD, max_size=12)
SETTINGS = settings(max_examples=150, deadline=None)


@SETTINGS
@given(PACKETS, st.lists(st.integers(0, 1 << 20), max_size=6), st.booleans(), st.sampled_from([0.0, 1000.0]))
def test_a_stream_is_handled_as_by_asyncssh(
    packets: list[tuple[int, bytes]], cuts: list[int], keeps: bool, turn: float
) -> None:
    peer = Peer(1)
    ours, theirs = _both(b"".join(peer.packet(*one) for one in packets), cuts, keeps=keeps, turn=turn)
    assert ours == theirs


@SETTINGS
@given(st.lists(COMMON, min_size=1, max_size=8), st.integers(0), st.integers(1, 255), st.lists(st.integers(0, 1 << 20)))
def test_a_changed_byte_ends_the_connection_as_in_asyncssh(
    packets: list[tuple[int, bytes]], where: int, change: int, cuts: list[int]
) -> None:
    peer = Peer(1)
    stream = bytearray(b"".join(peer.packet(*one) for one in packets))
    stream[where % len(stream)] ^= change
    ours, theirs = _both(bytes(stream), cuts)
    assert ours == theirs


@SETTINGS
@given(st.integers(0, 255), st.integers(0, 80), st.sampled_from([DATA, ADJUST, 2, 96]), st.integers(0, 60))
def test_any_padding_and_any_length_are_judged_as_by_asyncssh(pad: int, size: int, kind: int, number: int) -> None:
    peer = Peer(1)
    good = peer.packet(*_data(0, b"before"))
    odd = peer.seal((bytes([pad, kind]) + UInt32(0) + UInt32(number) + bytes(80))[:size])
    ours, theirs = _both(good + odd + peer.packet(*_data(0, b"after")), [len(good), len(good) + len(odd)])
    assert ours == theirs


@pytest.mark.parametrize("kind", [DATA, ADJUST])
@pytest.mark.parametrize("pad", [*range(6), 16, 255])
def test_a_packet_that_is_right_but_for_its_padding_is_judged_as_by_asyncssh(pad: int, kind: int) -> None:
    for size in range(20):
        peer = Peer(1)
        body = UInt32(0) + (String(b"x" * size) if kind == DATA else UInt32(size))
        stream = peer.seal(bytes([pad, kind]) + body + b"p" * pad) + peer.packet(*_data(0, b"after"))
        ours, theirs = _both(stream)
        assert ours == theirs


@pytest.mark.parametrize("size", range(40))
def test_a_short_packet_with_more_behind_it_is_judged_as_by_asyncssh(size: int) -> None:
    peer = Peer(1)
    short = peer.seal((b"\4\2" + bytes(80))[:size])
    after = b"".join(peer.packet(*_data(0, b"after" * 5)) for _ in range(2))
    for cuts in ([], [len(short)], [len(short) + 1]):
        ours, theirs = _both(short + after, cuts)
        assert ours == theirs


@pytest.mark.parametrize("last", [EOF, CLOSE])
@pytest.mark.parametrize("late", [_data(0, b"late"), (ADJUST, UInt32(0) + UInt32(5)), (EOF, UInt32(0))])
def test_what_comes_after_the_end_of_a_channel_is_judged_as_by_asyncssh(last: int, late: tuple[int, bytes]) -> None:
    peer = Peer(1)
    packets = [_data(0, b"first"), (last, UInt32(0)), late, _data(1, b"other")]
    ours, theirs = _both(b"".join(peer.packet(*one) for one in packets))
    assert ours == theirs


def test_a_stream_may_be_cut_anywhere() -> None:
    packets = [_data(0, b"one"), (ADJUST, UInt32(1) + UInt32(9)), _data(2, b"two" * 9), (EOF, UInt32(0)), _data(1, b"")]
    peer = Peer(1)
    stream = b"".join(peer.packet(*one) for one in packets)
    whole, theirs = _both(stream)
    assert whole == theirs
    assert [body for kind, body in whole.passed_on if kind == DATA] == [
        UInt32(80) + String(b"one"),
        UInt32(82) + String(b"two" * 9),
        UInt32(81) + String(b""),
    ]
    for cut in range(1, len(stream)):
        assert _both(stream, [cut])[0] == whole
    assert _both(stream, range(len(stream)))[0] == whole


@pytest.mark.parametrize("size", [0, 1, 12, 15, PACKET - 1, PACKET, PACKET + 1, 260_000, 262_144, 262_145, 0xFFFFFFFF])
def test_a_length_field_alone_is_judged_as_by_asyncssh(size: int) -> None:
    good = Peer(1).packet(*_data(0, b"before"))
    stream = good + UInt32(size) + os.urandom(300_000)
    ours, theirs = _both(stream, [len(good), len(good) + 8])
    assert ours == theirs


def test_a_packet_too_large_for_our_steps_is_asyncsshs_and_the_next_is_ours_again() -> None:
    peer = Peer(1)
    packets = [_data(0, b"a" * 10), _data(0, b"b" * 200_000), _data(0, b"c" * 10)]
    stream = b"".join(peer.packet(*one) for one in packets)
    ours, theirs = _both(stream, range(0, len(stream), 70_001))
    assert ours == theirs
    assert [len(body) for kind, body in ours.passed_on if kind == DATA] == [18, 200_008, 18]


def test_what_a_failed_check_leaves_is_not_read() -> None:
    peer = Peer(1)
    bad = bytearray(peer.packet(*_data(0, b"bad")))
    bad[-1] ^= 1
    ours, theirs = _both(bytes(bad) + peer.packet(*_data(0, b"after")))
    assert ours == theirs
    assert ours.ended == ["MACError: MAC verification failed"]
    assert not [body for kind, body in ours.passed_on if kind == DATA]


def test_more_than_the_window_is_refused_as_by_asyncssh() -> None:
    peer = Peer(1)
    stream = b"".join(peer.packet(*_data(0, b"x" * 30_000)) for _ in range(4))
    ours, theirs = _both(stream, window=100_000)
    assert ours == theirs
    assert ours.ended == ["ProtocolError: Window exceeded"]


def test_data_packets_of_one_read_leave_in_one_write_with_new_padding() -> None:
    async def run() -> None:
        rig = Rig(hot=True)
        rig.feed(b"".join(rig.peer.packet(*_data(0, b"x" * 1000)) for _ in range(50)))
        assert rig.sinks["far"].writes == 1
        assert len(rig.result().passed_on) == 50
        assert type(rig.near._recv_encryption) is GcmCipher
        rig.close()
        await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.parametrize("hot", [True, False])
@pytest.mark.parametrize("packet", [(ADJUST, UInt32(1) + UInt32(9)), (2, String(b"")), (80, String(b"x") + b"\1")])
def test_many_small_packets_take_many_turns_and_keep_their_order(hot: bool, packet: tuple[int, bytes]) -> None:
    async def run() -> None:
        rig = Rig(hot=hot, turn=0.0)
        packets = [packet] * 100 + [_data(0, b"last")]
        rig.feed(b"".join(rig.peer.packet(*one) for one in packets))
        assert rig.near._rested
        assert rig.near._recv_seq <= 32
        turns = 0
        while rig.near._rested:
            before = rig.near._recv_seq
            await asyncio.sleep(0)
            assert before < rig.near._recv_seq <= before + 32
            turns += 1
        assert turns >= 3
        seen = rig.result()
        assert seen.ended == []
        assert (DATA, UInt32(80) + String(b"last")) == seen.passed_on[-1]
        assert rig.near._recv_seq == 101
        rig.close()
        await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.parametrize("hot", [True, False])
def test_a_connection_that_is_held_works_off_no_more_of_its_read(hot: bool) -> None:
    async def run() -> None:
        rig = Rig(hot=hot)
        judge = rig.near.judge_global

        def hold(*asked: Any) -> None:
            judge(*asked)
            rig.near.hold()

        rig.near.judge_global = hold  # type: ignore[method-assign]
        rig.feed(b"".join(rig.peer.packet(80, String(b"x") + b"\1") for _ in range(3)))
        for number in (1, 2, 3):
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(rig.near.heard) == number
            rig.near.release()
        rig.feed(rig.peer.packet(*_data(0, b"last")))
        assert rig.result().passed_on == [(DATA, UInt32(80) + String(b"last"))]
        rig.close()
        await asyncio.sleep(0)

    asyncio.run(run())


def test_what_is_said_last_leaves_before_the_transport_is_cut() -> None:
    async def run() -> None:
        rig = Rig(hot=True)
        rig.near.bench.reading += 1  # as in the middle of a read
        rig.far.legs[0].eof()
        assert rig.sinks["far"].writes == 0
        rig.far.abort()
        assert rig.result().passed_on == [(EOF, UInt32(80))]
        rig.close()
        await asyncio.sleep(0)

    asyncio.run(run())


def _change(name: str, value: object) -> Callable[[Rig], None]:
    def change(rig: Rig) -> None:
        for side in (rig.near, rig.far):
            setattr(side, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "receives", "sends"),
    [
        (_change("_auth_complete", False), False, False),
        (_change("_transport", None), False, True),
        (_change("_kex_complete", False), False, False),
        (_change("_kex", object()), False, True),
        (_change("_next_recv_encryption", object()), False, True),
        (_change("_decompressor", object()), False, True),
        (_change("_compressor", object()), True, False),
        (_change("_rekey_bytes_sent", 1 << 40), True, False),
        (_change("_rekey_time", 1), True, False),
        (_change("_muted", True), True, False),
        (
            _change(
                "_recv_encryption", get_encryption(b"aes128-ctr", bytes(16), bytes(16), b"hmac-sha2-256", bytes(32))
            ),
            False,
            True,
        ),
        (
            _change(
                "_send_encryption", get_encryption(b"aes128-ctr", bytes(16), bytes(16), b"hmac-sha2-256", bytes(32))
            ),
            True,
            False,
        ),
        (_change("_recv_encryption", None), False, True),
        (_change("_send_encryption", None), True, False),
        (_change("ending", False), True, True),
    ],
)
def test_our_steps_are_taken_only_where_they_may_be(change: Callable[[Rig], None], receives: bool, sends: bool) -> None:
    async def run() -> None:
        rig = Rig(hot=True)
        change(rig)
        assert rig.near._takes_over() is receives
        assert rig.near.sends_fast() is sends
        for side in (rig.near, rig.far):
            side._muted, side._auth = False, None
        rig.close()

    asyncio.run(run())


def test_the_cipher_goes_on_where_asyncsshs_stands_and_counts_round_the_end() -> None:
    key, iv = os.urandom(16), b"\x01\x02\x03\x04" + b"\xff" * 7 + b"\xfe"
    theirs, mirror = (get_encryption(GCM, key, iv) for _ in range(2))
    assert isinstance(mirror, GCMEncryption)
    mirror.encrypt_packet(0, b"\0\0\0\x10", bytes(16))
    theirs.encrypt_packet(0, b"\0\0\0\x10", bytes(16))
    ours = GcmCipher.instead_of(mirror)
    for number in range(4):
        packet = bytes([number]) * 32
        into = memoryview(bytearray(48))
        expected = b"".join(theirs.encrypt_packet(0, b"\0\0\0\x20", packet))
        if number % 2:
            ours.seal(memoryview(packet), b"\0\0\0\x20", into)
            assert b"\0\0\0\x20" + bytes(into) == expected
        else:
            assert b"".join(ours.encrypt_packet(0, b"\0\0\0\x20", packet)) == expected


def test_padding_is_never_given_twice() -> None:
    bench = Workbench()
    given_out = [bench.padding(16) for _ in range(2000)]
    assert len(set(given_out)) == 2000
    assert {len(one) for one in given_out} == {16}


def _kexinit(to_us: bytes, from_us: bytes) -> bytes:
    return b"\x14" + bytes(16) + b"".join(String(one) for one in (b"kex", b"key", to_us, from_us, b"", b""))


@pytest.mark.parametrize(
    ("kexinit", "in_use", "better"),
    [
        (_kexinit(b"ctr,gcm", b"ctr,gcm"), b"ctr", True),
        (_kexinit(b"ctr,gcm", b"ctr"), b"ctr", False),
        (_kexinit(b"ctr", b"ctr,gcm"), b"ctr", False),
        (_kexinit(b"ctr", b"ctr"), b"ctr", False),
        (_kexinit(b"gcm", b"gcm"), b"gcm", False),
        (_kexinit(b"ctr,gcm", b"ctr,gcm"), b"chacha20-poly1305@openssh.com", False),
        (_kexinit(b"ctr,gcm", b"ctr,gcm")[:50], b"ctr", False),
        (b"", b"ctr", False),
    ],
)
def test_a_better_cipher_is_one_that_both_know_and_we_prefer(kexinit: bytes, in_use: bytes, better: bool) -> None:
    names = {b"ctr": b"aes128-ctr", b"gcm": GCM}
    for short, name in names.items():
        kexinit = kexinit.replace(b"\x00\x00\x00\x07ctr,gcm", String(b"aes128-ctr," + GCM)).replace(
            String(short), String(name)
        )
    chosen = better_ciphers([GCM, b"aes128-ctr"], kexinit, [names.get(in_use, in_use)] * 2)
    assert chosen == ([GCM] if better else [])
