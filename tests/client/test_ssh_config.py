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
from tests.client.makers import BOOK, NOW, asked, certificate, configured, limited, site
from tests.clients.openssh import Missing, OpenSSH


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


@pytest.mark.parametrize("host", ["gpu.hub", "alice+gpu.hub", "new.hub"])
def test_the_port_that_somebody_has_for_all_hosts_is_none_of_a_server_s(tmp_path: Path, host: str) -> None:
    made = configured(tmp_path)
    with (tmp_path / "config").open("a") as config:
        config.write("Host *\n    Port 2200\n")
    assert asked(made, host)["port"] == ["22"]
    assert asked(made, host, "-p", "2022")["port"] == ["2022"]
    assert asked(made, "hubssh-ssh.example.org")["port"] == ["2222"]
    assert asked(made, "github.com")["port"] == ["2200"]


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
    Path(made.path, hubssh.SCRIPT).write_text("#!/bin/sh\nexit 1\n")
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


@pytest.mark.parametrize("folder", ["with blank", "it-is-ssh", "ümlaut"])
def test_folders_may_have_blanks_and_letters_of_all_alphabets(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    made = configured(tmp_path / folder)
    assert asked(made, "gpu.hub")["identityfile"] == [f"{made.path}/ssh.example.org/id_ed25519"]


@pytest.mark.parametrize("folder", ['a"b', "a%b", "a'b", "a\nb", "a$b", "a\\b"])
def test_folders_that_would_mean_something_to_ssh_are_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(Trouble, match="cannot hold"):
        hubssh.configure(Store(Machine(), str(tmp_path / folder)))


def test_in_ones_own_home_paths_are_written_from_there() -> None:
    made = Store(Machine())
    assert hubssh._path(made, f"{made.ssh}/hubssh/x y") == '"~/.ssh/hubssh/x y"'
    assert hubssh._check_command(made) == "'%d/.ssh/hubssh/stops' '%n'"
    assert hubssh._include_line(made) == "Include ~/.ssh/hubssh/config"
