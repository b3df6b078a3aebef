"""Why: ssh asks hubssh before each connection, and may only be kept from one by an answer, never for want of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.client import hubssh
from deploy.client.hubssh import Machine, Store, Trouble
from tests.client.makers import NOW, asked, configured, site, store
from tests.clients.openssh import Missing, OpenSSH


def test_when_the_check_says_stop_ssh_ends_without_a_word_of_its_own(tmp_path: Path) -> None:
    made = configured(tmp_path)
    Path(made.path, hubssh.SCRIPT).write_text("#!/bin/sh\necho told $1 >&2\n")
    done = subprocess.run(
        ["ssh", "-F", f"{made.ssh}/config", "gpu.hub", "true"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (255, "", "told gpu.hub\n")


def test_a_host_name_that_would_leave_its_place_in_the_shell_is_never_put_there(tmp_path: Path) -> None:
    made = store(tmp_path)
    hubssh.configure(made)
    Path(made.path, hubssh.SCRIPT).write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/ran\n')
    for host in ("a'$(touch pwned)'.hub", "a\\.hub", "a$(touch pwned).hub", "a b.hub"):
        subprocess.run(
            ["ssh", "-G", "-F", f"{made.ssh}/config", host], capture_output=True, check=False, timeout=60, cwd=tmp_path
        )
    asked(made, "gpu.hub")
    ran = (tmp_path / "ran").read_text().splitlines()
    assert not [one for one in ran if "'" in one or "\\" in one]
    assert ran[-1] == "gpu.hub"
    assert not (tmp_path / "pwned").exists()
    (line,) = [one for one in Path(made.config).read_text().splitlines() if " exec " in one]
    assert line.startswith('Match !canonical originalhost "*.hub,!*\'*,!*\\*" exec')


def test_where_python_has_gone_ssh_goes_on_and_that_is_said(tmp_path: Path) -> None:
    made = store(tmp_path)
    hubssh.configure(made)
    name, script = hubssh.check_script(made, "/no/python/here")
    Path(made.path, name).write_text(script)
    assert "proxycommand" not in asked(made, "gpu.hub")
    done = subprocess.run([f"{made.path}/{name}", "gpu.hub"], capture_output=True, text=True, check=False)
    assert done.stderr == "hubssh: the Python that it ran with has gone: run hubssh login again\n"


@pytest.mark.parametrize("broken", ["missing", "not executable", "for another shell", "no program", "damaged"])
def test_a_script_that_cannot_run_lets_ssh_go_on(tmp_path: Path, broken: str) -> None:
    made = configured(tmp_path)
    script = Path(made.path, hubssh.SCRIPT)
    if broken == "missing":
        script.unlink()
    elif broken == "not executable":
        script.chmod(0o600)
    elif broken == "for another shell":  # as in a Cygwin's or Git's, which are no cmd.exe
        windows = Store(Machine(windows=True, clock=lambda: NOW), str(tmp_path))
        Path(made.config).write_text(hubssh.config_text(windows, [site()]))
    else:
        script.write_text("#!/no/such/shell\n" if broken == "no program" else "#!/bin/sh\nif (\n")
    found = asked(made, "gpu.hub")
    assert "proxycommand" not in found
    assert found["proxyjump"] == ["hubssh-ssh.example.org"]


@pytest.mark.parametrize(("said", "stops"), [(0, False), (1, False), (2, False), (hubssh.STOP, True), (127, False)])
def test_the_script_stops_ssh_where_hubssh_says_so_and_nowhere_else(tmp_path: Path, said: int, stops: bool) -> None:
    made = configured(tmp_path)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexit {said}\n")
    python.chmod(0o700)
    name, script = hubssh.check_script(made, str(python))
    Path(made.path, name).write_text(script)
    assert ("proxycommand" in asked(made, "gpu.hub")) is stops


@pytest.mark.parametrize("status", [0, 1])
def test_a_configuration_of_before_the_script_said_stop_keeps_its_own(tmp_path: Path, status: int) -> None:
    """That one went on at 0. Both are there where hubssh ended between the two files that it writes."""
    made = configured(tmp_path)
    path, earlier = Path(made.config), Path(made.path, "check")
    old = path.read_text().replace("!canonical ", "").replace(" exec ", " !exec ").replace(hubssh.SCRIPT, "check")
    path.write_text(old)
    earlier.write_text(f"#!/bin/sh\nexit {status}\n")
    earlier.chmod(0o700)
    hubssh.install(made)
    assert ("proxycommand" in asked(made, "gpu.hub")) is (status == 1)


@pytest.mark.parametrize("suite", ["own", "trixie", "testing"])
@pytest.mark.parametrize("own", ["", "Match final all\n    ForwardX11Trusted yes\n", "CanonicalizeHostname always\n"])
def test_ssh_asks_once_for_a_connection_however_often_it_reads(tmp_path: Path, suite: str, own: str) -> None:
    """Fedora's own configuration has it read everything twice, and so has a host name that is made canonical."""
    try:
        ssh = OpenSSH.of(suite).program("ssh")
    except Missing as missing:
        pytest.skip(str(missing))
    made = configured(tmp_path)
    with (tmp_path / "config").open("a") as config:
        config.write(own)
    for status, ends in ((0, True), (1, False)):
        Path(made.path, hubssh.SCRIPT).write_text(f"#!/bin/sh\necho $1 >> {tmp_path}/asked\nexit {status}\n")
        assert ("proxycommand" in asked(made, "gpu.hub", ssh=ssh)) is ends
        assert (tmp_path / "asked").read_text() == "gpu.hub\n"
        (tmp_path / "asked").unlink()


