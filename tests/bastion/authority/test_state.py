"""Where something missing would let somebody in, nothing is read at all; where not, the rest goes on."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.authority.errors import AuthorityUnavailable
from bastion.authority.state import read_revocations, read_state, read_trust, write_revocations, write_trust
from ca.names import Instance, Server
from ca.revocation import Revocations
from tests.bastion.authority.states import REVOCATIONS, TRUST, state
from tests.support.pods import key


def test_a_documented_state_is_read_whole() -> None:
    read = read_state(json.loads(json.dumps(state())), 100.0)
    assert (read.version, read.zone, read.answered_at, read.heard_seconds_ago) == ("1", "hub", 100.0, 0.5)
    assert read.hub_heard_at == 99.5
    assert read.trust == TRUST
    assert read.revocations == REVOCATIONS
    assert [pod.instance for pod in read.enrolled] == [Instance(Server("alice", "gpu"), 1763000000000000)]
    assert read.dropped == 0
    assert read.word.heard_at == 100.0


def test_an_api_that_never_heard_the_hub_says_so() -> None:
    assert read_state(state(heard_seconds_ago=None), 1.0).hub_heard_at is None


def test_a_bad_pod_is_dropped_and_counted_and_the_rest_is_read() -> None:
    read = read_state(state(enrolled=[{"login": "x"}, *state()["enrolled"]]), 1.0)
    assert (len(read.enrolled), read.dropped) == (1, 1)


def test_an_unknown_field_of_a_newer_api_is_passed_over() -> None:
    assert read_state(state(added_later=1), 1.0).version == "1"


GOOD_LINE = key(11).line


@pytest.mark.parametrize(
    "changed",
    [
        {"version": ""},
        {"version": 1},
        {"version": "x" * 257},
        {"version": "a\nb"},
        {"zone": "Hub"},
        {"epoch": None},
        {"epoch": "a b"},
        {"zone": None},
        {"heard_seconds_ago": -1},
        {"heard_seconds_ago": float("nan")},
        {"heard_seconds_ago": float("inf")},
        {"heard_seconds_ago": True},
        {"heard_seconds_ago": "1"},
        {"trust": []},
        {"trust": {"user": [], "host": [GOOD_LINE], "hop": [GOOD_LINE]}},
        {"trust": {"user": [GOOD_LINE], "host": [GOOD_LINE]}},
        {"trust": {"user": [GOOD_LINE, "ssh-ed25519 AAAA"], "host": [GOOD_LINE], "hop": [GOOD_LINE]}},
        {"trust": {"user": [7], "host": [GOOD_LINE], "hop": [GOOD_LINE]}},
        {"trust": {"user": [GOOD_LINE] * 17, "host": [GOOD_LINE], "hop": [GOOD_LINE]}},
        {"revocations": None},
    ],
)
def test_a_state_that_cannot_be_read_is_no_state(changed: dict[str, Any]) -> None:
    with pytest.raises(AuthorityUnavailable):
        read_state(state(**changed), 1.0)


def test_a_state_without_a_field_is_no_state() -> None:
    for name in ("version", "zone", "heard_seconds_ago", "trust", "revocations"):
        with pytest.raises(AuthorityUnavailable):
            read_state({key: value for key, value in state().items() if key != name}, 1.0)


@pytest.mark.parametrize(
    "changed",
    [
        {"everyone_before": -1},
        {"everyone_before": 1.5},
        {"everyone_before": True},
        {"everyone_before": 1 << 63},
        {"serials": ["7", 8]},
        {"serials": ["-7"]},
        {"serials": ["²"]},
        {"serials": ["9" * 21]},
        {"serials": "7"},
        {"users": {"alice": "1"}},
        {"users": []},
        {"servers": {"alice/gpu": 1}},
        {"servers": {"alice": None}},
        {"and_also": "everything by bob"},
    ],
)
def test_one_revocation_that_cannot_be_read_makes_all_unusable(changed: dict[str, Any]) -> None:
    with pytest.raises(AuthorityUnavailable):
        read_revocations(state()["revocations"] | changed)


def test_an_api_that_took_no_share_back_says_nothing_of_shares() -> None:
    body = state()
    del body["revocations"]["shares"]
    assert read_state(body, 1.0).revocations == replace(REVOCATIONS, shares={})


def test_revocations_with_a_field_missing_are_unusable() -> None:
    for name in set(state()["revocations"]) - {"shares"}:
        with pytest.raises(AuthorityUnavailable):
            read_revocations({key: value for key, value in state()["revocations"].items() if key != name})


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
moments = st.integers(0, (1 << 63) - 1)
by_server = st.dictionaries(st.builds(Server, names, st.just("") | names), moments, max_size=4)
revocations = st.builds(
    Revocations,
    everyone_before=moments,
    serials=st.frozensets(moments),
    users=st.dictionaries(names, moments, max_size=4),
    servers=by_server,
    shares=st.dictionaries(names, by_server, max_size=3),
)


@given(revocations)
def test_revocations_come_back_as_they_were_written(written: Revocations) -> None:
    assert read_revocations(json.loads(json.dumps(write_revocations(written)))) == written


def test_trusted_keys_come_back_as_they_were_written() -> None:
    assert read_trust(json.loads(json.dumps(write_trust(TRUST)))) == TRUST


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(state())), json_values)
def test_nothing_in_any_field_breaks_the_reader(name: str, value: Any) -> None:
    try:
        read_state(state(**{name: value}), 1.0)
    except AuthorityUnavailable:
        pass
