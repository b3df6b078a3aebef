"""Why: these files are the whole trust of a site; they are made once, never half, and never where others read them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import asyncssh
import pytest

from ca import keyfiles
from ca.errors import KeyFileError
from ca.keyfiles import NAMES, AuthorityKeys, check_private, open_authority, read_private, rotate

EVERY_FILE = {"current", "current.pub", "next", "next.pub"}


def blobs(keys: AuthorityKeys) -> list[bytes]:
    return [key.blob for key in keys.public]


def write_key(path: Path, algorithm: str = "ssh-ed25519") -> None:
    path.write_bytes(asyncssh.generate_private_key(algorithm).export_private_key("openssh"))
    path.chmod(0o600)


def test_the_first_start_makes_private_keys_that_only_their_owner_reads(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "state"
    keys = open_authority(directory, "user", None)
    folder = directory / "user"
    assert {one.name for one in folder.iterdir()} == EVERY_FILE
    assert stat.S_IMODE(directory.stat().st_mode) == stat.S_IMODE(folder.stat().st_mode) == 0o700
    for part in ("current", "next"):
        assert stat.S_IMODE((folder / part).stat().st_mode) == 0o600
        assert asyncssh.read_private_key(folder / part).public_data == keys.public[part == "next"].blob
    assert keys.signing.public_data == keys.current.blob == keys.public[0].blob
    assert len(set(blobs(keys))) == 2


def test_the_second_start_reads_what_the_first_made(tmp_path: Path) -> None:
    assert open_authority(tmp_path, "hop", None).public == open_authority(tmp_path, "hop", None).public


def test_ssh_keygen_reads_the_keys(tmp_path: Path) -> None:
    keys = open_authority(tmp_path, "host", None)
    for part, key in zip(("current", "next"), keys.public, strict=True):
        done = subprocess.run(
            ["ssh-keygen", "-y", "-f", str(tmp_path / "host" / part)], capture_output=True, text=True, check=True
        )
        assert done.stdout.split()[:2] == key.line.split()


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o606, 0o640, 0o660, 0o620, 0o610, 0o644, 0o777])
@pytest.mark.parametrize("part", ["current", "next"])
def test_a_key_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int, part: str) -> None:
    open_authority(tmp_path, "user", None)
    (tmp_path / "user" / part).chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}.*chmod 600"):
        open_authority(tmp_path, "user", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_key_file_that_another_user_owns_is_refused(tmp_path: Path) -> None:
    open_authority(tmp_path, "user", None)
    os.chown(tmp_path / "user" / "current", 12345, -1)
    with pytest.raises(KeyFileError, match="belongs to another user"):
        open_authority(tmp_path, "user", None)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_file_of_ones_own_is_read(tmp_path: Path, mode: int) -> None:
    open_authority(tmp_path, "user", None)
    (tmp_path / "user" / "current").chmod(mode)
    open_authority(tmp_path, "user", None)


def test_one_group_may_read_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_key(path)
    group = path.stat().st_gid
    path.chmod(0o440)
    check_private(path, group)
    for other in (None, group + 1):
        with pytest.raises(KeyFileError, match="by its group"):
            check_private(path, other)
    for mode in (0o460, 0o450, 0o470):
        path.chmod(mode)
        with pytest.raises(KeyFileError, match="by its group"):
            check_private(path, group)
    path.chmod(0o444)
    with pytest.raises(KeyFileError, match="by others"):
        check_private(path, group)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("folder", "pipe"):
        with pytest.raises(KeyFileError, match="not a regular file"):
            check_private(tmp_path / name, None)
    with pytest.raises(KeyFileError, match="No such file"):
        check_private(tmp_path / "missing", None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"\xff\xfe\0",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        asyncssh.generate_private_key("ssh-ed25519").export_public_key("openssh"),
        asyncssh.generate_private_key("ssh-ed25519").export_private_key("pkcs8-pem", "secret"),
        asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_private_key("openssh"),
        asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh")[:150],
    ],
)
def test_a_file_that_is_no_plain_ed25519_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="is not an") as caught:
        read_private(path, None)
    assert "AAAA" not in str(caught.value)


def test_a_key_encrypted_by_ssh_keygen_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)], check=True)
    with pytest.raises(KeyFileError, match="unencrypted"):
        read_private(path, None)


@pytest.mark.parametrize("part", ["current", "next"])
def test_a_public_key_that_is_not_its_private_keys_is_refused(tmp_path: Path, part: str) -> None:
    open_authority(tmp_path, "user", None)
    open_authority(tmp_path, "hop", None)
    shutil.copy(tmp_path / "hop" / "current.pub", tmp_path / "user" / f"{part}.pub")
    with pytest.raises(KeyFileError, match=rf"{part}\.pub is not the public key"):
        open_authority(tmp_path, "user", None)


@pytest.mark.parametrize("name", ["current.pub", "next.pub", "previous.pub"])
def test_a_public_key_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    rotate(tmp_path, "user", None)
    (tmp_path / "user" / name).write_bytes(b"\xff garbage")
    with pytest.raises(KeyFileError, match="not an ed25519 public key"):
        open_authority(tmp_path, "user", None)


@pytest.mark.parametrize("name", sorted(EVERY_FILE))
def test_a_missing_file_is_refused_and_not_made_anew(tmp_path: Path, name: str) -> None:
    open_authority(tmp_path, "user", None)
    (tmp_path / "user" / name).unlink()
    with pytest.raises(KeyFileError):
        open_authority(tmp_path, "user", None)
    assert not (tmp_path / "user" / name).exists()


def test_a_link_that_leads_nowhere_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    open_authority(tmp_path, "user", None)
    (tmp_path / "user.1").rename(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="folder that is gone"):
        open_authority(tmp_path, "user", None)
    assert not (tmp_path / "user.1").exists()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyFileError, match="cannot be made"):
        open_authority(tmp_path / "file" / "state", "user", None)


def test_keys_managed_from_outside_are_read_and_not_rotated(tmp_path: Path) -> None:
    open_authority(tmp_path / "made", "user", None)
    plain, linked = tmp_path / "plain", tmp_path / "linked"
    shutil.copytree(tmp_path / "made" / "user", plain / "user")
    linked.mkdir()
    (linked / "user").symlink_to(plain / "user")
    for directory in (plain, linked):
        assert open_authority(directory, "user", None).public == open_authority(tmp_path / "made", "user", None).public
        with pytest.raises(KeyFileError, match="managed from outside"):
            rotate(directory, "user", None)


def test_an_unknown_ca_is_not_rotated(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="user, host, hop"):
        rotate(tmp_path, "../user", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_rotation_moves_every_key_one_step(tmp_path: Path, name: str) -> None:
    first = open_authority(tmp_path, name, None)
    second = rotate(tmp_path, name, None)
    assert second.current == first.public[1]
    assert second.public[2] == first.current
    assert second.public[1] not in first.public
    assert second.generation != first.generation
    third = rotate(tmp_path, name, None)
    assert third.current == second.public[1]
    assert third.public[2] == second.current
    assert first.current not in third.public
    assert third.public == open_authority(tmp_path, name, None).public


def test_a_rotation_keeps_no_private_key_that_no_longer_signs(tmp_path: Path) -> None:
    old = open_authority(tmp_path, "user", None).signing.export_private_key("openssh")
    rotate(tmp_path, "user", None)
    files = [one for one in tmp_path.rglob("*") if one.is_file() and not one.is_symlink()]
    assert all(one.read_bytes() != old for one in files)
    assert {one.name for one in (tmp_path / "user").iterdir()} == EVERY_FILE | {"previous.pub"}
    assert {one.name for one in tmp_path.iterdir()} == {"user", "user.2", ".lock"}
    for part in ("current", "next"):
        assert stat.S_IMODE((tmp_path / "user" / part).stat().st_mode) == 0o600


@pytest.mark.parametrize("left", [[], ["current"], ["current", "current.pub", "previous.pub"]])
def test_a_rotation_that_died_half_way_does_no_harm(tmp_path: Path, left: list[str]) -> None:
    first = open_authority(tmp_path, "user", None)
    half = tmp_path / "user.2"
    half.mkdir(mode=0o700)
    for name in left:
        write_key(half / name)
    (tmp_path / ".user.link").symlink_to("user.2")
    assert open_authority(tmp_path, "user", None).public == first.public
    second = rotate(tmp_path, "user", None)
    assert second.current == first.public[1]
    assert {one.name for one in tmp_path.iterdir()} == {"user", "user.2", ".lock"}


def test_a_rotation_that_died_before_it_tidied_up_is_tidied_up_by_the_next(tmp_path: Path) -> None:
    open_authority(tmp_path, "user", None)
    shutil.copytree(tmp_path / "user.1", tmp_path / "kept")
    second = rotate(tmp_path, "user", None)
    (tmp_path / "kept").rename(tmp_path / "user.1")
    assert open_authority(tmp_path, "user", None).public == second.public
    rotate(tmp_path, "user", None)
    assert {one.name for one in tmp_path.iterdir()} == {"user", "user.3", ".lock"}


def test_a_first_start_that_died_half_way_does_no_harm(tmp_path: Path) -> None:
    half = tmp_path / "user.1"
    half.mkdir(mode=0o700)
    write_key(half / "current")
    keys = open_authority(tmp_path, "user", None)
    assert len(keys.public) == 2


def test_keys_that_lost_their_link_are_found_again(tmp_path: Path) -> None:
    first = rotate(tmp_path, "user", None)
    (tmp_path / "user").unlink()
    assert open_authority(tmp_path, "user", None).public == first.public


def test_keys_that_lost_their_link_are_not_guessed_at(tmp_path: Path) -> None:
    open_authority(tmp_path, "user", None)
    shutil.copytree(tmp_path / "user.1", tmp_path / "user.2")
    (tmp_path / "user").unlink()
    with pytest.raises(KeyFileError, match="several folders"):
        open_authority(tmp_path, "user", None)
    assert (tmp_path / "user.1").exists()


def test_a_rotation_on_a_full_disk_is_said_and_leaves_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_authority(tmp_path, "user", None)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(KeyFileError, match=r"cannot be rotated.*No space left"):
            rotate(tmp_path, "user", None)
    assert open_authority(tmp_path, "user", None).public == first.public
    assert rotate(tmp_path, "user", None).current == first.public[1]


OPEN = """
import sys
from pathlib import Path
from ca.keyfiles import open_authority, rotate
sys.stdin.readline()
action = rotate if sys.argv[1] == "rotate" else open_authority
for name in ("user", "host", "hop"):
    print(*(key.fingerprint for key in action(Path(sys.argv[2]), name, None).public))
