"""Why: this stands in front of every notebook server, so it must be invisible when off and harmless when wrong."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.notebook import FOLDER, PYTHON, Ends, Notebook, children_of, command_line, kill


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, str(FOLDER), *words],
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("value", ["", "0", "false", "no", "enable"])
def test_not_enabled_it_only_becomes_the_command(value: str) -> None:
    done = _run("--", "sh", "-c", "echo $PPID; ps -o pid= --ppid $$ | wc -l; exit 5", SSH_BASTION_ENABLE=value)
    assert done.returncode == 5
    assert done.stdout.split()[0] == str(os.getpid())
    assert done.stderr == ""


def test_enabled_the_server_has_the_pid_that_was_started_and_its_own_signals(notebook: Notebook) -> None:
    notebook.start()
    notebook.ready()
    assert command_line(notebook.pid) == b"sleep\0infinity\0"
    ignored = next(
        line for line in Path(f"/proc/{notebook.pid}/status").read_text().splitlines() if line.startswith("SigIgn")
    )
    assert int(ignored.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "is not set"),
        ("http://ssh.example.org", "must begin with https"),
        ("http://10.1.2.3:8000", "must begin with https"),
        ("http://evil.svc.example.org", "must begin with https"),
        ("http://127.0.0.1.example.org", "must begin with https"),
        ("ftp://ssh.example.org", "must look like https"),
        ("https://", "must look like https"),
        ("https://user:hidden@ssh.example.org", "must not hold a user name"),
        ("https://ssh.example.org/?x", "must look like https"),
        ("https://ssh.example.org:port", "is not a URL"),
    ],
)
def test_an_address_that_would_show_the_token_is_refused_and_the_server_starts_without_ssh(
    url: str, sentence: str
) -> None:
    settings = {"SSH_BASTION_ENABLE": "1", "SSH_BASTION_API_URL": url, "JUPYTERHUB_API_TOKEN": "secret-token"}
    done = _run("--", "echo", "notebook", **settings)
    assert (done.returncode, done.stdout) == (0, "notebook\n")
    assert sentence in done.stderr
    assert "hidden" not in done.stderr
    assert _run(**settings).returncode == 2


@pytest.mark.parametrize(
    "url",
    [
        "https://x.org/ssh/",
        "http://127.0.0.1:9",
        "http://[::1]:9",
        "http://localhost",
        "http://ssh-api:8000",
        "http://ssh-api.hub.svc",
        "http://ssh-api.hub.svc.cluster.local:8000",
    ],
)
def test_an_address_that_keeps_the_token_private_is_accepted(url: str) -> None:
    # The next thing to be missed is the token: so the address was good.
    assert "JUPYTERHUB_API_TOKEN is not set" in _run(SSH_BASTION_ENABLE="1", SSH_BASTION_API_URL=url).stderr


def test_private_addresses_need_the_administrators_word() -> None:
    said = _run(SSH_BASTION_ENABLE="1", SSH_BASTION_API_URL="http://10.1.2.3", SSH_BASTION_ALLOW_HTTP="1").stderr
    assert "JUPYTERHUB_API_TOKEN is not set" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSH_BASTION_SSH_PORT", "70000"),
        ("SSH_BASTION_KEY_PORT", "-1"),
        ("SSH_BASTION_LISTEN", "everywhere"),
        ("SSH_BASTION_POLL", "nan"),
        ("SSH_BASTION_AUTHORIZED_KEYS", 'a"b'),
        ("JUPYTERHUB_API_TOKEN", "secret token\n"),
    ],
)
def test_a_wrong_setting_is_named_and_the_server_starts_without_ssh(name: str, value: str) -> None:
    settings = {"SSH_BASTION_ENABLE": "1", "SSH_BASTION_API_URL": "https://x.org", "JUPYTERHUB_API_TOKEN": "t"}
    done = _run("--", "echo", "notebook", **settings | {name: value})
    assert done.stdout == "notebook\n"
    assert name in done.stderr
    assert "SSH stays off" in done.stderr
    assert "secret" not in done.stderr


def test_what_the_servers_parent_waits_for_is_not_held_open_by_ssh(notebook: Notebook) -> None:
    waited_for = notebook.folder / "waited for"
    # The second was opened before the limit was lowered, so it is above it.
    opens = f"exec 7>'{waited_for}' 300>'{waited_for}'; ulimit -Sn 200; exec \"$@\""
    notebook.prefix = ("bash", "-c", opens, "bash")
    notebook.start()
    notebook.ready()
    held = {path.name for path in Path(f"/proc/{notebook.pid}/fd").iterdir()}
    assert {"7", "300"} <= held
    own = Path(f"/proc/{notebook.supervisor()}/fd")
    assert str(waited_for) not in {str(path.readlink()) for path in own.iterdir()}


def test_help_teaches_the_command_and_its_environment() -> None:
    done = _run("--help")
    assert done.returncode == 0
    for word in ("-- jupyterhub-singleuser", "SSH_BASTION_API_URL", "SSH_BASTION_ENABLE", "openssh-server"):
        assert word in done.stdout


def test_a_command_that_is_not_there_ends_with_127() -> None:
    done = _run("--", "no-such-notebook-server")
    assert done.returncode == 127
    assert "no-such-notebook-server could not be started" in done.stderr


def test_alone_it_runs_until_sigterm_and_withdraws(notebook: Notebook) -> None:
    flags = ["--enable", "--api-url", notebook.api.url, "--ssh-port", "0", "--listen", "127.0.0.1"]
    del notebook.environment["SSH_BASTION_ENABLE"]
    del notebook.environment["SSH_BASTION_API_URL"]
    process = subprocess.Popen([PYTHON, str(FOLDER), *flags], env=notebook.environment)
    notebook.api.wait_for("GET", "/enrolments/epoch")
    assert process.poll() is None
    process.terminate()
    assert process.wait(60) == 0
    notebook.api.wait_for("DELETE", "/enrolments")


def test_started_as_a_module_it_is_not_confused_by_the_users_files(notebook: Notebook, tmp_path: Path) -> None:
    for name in ("queue", "asyncio", "settings", "log", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')\n")
    notebook.prefix = ("env", "-C", str(tmp_path))
    notebook.start()
    notebook.ready()


def test_a_key_port_that_is_taken_is_said_and_costs_only_ssh(notebook: Notebook) -> None:
    notebook.start()
    notebook.environment["SSH_BASTION_KEY_PORT"] = str(notebook.ready().key_port)
    second = Notebook(notebook.folder, notebook.api, notebook.home)
    second.environment = dict(notebook.environment)
    second.start()
    second.wait_for_line("SSH ends: .*in use")
    os.kill(second.pid, 0)
    kill(second.pid)
    second.end()


def test_sshd_missing_is_one_sentence(notebook: Notebook, tmp_path: Path) -> None:
    # The system's sshd is looked for in a fixed place too, so that place is covered by an empty one of our own.
    (tmp_path / "empty").mkdir()
    notebook.prefix = (
        *("unshare", "-m", "sh", "-c"),
        f'mount --bind {tmp_path}/empty /usr/sbin && exec "$@"',
        "sh",
    )
    notebook.environment["PATH"] = "/usr/bin:/bin"
    if os.getuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
        pytest.skip("hiding sshd needs a mount namespace, which this account may not make")
    notebook.start()
    notebook.wait_for_line("There is no sshd in this image, so SSH stays off: install openssh-server.")


def test_the_server_ends_nobody_elses_processes(notebook: Notebook) -> None:
    notebook.start("sh", "-c", "sleep infinity & exec sleep infinity")
    notebook.ready()
    (own,) = (pid for pid in children_of(notebook.pid) if command_line(pid).startswith(b"sleep"))
    supervisor = Ends([notebook.supervisor()])
    kill(notebook.pid)
    supervisor.wait()
    os.kill(own, 0)  # the server's own child is the server's (or the spawner's) to end
    kill(own)
    notebook.end()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_the_source_is_python_39_and_imports_the_standard_library_only(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots.add((node.module or "").split(".")[0])
    assert roots <= sys.stdlib_module_names | {"jupyterhub_bastion_notebook"}
