"""Why: what is unknown is not taken back, and what is taken back is no more than what was given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api.records import CertificateRecord
from api.shares import Standing, taken_back, why_not
from ca.names import Server
from ca.revocation import Revocations

BOBS = CertificateRecord(
    serial=1,
    kind="user",
    user="bob",
    fingerprint="SHA256:x",
    principals=("alice/gpu:17", "bob/:18"),
    valid_after=0,
    valid_before=9,
    issued_at=0,
    how="page",
    user_made="2026",
)
GPU = frozenset({Server("alice", "gpu")})


@pytest.mark.parametrize(
    ("now", "back"),
    [
        (Standing(made="2026", shared=GPU), frozenset()),
        (Standing(made="", shared=GPU), frozenset()),
        (Standing(made="2026", shared=None), frozenset()),
        (Standing(made="2026", shared=frozenset({Server("alice")})), GPU),
        (Standing(made="2026", admin=True, shared=frozenset()), GPU),
    ],
)
def test_unknown_is_not_taken_back(now: Standing, back: frozenset[Server]) -> None:
    assert taken_back(BOBS, now, Revocations()) == back
    assert why_not(BOBS, now, admin_ssh=True) is None


@pytest.mark.parametrize(
    ("now", "words"),
    [(Standing(made=None), "gone"), (Standing(made="2027", shared=GPU), "another has the name")],
)
def test_whoever_is_gone_holds_nothing(now: Standing, words: str) -> None:
    assert words in str(why_not(BOBS, now, admin_ssh=True))


def test_what_is_closed_already_is_not_taken_back_again() -> None:
    closed = Revocations(shares={"bob": dict.fromkeys(GPU, 1)})
    assert taken_back(BOBS, Standing(made="2026", shared=frozenset()), closed) == frozenset()


@pytest.mark.parametrize(
    ("admin", "admin_ssh", "stays"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_only_a_certificate_that_was_given_to_an_administrator_rests_on_that(
    admin: bool, admin_ssh: bool, stays: bool
) -> None:
    record = replace(BOBS, how="page as admin")
    now = Standing(made="2026", admin=admin, shared=GPU)
    assert (why_not(record, now, admin_ssh=admin_ssh) is None) == stays
    assert taken_back(record, replace(now, shared=frozenset()), Revocations()) == frozenset()
