"""Why: what bastions report goes through SQL that two databases must understand alike, and replicas share it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import insert, select

from api import tables
from api.errors import StoreUnavailable
from api.records import CertificateRecord, Snapshot
from api.shares import foreign_since
from api.sightings import LIVE_MS, Reported, Sightings
from api.store import Store
from ca.errors import Refusal
from ca.names import Server
from ca.sessions import public_name
from tests.api.conftest import NOW

ONE, OTHER = "1" * 32, "2" * 32
SESSION = Reported(
    id="aa",
    user="Zoë\u0001",
    identity="Zoë\u0001",
    login="zo=c3=ab+gpu",
    instance="1763000000000000",
    serial="9223372036854775807",
    mode="direct",
    how="certificate",
    peer="2001:db8::7",
    since=1763000000.25,
    received=(1 << 63) - 1,
    sent=0,
)


async def known(sightings: Sightings, now_ms: int = NOW) -> dict[str, Reported]:
    return {one.name: one.told for one in await sightings.everybodys(now_ms)}


async def test_a_report_comes_back_as_it_was(store: Store) -> None:
    sightings = Sightings(store)
    assert await sightings.hear(ONE, [SESSION], NOW) is None
    (found,) = await sightings.everybodys(NOW)
    assert found.told == SESSION
    assert found.server == Server("zoë", "gpu")
    assert found.name == public_name(ONE, "aa")


async def test_two_replicas_take_reports_of_one_process_in_turn(stores: Callable[[str], Store]) -> None:
    first, second = stores("first"), stores("second")
    for store in (first, second):
        await store.open(NOW)
    here, there = Sightings(first), Sightings(second)
    for number in range(4):
        taker = (here, there)[number % 2]
        await taker.hear(ONE, [replace(SESSION, id=f"a{number}")], NOW)  # all in the same millisecond
        for reader in (here, there):
            assert set(await known(reader)) == {public_name(ONE, f"a{number}")}
    await there.hear(OTHER, [SESSION], NOW)
    assert len(await known(here)) == 2


async def test_rows_of_processes_that_are_gone_are_not_kept(store: Store) -> None:
    sightings = Sightings(store)
    await sightings.hear(ONE, [SESSION], NOW)
    later = NOW + LIVE_MS
    assert await known(sightings, later) == {}
    await sightings.hear(OTHER, [], later + 3600 * 1000)
    async with store.reading() as connection:
        assert len((await connection.execute(select(tables.bastions.c.id))).all()) == 1


async def test_what_is_ended_is_in_the_state_of_every_replica(stores: Callable[[str], Store]) -> None:
    first, second = stores("first"), stores("second")
    for store in (first, second):
        await store.open(NOW)
    await Sightings(first).end("0" * 32, "Zoë", NOW)
    assert first.snapshot.ended_sessions == {"0" * 32: "Zoë"}
    assert (await second.refresh(NOW + 1000)).ended_sessions == {"0" * 32: "Zoë"}


async def test_what_was_ended_is_done_also_when_the_database_goes_away_right_after(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh, asked = store.refresh, 0

    async def away(now_ms: int) -> Snapshot:
        nonlocal asked
        asked += 1
        raise StoreUnavailable("The database cannot be used at the moment.")

    monkeypatch.setattr(store, "refresh", away)
    await Sightings(store).end("0" * 32, "Zoë", NOW)
    assert asked == 1
    assert (await refresh(NOW + 1000)).ended_sessions == {"0" * 32: "Zoë"}


async def test_too_many_processes_are_refused(store: Store) -> None:
    rows = [{"id": f"{number:064x}", "seen_at": NOW, "sessions": []} for number in range(256)]
    async with store.noting() as connection:
        await connection.execute(insert(tables.bastions), rows)
    assert isinstance(await Sightings(store).hear(ONE, [], NOW), Refusal)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, True),
        ({"principals": ("bob/:17", "alice/gpu:17")}, True),
        ({"principals": ("bobby/:17",)}, True),
        ({"principals": ("bob/:17", "bob/gpu:18")}, False),
        ({"kind": "host"}, False),
        ({"valid_before": NOW // 1000}, False),
        ({"issued_at": NOW - 9}, False),
    ],
)
async def test_new_certificates_for_others_servers_are_found(
    store: Store, change: dict[str, object], found: bool
) -> None:
    record = CertificateRecord(
        serial=17,
        kind="user",
        user="bob",
        fingerprint="SHA256:x",
        principals=("alice/gpu:17",),
        valid_after=0,
        valid_before=NOW // 1000 + 60,
        issued_at=NOW,
        how="page",
    )
    record = replace(record, **change)  # type: ignore[arg-type]
    await store.record(record)
    assert await foreign_since(store, NOW - 5, NOW / 1000) == ((record,) if found else ())
