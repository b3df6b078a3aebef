"""Why: what hubssh writes has to be read by the ssh that is there, and by editors that only look for Host lines."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ca.limits import Capability
from deploy.client import hubssh
from deploy.client.hubssh import Machine, Server, Store, Trouble
from tests.client.makers import BOOK, NOW, certificate, limited, site, store
from tests.clients.openssh import Missing, OpenSSH


def asked(made: Store, host: str, *options: str, ssh: str = "ssh") -> dict[str, list[str]]:
    """What ssh itself makes of a host name."""
    done = subprocess.run(
        [ssh, "-G", "-F", f"{made.ssh}/config", *options, host],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, []).append(value)
    return found


def configured(folder: Path, *sites: hubssh.Site) -> Store:
    made = store(folder, *sites)
    hubssh.configure(made)
    # A check of this ssh would look at the real clock, and ask the service.
    Path(made.path, "check").write_text("#!/bin/sh\nexit 0\n")
    return made


@pytest.mark.parametrize("suite", ["trixie", "testing"])
def test_newer_releases_of_ssh_read_it_alike(tmp_path: Path, suite: str) -> None:
    try:
        ssh = OpenSSH.of(suite).program("ssh")
    except Missing as missing:
        pytest.skip(str(missing))
    made = configured(tmp_path)
    found = asked(made, "gpu.hub", ssh=ssh)
    own = asked(made, "gpu.hub")
    for name in ("hostname", "user", "proxyjump", "identityfile", "certificatefile", "userknownhostsfile"):
        assert found[name] == own[name]
    assert asked(made, "hubssh-ssh.example.org", ssh=ssh)["port"] == ["2222"]


@pytest.mark.parametrize("host", ["gpu.hub", "alice+gpu.hub"])
def test_both_names_of_a_server_lead_end_to_end_through_the_bastion(tmp_path: Path, host: str) -> None:
    made = configured(tmp_path)
    found = asked(made, host)
    assert found["hostname"] == ["alice+gpu.hub"]
    assert found["user"] == ["jovyan"]
    assert found["proxyjump"] == ["hubssh-ssh.example.org"]
    folder = f"{made.path}/ssh.example.org"
    assert found["identityfile"] == [f"{folder}/id_ed25519"]
    assert found["certificatefile"] == [f"{folder}/id_ed25519-cert.pub"]
    assert found["userknownhostsfile"] == [f"{folder}/known_hosts"]
    assert found["stricthostkeychecking"] == ["true"]
    assert found["identitiesonly"] == ["yes"]


@pytest.mark.parametrize("host", ["gpu.hub", "alice+gpu.hub"])
def test_where_servers_run_as_different_accounts_each_has_its_own(tmp_path: Path, host: str) -> None:
    servers = tuple(one._replace(unix_user="gpu-user" if one.login == "alice+gpu" else "") for one in site().servers)
    made = configured(tmp_path, site(servers=servers))
    assert asked(made, host)["user"] == ["gpu-user"]
    assert asked(made, "alice.hub")["user"] == ["jovyan"]


def test_the_door_is_the_bastion(tmp_path: Path) -> None:
    found = asked(configured(tmp_path), "hubssh-ssh.example.org")
    assert (found["hostname"], found["port"], found["user"]) == (["ssh.example.org"], ["2222"], ["jump"])


@pytest.mark.parametrize("host", ["gpu.hub", "alice+gpu.hub"])
def test_whoever_lacks_what_jumping_needs_is_led_to_the_bastion_as_a_server(tmp_path: Path, host: str) -> None:
    less = certificate(extensions=limited(frozenset({Capability.SUBSYSTEM})))
    found = asked(configured(tmp_path, site(certificate=less)), host)
    assert (found["hostname"], found["port"], found["user"]) == (["ssh.example.org"], ["2222"], ["alice+gpu"])
    assert "proxyjump" not in found


def test_a_missing_comfort_does_not_close_the_way_end_to_end() -> None:
    less = certificate(extensions=limited(frozenset({Capability.X11, Capability.AGENT, Capability.PTY})))
    assert site(certificate=less).jumps
    assert not site(certificate=less, mode="direct").jumps
    assert not site(unix_user="").jumps


def test_what_jumping_needs_is_what_the_bastion_asks_for() -> None:
    from ca.limits import RESTORABLE_BY_OWNER, extensions_for

    assert frozenset(extensions_for(RESTORABLE_BY_OWNER)) == hubssh.JUMP_NEEDS


def test_editors_find_one_host_line_for_each_server_and_no_other(tmp_path: Path) -> None:
    made = configured(tmp_path)
    listed = re.findall(r"(?m)^Host (.*)$", Path(made.config).read_text())
    assert [one for one in listed if "*" not in one] == ["alice.hub", "gpu.hub", "off.hub", "bob+lab.hub"]


def test_other_hosts_are_none_of_our_business(tmp_path: Path) -> None:
    made = configured(tmp_path)
    with_us = asked(made, "github.com")
    without = subprocess.run(["ssh", "-G", "-F", "none", "github.com"], capture_output=True, text=True, check=True)
    assert "\n".join(f"{name} {value}" for name in with_us for value in with_us[name]).split() == without.stdout.split()


def test_a_short_name_never_hides_somebodys_default_server(tmp_path: Path) -> None:
    servers = (
        *site().servers,
        Server("alice+bob", "alice/bob", True, "running"),
        Server("bob", "bob", False, "running"),
    )
    made = configured(tmp_path, site(servers=servers))
    assert asked(made, "bob.hub")["hostname"] == ["bob.hub"]
    assert asked(made, "alice+bob.hub")["hostname"] == ["alice+bob.hub"]
    assert site(servers=servers).login_of("bob.hub") == "bob"


def test_of_two_sites_with_the_same_names_the_later_login_counts(tmp_path: Path) -> None:
    other = site(public_url="https://ssh.other.org", hosts=["ssh.other.org"], logged_in_at=NOW + 1)
    made = configured(tmp_path, site(), other)
    assert asked(made, "gpu.hub")["proxyjump"] == ["hubssh-ssh.other.org"]
    assert asked(made, "hubssh-ssh.example.org")["hostname"] == ["ssh.example.org"]


def two_sites_with_one_zone(folder: Path, **newer: Any) -> Store:
    """alice's servers are known at the older one; of her account at the newer one it knows the default server."""
    other = site(
        public_url="https://ssh.other.org",
        hosts=["ssh.other.org"],
        user="al",
        certificate=certificate(user="al", principals=[f"al/:{BOOK}"], **newer),
        servers=(Server("al", "al", True, "running", True, BOOK),),
        logged_in_at=NOW + 1,
    )
    return configured(folder, site(), other)


