"""The shared secret: only from a private file, and it does not print."""

import copy
import os
import pickle
from pathlib import Path

import pytest

from bastion.authority import Secret, read_secret
from ca.errors import KeyFileError

VALUE = "0123456789abcdef0123456789abcdef"


def write(folder: Path, text: bytes, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(text)
    path.chmod(mode)
    return path


def test_a_private_file_is_read_without_its_line_break(tmp_path: Path) -> None:
    assert read_secret(write(tmp_path, VALUE.encode() + b"\n")).reveal() == VALUE


@pytest.mark.parametrize("mode", [0o604, 0o601, 0o640, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_secret(write(tmp_path, VALUE.encode(), mode))


def test_a_group_that_the_operator_named_may_read_it(tmp_path: Path) -> None:
    path = write(tmp_path, VALUE.encode(), 0o640)
    assert read_secret(path, group=path.stat().st_gid).reveal() == VALUE
    with pytest.raises(KeyFileError):
        read_secret(path, group=path.stat().st_gid + 1)


@pytest.mark.parametrize("text", [b"", b"short", b"a" * 31, b"a" * 5000, b"a" * 32 + b" b", b"\xff" * 40])
def test_what_is_no_secret_is_refused_without_being_shown(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(KeyFileError) as caught:
        read_secret(write(tmp_path, text))
    assert "aaaa" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=os.strerror(2)):
        read_secret(tmp_path / "secret")


def test_it_does_not_print_and_is_not_stored() -> None:
    secret = Secret(VALUE)
    assert VALUE not in f"{secret} {secret!r} {[secret]}"
    for store in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            store(secret)