"""


def start_together(action: str, directory: Path, count: int) -> list[list[list[str]]]:
    """What that many processes, let go at one moment, each found: a line of fingerprints for each CA."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, action, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return [[line.split() for line in text.splitlines()] for text in found]


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    found = start_together("open", tmp_path / "state", 4)
    assert all(one == found[0] for one in found)
    assert len({key for line in found[0] for key in line}) == 6
    assert {one.name for one in (tmp_path / "state").iterdir()} == {*NAMES, *(f"{name}.1" for name in NAMES), ".lock"}


def test_keys_rotated_while_they_are_read_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_authority(tmp_path, "user", None)
    read = keyfiles.read_private
    rotated: list[AuthorityKeys | None] = []

    def read_during_a_rotation(path: Path, group: int | None) -> asyncssh.SSHKey:
        if not rotated:
            rotated.append(None)
            rotated[0] = rotate(tmp_path, "user", None)
        return read(path, group)

    monkeypatch.setattr(keyfiles, "read_private", read_during_a_rotation)
    found = open_authority(tmp_path, "user", None)
    assert rotated[0] is not None
    assert found.public == rotated[0].public


def test_who_waited_for_another_first_start_makes_nothing(tmp_path: Path) -> None:
    first = open_authority(tmp_path, "user", None)
    keyfiles._make_first(tmp_path, "user")
    assert open_authority(tmp_path, "user", None).public == first.public


def test_rotations_at_once_happen_one_after_the_other(tmp_path: Path) -> None:
    before = [open_authority(tmp_path, name, None) for name in NAMES]
    start_together("rotate", tmp_path, 2)
    for old, name in zip(before, NAMES, strict=True):
        new = open_authority(tmp_path, name, None)
        assert new.generation == str(tmp_path / f"{name}.3")
        assert new.public[2] == old.public[1]


def test_a_key_shows_no_secret(tmp_path: Path) -> None:
    keys = open_authority(tmp_path, "user", None)
    assert "signing" not in repr(keys)
    assert "PRIVATE" not in repr(keys)
