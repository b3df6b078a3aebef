"""Why: what was revoked once must never count again, whichever of the rows says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.names import Instance, Server
from ca.revocation import Revocations, issued_ms, make_serial

ALICE, GPU = Instance(Server("alice"), 1), Instance(Server("alice", "gpu"), 2)
SERIAL = make_serial(1_000_000, 5)


@given(st.integers(1, (1 << 43) - 1), st.integers(0, 1 << 64))
def test_a_serial_tells_when_it_was_made_and_fits_a_signed_64_bit_number(now_ms: int, random_bits: int) -> None:
    serial = make_serial(now_ms, random_bits)
    assert issued_ms(serial) == now_ms
    assert 0 < serial < 1 << 63


@given(st.integers(1, 1 << 42), st.integers(0, (1 << 20) - 1), st.integers(0, (1 << 20) - 1))
def test_serials_grow_with_time_whatever_their_random_bits(now_ms: int, one: int, other: int) -> None:
    assert make_serial(now_ms, one) < make_serial(now_ms + 1, other)


@pytest.mark.parametrize(
    ("revocations", "why"),
    [
        (Revocations(), None),
        (Revocations(serials=frozenset({SERIAL})), "serial"),
        (Revocations(serials=frozenset({SERIAL + 1})), None),
        (Revocations(users={"alice": 1_000_001}), "user"),
        (Revocations(users={"alice": 1_000_000}), None),
        (Revocations(users={"bob": 1_000_001}), None),
        (Revocations(servers={ALICE.server: 1_000_001, GPU.server: 1_000_001}), "server"),
        (Revocations(servers={ALICE.server: 1_000_001}), None),
        (Revocations(shares={"alice": {GPU.server: 1_000_001}}), None),
        (Revocations(shares={"alice": {ALICE.server: 1_000_000, GPU.server: 1_000_001}}), None),
        (Revocations(shares={"alice": {ALICE.server: 1_000_001, GPU.server: 1_000_001}}), "server"),
        (Revocations(shares={"bob": {ALICE.server: 1_000_001, GPU.server: 1_000_001}}), None),
        (Revocations(servers={ALICE.server: 1_000_001}, shares={"alice": {GPU.server: 1_000_001}}), "server"),
        (Revocations(everyone_before=1_000_001), "everyone"),
        (Revocations(everyone_before=1_000_000), None),
    ],
)
def test_each_row_refuses_what_it_names_and_nothing_else(revocations: Revocations, why: str | None) -> None:
    assert revocations.refuses(SERIAL, "alice", (ALICE, GPU)) == why


def test_a_servers_watermark_takes_that_server_away_and_leaves_the_others() -> None:
    revocations = Revocations(servers={ALICE.server: 1_000_001})
    assert revocations.living(SERIAL, "alice", (ALICE, GPU)) == (GPU,)
    assert revocations.refuses(SERIAL, "alice", iter((ALICE,))) == "server"


def test_a_shares_watermark_takes_one_server_away_from_one_user_until_the_next_certificate() -> None:
    revocations = Revocations(shares={"bob": {GPU.server: 1_000_001}})
    assert revocations.living(SERIAL, "bob", (ALICE, GPU)) == (ALICE,)
    assert revocations.living(SERIAL, "alice", (ALICE, GPU)) == (ALICE, GPU)
    assert revocations.living(make_serial(1_000_001, 5), "bob", (ALICE, GPU)) == (ALICE, GPU)


def test_the_watermark_for_everybody_names_nobody() -> None:
    assert Revocations(everyone_before=1 << 60).names(SERIAL, "alice") is None
    assert Revocations(everyone_before=1 << 60).refuses(SERIAL, "alice", ()) == "everyone"
    assert Revocations().refuses(SERIAL, "alice", ()) is None
