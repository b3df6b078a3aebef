"""Why: most notebook images run as an ordinary user, and sshd behaves differently there.

Tests that run as root make such an image out of a mount namespace of their own: another /etc/passwd with a user
`jovyan`, a /dev/pts as container runtimes mount it, and copies of nothing: Python and our folder are bind-mounted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.enrolment_api import EnrolmentApi
from tests.support.notebook import FOLDER, Ends, Notebook, descendants, kill

_UID = 54321
_SCRIPT = """
set -e
mount --bind "$1" "$2/python"
mount --bind "$3" "$2/source"
mount --bind "$2/passwd" /etc/passwd
mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
shift 3
exec setpriv --reuid=54321 --regid=54321 --clear-groups --bounding-set=-all --inh-caps=-all "$@"
"""


def _obstacle() -> str:
    if os.getuid() != 0:
        return "only root may make a mount namespace here; the other tests have just run without root"
    if not shutil.which("unshare") or not shutil.which("setpriv"):
        return "unshare and setpriv (util-linux) are needed"
    probe = "mount -t devpts -o newinstance devpts /dev/pts"
    done = subprocess.run(["unshare", "-m", "sh", "-c", probe], capture_output=True, text=True, check=False)
    return f"no mount namespace can be made here: {done.stderr.strip()}" if done.returncode else ""


@pytest.fixture
def image(enrolment_api: EnrolmentApi) -> Iterator[Notebook]:
    """A notebook server of uid 54321, `jovyan`; not started yet."""
    if obstacle := _obstacle():
        pytest.skip(obstacle)
    # Not below pytest's own folder, which only root may enter.
    place = Path(tempfile.mkdtemp(prefix="image-"))
    try:
        place.chmod(0o755)
        for name in ("python", "source", "home", "work"):
            (place / name).mkdir()
        (place / "passwd").write_text(f"root:x:0:0::/root:/bin/sh\njovyan:x:{_UID}:{_UID}::{place}/home:/bin/bash\n")
        notebook = Notebook(place / "work", enrolment_api, place / "home")
        for path in (place / "home", place / "work", notebook.runtime):
            os.chown(path, _UID, _UID)
        notebook.account = "jovyan"
        notebook.prefix = ("unshare", "-m", "sh", "-c", _SCRIPT, "sh", sys.base_prefix, str(place), str(FOLDER.parent))
        interpreter = Path(os.path.realpath(sys.executable)).relative_to(sys.base_prefix)
        notebook.program = (str(place / "python" / interpreter), str(place / "source" / FOLDER.name))
        yield notebook
        notebook.end()
    finally:
        shutil.rmtree(place)


def test_an_ordinary_user_gets_sessions_terminals_and_copies(image: Notebook) -> None:
    image.start()
    key = image.ready().certificate()
    assert image.api.wait_for("POST", "/enrolments").body["unix_user"] == "jovyan"
    done = image.ssh(key, "id -u; id -un; pwd; echo $JUPYTERHUB_USER")
    assert done.stdout.decode().splitlines() == [str(_UID), "jovyan", str(image.home), "alice"]
    terminal = image.ssh(key, "tty && stty size && echo good", options=["-tt"])
    assert b"/dev/pts/" in terminal.stdout, terminal
    assert b"good" in terminal.stdout
    (image.folder / "sent").write_bytes(b"data" * 1000)
    command = ["scp", "-q", *image.options(key), str(image.folder / "sent"), "127.0.0.1:received"]
    subprocess.run(command, check=True, timeout=60)
    assert (image.home / "received").stat().st_uid == _UID
    # Nothing of ours stands between sshd and the shell where both homes are the same.
    assert b"ForceCommand" not in (image.storage / "sshd_config").read_bytes()


def test_a_raw_key_works_in_a_home_that_others_may_write(image: Notebook) -> None:
    image.home.chmod(0o777)
    image.start()
    assert image.ready().ssh(image.raw_key(), "echo in").stdout == b"in\n"


def test_root_is_no_way_in(image: Notebook) -> None:
    image.start()
    key = image.ready().certificate()
    image.account = "root"
    assert image.ssh(key, "true").returncode == 255


def test_a_renewed_certificate_is_shown_by_a_rootless_sshd_too(image: Notebook) -> None:
    image.start()
    key = image.ready().certificate()
    image.api.epoch = "bb11"
    image.ready(2)
    done = image.ssh(key, "true", options=["-o", "LogLevel=DEBUG1"])
    assert done.returncode == 0


def test_everything_of_a_killed_server_ends_without_root_too(image: Notebook) -> None:
    image.start()
    key = image.ready().certificate()
    with image.session(key, "setsid sh -c 'trap \"\" TERM HUP; exec sleep infinity' & echo; cat") as session:
        assert session.stdout is not None
        session.stdout.readline()
        ends = Ends(descendants(image.pid))
        kill(image.pid)
        ends.wait()
    image.end()
    assert list(image.runtime.iterdir()) == []


def test_a_root_whose_account_is_locked_is_told_how_to_unlock_it(notebook: Notebook) -> None:
    if obstacle := _obstacle():
        pytest.skip(obstacle)
    shadow = notebook.folder / "shadow"
    shadow.write_text("root:!:19000:0:99999:7:::\n")
    script = f"mount --bind '{shadow}' /etc/shadow && exec \"$@\""
    notebook.prefix = ("unshare", "-m", "sh", "-c", script, "sh")
    notebook.start()
    assert notebook.ready().ssh(notebook.certificate(), "true").returncode == 255
    assert "sshd: User root not allowed because account is locked" in notebook.log
    assert "run: usermod -p '*' root" in notebook.log
    shadow.write_text("root:*:19000:0:99999:7:::\n")
    assert notebook.ssh(notebook.folder / "user", "echo in").stdout == b"in\n"


def test_a_user_id_without_an_account_is_told_so_and_the_server_runs(image: Notebook) -> None:
    passwd = image.home.parent / "passwd"
    passwd.write_text("root:x:0:0::/root:/bin/sh\n")
    image.start()
    image.wait_for_line("The user id 54321 has no line in /etc/passwd, and sshd logs in by name, so SSH stays off")
    os.kill(image.pid, 0)
