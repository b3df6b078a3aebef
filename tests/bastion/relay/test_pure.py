"""Why: what a hostile peer writes meets these parsers first, and these sums keep its bytes in bounds."""

from __future__ import annotations

import struct
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.relay.answers import Answers, Slot
from bastion.relay.ciphers import CHACHA20, ciphers_for
from bastion.relay.credit import RESERVE, Credit
from bastion.relay.kexinit import guessed_wrong, name_lists
from bastion.relay.limits import OLDER, default_algorithms, has_fast_aes
from bastion.relay.meanings import UNKNOWN, X11, DirectTcp, Exec, Malformed, Pty, Session, Subsystem, TcpForward
from bastion.relay.requests import _GLOBALS, _OPENS, _REQUESTS, asked, needed_capability, opened, requested, shown
from bastion.settings import Older
from ca.certificate import string
from ca.limits import Capability

NAMES = [*_OPENS, *_REQUESTS, *_GLOBALS]


@given(st.sampled_from(NAMES) | st.binary(max_size=80), st.binary(max_size=200))
def test_no_payload_crashes_a_parser(name: bytes, payload: bytes) -> None:
    for parse in (opened, requested, asked):
        meaning = parse(name, payload)
        assert needed_capability(meaning) is not None or meaning is not UNKNOWN
    assert shown(name).isascii()
    assert len(shown(name)) <= 64


@given(st.binary(max_size=40), st.integers(0, 65535), st.binary(min_size=1, max_size=5))
def test_a_payload_that_goes_on_is_malformed(host: bytes, port: int, more: bytes) -> None:
    payload = string(host) + struct.pack(">I", port) + string(b"127.0.0.1") + struct.pack(">I", 5)
    exact = opened(b"direct-tcpip", payload)
    assert isinstance(exact, DirectTcp)
    assert exact.port == port
    assert isinstance(opened(b"direct-tcpip", payload + more), Malformed)
    assert isinstance(opened(b"direct-tcpip", payload[:-1]), Malformed)


def test_text_that_is_not_utf_8_never_equals_a_name() -> None:
    meaning = opened(b"direct-tcpip", string(b"pod\xff.hub") + struct.pack(">I", 22) + string(b"") + bytes(4))
    assert isinstance(meaning, DirectTcp)
    assert meaning.host == "pod\\xff.hub"


@pytest.mark.parametrize(
    ("meaning", "capability"),
    [
        (Session(), None),
        (Exec(b"x"), Capability.EXEC),
        (Subsystem("sftp"), Capability.SUBSYSTEM),
        (Pty("xterm", 80, 24), Capability.PTY),
        (DirectTcp("h", 1, "", 0), Capability.LOCAL_FORWARD),
        (TcpForward("", 0), Capability.REMOTE_FORWARD),
        (X11(single=False, screen=0), Capability.X11),
        (UNKNOWN, UNKNOWN),
        (Malformed("x"), UNKNOWN),
    ],
)
def test_each_meaning_needs_its_capability(meaning: object, capability: object) -> None:
    assert needed_capability(meaning) is capability  # type: ignore[arg-type]


def test_an_x11_cookie_is_not_kept() -> None:
    meaning = requested(b"x11-req", b"\x01" + string(b"MIT-MAGIC-COOKIE-1") + string(b"c0ffee") + bytes(4))
    assert isinstance(meaning, X11)
    assert "c0ffee" not in repr(meaning)


@given(
    st.integers(0, 0xFFFFFFFF),
    st.integers(1 << 10, 1 << 22),
    st.lists(st.tuples(st.sampled_from(["send", "widen", "speak"]), st.integers(0, 1 << 23))),
)
def test_the_sender_is_never_granted_more_than_the_receiver_takes(
    offered: int, cap: int, steps: list[tuple[str, int]]
) -> None:
    credit = Credit(offered, cap)
    room = offered  # as the receiver counts
    for step, size in steps:
        if step == "send":
            allowed = size <= credit.granted
            assert credit.spend(size) is allowed
            room -= size if allowed else 0
            credit.due()
        elif step == "widen":
            credit.widen(size)
            room = min(room + size, 0xFFFFFFFF)
            credit.due()
        else:
            room -= credit.speak(size)
        assert 0 <= credit.granted <= min(cap, room)


def test_a_sender_is_never_starved_by_what_is_held_back() -> None:
    credit = Credit(1 << 20, 2 << 20)
    assert credit.speak(10 * RESERVE) == RESERVE
    assert credit.spend(credit.granted)
    credit.widen(RESERVE + 5)
    assert credit.due() == 5
    tiny = Credit(10, 1 << 20)
    assert (tiny.granted, tiny.speak(5)) == (10, 0)


