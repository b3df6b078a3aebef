"""Why: /dev/shm and /tmp are everybody's: users fill and clean them, and what they have open over SSH must go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.notebook import Notebook, kill

SIZE = 1 << 20


def _in_mounts(notebook: Notebook, script: str) -> None:
    """Start the server where a shell's script has mounted something."""
    prefix = ("unshare", "--mount", "sh", "-euc", f'{script}\nexec "$@"', "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    notebook.prefix = prefix


@contextmanager
def _going_on(notebook: Notebook, key: Path) -> Iterator[Callable[[str], None]]:
    """A session that is open meanwhile; what to call with a line that it has to repeat."""
    with notebook.session(key, "cat") as session:

        def repeats(line: str) -> None:
            assert session.stdin is not None
            assert session.stdout is not None
            session.stdin.write(f"{line}\n".encode())
            session.stdin.flush()
            assert session.stdout.readline() == f"{line}\n".encode()

        repeats("before")
        yield repeats


def _cleaned(notebook: Notebook) -> None:
    shutil.rmtree(notebook.storage)


def test_a_folder_that_is_full_at_a_renewal_ends_no_session_and_the_renewal_is_made_up_for(notebook: Notebook) -> None:
    _in_mounts(notebook, f"mount -t tmpfs -o size={SIZE},mode=700 none '{notebook.runtime}'")
    notebook.start()
    key, filler = notebook.ready().certificate(), f"{notebook.runtime}/filler"
    with _going_on(notebook, key) as repeats:
        notebook.ssh(key, f"cat /dev/zero >'{filler}'")
        notebook.api.epoch = "bb11"
        notebook.wait_for_line("sshd's files cannot be renewed, trying again; sessions go on: No space left on device")
        repeats("full")
        # With what there is, new ones get in as well.
        assert notebook.ssh(key, f"rm '{filler}'").returncode == 0
        notebook.wait_for_line("sshd's files are whole again")
        notebook.ready(2)
        done = notebook.ssh(key, "echo in", options=["-v", "-o", "LogLevel=DEBUG1"])
        assert done.stdout == b"in\n"
        assert b"serial 2 ID" in done.stderr.partition(b"Server host certificate:")[2].split(b"\n")[0]
        repeats("after")
    assert notebook.log.count("cannot be renewed") == 1
    assert "SSH ends" not in notebook.log


def test_a_folder_that_was_cleaned_is_there_again_with_the_same_host_key(notebook_anywhere: Notebook) -> None:
    notebook = notebook_anywhere
    notebook.start()
    key = notebook.ready().certificate()
    host_key = (notebook.storage / "host_key").read_bytes()
    files = {path.name for path in notebook.storage.iterdir()}
    with _going_on(notebook, key) as repeats:
        _cleaned(notebook)
        notebook.wait_for_line("sshd's files are whole again")
        assert notebook.ssh(key, "echo in").stdout == b"in\n"
        assert (notebook.storage / "host_key").read_bytes() == host_key
        assert {path.name for path in notebook.storage.iterdir()} >= files - {"revoked_keys.fetched"}
        assert not any(path.stat().st_mode & 0o077 for path in (notebook.storage, *notebook.storage.iterdir()))
        kill(notebook.listener())
        notebook.ready(2)
        assert notebook.ssh(key, "echo in").stdout == b"in\n"
        repeats("after")
    # Nobody had to be asked for another enrolment.
    assert sum(asked.path == "/enrolments" for asked in notebook.api.asked) == 1
    notebook.end()
    assert list(notebook.runtime.iterdir()) == []


def test_one_file_that_was_cleaned_away_is_there_again(notebook: Notebook) -> None:
    notebook.start()
    key = notebook.ready().certificate()
    for number, name in enumerate(("host_key", "principals", "trusted_ca", "revoked_keys", "session"), 1):
        (notebook.storage / name).unlink()
        notebook.wait_for_line("sshd's files are whole again", number)
        assert notebook.ssh(key, "echo in").stdout == b"in\n"


def test_what_was_revoked_stays_so_when_the_folder_is_cleaned_and_the_api_is_away(notebook: Notebook) -> None:
    revoked, other = notebook.certificate("mine"), notebook.certificate("other")
    notebook.api.revoke(revoked.with_name("mine-cert.pub"))
    notebook.start()
    notebook.ready().api.stop()
    _cleaned(notebook)
    notebook.wait_for_line("sshd's files are whole again")
    assert notebook.ssh(revoked, "echo in").returncode == 255
    assert notebook.ssh(other, "echo in").stdout == b"in\n"


def test_what_somebody_put_in_the_place_of_a_cleaned_folder_is_not_used_and_left_alone(notebook: Notebook) -> None:
    notebook.start()
    key = notebook.ready().certificate()
    folder, elsewhere = notebook.storage, notebook.folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "mine").touch()
    with _going_on(notebook, key) as repeats:
        folder.rename(notebook.folder / "away")
        folder.symlink_to(elsewhere)
        notebook.wait_for_line("sshd's files cannot be renewed.*the folder .* is gone and cannot be made again")
        repeats("after")
    notebook.end()
    assert [path.name for path in elsewhere.iterdir()] == ["mine"]


def test_an_sshd_that_refuses_a_renewal_goes_on_with_what_it_has(notebook: Notebook) -> None:
    programs, real = notebook.folder / "sbin", notebook.folder / "real"
    programs.mkdir()
    real.mkdir()
    shutil.copy("/usr/sbin/sshd", real / "sshd")
    refuses = notebook.folder / "refuses"
    wrapper = f"#!/bin/sh\nif [ \"$1\" = -t ] && [ -e '{refuses}' ]; then echo busy >&2; exit 1; fi\n"
    (programs / "sshd").write_text(f"{wrapper}exec '{real}/sshd' \"$@\"\n")
    (programs / "sshd").chmod(0o755)
    _in_mounts(notebook, f"mount --bind '{programs}' /usr/sbin")
    notebook.start()
    key = notebook.ready().certificate()
    configuration = (notebook.storage / "sshd_config").read_bytes()
    with _going_on(notebook, key) as repeats:
        refuses.touch()
        notebook.api.epoch = "bb11"
        notebook.wait_for_line("sshd's files cannot be renewed.*sshd refuses its configuration: busy")
        assert (notebook.storage / "sshd_config").read_bytes() == configuration
        assert notebook.ssh(key, "echo in").stdout == b"in\n"
        refuses.unlink()
        notebook.ready(2)
        repeats("after")
    os.kill(notebook.pid, 0)
