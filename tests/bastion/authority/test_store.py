"""What is remembered over a restart: whole or not at all, with its true age, and only if it can be believed."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bastion.authority import AuthorityStore, RawKeys, Word
from bastion.authority.store import FILE, REWRITE_SECONDS
from ca.limits import ALL
from tests.bastion.authority.states import REVOCATIONS, TRUST
from tests.support.clock import Clock

WORD = Word("hub", TRUST, REVOCATIONS, heard_at=90.0, raw_keys=RawKeys(True, ALL, {"bob": frozenset()}), mark=7)


def store(folder: Path, *, clock: float = 100.0, wall: float = 5000.0) -> AuthorityStore:
    return AuthorityStore(folder, clock=Clock(clock), wall=Clock(wall))


async def test_what_was_kept_is_known_after_a_restart_and_has_aged_meanwhile(tmp_path: Path) -> None:
    assert await store(tmp_path).keep(WORD)
    after = store(tmp_path, clock=7.0, wall=5100.0).load()
    assert after == replace(WORD, heard_at=7.0 - 110.0)


async def test_nothing_is_known_before_anything_was_kept(tmp_path: Path) -> None:
    assert store(tmp_path).load() is None


async def test_the_file_is_private_and_nothing_else_is_left_beside_it(tmp_path: Path) -> None:
    await store(tmp_path).keep(WORD)
    assert [(one.name, one.stat().st_mode & 0o777) for one in tmp_path.iterdir()] == [(FILE, 0o600)]


async def test_an_unchanged_word_is_written_again_only_when_its_age_on_disk_is_old(tmp_path: Path) -> None:
    kept = store(tmp_path)
    assert await kept.keep(WORD)
    assert not await kept.keep(replace(WORD, heard_at=WORD.heard_at + REWRITE_SECONDS - 1))
    assert await kept.keep(replace(WORD, heard_at=WORD.heard_at + REWRITE_SECONDS))


async def test_a_new_revocation_is_written_at_once(tmp_path: Path) -> None:
    kept = store(tmp_path)
    await kept.keep(WORD)
    more = replace(WORD, revocations=replace(REVOCATIONS, serials=frozenset({1})))
    assert await kept.keep(more)
    assert store(tmp_path).load() == more


async def test_a_file_from_the_future_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await store(tmp_path).keep(WORD)
    assert store(tmp_path, wall=4900.0).load() is None
    assert "future" in caplog.text


async def test_a_clock_that_was_set_back_a_little_makes_it_no_younger_than_now(tmp_path: Path) -> None:
    await store(tmp_path).keep(WORD)
    word = store(tmp_path, wall=4980.0).load()
    assert word is not None
    assert word.heard_at == 100.0


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
async def test_a_file_that_others_can_write_is_not_believed(tmp_path: Path, mode: int) -> None:
    await store(tmp_path).keep(WORD)
    (tmp_path / FILE).chmod(mode)
    assert store(tmp_path).load() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_a_file_of_another_user_is_not_believed(tmp_path: Path) -> None:
    await store(tmp_path).keep(WORD)
    os.chown(tmp_path / FILE, 12345, -1)
    assert store(tmp_path).load() is None


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"heard": "x"}', b'{"heard": NaN}'])
def test_a_damaged_file_is_as_none_and_said_in_the_log(
    tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_bytes(text)
    (tmp_path / FILE).chmod(0o600)
    assert store(tmp_path).load() is None
    assert "cannot be used" in caplog.text


async def test_a_file_without_a_readable_revocation_is_not_used_at_all(tmp_path: Path) -> None:
    await store(tmp_path).keep(WORD)
    body = json.loads((tmp_path / FILE).read_text())
    body["revocations"]["serials"].append("x")
    (tmp_path / FILE).write_text(json.dumps(body))
    assert store(tmp_path).load() is None


async def test_a_write_that_fails_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = store(tmp_path)
    await kept.keep(WORD)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        await kept.keep(replace(WORD, zone="other"))
    monkeypatch.undo()
    assert [one.name for one in tmp_path.iterdir()] == [FILE]
    assert store(tmp_path).load() == WORD
    assert await kept.keep(replace(WORD, zone="other"))
