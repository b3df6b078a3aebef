"""Why: everything that travels is named by this grammar, so it has to hold both ways for any name."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ca.errors import MalformedName
from ca.names import (
    MAX_NAME_LENGTH,
    Instance,
    Server,
    check_zone,
    instance_id,
    login_candidates,
    parse_host_name,
    parse_login,
    parse_principal,
    quote,
    unquote,
)
from tests.ca import strategies

ANYTHING = st.text(st.characters(codec="utf-8"))
NEARLY = st.text(st.sampled_from("ab=-+/:.0129fFA%,* \n\u00fc"), max_size=14)


@given(ANYTHING)
def test_any_text_is_quoted_with_plain_characters_and_comes_back(text: str) -> None:
    quoted = quote(text)
    assert re.fullmatch(r"([a-z0-9._][a-z0-9._=-]*|=[0-9a-f]{2}[a-z0-9._=-]*)?", quoted)
    assert unquote(quoted) == text


@given(NEARLY | ANYTHING)
def test_unquoting_accepts_only_what_quoting_writes(text: str) -> None:
    try:
        plain = unquote(text)
    except MalformedName:
        return
    assert quote(plain) == text


@given(strategies.servers, strategies.zones)
def test_a_server_survives_its_login_and_its_host_name(server: Server, zone: str) -> None:
    assert parse_login(server.login) == server
    assert parse_host_name(server.host_name(zone), zone) == server
    assert server in login_candidates(server.login)
    assert login_candidates(server.login)[0] == server


@given(strategies.instances)
def test_an_instance_survives_its_principal(instance: Instance) -> None:
    assert parse_principal(instance.principal) == instance


@given(strategies.instances, strategies.zones)
def test_no_other_character_ever_appears(instance: Instance, zone: str) -> None:
    for text in (instance.principal, instance.server.login, instance.server.host_name(zone)):
        assert re.fullmatch(r"[a-z0-9._\-=+/:]+", text)
        assert text == text.lower()
        assert not text.startswith("-")
    assert not set(instance.principal) & set(", \t\r\n*?!\0\x7f")
    assert "/" in instance.principal
    assert "/" not in instance.server.login


@given(strategies.instances, strategies.instances, strategies.zones)
def test_two_different_servers_share_no_name(one: Instance, other: Instance, zone: str) -> None:
    same = one.server == other.server
    assert (one.server.login == other.server.login) is same
    assert (one.server.host_name(zone) == other.server.host_name(zone)) is same
    assert (one.principal == other.principal) is (one == other)


@given(NEARLY | ANYTHING)
def test_the_login_parser_accepts_only_our_spelling(text: str) -> None:
    try:
        server = parse_login(text)
    except MalformedName:
        return
    assert server.login == text


@given(NEARLY | ANYTHING)
def test_the_principal_parser_accepts_only_our_spelling(text: str) -> None:
    for candidate in (text, f"{text}:17", f"a/{text}:17", f"a/b:{text}"):
        try:
            instance = parse_principal(candidate)
        except MalformedName:
            continue
        assert instance.principal == candidate


@given(NEARLY | ANYTHING)
def test_the_host_name_parser_accepts_only_our_spelling(text: str) -> None:
    for candidate in (text, f"{text}.hub"):
        try:
            server = parse_host_name(candidate, "hub")
        except MalformedName:
            continue
        assert server.host_name("hub") == candidate


@settings(max_examples=25)
@given(strategies.servers)
def test_ssh_takes_login_and_host_name_as_they_are(server: Server) -> None:
    done = subprocess.run(
        ["ssh", "-G", "-F", "none", f"{server.login}@{server.host_name('hub')}"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert f"user {server.login}\n" in done.stdout
    assert f"hostname {server.host_name('hub')}\n" in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "=4",
        "=zz",
        "=4A",
        "=61",
        "A",
        "alice+",
        "+gpu",
        "a+b+c",
        "alice/gpu",
        "=ff",
        "=c3",
        "-x",
        "a\n",
        "ü",
        "alice+-gpu",
        "a b",
        "a,b",
        "a*",
        "a%",
        "a:1",
    ],
)
def test_a_login_outside_the_grammar_is_malformed(text: str) -> None:
    with pytest.raises(MalformedName):
        parse_login(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "alice:1",
        "alice/",
        "alice/:",
        "alice/:0",
        "alice/:01",
        "alice/:-1",
        "alice/:1 ",
        "alice/:1\n",
        "alice/:١",
        "/gpu:1",
        "alice/gpu:1,bob/:1",
        "*/:1",
        "alice/*:1",
        "alice/a/b:1",
        "alice/a:1:2",
        "Alice/:1",
        f"alice/:{1 << 63}",
        "alice/:9999999999999999999",
        "alice/:99999999999999999999",
    ],
)
def test_a_principal_outside_the_grammar_is_malformed(text: str) -> None:
    with pytest.raises(MalformedName):
        parse_principal(text)


@pytest.mark.parametrize("text", ["alice", "alice.hub.", ".hub", "hub", "alice.hubx", "alice.HUB", "Alice.hub", ""])
def test_a_host_name_outside_the_zone_is_malformed(text: str) -> None:
    with pytest.raises(MalformedName):
        parse_host_name(text, "hub")


def test_names_as_the_documentation_shows_them() -> None:
    assert Server("alice").login == "alice"
    assert Server("Bob@example.org").login == "=42ob=40example.org"
    assert Server("alice", "gpu").host_name("hub") == "alice+gpu.hub"
    assert Instance(Server("alice"), 17).principal == "alice/:17"
    assert Instance(Server("alice", "gpu"), 17).principal == "alice/gpu:17"
    assert str(Instance(Server("alice", "gpu"), 17)) == "alice/gpu:17"
    assert str(Server("alice")) == "alice"


def test_a_name_that_begins_like_an_option_of_ssh_is_quoted() -> None:
    assert Server("-oproxycommand=x").login == "=2doproxycommand=3dx"
    assert Server("a", "-b").login == "a+=2db"


@given(strategies.servers)
def test_the_label_for_people_holds_no_control_characters(server: Server) -> None:
    assert str(server).isprintable()


@pytest.mark.parametrize("owner", ["", "\ud800", "a" * (MAX_NAME_LENGTH + 1)])
def test_an_owner_that_is_empty_broken_or_too_long_is_malformed(owner: str) -> None:
    with pytest.raises(MalformedName):
        Server(owner)
    if owner:
        with pytest.raises(MalformedName):
            Server("alice", owner)


def test_the_longest_name_in_the_widest_script_survives() -> None:
    server = Server("\U0001f600" * MAX_NAME_LENGTH, "\U0001f600" * MAX_NAME_LENGTH)
    assert parse_login(server.login) == server


@pytest.mark.parametrize("number", [0, -1, 1 << 63])
def test_an_instance_id_is_a_positive_64_bit_number(number: int) -> None:
    with pytest.raises(MalformedName):
        Instance(Server("alice"), number)


def test_what_people_type_has_every_reading() -> None:
    assert login_candidates("Bob@example.org") == (Server("Bob@example.org"),)
    assert login_candidates("alice+gpu") == (Server("alice", "gpu"), Server("alice+gpu"))
    assert login_candidates("a+b+c") == (Server("a+b+c"), Server("a", "b+c"), Server("a+b", "c"))
    assert login_candidates("=42ob") == (Server("Bob"), Server("=42ob"))
    assert login_candidates("alice+") == (Server("alice+"),)
    assert login_candidates("+gpu") == (Server("+gpu"),)
    assert login_candidates("") == ()
    assert login_candidates("\ud800") == ()


def test_megabytes_typed_as_a_login_have_few_readings() -> None:
    assert login_candidates("+" * 5_000_000) == ()
    assert len(login_candidates("+" * 500)) <= 10
    assert login_candidates("a" * 5_000_000) == ()


@given(st.text(max_size=30))
def test_whatever_is_typed_gives_servers_and_never_an_error(typed: str) -> None:
    for server in login_candidates(typed):
        assert typed in {server.login, server.owner, f"{server.owner}+{server.name}"}


@pytest.mark.parametrize("zone", ["hub", "ssh.example.org", "a-b.c1"])
def test_a_lower_case_domain_is_a_zone(zone: str) -> None:
    assert check_zone(zone, "bastion.example.com", "notinhub") == zone


@pytest.mark.parametrize("zone", ["", "Hub", "hub.", ".hub", "-a", "a_b", "a b", "a..b", "ü", "*", "hub\n"])
def test_anything_else_is_no_zone(zone: str) -> None:
    with pytest.raises(MalformedName):
        check_zone(zone)


@pytest.mark.parametrize("host", ["hub", "ssh.hub", "HUB", "SSH.Hub", "ssh.hub.", "a.b.hub"])
def test_a_zone_that_contains_our_own_host_is_refused_however_that_is_written(host: str) -> None:
    with pytest.raises(MalformedName, match="choose another"):
        check_zone("hub", "elsewhere.example.org", host)


def test_jupyterhubs_start_time_becomes_exact_microseconds() -> None:
    assert instance_id("2026-11-21T23:12:26.279903Z") == 1795302746279903
    assert instance_id("2026-11-21T23:12:26.279903") == 1795302746279903
    assert instance_id("2026-11-22T00:12:26.279903+01:00") == 1795302746279903
    assert instance_id("2026-11-21T23:12:26Z") == 1795302746000000


@pytest.mark.parametrize(
    "started",
    [
        "",
        "yesterday",
        "2026-13-01T00:00:00Z",
        "17630",
        "�",
        "2026-11-21",
        "2026-11-21T23:12:26\x00",
        "2026-11-21T23:12:26.2799031Z",
        "2026-11-21T25:12:26Z",
        "٢026-11-21T23:12:26Z",
    ],
)
def test_a_start_time_that_cannot_be_read_is_malformed(started: str) -> None:
    with pytest.raises(MalformedName):
        instance_id(started)


@given(st.datetimes())
def test_start_times_keep_every_microsecond(moment: object) -> None:
    text = moment.isoformat()  # type: ignore[attr-defined]
    assert instance_id(text) == instance_id(text + "Z") == instance_id(text + "+00:00")
