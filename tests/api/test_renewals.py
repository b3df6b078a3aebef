"""Why: a renewal and a revocation meet in SQL, on whichever replica, and what is revoked there must stay so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from api import proof, renewals
from api.records import CertificateRecord
from api.renewals import RENEWED
from api.store import Store
from ca.errors import Reason, Refusal
from ca.names import Server
from ca.revocation import make_serial

NOW = 1_800_000_000_000
FIRST = CertificateRecord(
    make_serial(NOW + 10, 1),
    "user",
    "alice",
    "SHA256:x",
    ("alice/:5", "alice/gpu:5"),
    NOW // 1000,
    NOW // 1000 + 3600,
    NOW + 10,
    "device",
    "192.0.2.7",
    NOW // 1000,
    "2026-01-01",
)


def renewed(number: int = 1, *principals: str) -> CertificateRecord:
    at = NOW + 10 + number
    return replace(
        FIRST, serial=make_serial(at, number), issued_at=at, how=RENEWED, principals=principals or FIRST.principals
    )


async def keep(store: Store, record: CertificateRecord, presented: CertificateRecord = FIRST) -> Refusal | None:
    return await renewals.keep(store, presented, record, NOW + 100)


def reason(answer: Refusal | None) -> str:
    assert answer is not None
    return str(answer.reason)


async def test_a_renewal_is_remembered_and_goes_with_its_ancestors(store: Store) -> None:
    await store.record(FIRST)
    for number in (1, 2):
        assert await keep(store, renewed(number)) is None
    assert await store.certificate(renewed(1).serial) == renewed(1)
    others = (
        replace(renewed(3), fingerprint="SHA256:y"),
        replace(renewed(4), user="bob"),
        replace(renewed(5), login_at=NOW // 1000 - 900),
        replace(renewed(6), how="page"),
        replace(renewed(7), valid_before=NOW // 1000),
    )
    for one in others:
        await store.record(one)
    found = await renewals.renewed_from(store, FIRST, NOW + 100)
    assert {one.serial for one in found} == {renewed(1).serial, renewed(2).serial}
    found = await renewals.renewed_from(store, renewed(1), NOW + 100)
    assert {one.serial for one in found} == {renewed(2).serial}


async def test_another_replicas_revocation_counts_though_it_was_not_heard_of(stores: Callable[[str], Store]) -> None:
    one, two = stores("one"), stores("two")
    await one.open(NOW)
    await two.open(NOW)
    await one.record(FIRST)
    await two.revoke_server(Server("alice", "gpu"), "alice", "test", NOW + 50)
    assert reason(await keep(one, renewed(1))) == Reason.REVOKED
    assert await keep(one, renewed(2, "alice/:5")) is None
    await two.revoke_serial(FIRST.serial, "alice", "test", NOW + 60)
    assert reason(await keep(one, renewed(3, "alice/:5"))) == Reason.REVOKED
    await two.revoke_user("alice", "admin", "test", NOW + 70)
    second = renewed(2, "alice/:5")
    assert reason(await keep(one, renewed(4, "alice/:5"), second)) == Reason.REVOKED
    assert await one.certificate(renewed(4).serial) is None


async def test_only_so_many_renewals_of_a_key_count(
    stores: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewals, "MAX_COUNTING", 3)
    one, two = stores("one"), stores("two")
    await one.open(NOW)
    await two.open(NOW)
    answers = await asyncio.gather(*(keep((one, two)[number % 2], renewed(number)) for number in range(1, 9)))
    assert sum(answer is None for answer in answers) == 3
    assert {reason(answer) for answer in answers if answer is not None} == {"too_many"}


async def test_a_nonce_is_new_once_on_all_replicas(stores: Callable[[str], Store]) -> None:
    one, two = stores("one"), stores("two")
    await one.open(NOW)
    await two.open(NOW)
    for nonce in ("a" * 32, "b" * 32):
        tries = (proof.is_new((one, two)[number % 2], "17", nonce, NOW) for number in range(6))
        assert sorted(await asyncio.gather(*tries)) == [False] * 5 + [True]
    assert await proof.is_new(one, "18", "a" * 32, NOW)
