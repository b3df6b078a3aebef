"""Why: what a service answers goes into files that ssh obeys and onto terminals, so all of it is checked first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ca.certificate import Kind, line_of, string
from ca.names import Server as Named
from deploy.client import hubssh
from deploy.client.hubssh import Answer, Machine, Store, Trouble, Web
from tests.ca import makers as ca_makers
from tests.client.makers import store


class Service(Web):
    """Answers GET with a text, without a network."""

    def __init__(self, text: str, base: str = "https://ssh.example.org") -> None:
        super().__init__(Machine(), base)
        self.text = text

    def ask(self, method: str, path: str, **_: Any) -> Answer:
        return Answer(200, {}, self.text, False, None)


def about(**changes: Any) -> dict[str, Any]:
    return {
        "public_url": "https://ssh.example.org",
        "hub_url": "https://hub.example.org",
        "zone": "hub",
        "time": 1763000000,
        "bastion": {"hosts": ["ssh.example.org"], "port": 2222, "jump_login": "jump"},
        "unix_user": "jovyan",
        "features": {"device": True, "start": True, "interactive": True},
        **changes,
    }


@pytest.mark.parametrize("kind", ca_makers.KEY_KINDS)
def test_certificates_for_every_kind_of_key_are_read_as_the_ca_writes_them(kind: str) -> None:
    key = ca_makers.public_key(kind)
    signed = ca_makers.signed(ca_makers.certificate(key_blob=key.blob))
    found = hubssh.read_certificate(line_of(signed), key.line, 1763090000)
    made = ca_makers.certificate(key_blob=key.blob)
    assert found.user == "alice"
    assert int(found.serial) == made.serial
    assert found.principals == list(made.principals)
    assert (found.valid_after, found.valid_before) == (made.valid_after, made.valid_before)
    assert found.extensions == [name for name, _ in made.extensions]
    assert found.runs == {"alice": "1763000000000000"}
    assert hubssh.fingerprint(key.line) == key.fingerprint


def wrong_certificates() -> dict[str, str]:
    key, other = ca_makers.public_key(), ca_makers.public_key(number=7)
    good = ca_makers.signed(ca_makers.certificate(key_blob=key.blob))
    return {
        "another key's": line_of(ca_makers.signed(ca_makers.certificate(key_blob=other.blob))),
        "a host's": line_of(ca_makers.signed(ca_makers.certificate(key_blob=key.blob, kind=Kind.HOST))),
        "everybody's": line_of(ca_makers.signed(ca_makers.certificate(key_blob=key.blob, principals=()))),
        "for ever": line_of(ca_makers.signed(ca_makers.certificate(key_blob=key.blob, valid_before=(1 << 64) - 1))),
        "of somebody who paints": line_of(
            ca_makers.signed(ca_makers.certificate(key_blob=key.blob, key_id="a\x1b[31m"))
        ),
        "cut": line_of(good[:200]),
        "the bare key": key.line,
        "another type's": line_of(string(b"ssh-rsa-cert-v01@openssh.com") + good[36:]),
        "no base64": "ssh-ed25519-cert-v01@openssh.com AAAA!",
        "nothing": "",
        "two lines": "ssh-ed25519-cert-v01@openssh.com\nProxyCommand evil",
    }


@pytest.mark.parametrize("what", wrong_certificates())
def test_what_is_not_a_certificate_for_this_key_and_a_person_is_refused(what: str) -> None:
    with pytest.raises(Trouble):
        hubssh.read_certificate(wrong_certificates()[what], ca_makers.public_key().line)


def test_a_site_describes_itself() -> None:
    made = hubssh.site_from(about(), Service(""), "")
    assert (made.zone, made.hosts, made.port, made.jump_login, made.unix_user) == (
        "hub", ["ssh.example.org"], 2222, "jump", "jovyan",
    )  # fmt: skip


BAD = [
    {"zone": "hub\n    ProxyCommand evil"},
    {"zone": "*"},
    {"zone": None},
    {"zone": "h" * 3000},
    {"bastion": {"hosts": ["ssh.example.org\nProxyCommand evil"], "port": 2222, "jump_login": "jump"}},
    {"bastion": {"hosts": ["-oProxyCommand=evil"], "port": 2222, "jump_login": "jump"}},
    {"bastion": {"hosts": [], "port": 2222, "jump_login": "jump"}},
    {"bastion": {"hosts": ["ssh.example.org"], "port": "22 evil", "jump_login": "jump"}},
    {"bastion": {"hosts": ["ssh.example.org"], "port": 0, "jump_login": "jump"}},
    {"bastion": {"hosts": ["ssh.example.org"], "port": 22, "jump_login": "-oProxyCommand=evil"}},
    {"bastion": None},
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_what_would_mean_something_to_ssh_is_not_a_name(change: dict[str, Any]) -> None:
    with pytest.raises(Trouble, match="describes itself"):
        hubssh.site_from(about(**change), Service(""), "")


def test_an_account_that_is_no_account_is_left_out() -> None:
    assert hubssh.site_from(about(unix_user="root\nProxyCommand evil"), Service(""), "").unix_user == ""


@pytest.mark.parametrize("zone", ["com", "github.com", "internal"])
def test_a_site_gets_other_names_than_hub_only_when_somebody_says_so(zone: str) -> None:
    with pytest.raises(Trouble, match=f"end in .{zone} would lead to") as trouble:
        hubssh.site_from(about(zone=zone), Service(""), "")
    assert trouble.value.cure == f"if that is meant, add --zone {zone}"
    assert hubssh.site_from(about(zone=zone), Service(""), zone).zone == zone


def test_of_the_service_s_known_hosts_only_the_keys_are_taken(tmp_path: Path) -> None:
    key, made = ca_makers.public_key().line, store(tmp_path)
    (one,) = made.sites()
    kept = hubssh.authority(one, Service(f"github.com {key}\n@cert-authority * {key} evil\n@revoked * {key}\n"))
    algorithm, blob = key.split()[:2]
    assert kept == f"@cert-authority [ssh.example.org]:2222,*.hub,[*.hub]:* {algorithm} {blob}\n"


@pytest.mark.parametrize("text", ["", "@cert-authority * ssh-ed25519", "@cert-authority * ssh-ed25519 AAAA", "<html>"])
def test_without_an_authority_for_host_keys_nothing_is_trusted(tmp_path: Path, text: str) -> None:
    made = store(tmp_path)
    (one,) = made.sites()
    with pytest.raises(Trouble):
        hubssh.authority(one, Service(text))


def test_servers_are_listed_without_those_that_are_none() -> None:
    listed: list[object] = [
        {"owner": "alice", "name": "gpu", "login": "alice+gpu", "state": "running", "ssh": True, "instance": "17",
         "unix_user": "jovyan"},
        {"owner": "a\x1b]0;x\x07b", "name": "", "login": "=61", "state": "running\n", "ssh": "yes", "instance": None,
         "unix_user": "-oX"},
        {"owner": "alice", "name": "x", "login": "alice+x\n    ProxyCommand evil"},
        {"owner": "alice", "name": "x", "login": "-oProxyCommand=evil"},
        {"owner": "alice", "name": "x", "login": "*"},
        "evil",
        None,
    ]  # fmt: skip
    found = hubssh.servers_from({"servers": listed}, "alice")
    assert [one.login for one in found] == ["alice+gpu", "=61"]
    assert found[0] == hubssh.Server("alice+gpu", "alice/gpu", True, "running", True, "17", "jovyan")
    assert (found[1].label, found[1].state, found[1].ssh, found[1].unix_user) == ("a ]0;x b", "running", None, "")
    assert hubssh.servers_from({"servers": "evil"}, "alice") == ()


@pytest.mark.parametrize("name", ["alice", "Bob.Smith@example.org", "-x", "ü", "a b", "a+b", "a=b"])
def test_names_are_quoted_as_everywhere_here(name: str) -> None:
    assert hubssh.quote(name) == Named(name).login
    assert hubssh.LOGIN.fullmatch(Named(name, "gpu").login)


@pytest.mark.parametrize("text", ["\x1b[31mred\x1b[0m", "a\nb", "a\u202eb", "a\x9bb", "\ud800"])
def test_nothing_that_moves_a_cursor_reaches_the_terminal(text: str) -> None:
    assert hubssh.clean(text).isprintable()


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("ssh.example.org", "https://ssh.example.org"),
        ("https://ssh.example.org/", "https://ssh.example.org"),
        ("https://example.org:8443/ssh/", "https://example.org:8443/ssh"),
        ("http://127.0.0.1:9080", "http://127.0.0.1:9080"),
        ("http://[::1]:9080", "http://[::1]:9080"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_addresses_are_read_as_people_type_them(typed: str, address: str) -> None:
    assert hubssh.web_address(typed) == address


@pytest.mark.parametrize(
    "typed",
    [
        "http://ssh.example.org", "http://127.0.0.1.evil.org", "http://localhost.evil.org", "ftp://x", "https://", "",
        "https://u:p@ssh.example.org", "https://ssh.example.org/?x", "https://a b", "https://x:port", "https://x\ny",
    ],
)  # fmt: skip
def test_addresses_that_are_not_safe_to_ask_are_refused(typed: str) -> None:
    with pytest.raises(Trouble):
        hubssh.web_address(typed)


def test_a_damaged_file_is_told_with_its_cure(tmp_path: Path) -> None:
    made = store(tmp_path)
    (one,) = made.sites()
    Path(made.file(one, "site.json")).write_text('{"public_url": 1')
    with pytest.raises(Trouble, match=r"site\.json is damaged") as trouble:
        made.sites()
    assert "log in again" in trouble.value.cure


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    made = store(tmp_path)
    (one,) = Store(Machine(), str(tmp_path)).sites()
    made.save(one)
    assert made.sites() == [one]
    assert {path.name: path.stat().st_mode & 0o777 for path in Path(made.folder(one)).iterdir()} == {"site.json": 0o600}
    assert Path(made.path).stat().st_mode & 0o777 == 0o700
