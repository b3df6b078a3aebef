"""Why: access ends with the server, so every process that came with it must end too, however the server dies."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.enrolment_api import make_key
from tests.support.notebook import Ends, Notebook, children_of, descendants, kill


def _daemon(notebook: Notebook) -> int:
    """A process that an SSH session left behind, detached in every way; its pid."""
    key = notebook.certificate("daemon")
    command = "setsid sh -c 'trap \"\" TERM HUP; echo $$; exec sleep infinity' </dev/null 2>/dev/null &"
    with notebook.session(key, command) as session:
        assert session.stdout is not None
        return int(session.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_dies_takes_sshd_sessions_and_their_daemons_along(
    notebook_anywhere: Notebook, number: signal.Signals
) -> None:
    notebook = notebook_anywhere
    notebook.start()
    daemon = _daemon(notebook.ready())
    with notebook.session(notebook.certificate(), "echo; exec sleep infinity") as session:
        assert session.stdout is not None
        session.stdout.readline()
        below = descendants(notebook.pid)
        assert daemon in below
        assert len(below) >= 4
        ends = Ends(below)
        kill(notebook.pid, number)
        ends.wait()
        assert session.wait(30) == 255
    notebook.end()
    assert list(notebook.runtime.iterdir()) == []


def test_an_orderly_end_withdraws_the_enrolment(notebook: Notebook) -> None:
    notebook.start()
    notebook.ready()
    kill(notebook.pid, signal.SIGTERM)
    withdrawn = notebook.api.wait_for("DELETE", "/enrolments")
    assert (withdrawn.authorization, withdrawn.body) == ("Bearer withdraw-secret", {})
    notebook.end()


def test_an_api_that_is_gone_does_not_hold_up_the_end(notebook: Notebook) -> None:
    notebook.start()
    notebook.ready().api.stop()
    ends = Ends(descendants(notebook.pid))
    kill(notebook.pid)
    ends.wait()
    notebook.wait_for_line("Not withdrawn from the bastion: The api does not answer")


def test_an_sshd_that_dies_is_started_again_and_sessions_outlive_it(notebook: Notebook) -> None:
    notebook.start()
    key = notebook.ready().certificate()
    with notebook.session(key, "cat") as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(b"before\n")
        session.stdin.flush()
        session.stdout.readline()
        kill(notebook.listener())
        notebook.ready(2)
        assert notebook.ssh(key, "echo in").stdout == b"in\n"
        session.stdin.write(b"after\n")
        session.stdin.flush()
        assert session.stdout.readline() == b"after\n"


def test_a_port_that_somebody_took_is_given_up_and_the_api_hears_the_new_one(notebook: Notebook) -> None:
    notebook.start()
    port = notebook.ready().ssh_port
    supervisor, listener = notebook.supervisor(), notebook.listener()
    gone = Ends([listener])
    kill(supervisor, signal.SIGSTOP)
    kill(listener)
    gone.wait()
    with socket.create_server(("127.0.0.1", port)):
        kill(supervisor, signal.SIGCONT)
        new = notebook.api.wait_for("POST", "/enrolments", 2).body["ssh_port"]
        assert new != port
        notebook.wait_for_line(rf"sshd: Server listening on 127.0.0.1 port {new}\.")


def test_a_killed_supervisor_takes_its_listener_along_and_leaves_the_server_alone(notebook: Notebook) -> None:
    notebook.start()
    listener = Ends([notebook.ready().listener()])
    kill(notebook.supervisor())
    listener.wait()
    os.kill(notebook.pid, 0)


def test_zombies_are_collected(notebook: Notebook) -> None:
    notebook.start()
    supervisor = notebook.ready().supervisor()
    key = notebook.certificate()
    orphan = notebook.ssh(key, "setsid sh -c 'echo $$; exec sleep 0.2' 2>/dev/null </dev/null & wait").stdout
    assert orphan
    notebook.ssh(key, "true")
    with notebook.session(key, "echo; cat") as session:
        assert session.stdout is not None
        session.stdout.readline()
        assert int(orphan) not in children_of(supervisor)


@pytest.fixture
def pod(notebook: Notebook) -> Iterator[Notebook]:
    notebook.environment["KUBERNETES_SERVICE_HOST"] = "127.0.0.9"
    yield notebook
    notebook.end()


def test_a_restarted_container_of_the_same_pod_keeps_its_host_key_and_nothing_else(pod: Notebook) -> None:
    pod.start()
    first = pod.ready().api.wait_for("POST", "/enrolments").body["host_key"]
    pod.end()
    assert sorted(path.name for path in pod.storage.iterdir()) == ["host_key", "host_key.pub"]
    pod.start()
    assert pod.ready().api.wait_for("POST", "/enrolments", 2).body["host_key"] == first


@pytest.fixture
def pod_with_a_volume(pod: Notebook, tmp_path: Path) -> Notebook:
    """Its /dev/shm is as an `emptyDir` of Kubernetes: anybody may write there, and move away what is not theirs."""
    shared = tmp_path / "shm"
    shared.mkdir()
    shared.chmod(0o777)
    pod.prefix = ("unshare", "--mount", "sh", "-euc", f"mount --bind '{shared}' /dev/shm; exec \"$@\"", "sh")
    if subprocess.run([*pod.prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespace can be made here, so there is no other /dev/shm")
    del pod.environment["XDG_RUNTIME_DIR"]
    return pod


def _start_afresh(pod: Notebook) -> list[Path]:
    """Start a container: its own layer, with /tmp, is a new one. What is in /dev/shm then."""
    layer = Path(tempfile.mkdtemp(dir=pod.folder))
    pod.environment["TMPDIR"] = str(layer)
    pod.start()
    pod.ready()
    assert list(layer.rglob("sshd_config"))
    return sorted((pod.folder / "shm").rglob("*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_restarted_container_keeps_its_host_key_where_dev_shm_is_a_volume(
    pod_with_a_volume: Notebook, number: signal.Signals
) -> None:
    pod = pod_with_a_volume
    for _ in range(2):
        folder, *files = _start_afresh(pod)
        assert (folder.stat().st_mode & 0o777, files) == (0o700, [folder / "host_key"])
        kill(pod.pid, number)
        pod.end()
        assert files[0].stat().st_mode & 0o777 == 0o600
    assert len({asked.body["host_key"] for asked in pod.api.asked if asked.method == "POST"}) == 1


def test_a_host_key_that_another_account_put_into_a_volume_is_not_used(pod_with_a_volume: Notebook) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make another account's files")
    pod = pod_with_a_volume
    folder, key = _start_afresh(pod)
    pod.end()
    planted = make_key(pod.folder / "planted")
    key.unlink()
    shutil.copy(planted, key)
    for path in (folder, key):
        os.chown(path, 54321, 54321)
    _start_afresh(pod)
    shown = pod.api.wait_for("POST", "/enrolments", 2).body["host_key"]
    assert shown not in planted.with_suffix(".pub").read_text()


def test_a_spare_host_key_that_was_cleaned_away_is_there_again_after_the_next_enrolment(
    pod_with_a_volume: Notebook,
) -> None:
    pod = pod_with_a_volume
    folder, key = _start_afresh(pod)
    content = key.read_bytes()
    shutil.rmtree(folder)
    pod.api.epoch = "bb11"
    pod.ready(2)
    assert key.read_bytes() == content


def test_a_second_run_beside_a_dying_one_takes_another_folder(notebook: Notebook, tmp_path: os.PathLike[str]) -> None:
    notebook.start()
    notebook.ready()
    second = Notebook(notebook.folder, notebook.api, notebook.home)
    second.start()
    second.ready()
    keys = [asked.body["host_key"] for asked in notebook.api.asked if asked.method == "POST"]
    assert len(set(keys)) == 2
    notebook.end()
    assert second.ssh(second.certificate(), "echo in").stdout == b"in\n"
    second.end()


def test_a_folder_that_somebody_prepared_is_not_used(notebook: Notebook) -> None:
    notebook.start()
    name = notebook.ready().storage.name
    notebook.end()
    elsewhere = notebook.folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (notebook.runtime / name).symlink_to(elsewhere)
    notebook.start()
    notebook.ready()
    assert list(elsewhere.iterdir()) == []
    notebook.end()
    (notebook.runtime / name).unlink()
    (notebook.runtime / name).mkdir()
    (notebook.runtime / name).chmod(0o755)
    notebook.start()
    notebook.ready()
    assert list((notebook.runtime / name).iterdir()) == []
