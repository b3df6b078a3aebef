"""Why: a half-written file or two renewals at once would lock somebody out, and a key that others read is no key."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deploy.client import hubssh
from deploy.client.hubssh import Done, Lock, Machine, Trouble


class Windows(Machine):
    """Windows as far as it can be told apart by the programs that are run. There is none here to try it on."""

    def __init__(self, **answers: Done) -> None:
        super().__init__(windows=True)
        self.ran: list[tuple[str, ...]] = []
        self.answers = answers

    def run(self, *command: str, data: bytes = b"", alone: bool = False, limit: float = 120) -> Done:
        self.ran.append(command)
        return self.answers.get(command[0].replace("-", "_"), Done(0, b"", ""))


def test_a_file_is_whole_and_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    hubssh.write(Machine(), str(path), "secret")
    assert path.read_text() == "secret"
    assert path.stat().st_mode & 0o777 == 0o600
    hubssh.write(Machine(), str(path), "other")
    assert path.read_text() == "other"
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Trouble, match="cannot be written"):
        hubssh.write(Machine(), str(tmp_path / "folder"), "x")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_the_lock_is_one_s_alone_between_processes_and_ends_with_them(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import hubssh\n"
        "with hubssh.Lock(sys.argv[2], 1) as lock: print(lock.held, flush=True); sys.stdin.read()"
    )
    folder = str(Path(hubssh.__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", script, folder, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        with Lock(path, 0) as lock:
            assert not lock.held
        other.kill()
        other.wait()
        with Lock(path, 30) as lock:
            assert lock.held


def test_threads_that_wait_for_the_lock_get_it_in_turn(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        with Lock(str(tmp_path / "lock"), 60) as lock:
            assert lock.held
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert most == [1]


@pytest.mark.parametrize("reason", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_where_files_cannot_be_locked_nobody_waits_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    asked = []

    def flock(handle: int, _: int) -> None:
        asked.append(handle)
        assert len(asked) == 1
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", flock)
    with Lock(str(tmp_path / "lock"), 3600) as lock:
        assert not lock.held
    assert len(asked) == 1


def test_on_windows_files_are_cut_down_to_their_owner_before_they_are_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USERDOMAIN", "LAPTOP")
    monkeypatch.setenv("USERNAME", "Alice Smith")
    machine = Windows()
    hubssh.make_folder(machine, str(tmp_path / "hubssh"))
    hubssh.write(machine, str(tmp_path / "hubssh" / "key"), "secret")
    folder, file = machine.ran
    who = "LAPTOP\\Alice Smith"
    assert folder == ("icacls", str(tmp_path / "hubssh"), "/inheritance:r", "/grant:r", f"{who}:(OI)(CI)F", "/q")
    assert file[1].startswith(str(tmp_path / "hubssh" / "key."))
    assert file[2:] == ("/inheritance:r", "/grant:r", f"{who}:F", "/q")


def test_a_file_that_windows_does_not_make_ones_own_is_not_kept(tmp_path: Path) -> None:
    machine = Windows(icacls=Done(5, b"", "Access is denied."))
    with pytest.raises(Trouble, match="Access is denied"):
        hubssh.write(machine, str(tmp_path / "key"), "secret")
    assert list(tmp_path.iterdir()) == []


def test_windows_agent_which_keeps_keys_for_ever_is_not_given_any(tmp_path: Path) -> None:
    machine = Windows(ssh_add=Done(0, b"", ""))
    refusing = Windows()

    def run(*command: str, **_: object) -> Done:
        refusing.ran.append(command)
        return Done(1, b"", "Could not add identity: agent refused operation") if "-t" in command else Done(0, b"", "")

    refusing.run = run  # type: ignore[method-assign]
    assert hubssh.add_to_agent(machine, "key", 60) == ""
    said = hubssh.add_to_agent(refusing, "key", 60)
    assert "keeps keys for ever" in said
    assert not [one for one in refusing.ran if one[:2] == ("ssh-add", "key")]


def test_a_real_agent_holds_key_and_certificate_for_their_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ca.certificate import line_of
    from tests.ca import makers

    key = tmp_path / "id_ed25519"
    hubssh.make_key(Machine(), str(key), "ed25519")
    line = hubssh.public_line(Machine(), str(key))
    now = int(time.time())  # newer releases of ssh-add look at the clock
    blob = makers.certificate(key_blob=hubssh.key_blob(line)[1], valid_after=now - 60, valid_before=now + 3600)
    Path(f"{key}-cert.pub").write_text(line_of(makers.signed(blob)))
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()  # written when it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        assert hubssh.add_to_agent(Machine(), str(key), 3600) == ""
        held = subprocess.run(["ssh-add", "-l"], capture_output=True, text=True, check=True).stdout
        assert "(ED25519)" in held
        assert "(ED25519-CERT)" in held
        key.write_text("gone")  # the agent signs
        assert hubssh.sign(Machine(), f"{key}.pub", b"x", alone=True)
        hubssh.remove_from_agent(Machine(), f"{key}.pub")
    finally:
        agent.kill()
        agent.communicate()


def test_without_an_agent_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert not hubssh.agent_runs(Machine())
    assert hubssh.add_to_agent(Machine(), "/no/key", 60) == ""


def test_a_security_key_is_never_waited_for_by_ssh_and_asked_for_by_name_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.ca import makers

    key = tmp_path / "id_ed25519_sk"
    Path(f"{key}.pub").write_text(makers.public_key("sk-ed25519").line)
    machine = Windows(ssh_keygen=Done(1, b"", "device not found"))
    with pytest.raises(Trouble, match="has to be touched"):
        hubssh.sign(machine, str(key), b"x", alone=True)
    assert machine.ran == []
    with pytest.raises(Trouble, match="does not sign"):
        hubssh.sign(machine, str(key), b"x", alone=False)
    assert capsys.readouterr().err == "Touch your security key when it blinks.\n"