@pytest.mark.parametrize("host", ["gpu.hub", "alice+gpu.hub", "alice.hub"])
def test_a_name_that_one_site_knows_leads_there_whatever_was_logged_in_to_later(tmp_path: Path, host: str) -> None:
    made = two_sites_with_one_zone(tmp_path)
    folder = f"{made.path}/ssh.example.org"
    found = asked(made, host)
    assert found["proxyjump"] == ["hubssh-ssh.example.org"]
    assert found["identityfile"] == [f"{folder}/id_ed25519"]
    assert found["certificatefile"] == [f"{folder}/id_ed25519-cert.pub"]
    assert found["userknownhostsfile"] == [f"{folder}/known_hosts"]
    whose, login = hubssh.led_to(made.sites(), host) or (None, "")
    assert whose is not None
    assert (whose.name, login) == ("ssh.example.org", site().login_of(host))


@pytest.mark.parametrize("mode", ["jump", "direct"])
def test_a_name_that_no_site_knows_leads_to_the_later_one_that_takes_such_names(tmp_path: Path, mode: str) -> None:
    made = two_sites_with_one_zone(tmp_path)
    later = made.sites()[0]
    made.save(later._replace(mode=mode))
    hubssh.configure(made)
    Path(made.path, "check").write_text("#!/bin/sh\nexit 0\n")
    takes = "ssh.other.org" if mode == "jump" else "ssh.example.org"  # the way to a name, directly, has to be known
    found = asked(made, "new.hub")
    assert found["proxyjump"] == [f"hubssh-{takes}"]
    assert found["identityfile"] == [f"{made.path}/{takes}/id_ed25519"]
    whose, login = hubssh.led_to(made.sites(), "new.hub") or (None, "")
    assert whose is not None
    assert (whose.name, login) == (takes, "new")
    assert asked(made, "al.hub").get("proxyjump") == (["hubssh-ssh.other.org"] if mode == "jump" else None)


