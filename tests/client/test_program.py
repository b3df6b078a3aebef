"""Why: the file runs as it is fetched, on machines that are older than this one, with nothing else installed."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.client import hubssh
from deploy.client.hubssh import Answer, Server
from tests.client.laptop import HUBSSH
from tests.client.makers import NOW, Pretended, certificate, site, store

PYTHONS = sorted({*map(str, Path.home().glob(".pyenv/versions/3.*/bin/python3")), "/usr/bin/python3", sys.executable})


def version(python: str) -> tuple[int, ...]:
    return numbers(subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout)


def numbers(said: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", said)[:2])


@pytest.mark.parametrize("python", PYTHONS)
def test_every_python_from_3_9_runs_it(python: str) -> None:
    if not Path(python).exists() or version(python) < (3, 9):
        pytest.skip("hubssh promises 3.9 and newer")
    done = subprocess.run(
        [python, "-W", "error", "-I", "-S", str(HUBSSH), "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hubssh {hubssh.VERSION}\n", "")


OLD = [one for one in Path.home().glob(".pyenv/versions/*.*.*/bin/python") if numbers(one.parts[-3]) < (3, 9)]


@pytest.mark.parametrize("python", OLD, ids=lambda one: one.parts[-3])
def test_older_pythons_say_what_is_needed(python: Path) -> None:
    done = subprocess.run([python, str(HUBSSH), "login"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "hubssh needs" in done.stderr
    assert "3.9 or newer" in done.stderr
    if numbers(python.parts[-3]) >= (3, 7):
        assert done.stderr.startswith("hubssh: this is Python 3.")
        assert len(done.stderr.splitlines()) == 1


def test_it_imports_the_standard_library_alone() -> None:
    tree = ast.parse(HUBSSH.read_text())
    roots = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    roots |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert roots <= sys.stdlib_module_names
    # What is imported at once is what ssh waits for.
    at_once = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert at_once == {"json", "os", "re", "sys", "time"}


def test_its_version_is_the_distribution_s() -> None:
    text = (HUBSSH.parent / "pyproject.toml").read_text()
    assert f'version = "{hubssh.VERSION}"' in text


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(HUBSSH), *words], capture_output=True, text=True, check=False)


def test_help_teaches_and_every_command_has_an_example() -> None:
    general = run("--help").stdout
    assert "hubssh login https://ssh.example.org" in general
    assert run().stdout == general
    assert run().returncode == 2
    for name in hubssh.COMMANDS:
        assert name in general
        assert "examples:\n  " in run(name, "--help").stdout


def test_what_cannot_be_understood_is_said_with_status_2() -> None:
    assert run("no-such-command").returncode == 2
    assert run("login", "--mode", "sideways").returncode == 2


def completing(folder: Path, made: hubssh.Store) -> dict[str, str]:
    """An environment where `hubssh` is this one, with these sites."""
    program = folder / "bin" / "hubssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HUBSSH}" "$@" --ssh-dir "{made.ssh}"\n')
    program.chmod(0o700)
    return {"PATH": f"{program.parent}:/usr/bin:/bin", "LANG": "C.UTF-8"}


def test_bash_completes_commands_options_and_the_servers_that_are_known(tmp_path: Path) -> None:
    listed = site(servers=(*site().servers, *with_servers("GPU", "My GPU").servers[1:]))
    environment = completing(tmp_path, store(tmp_path, listed))
    script = (
        'eval "$(hubssh completion bash)"; COMP_WORDS=(hubssh "$@"); COMP_CWORD=$#; _hubssh hubssh "${@: -1}"; '
        '[ "${#COMPREPLY[@]}" = 0 ] || printf "%s\\n" "${COMPREPLY[@]}"'
    )

    def completed(*words: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", script, "bash", *words], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    assert completed("st") == ["start", "stop", "status"]
    assert completed("doctor", "") == ["alice", "GPU", "My\\ GPU", "gpu", "off", "bob+lab"]
    assert completed("start", "g") == ["gpu"]
    assert completed("start", "My") == completed("start", "My\\ ") == ["My\\ GPU"]
    assert completed("completion", "f") == ["fish"]
    assert completed("login", "--no") == ["--no-browser", "--no-agent"]
    assert completed("start", "--") == ["--json", "--site", "--ssh-dir", "--no-browser"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_leaves_no_place_unfilled(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert not re.search(r"@[a-z_]+@", done.stdout)
    for name in hubssh.COMMANDS:
        assert name in done.stdout
    assert "other-user" in done.stdout


@pytest.mark.parametrize("shell", ["zsh", "fish", "pwsh"])
def test_other_shells_can_read_their_completion(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    script = tmp_path / ("completion.ps1" if shell == "pwsh" else "completion")
    script.write_text(run("completion", "powershell" if shell == "pwsh" else shell).stdout)
    only_read = ["-NoProfile", "-File"] if shell == "pwsh" else ["-n"]
    done = subprocess.run([shell, *only_read, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


class TestWhenItIsTimeToRenew:
    """Half of the life of a certificate, and only where a new one would end later."""

    def test_the_first_half_is_quiet(self) -> None:
        made = certificate(valid_after=NOW - 3600, valid_before=NOW + 3601)
        assert not hubssh.is_due(made, NOW)
        assert hubssh.is_due(made, NOW + 1)

    def test_an_ended_one_is_always_due(self) -> None:
        assert hubssh.is_due(certificate(valid_before=NOW, renew_until=0), NOW)

    @pytest.mark.parametrize("until", [0, NOW + 100, NOW + 160])
    def test_what_would_not_end_later_is_not_asked_for(self, until: int) -> None:
        assert not hubssh.is_due(certificate(valid_before=NOW + 100, renew_until=until), NOW)
        assert hubssh.is_due(certificate(valid_before=NOW + 100, renew_until=NOW + 161), NOW)

    def test_after_a_failure_the_next_try_waits_while_the_old_one_is_good(self) -> None:
        old = certificate(valid_before=NOW + 100)
        assert not hubssh.is_fresh(site(certificate=old, tried_at=NOW - 61), "alice", NOW)
        assert hubssh.is_fresh(site(certificate=old, tried_at=NOW - 10), "alice", NOW)
        assert not hubssh.is_fresh(site(certificate=old, tried_at=NOW - 10), "alice", NOW + 100)
        assert not hubssh.is_fresh(site(certificate=old, tried_at=NOW + 900), "alice", NOW)  # a clock that was set back

    def test_a_server_outside_the_certificate_is_never_fresh(self) -> None:
        assert not hubssh.is_fresh(site(), "alice+off", NOW)


@pytest.mark.parametrize(
    ("typed", "login"),
    [
        ("", "alice"), ("alice", "alice"), ("gpu", "alice+gpu"), ("alice+gpu", "alice+gpu"), ("alice/gpu", "alice+gpu"),
        ("gpu.hub", "alice+gpu"), ("bob+lab", "bob+lab"), ("bob/lab", "bob+lab"), ("new one", "alice+new=20one"),
        ("GPU", "alice+=47=50=55"), ("off", "alice+off"), ("bob", "alice+bob"),
    ],
)  # fmt: skip
def test_servers_are_meant_as_people_type_them(typed: str, login: str) -> None:
    assert site().meant(typed) == login


def test_names_go_both_ways() -> None:
    for login in site().logins():
        assert site().login_of(site().short(login)) == login
        assert site().login_of(site().host(login).upper()) == login
        assert site().meant(site().typed(login)) == login
    assert site().login_of("github.com") == ""
    assert site().login_of("-x.hub") == ""


NAMES = [
    "GPU",
    "My GPU",
    "über",
    "a+b",
    "x.hub",
    "alice",
    "=47",
    "$(touch pwned)",
    'say "hi"',
    "-x",
    "a/b",
    "it's",
    "`id`",
]


def with_servers(*names: str) -> hubssh.Site:
    """alice with servers of these names beside her default one."""
    listed = [Server(f"alice+{hubssh.quote(name)}", f"alice/{name}", True, "stopped") for name in names]
    return site(servers=(*site().servers[:1], *listed))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_to_type_means_that_server_in_every_shell(name: str, tmp_path: Path) -> None:
    made, login = with_servers(name), f"alice+{hubssh.quote(name)}"
    assert made.meant(made.typed(login)) == login
    trouble = hubssh.server_trouble(made, made.servers[-1])
    assert trouble is not None
    assert trouble.cure.startswith("hubssh start ")
    # Between double quotes nothing is left that sh, zsh, fish, cmd.exe or PowerShell would take for more than itself.
    assert not set(trouble.cure) & set("$`\\!%'()&|<>;")
    for shell in ("sh", "bash"):
        script = f'hubssh() {{ printf "%s\\n" "$@"; }}; {trouble.cure}'
        done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
        verb, typed = done.stdout.splitlines()
        assert (verb, made.meant(typed)) == ("start", login)


def test_names_are_shown_as_jupyterhub_shows_them_where_shells_leave_them_alone() -> None:
    made = with_servers("GPU", "My GPU", "a$b")
    cures = [trouble.cure for one in made.servers[1:] if (trouble := hubssh.server_trouble(made, one))]
    assert cures == ["hubssh start GPU", 'hubssh start "My GPU"', 'hubssh start "a=24b"']


@pytest.mark.parametrize(
    ("word", "shown"),
    [("gpu.hub", "gpu.hub"), ("=47.hub", '"=47.hub"'), ("/my keys/id", '"/my keys/id"'), ("/a`b", "'/a`b'")],
)
def test_words_are_quoted_where_a_shell_would_read_them_otherwise(word: str, shown: str) -> None:
    assert hubssh.shell_word(word) == shown


def test_json_of_a_failure_has_the_three_fields(tmp_path: Path) -> None:
    done = run("list", "--json", "--ssh-dir", str(tmp_path))
    assert done.returncode == 1
    assert set(json.loads(done.stdout)) == {"error", "error_description", "cure"}
    assert done.stderr == ""


def answered(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_command_answers_in_json_but_the_two_that_answer_to_a_program() -> None:
    takes = {name for name in hubssh.COMMANDS if "--json" in run(name, "--help").stdout}
    assert takes == set(hubssh.COMMANDS) - {"check", "completion"}
    assert "Every command but `check` and `completion` takes `--json`" in (HUBSSH.parent / "README.md").read_text()


def test_names_are_answered_in_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = store(tmp_path)
    assert hubssh.main(["list", "--names", "--json", "--ssh-dir", made.ssh]) == 0
    assert answered(capsys) == {"names": ["alice", "gpu", "off", "bob+lab"]}


def test_sessions_that_are_not_known_are_not_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, words = store(tmp_path), ["status", "--json", "--ssh-dir", str(tmp_path)]
    Pretended(sessions=Answer(503, {}, "", False, None)).stand_in(monkeypatch)
    assert hubssh.main(words, made.machine) == 0
    assert answered(capsys)["sessions"] is None
    Pretended(sessions=Answer(200, {"sessions": []}, "", False, None)).stand_in(monkeypatch)
    assert hubssh.main(words, made.machine) == 0
    assert answered(capsys)["sessions"] == []


def test_a_logout_that_revoked_nothing_is_not_done_unless_nothing_was_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Pretended(certificates=Answer(503, {}, "", False, None)).stand_in(monkeypatch)
    words = ["logout", "--ssh-dir", str(tmp_path)]
    assert hubssh.main(words, store(tmp_path).machine) == 1
    assert "It could not be revoked" in capsys.readouterr().out
    assert not (tmp_path / "hubssh").exists()
    made = store(tmp_path, site(certificate=certificate(valid_before=NOW)))
    assert hubssh.main([*words, "--json"], made.machine) == 0
    assert answered(capsys) == {"revoked": {"https://ssh.example.org": False}}


def test_stopped_by_hand_is_told_in_json_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hubssh, "do_status", stopped)
    assert hubssh.main(["status", "--json", "--ssh-dir", str(tmp_path)]) == 130
    assert answered(capsys)["error"] == "interrupted"


def test_a_reader_that_has_seen_enough_gets_no_traceback(tmp_path: Path) -> None:
    made = store(tmp_path)
    script = f'"{sys.executable}" "{HUBSSH}" status --ssh-dir "{made.ssh}" | true'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_terminal_of_another_alphabet_gets_no_traceback(tmp_path: Path) -> None:
    made = store(tmp_path, site(user="älice", certificate=None))
    done = subprocess.run(
        [sys.executable, str(HUBSSH), "status", "--ssh-dir", made.ssh],
        env={"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "https://ssh.example.org, as ?lice")


class Terminal(io.StringIO):
    """A terminal as far as hubssh asks."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_progress_is_one_line_that_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = hubssh.Progress(hubssh.Machine())
    progress.show("Waiting for you to approve …", "10 minutes left")
    progress.show(" 50 % Pulling the image")
    progress.end()
    lines = terminal.getvalue().split("\r")
    assert len(lines[2]) == len(lines[1])  # the shorter covers the longer
    assert lines[-2].strip() == ""
    assert lines[-1] == ""
    assert "\n" not in terminal.getvalue()


def test_elsewhere_each_new_thing_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = hubssh.Progress(hubssh.Machine())
    progress.show("Waiting for you to approve …", "10 minutes left")
    progress.show("Waiting for you to approve …", "9 minutes left")
    progress.show("100 % Ready")
    progress.end()
    assert capsys.readouterr().err == "  Waiting for you to approve …\n  100 % Ready\n"


def test_a_session_in_jump_mode_has_no_server_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jump = {"server": None, "login": None, "peer": "192.0.2.7", "mode": "jump"}
    direct = {"server": "alice/gpu", "login": "alice+gpu", "peer": "192.0.2.7", "mode": "direct"}
    sessions = hubssh.Answer(200, {"sessions": [jump, direct]}, "", False, None)
    Pretended(sessions=sessions).stand_in(monkeypatch)
    made = store(tmp_path, site())
    assert hubssh.main(["status", "--ssh-dir", made.ssh], made.machine) == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("Session: ")]
    assert shown == ["Session: jump mode from 192.0.2.7", "Session: alice+gpu from 192.0.2.7"]