def test_the_script_of_windows_goes_on_unless_it_is_told_to_stop() -> None:
    """It could not be run here: there is no Windows. What is tested is its text."""
    machine = Machine(windows=True)
    made = Store(machine, "C:/Users/Alice Smith/.ssh")
    name, script = hubssh.check_script(made, "C:\\Program Files\\Python\\python.exe")
    assert name == "stops.cmd"
    assert '"C:\\Program Files\\Python\\python.exe" -I -S -c' in script
    assert 'if not exist "C:\\Program Files\\Python\\python.exe" echo hubssh: the Python' in script
    assert f"if %errorlevel%=={hubssh.STOP} exit /b 0\r\nexit /b 1\r\n" in script


@pytest.mark.parametrize(
    ("python", "named"),
    [
        (
            "C:\\Users\\Jörg\\AppData\\Local\\Programs\\Python\\python.exe",
            "%LOCALAPPDATA%\\Programs\\Python\\python.exe",
        ),
        ("c:\\users\\jörg\\100%\\python.exe", "%USERPROFILE%\\100%%\\python.exe"),
        ("D:\\Python\\python.exe", "D:\\Python\\python.exe"),
        ("C:\\Users\\Jörgen\\python.exe", "C:\\Users\\Jörgen\\python.exe"),
    ],
)
def test_the_script_of_windows_does_not_spell_the_name_of_the_person(
    monkeypatch: pytest.MonkeyPatch, python: str, named: str
) -> None:
    monkeypatch.setenv("USERPROFILE", "C:\\Users\\Jörg")
    monkeypatch.setenv("LOCALAPPDATA", "C:\\Users\\Jörg\\AppData\\Local")
    machine = Machine(windows=True)
    _, script = hubssh.check_script(Store(machine, "C:/Users/x/.ssh"), python)
    assert script.count(f'"{named}"') == 3
    if script.isascii():
        assert hubssh._script_bytes(machine, script) == script.encode("ascii")
    else:  # no Windows, and so no "oem": as where a letter is not in it
        with pytest.raises(Trouble, match=r"cmd\.exe cannot be told where Python is"):
            hubssh._script_bytes(machine, script)


def windows_line(folder: Path, command: str) -> Path:
    """ssh's own reading of the line that guards the names on Windows, with another command in it."""
    made = Store(Machine(windows=True, clock=lambda: NOW), str(folder))
    (line,) = [one for one in hubssh.config_text(made, [site()]).splitlines() if " exec " in one]
    assert line.endswith('&& stops.cmd host:%n"')
    path = folder / "config"
    path.write_text(f'{line.split(" exec ")[0]} exec "{command}"\n    User asked\n')
    return path


@pytest.mark.parametrize("host", ["gpu.hub", "bob=40example.org.hub", "=47=50=55.hub", "bob=40x+a=20b.hub"])
def test_on_windows_every_name_of_a_server_is_checked(tmp_path: Path, host: str) -> None:
    path = windows_line(tmp_path, "true")
    done = subprocess.run(["ssh", "-G", "-F", str(path), host], capture_output=True, text=True, check=True)
    assert "user asked\n" in done.stdout


@pytest.mark.parametrize("char", "&|<>^%();@!` ")
def test_on_windows_nothing_that_means_something_to_its_shell_is_put_there(tmp_path: Path, char: str) -> None:
    path = windows_line(tmp_path, "true")
    done = subprocess.run(["ssh", "-G", "-F", str(path), f"a{char}b.hub"], capture_output=True, text=True, check=False)
    assert "user asked\n" not in done.stdout


def test_on_windows_the_host_is_what_stands_behind_its_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run_check(_: Store, host: str) -> int:
        asked.append(host)
        return 0

    monkeypatch.setattr(hubssh, "run_check", run_check)
    for windows, host in ((True, "host:=47.hub"), (False, "=47.hub"), (False, "host:x.hub")):
        with monkeypatch.context() as patched:
            patched.setattr(hubssh, "Machine", lambda windows=windows: Machine(windows=windows))
            assert hubssh.check_from_ssh(str(tmp_path), host) == 0
    assert asked == ["=47.hub", "=47.hub", "host:x.hub"]