def test_of_zones_within_each_other_the_narrower_one_counts(tmp_path: Path) -> None:
    inner = site(public_url="https://ssh.other.org", hosts=["ssh.other.org"], zone="lab.hub", logged_in_at=NOW - 1)
    made = configured(tmp_path, site(), inner)
    assert asked(made, "new.lab.hub")["proxyjump"] == ["hubssh-ssh.other.org"]
    assert asked(made, "new.hub")["proxyjump"] == ["hubssh-ssh.example.org"]
    whose, login = hubssh.led_to(made.sites(), "new.lab.hub") or (None, "")
    assert whose is not None
    assert (whose.zone, login) == ("lab.hub", "new")


def test_the_person_still_chooses_on_the_command_line(tmp_path: Path) -> None:
    assert asked(configured(tmp_path), "gpu.hub", "-l", "root")["user"] == ["root"]


def test_when_the_check_says_stop_ssh_ends_without_a_word_of_its_own(tmp_path: Path) -> None:
    made = configured(tmp_path)
    Path(made.path, "check").write_text("#!/bin/sh\necho told $1 >&2\nexit 1\n")
    done = subprocess.run(
        ["ssh", "-F", f"{made.ssh}/config", "gpu.hub", "true"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (255, "", "told gpu.hub\n")


def test_a_host_name_that_would_leave_its_place_in_the_shell_is_never_put_there(tmp_path: Path) -> None:
    made = store(tmp_path)
    hubssh.configure(made)
    Path(made.path, "check").write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/ran\n')
    for host in ("a'$(touch pwned)'.hub", "a\\.hub", "a$(touch pwned).hub", "a b.hub"):
        subprocess.run(
            ["ssh", "-G", "-F", f"{made.ssh}/config", host], capture_output=True, check=False, timeout=60, cwd=tmp_path
        )
    asked(made, "gpu.hub")
    ran = (tmp_path / "ran").read_text().splitlines()
    assert not [one for one in ran if "'" in one or "\\" in one]
    assert ran[-1] == "gpu.hub"
    assert not (tmp_path / "pwned").exists()
    (line,) = [one for one in Path(made.config).read_text().splitlines() if "!exec" in one]
    assert line.startswith('Match originalhost "*.hub,!*\'*,!*\\*" !exec')


def test_a_check_that_cannot_run_lets_ssh_go_on(tmp_path: Path) -> None:
    made = store(tmp_path)
    hubssh.configure(made)
    name, script = hubssh.check_script(made, "/no/python/here")
    Path(made.path, name).write_text(script)
    assert "proxycommand" not in asked(made, "gpu.hub")
    done = subprocess.run([f"{made.path}/check", "gpu.hub"], capture_output=True, text=True, check=False)
    assert done.stderr == "hubssh: the Python that it ran with has gone: run hubssh login again\n"


@pytest.mark.parametrize("folder", ["with blank", "it-is-ssh", "ümlaut"])
def test_folders_may_have_blanks_and_letters_of_all_alphabets(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    made = configured(tmp_path / folder)
    assert asked(made, "gpu.hub")["identityfile"] == [f"{made.path}/ssh.example.org/id_ed25519"]


@pytest.mark.parametrize("folder", ['a"b', "a%b", "a'b", "a\nb", "a$b", "a\\b"])
def test_folders_that_would_mean_something_to_ssh_are_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(Trouble, match="cannot hold"):
        hubssh.configure(Store(Machine(), str(tmp_path / folder)))


def test_the_script_of_windows_goes_on_unless_it_is_told_to_stop() -> None:
    """It could not be run here: there is no Windows. What is tested is its text."""
    machine = Machine(windows=True)
    made = Store(machine, "C:/Users/Alice Smith/.ssh")
    name, script = hubssh.check_script(made, "C:\\Program Files\\Python\\python.exe")
    assert name == "check.cmd"
    assert '"C:\\Program Files\\Python\\python.exe" -I -S -c' in script
    assert 'if not exist "C:\\Program Files\\Python\\python.exe" echo hubssh: the Python' in script
    assert f"if %errorlevel%=={hubssh.STOP} exit /b 1\r\nexit /b 0\r\n" in script


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
    (line,) = [one for one in hubssh.config_text(made, [site()]).splitlines() if "!exec" in one]
    assert line.endswith('&& check.cmd host:%n"')
    path = folder / "config"
    path.write_text(f'{line.split(" !exec ")[0]} exec "{command}"\n    User asked\n')
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


class TestTheOneLineInTheOwnConfiguration:
    """`Include` has to stand before every Host; everything else in that file is somebody's own work."""

    OWN = "# mine\nHost work\n    HostName work.example.org\n\nHost *\n    ForwardAgent no\n"

    def test_it_is_put_at_the_top_once_and_taken_out_without_a_trace(self, tmp_path: Path) -> None:
        path = tmp_path / "config"
        path.write_text(self.OWN)
        path.chmod(0o644)
        made = store(tmp_path)
        hubssh.configure(made)
        once = path.read_text()
        hubssh.configure(made)
        assert path.read_text() == once
        assert once.endswith(self.OWN)
        assert hubssh.is_included(made)
        assert path.stat().st_mode & 0o777 == 0o644
        hubssh.exclude(made)
        assert path.read_text() == self.OWN

    @pytest.mark.parametrize(
        "own",
        [
            "# für Jörg\nHost w\n".encode("latin-1"),
            b"# \xff\x80\r\nHost w\r\n",
            b"Host w # no end",
            b"\x0c\n\x85\nHost w\n",
            b"\n\nHost w\n",
        ],
    )
    def test_it_is_not_read_as_more_than_bytes(self, tmp_path: Path, own: bytes) -> None:
        path = tmp_path / "config"
        path.write_bytes(own)
        made = store(tmp_path)
        hubssh.configure(made)
        assert path.read_bytes().endswith(own)
        hubssh.configure(made)
        hubssh.exclude(made)
        assert path.read_bytes() == own

    def test_the_mark_that_notepad_puts_first_stays_first(self, tmp_path: Path) -> None:
        """ssh on Windows passes over it there, and nowhere else."""
        path, own = tmp_path / "config", b"\xef\xbb\xbfHost w\n"
        path.write_bytes(own)
        made = store(tmp_path)
        hubssh.configure(made)
        assert hubssh.is_included(made)
        assert path.read_bytes().count(own[:3]) == 1
        assert path.read_bytes().startswith(own[:3] + b"# hubssh")
        hubssh.exclude(made)
        assert path.read_bytes() == own

    def test_below_a_host_it_counts_for_that_host_only_so_it_is_moved(self, tmp_path: Path) -> None:
        made = store(tmp_path)
        (tmp_path / "config").write_text(f'{self.OWN}Include {made.config}\nInclude "{made.config}"\n')
        assert not hubssh.is_included(made)
        hubssh.configure(made)
        assert hubssh.is_included(made)
        assert (tmp_path / "config").read_text().count(f'Include "{made.config}"') == 1

    def test_a_file_that_was_not_there_is_gone_again(self, tmp_path: Path) -> None:
        made = store(tmp_path)
        hubssh.configure(made)
        assert (tmp_path / "config").stat().st_mode & 0o777 == 0o600
        hubssh.exclude(made)
        assert not (tmp_path / "config").exists()

    def test_a_link_to_dot_files_elsewhere_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "dot-config").write_text(self.OWN)
        (tmp_path / "config").symlink_to("dot-config")
        made = store(tmp_path)
        hubssh.configure(made)
        assert (tmp_path / "config").is_symlink()
        assert (tmp_path / "dot-config").read_text().endswith(self.OWN)
        hubssh.exclude(made)
        assert (tmp_path / "dot-config").read_text() == self.OWN


def test_in_ones_own_home_paths_are_written_from_there() -> None:
    made = Store(Machine())
    assert hubssh._path(made, f"{made.ssh}/hubssh/x y") == '"~/.ssh/hubssh/x y"'
    assert hubssh._check_command(made) == "'%d/.ssh/hubssh/check' '%n'"
    assert hubssh._include_line(made) == "Include ~/.ssh/hubssh/config"
