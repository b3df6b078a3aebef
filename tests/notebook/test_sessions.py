"""Why: a session must be that of any sshd, also where a script of ours stands between sshd and the user's shell."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.notebook import Notebook


@pytest.fixture
def running(notebook_anywhere: Notebook) -> Notebook:
    notebook_anywhere.start()
    return notebook_anywhere.ready()


def test_exit_statuses_and_standard_error_come_back(running: Notebook) -> None:
    key = running.certificate()
    done = running.ssh(key, "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert running.ssh(key, "kill -TERM $$").returncode == 255
    assert running.ssh(key, "no-such-command-anywhere").returncode == 127


def test_standard_input_arrives_byte_for_byte(running: Notebook) -> None:
    data = os.urandom(3_000_000)
    done = running.ssh(running.certificate(), "sha256sum", stdin=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_commands_need_not_be_utf8_nor_one_line(running: Notebook) -> None:
    key = running.certificate()
    assert running.ssh(key, b"printf '%s' '\xff\xfe \xe9'").stdout == b"\xff\xfe \xe9"
    assert running.ssh(key, "echo one\necho 'two  three'\n").stdout == b"one\ntwo  three\n"


def test_a_shell_is_a_login_shell_in_the_servers_home(running: Notebook) -> None:
    done = running.ssh(running.certificate(), stdin=b"pwd; echo ${SSH_ORIGINAL_COMMAND-none}; exit 4\n", options=["-T"])
    assert done.stdout.decode().splitlines()[-2:] == [str(running.home), "none"]
    assert done.returncode == 4


def test_a_terminal_works(running: Notebook) -> None:
    done = running.ssh(running.certificate(), "tty && stty size", options=["-tt"])
    assert done.returncode == 0, done
    assert done.stdout.startswith(b"/dev/pts/")


def test_the_users_shell_reads_its_start_file_once(notebook: Notebook) -> None:
    (notebook.home / ".bashrc").write_text("export READ=${READ-}x\n")
    notebook.start()
    assert notebook.ready().ssh(notebook.certificate(), "echo $READ $SHLVL").stdout == b"x 1\n"


def test_sftp_and_scp_copy_both_ways(running: Notebook, tmp_path: Path) -> None:
    key, data = running.certificate(), os.urandom(1_000_000)
    (tmp_path / "sent").write_bytes(data)
    for number, scp in enumerate((["scp"], ["scp", "-O"])):
        there = f"{tmp_path}/there{number}"
        back = tmp_path / f"back{number}"
        for source, target in ((tmp_path / "sent", f"127.0.0.1:{there}"), (f"127.0.0.1:{there}", back)):
            command = [*scp, "-q", *running.options(key), str(source), str(target)]
            subprocess.run(command, check=True, timeout=60, capture_output=True)
        assert back.read_bytes() == data
    batch = b"pwd\n"
    done = subprocess.run(
        ["sftp", "-b", "-", *running.options(key), "127.0.0.1"],
        input=batch,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert str(running.home).encode() in done.stdout


def test_forwards_reach_the_server(running: Notebook) -> None:
    done = running.ssh(
        running.certificate(), stdin=b"GET /publickey HTTP/1.0\r\n\r\n", options=["-W", f"127.0.0.1:{running.key_port}"]
    )
    assert done.stdout.startswith(b"HTTP/1.1 200 OK")


def test_passwords_tunnels_and_other_accounts_are_refused(running: Notebook) -> None:
    key = running.certificate()
    other = running.ssh(key, "true", options=["-l", "nobody", "-o", "User=nobody"])
    running.account = "nobody"
    assert other.returncode == 0  # the first User wins on the command line: it is the account's own
    assert running.ssh(key, "true").returncode == 255
    asked = running.ssh(key, "true", options=["-o", "PreferredAuthentications=none", "-o", "LogLevel=INFO"])
    assert b"Permission denied (publickey)" in asked.stderr


def test_a_key_for_one_command_never_opens_more(running: Notebook) -> None:
    key = running.raw_key(options='command="echo only this" ')
    done = running.ssh(key, "echo more")
    assert b"more" not in done.stdout
    assert done.stdout == b"only this\n" or b"may only run one command" in done.stderr
    assert b"more" not in running.ssh(key, stdin=b"echo more\n", options=["-T"]).stdout


def test_a_foreign_authority_in_authorized_keys_cannot_smuggle_past_its_forced_command(running: Notebook) -> None:
    authority = (running.api.folder / "host_ca.pub").read_text()
    running.authorized_keys.write_text(f'cert-authority,principals="x",command="echo only this" {authority}')
    done = running.ssh(running.certificate("foreign", principals="x", ca="host_ca"), "echo more")
    assert b"more" not in done.stdout
    assert done.stdout == b"only this\n" or b"cert-authority" in done.stderr
