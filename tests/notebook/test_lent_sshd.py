"""An image without sshd can be lent one by an init container: a folder of programs that bring all they load."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.notebook import Notebook

COLLECT = Path(__file__).parents[2] / "deploy" / "images" / "collect-sshd"
HIDE = 'for place in /usr/sbin /usr/lib/openssh /etc/ssh; do mount -t tmpfs none $place; done; exec "$@"'


@pytest.fixture
def without_sshd() -> tuple[str, ...]:
    """Runs a command where the machine's own sshd is not."""
    prefix = ("unshare", "--mount", "sh", "-euc", HIDE, "sh")
    done = subprocess.run([*prefix, "test", "!", "-e", "/usr/sbin/sshd"], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("no mount namespace can be made here, so the machine's own sshd cannot be hidden")
    return prefix


@pytest.fixture
def lent(tmp_path: Path) -> Path:
    """The folder, after it was moved, as an init container's is."""
    made = tmp_path / "made"
    subprocess.run([COLLECT, made], check=True, capture_output=True)
    moved = tmp_path / "opt" / "openssh"
    moved.parent.mkdir()
    shutil.move(made, moved)
    return moved


def test_sessions_and_files_go_through_a_lent_sshd(
    notebook: Notebook, without_sshd: tuple[str, ...], lent: Path, tmp_path: Path
) -> None:
    notebook.prefix = without_sshd
    notebook.environment["PATH"] = f"{lent / 'bin'}:{notebook.environment['PATH']}"
    notebook.start()
    notebook.ready()
    key = notebook.certificate()
    done = notebook.ssh(key, "echo $((6 * 7)); test ! -e /usr/sbin/sshd && echo lent")
    assert done.stdout.split() == [b"42", b"lent"], done.stderr
    command = ["sftp", "-b", "-", *notebook.options(key), "127.0.0.1"]
    here = (tmp_path / "copied", Path(__file__))
    batch = f'get "{here[1]}" "{here[0]}"\n'.encode()
    copied = subprocess.run(command, input=batch, capture_output=True, check=False)
    assert copied.returncode == 0, copied.stderr
    assert here[0].read_bytes() == here[1].read_bytes()


def test_without_a_lent_sshd_the_log_says_what_is_missing(
    notebook: Notebook, without_sshd: tuple[str, ...], tmp_path: Path
) -> None:
    notebook.prefix = without_sshd
    notebook.start()
    notebook.wait_for_line("There is no sshd in this image")
