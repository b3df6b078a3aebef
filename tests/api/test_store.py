"""Why: a certificate without its record cannot be revoked, and a lost table must not revive a revoked one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import Pool

from api import listings, transactions
from api.database import Meta, read_meta
from api.errors import StoreUnavailable
from api.statements import REVOCATION_HORIZON_MS
from api.store import KEEP_MS, CertificateRecord, Enrolment, Store
from ca.errors import Reason, Refusal
from ca.keys import PublicKey, parse_public_key
from ca.names import Instance, Server
from ca.revocation import make_serial
from tests.support.ports import new_key
from tests.support.postgresql import binaries, running_postgresql

NOW = 1_800_000_000_000
ALICE = Instance(Server("alice", "gpu"), 1_799_999_999_000_000)


@pytest.fixture
async def lite(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(f"sqlite+aiosqlite:///{tmp_path}/api.sqlite", tmp_path) as store:
        await store.open(NOW)
        yield store


def key() -> PublicKey:
    return parse_public_key(new_key())


def record(at: int = NOW, user: str = "alice", random_bits: int = 7, kind: str = "user") -> CertificateRecord:
    return CertificateRecord(
        serial=make_serial(at, random_bits),
        kind=kind,
        user=user,
        fingerprint=key().fingerprint,
        principals=(ALICE.principal, "ünï/:5"),
        valid_after=at // 1000 - 60,
        valid_before=at // 1000 + 3600,
        issued_at=at,
        how="page",
        address="127.0.0.1",
    )


def checkpoint(file: Path) -> None:
    """Move everything from the write-ahead log to the file."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def enrolment(instance: Instance = ALICE, host_key: PublicKey | None = None, port: int = 40222) -> Enrolment:
    return Enrolment(instance, host_key or key(), "127.0.0.1", port, 40080, "jovyan", enrolled_at=NOW)