@given(st.permutations(range(8)))
def test_replies_leave_in_the_order_of_the_questions(order: list[int]) -> None:
    sent: list[int] = []
    answers: Answers[int] = Answers(sent.append, 100, Door())
    slots = [answers.question() for _ in range(8)]
    for number in order:
        slots[number].answer(number)
        slots[number].answer(99)
    assert sent == list(range(8))
    assert len(answers) == 0


class Door:
    """Whoever asks, and how often it is held."""

    held = 0

    def hold_for_answers(self) -> None:
        self.held += 1

    def release_for_answers(self) -> None:
        self.held -= 1


@given(st.lists(st.integers(0, 30) | st.sampled_from(["ask", "tell"])), st.integers(1, 5))
def test_whoever_asks_is_held_while_as_many_answers_are_missing_as_may(steps: list[int | str], most: int) -> None:
    door, sent = Door(), []
    answers: Answers[int] = Answers(sent.append, most, door)
    slots: list[Slot[int]] = []
    for step in steps:
        if isinstance(step, str):
            slots.append(answers.question(wanted=step == "ask"))
        elif slots:
            slots[step % len(slots)].answer(step % len(slots))
        assert door.held == (len(answers) >= most)
    wanted = [number for number, slot in enumerate(slots) if slot.wanted]
    assert sent == wanted[: len(sent)]
    answers.abandon()
    assert (len(answers), door.held) == (0, 0)
    for slot in slots:
        slot.answer(0)
    assert sent == wanted[: len(sent)]


def test_chacha20_is_offered_only_without_aes_instructions() -> None:
    assert has_fast_aes("processor : 0\nflags\t\t: fpu sse aes avx\n")
    assert not has_fast_aes("flags\t\t: fpu sse\n")
    assert has_fast_aes("Features\t: fp asimd aes\n")
    assert has_fast_aes("")
    assert not any("chacha" in name for name in default_algorithms(fast_aes=True).ciphers)
    assert default_algorithms(fast_aes=False).ciphers[0].startswith("chacha20")
    for lists in (default_algorithms(fast_aes=True), default_algorithms(fast_aes=False)):
        assert lists.kex[0] == "mlkem768x25519-sha256"
        assert not any(name.endswith("sha1") for name in (*lists.kex, *lists.macs, *lists.signatures))
        assert all("etm" in name for name in lists.macs)


def test_older_algorithms_come_last_and_only_where_a_site_wants_them() -> None:
    usual = default_algorithms(fast_aes=True)
    more = default_algorithms(fast_aes=True, also=OLDER)
    for ours, theirs in ((usual.kex, more.kex), (usual.ciphers, more.ciphers), (usual.macs, more.macs)):
        assert theirs[: len(ours)] == ours
        assert not set(ours) & set(OLDER)
    assert {*more.kex, *more.ciphers, *more.macs} >= set(OLDER)
    assert get_args(Older) == OLDER
    assert not any("sha1" in name or "cbc" in name for name in OLDER)


def test_dropbear_is_offered_chacha20_and_nobody_else_is() -> None:
    offered = [b"aes128-gcm@openssh.com", b"aes128-ctr"]
    assert ciphers_for(b"SSH-2.0-dropbear_2022.83", offered) == [*offered, CHACHA20]
    assert ciphers_for(b"SSH-2.0-dropbear", [CHACHA20, *offered]) == [CHACHA20, *offered]
    for version in (b"SSH-2.0-OpenSSH_9.2p1 dropbear", b"SSH-2.0-libssh2_1.10.0", b""):
        assert ciphers_for(version, offered) == offered


def _kexinit(kex: bytes, key: bytes, *, follows: bool = True) -> bytes:
    return b"\x14" + bytes(16) + b"".join(map(string, (kex, key, *[b"x"] * 8))) + bytes([follows]) + bytes(4)


@pytest.mark.parametrize(
    ("client", "wrong"),
    [
        (_kexinit(b"new,old", b"ed"), False),
        (_kexinit(b"old,new", b"ed"), True),
        (_kexinit(b"new", b"rsa,ed"), True),
        (_kexinit(b"old", b"rsa", follows=False), False),
        (_kexinit(b"old", b"rsa")[:-5], False),
        (_kexinit(b"old", b"rsa")[:30], False),
        (b"", False),
    ],
)
def test_a_guess_is_right_only_where_both_put_the_same_first(client: bytes, wrong: bool) -> None:
    """By the letter: that the server knows the guessed one as well does not make it right."""
    assert guessed_wrong(client, _kexinit(b"new,old", b"ed,rsa", follows=False)) == wrong


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_no_bytes_crash_the_reader_of_key_exchanges(client: bytes, server: bytes) -> None:
    assert guessed_wrong(client, server) in {True, False}
    assert len(name_lists(client)) <= 10