async def test_what_is_committed_while_the_mark_is_read_is_no_loss(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else everybody is refused for a moment, and operators read of a loss that there was not."""

    async def read_then_written(connection: AsyncConnection) -> Meta | None:
        meta = await read_meta(connection)
        await store.record(record())
        return meta

    monkeypatch.setattr(transactions, "read_meta", read_then_written)
    with structlog.testing.capture_logs() as lines:
        await store.refresh(NOW)
    assert "database_lost" not in {line["event"] for line in lines}


async def test_a_new_database_counts_nothing_that_was_issued_before(store: Store) -> None:
    snapshot = store.snapshot
    assert (snapshot.meta.everyone_before, len(snapshot.meta.epoch), snapshot.enrolments) == (NOW, 32, ())
    assert snapshot.revocations.refuses(make_serial(NOW - 1, 0), "alice", [ALICE]) == "everyone"
    assert snapshot.revocations.refuses(make_serial(NOW, 0), "alice", [ALICE]) is None
    assert store.problem is None


async def test_what_was_recorded_is_found_by_its_owner_until_it_ends(store: Store) -> None:
    mine, older, other = record(), record(NOW - 9, random_bits=8), record(user="bob", random_bits=9)
    for one in (mine, older, other, record(random_bits=10, kind="host")):
        await store.record(one)
    assert await store.certificates_of("alice", NOW / 1000) == (mine, older)
    assert await store.certificate(other.serial) == other
    assert await store.certificate(1) is None
    assert await store.certificates_of("alice", mine.valid_before) == ()


async def test_one_serial_is_never_recorded_twice(store: Store) -> None:
    await store.record(record())
    with pytest.raises(StoreUnavailable):
        await store.record(record())
    assert len(await store.certificates_of("alice", NOW / 1000)) == 1


async def test_revocations_are_in_the_snapshot_at_once(store: Store) -> None:
    await store.revoke_serial(make_serial(NOW, 5), "alice", "lost laptop", NOW)
    await store.revoke_user("bob", "admin", "left", NOW)
    await store.revoke_user("bob", "admin", "left", NOW - 50)
    await store.revoke_server(ALICE.server, "admin", "moved", NOW)
    revoked = store.snapshot.revocations
    assert revoked.serials == {make_serial(NOW, 5)}
    assert revoked.users == {"bob": NOW + 1}
    assert revoked.servers == {ALICE.server: NOW + 1}
    await store.revoke_everyone(NOW + 5)
    assert store.snapshot.revocations.everyone_before == NOW + 6


async def test_the_revocation_of_what_has_long_ended_leaves_the_list_and_later_the_table(store: Store) -> None:
    await store.record(record())
    await store.revoke_user("bob", "admin", "left", NOW)
    later = NOW + REVOCATION_HORIZON_MS + 1
    await store.revoke_user("carol", "admin", "left", later)
    assert set(store.snapshot.revocations.users) == {"carol"}
    assert await store.certificate(record().serial) is not None
    await store.refresh(NOW + KEEP_MS + 7200 * 1000)
    assert await store.certificate(record().serial) is None


async def test_an_enrolment_is_listed_until_it_ends(store: Store) -> None:
    new = enrolment()
    assert await store.enrol(new, "a" * 64) == new
    assert store.snapshot.enrolments == (new,)
    await store.mark_ready([ALICE], NOW)
    assert [one.seen_ready for one in store.snapshot.enrolments] == [True]
    await store.end_enrolments([ALICE], "stopped", NOW)
    assert store.snapshot.enrolments == ()
    assert await store.withdraw("a" * 64, NOW) == ALICE
    assert await store.withdraw("b" * 64, NOW) is None


async def test_a_second_host_key_and_a_key_of_another_server_conflict(store: Store) -> None:
    first = enrolment()
    await store.enrol(first, "a" * 64)
    bob = Instance(Server("bob"), 5)
    for answer in (
        await store.enrol(enrolment(), "b" * 64),
        await store.enrol(enrolment(bob, first.host_key), "c" * 64),
    ):
        assert isinstance(answer, Refusal)
        assert answer.reason is Reason.HOST_KEY_CONFLICT
    assert store.snapshot.enrolments == (first,)
    await store.end_enrolments([ALICE], "stopped", NOW)
    assert isinstance(await store.enrol(enrolment(bob, first.host_key), "c" * 64), Enrolment)


async def test_replicas_see_each_others_writes(stores: Callable[[str], Store]) -> None:
    one, two = stores("one"), stores("two")
    await one.open(NOW)
    await two.open(NOW + 5)
    assert two.snapshot.meta.epoch == one.snapshot.meta.epoch
    assert two.snapshot.meta.everyone_before == NOW
    await one.enrol(enrolment(), "a" * 64)
    await one.revoke_user("bob", "admin", "left", NOW)
    await two.refresh(NOW)
    assert two.snapshot.enrolments == one.snapshot.enrolments
    assert two.snapshot.revocations.users == {"bob": NOW + 1}


async def test_a_database_that_knows_less_than_was_once_written_counts_nothing(
    stores: Callable[[str], Store], address: str
) -> None:
    store = stores("state")
    await store.open(NOW)
    before = store.snapshot.meta
    await store.revoke_user("bob", "admin", "left", NOW)
    engine = create_async_engine(address)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE meta SET high_water = 1"))
        await connection.execute(text("DELETE FROM revocations"))
    await engine.dispose()
    with pytest.raises(StoreUnavailable):
        await store.record(record())
    await store.refresh(NOW + 1000)
    after = store.snapshot.meta
    assert (after.everyone_before, after.epoch != before.epoch) == (NOW + 1000, True)
    await store.record(record(NOW + 1000))


async def test_a_restored_copy_is_noticed_at_the_next_start(tmp_path: Path) -> None:
    address, file = f"sqlite+aiosqlite:///{tmp_path}/api.sqlite", tmp_path / "api.sqlite"
    async with Store(address, tmp_path) as store:
        await store.open(NOW)
        epoch = store.snapshot.meta.epoch
    shutil.copy(file, tmp_path / "backup")
    async with Store(address, tmp_path) as store:
        await store.open(NOW)
        assert store.snapshot.meta.epoch == epoch
        await store.revoke_user("bob", "admin", "left", NOW)
    shutil.copy(tmp_path / "backup", file)
    async with Store(address, tmp_path) as store:
        await store.open(NOW + 1000)
        assert store.snapshot.meta.epoch != epoch
        assert store.snapshot.meta.everyone_before == NOW + 1000


@pytest.mark.parametrize("with_the_mark", [True, False])
async def test_a_restored_copy_of_everything_is_noticed_when_a_bastion_says_what_it_was_told(
    tmp_path: Path, with_the_mark: bool
) -> None:
    """The mark outside the database is of no use where it was restored as well, or lost as in an `emptyDir`."""
    state, backup = tmp_path / "state", tmp_path / "backup"
    state.mkdir()
    address = f"sqlite+aiosqlite:///{state}/api.sqlite"
    stolen = record(NOW + 1)
    async with Store(address, state) as store:
        await store.open(NOW)
        await store.record(stolen)
    shutil.copytree(state, backup)
    async with Store(address, state) as store:
        before = await store.open(NOW + 2)
        await store.revoke_serial(stolen.serial, "alice", "laptop stolen", NOW + 3)
        told = store.snapshot.meta.high_water
    shutil.rmtree(state)
    shutil.copytree(backup, state)
    if not with_the_mark:
        (state / "high-water").unlink()
    async with Store(address, state) as store:
        await store.open(NOW + 1000)
        await store.seen(told - 1, NOW + 2000)
        restored = store.snapshot.meta
        await store.seen(told, NOW + 3000)
        after = store.snapshot.meta
        assert (after.everyone_before, after.epoch != before.meta.epoch) == (NOW + 3000, True)
        assert restored.high_water < told < after.high_water
        assert store.snapshot.revocations.refuses(stolen.serial, stolen.user, (ALICE,))
        await store.seen(after.high_water, NOW + 4000)
        assert store.snapshot.meta.everyone_before == NOW + 3000


async def test_a_log_out_is_known_to_every_replica_and_lists_nothing_as_revoked(
    stores: Callable[[str], Store],
) -> None:
    one, two = stores("one"), stores("two")
    await one.open(NOW)
    await two.open(NOW)
    await one.log_out("session-id", "alice", NOW)
    assert one.has_logged_out("session-id")
    await two.refresh(NOW + 1)
    assert two.has_logged_out("session-id")
    assert not two.has_logged_out("another")
    assert two.snapshot.revocations == one.snapshot.revocations
    assert two.snapshot.revocations.users == {}
    assert await listings.revocations(two, NOW + 1) == ()


async def test_a_bastion_that_was_told_by_a_quicker_replica_restores_nothing(
    stores: Callable[[str], Store],
) -> None:
    one, two = stores("one"), stores("two")
    await one.open(NOW)
    await two.open(NOW)
    await one.revoke_user("bob", "admin", "left", NOW)
    await two.seen(one.snapshot.meta.high_water, NOW + 5)
    assert two.snapshot.meta == one.snapshot.meta


async def test_a_file_deleted_under_a_running_service_is_made_anew_and_counts_nothing(
    lite: Store, tmp_path: Path
) -> None:
    await lite.enrol(enrolment(), "a" * 64)
    before = lite.snapshot.meta
    (tmp_path / "api.sqlite").unlink()
    with pytest.raises(StoreUnavailable):
        await lite.record(record())
    with pytest.raises(StoreUnavailable):
        await lite.certificates_of("alice", NOW / 1000)
    await lite.refresh(NOW + 1000)
    assert lite.snapshot.meta.epoch != before.epoch
    assert (lite.snapshot.meta.everyone_before, lite.snapshot.enrolments) == (NOW + 1000, ())
    await lite.record(record(NOW + 1000))
    assert len(await lite.certificates_of("alice", NOW / 1000)) == 1


async def test_a_file_replaced_by_an_old_copy_counts_nothing(lite: Store, tmp_path: Path) -> None:
    file = tmp_path / "api.sqlite"
    checkpoint(file)
    shutil.copy(file, tmp_path / "copy")
    await lite.revoke_user("bob", "admin", "left", NOW)
    (tmp_path / "copy").replace(file)
    await lite.refresh(NOW + 1000)
    assert lite.snapshot.meta.everyone_before == NOW + 1000
    await lite.record(record(NOW + 1000))
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_an_emptied_file_is_filled_again_and_counts_nothing(lite: Store, tmp_path: Path) -> None:
    checkpoint(tmp_path / "api.sqlite")
    os.truncate(tmp_path / "api.sqlite", 0)
    for attempt in range(3):
        try:
            await lite.refresh(NOW + 1000 + attempt)
            break
        except StoreUnavailable:
            assert lite.problem is not None
    assert lite.snapshot.meta.everyone_before >= NOW + 1000
    await lite.record(record(NOW + 2000))


async def test_a_file_that_is_no_database_is_said_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "api.sqlite").write_bytes(b"precious, whatever it is" * 100)
    store = Store(f"sqlite+aiosqlite:///{tmp_path}/api.sqlite", tmp_path)
    with pytest.raises(StoreUnavailable):
        await store.open(NOW)
    assert store.problem is not None
    await store.close()
    assert (tmp_path / "api.sqlite").read_bytes().startswith(b"precious")


async def test_a_full_disk_hands_nothing_out_and_ends_by_itself(tmp_path: Path) -> None:
    full = False

    def limit(connection: object, _record: object) -> None:
        if full:
            cursor = connection.cursor()  # type: ignore[attr-defined]
            cursor.execute("PRAGMA max_page_count = 1")
            cursor.close()

    event.listen(Pool, "connect", limit)
    try:
        async with Store(f"sqlite+aiosqlite:///{tmp_path}/api.sqlite", tmp_path) as store:
            await store.open(NOW)
            await store.close()
            full = True
            await store.refresh(NOW)
            written = 0
            with pytest.raises(StoreUnavailable):  # noqa: PT012 - how many fit is not known
                for number in range(1000):
                    await store.record(record(random_bits=number))
                    written += 1
            full = False
            await store.close()
            await store.refresh(NOW)
            assert len(await store.certificates_of("alice", NOW / 1000)) == written
            await store.record(record(random_bits=2000))
    finally:
        event.remove(Pool, "connect", limit)


async def test_a_database_that_somebody_keeps_locked_hands_nothing_out(
    lite: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.database._BUSY_MS", 50)
    await lite.close()
    await lite.refresh(NOW)
    with closing(sqlite3.connect(tmp_path / "api.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await lite.record(record())
        other.execute("ROLLBACK")
    await lite.record(record())
    assert len(await lite.certificates_of("alice", NOW / 1000)) == 1


async def test_nobody_else_can_read_the_database(lite: Store, tmp_path: Path) -> None:
    await lite.record(record())
    await lite.refresh(NOW)
    files = sorted(tmp_path.iterdir())
    assert {"api.sqlite", "high-water"} <= {file.name for file in files}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_a_database_server_that_is_away_is_said_and_found_again(tmp_path: Path) -> None:
    if binaries() is None:
        pytest.skip("PostgreSQL's server (initdb, postgres) is not installed")
    with running_postgresql(tmp_path) as address:
        store = Store(address, tmp_path)
        await store.open(NOW)
        await store.enrol(enrolment(), "a" * 64)
    with pytest.raises(StoreUnavailable):
        await store.refresh(NOW)
    assert store.problem is not None
    assert len(store.snapshot.enrolments) == 1
    with pytest.raises(StoreUnavailable):
        await store.record(record())
    await store.close()
