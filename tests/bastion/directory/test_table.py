"""The table decides who is found; every difference between two lists must come out as a change."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.directory.table import Ambiguous, Change, Moved, Pod, Started, Stopped, Table
from ca.names import Server
from tests.support.pods import key, pod

ALICE, GPU = Server("alice"), Server("alice", "gpu")


def filled(*pods: Pod) -> Table:
    table = Table()
    table.replace(pods, 0.0)
    return table


def test_a_listed_pod_is_found_and_started() -> None:
    table = Table()
    assert table.replace([pod("alice")], 5.0) == [Started(pod("alice"))]
    assert table.find(ALICE) == pod("alice")
    assert table.find(GPU) is None
    assert table.running() == (pod("alice"),)
    assert table.heard_at == 5.0


def test_a_pod_missing_from_the_next_list_is_stopped_with_a_sentence_for_its_owner() -> None:
    table = filled(pod("alice", "gpu"), pod("bob"))
    assert table.replace([pod("bob")], 1.0) == [Stopped(pod("alice", "gpu"), "Your server alice/gpu stopped.")]
    assert table.find(GPU) is None


def test_an_unchanged_list_changes_nothing_but_the_time_it_was_heard() -> None:
    table = filled(pod("alice"))
    assert table.replace([pod("alice")], 7.0) == []
    assert table.heard_at == 7.0


def test_another_instance_is_stopped_first_and_started_then_and_the_sentence_says_restarted() -> None:
    table = filled(pod("alice", run=1))
    stopped, started = table.replace([pod("alice", run=2)], 1.0)
    assert isinstance(stopped, Stopped)
    assert stopped.pod == pod("alice", run=1)
    assert "restarted" in stopped.why
    assert started == Started(pod("alice", run=2))


@pytest.mark.parametrize(
    "changed", [{"address": "127.0.0.2"}, {"ssh_port": 1}, {"key_port": 1}, {"host_key": key(1)}, {"names": ("p.ns",)}]
)
def test_the_same_instance_at_another_place_has_moved_and_nobody_is_cut(changed: dict[str, object]) -> None:
    old = pod("alice")
    new = replace(old, **changed)  # type: ignore[arg-type]
    table = filled(old)
    assert table.replace([new], 1.0) == [Moved(old, new)]
    assert table.find(ALICE) == new


def test_two_live_instances_of_one_server_are_both_refused_until_one_is_gone() -> None:
    table = filled(pod("alice", run=1))
    assert table.put(pod("alice", run=2)) == [Started(pod("alice", run=2))]
    assert table.find(ALICE) == Ambiguous((pod("alice", run=1), pod("alice", run=2)))
    assert table.running() == ()
    assert table.ambiguous() == (Ambiguous((pod("alice", run=1), pod("alice", run=2))),)
    table.remove(pod("alice", run=1))
    assert table.find(ALICE) == pod("alice", run=2)


def test_two_pods_that_claim_one_instance_are_two_pods() -> None:
    table = filled(pod("alice", uid="a"), pod("alice", uid="b", address="127.0.0.2"))
    assert isinstance(table.find(ALICE), Ambiguous)


def test_removing_what_is_not_there_says_nothing() -> None:
    assert Table().remove(pod("alice")) == []


def test_a_reason_of_the_source_reaches_the_person() -> None:
    table = filled(pod("alice"))
    assert table.remove(pod("alice"), "Your server was deleted.") == [Stopped(pod("alice"), "Your server was deleted.")]


def test_a_table_that_was_never_heard_is_not_fresh_and_one_that_was_heard_ages() -> None:
    table = Table()
    assert not table.fresh(0.0)
    table.replace([], 100.0)
    assert table.fresh(400.0)
    assert not table.fresh(400.1)
    assert not table.fresh(111.0, max_age=10.0)


class TestByName:
    def test_a_jump_target_name_finds_its_pod_until_it_is_gone(self) -> None:
        named = pod("alice", names=("jupyter-alice.hub",))
        table = filled(named)
        assert table.by_name("jupyter-alice.hub") == named
        assert table.by_name("jupyter-bob.hub") is None
        table.remove(named)
        assert table.by_name("jupyter-alice.hub") is None

    def test_a_name_that_two_pods_have_is_ambiguous(self) -> None:
        table = filled(pod("alice", names=("x.hub",)), pod("bob", names=("x.hub",)))
        assert isinstance(table.by_name("x.hub"), Ambiguous)

    def test_a_name_of_an_ambiguous_server_does_not_get_round_the_refusal(self) -> None:
        table = filled(pod("alice", run=1, names=("a.hub",)), pod("alice", run=2, names=("b.hub",)))
        assert isinstance(table.by_name("a.hub"), Ambiguous)

    def test_a_moved_pod_leaves_its_old_name(self) -> None:
        table = filled(pod("alice", names=("a.hub",)))
        table.put(pod("alice", names=("b.hub",)))
        assert table.by_name("a.hub") is None
        assert table.by_name("b.hub") == pod("alice", names=("b.hub",))


class TestFindLogin:
    def test_our_own_spelling_finds_the_server(self) -> None:
        table = filled(pod("alice", "gpu"), pod("Bob@example.org"))
        assert table.find_login("alice+gpu") == pod("alice", "gpu")
        assert table.find_login("=42ob=40example.org") == pod("Bob@example.org")

    def test_a_name_as_people_type_it_finds_the_server(self) -> None:
        assert filled(pod("Bob@example.org")).find_login("Bob@example.org") == pod("Bob@example.org")

    def test_names_that_differ_in_capitals_are_different_servers(self) -> None:
        table = filled(pod("alice"), pod("Alice"))
        assert table.find_login("alice") == pod("alice")
        assert table.find_login("Alice") == pod("Alice")
        assert table.find_login("ALICE") is None

    @pytest.mark.parametrize(
        ("typed", "alike"),
        [("jess", "je\u017f\u017f"), ("strasse", "stra\u00dfe"), ("alice", "Alice"), ("ALICE", "alice")],
    )
    def test_a_stopped_servers_login_is_not_caught_by_a_name_that_looks_like_it(self, typed: str, alike: str) -> None:
        assert filled(pod(alike)).find_login(typed) is None

    def test_our_own_spelling_means_its_server_alone_running_or_not(self) -> None:
        assert filled(pod("alice", "gpu"), pod("alice+gpu")).find_login("alice+gpu") == pod("alice", "gpu")
        assert filled(pod("alice+gpu")).find_login("alice+gpu") is None
        assert filled(pod("alice+gpu")).find_login("alice=2bgpu") == pod("alice+gpu")

    @pytest.mark.parametrize("running", [[("A", "B+C")], [("A+B", "C")], [("A+B+C", "")]])
    def test_a_typed_name_that_could_mean_several_servers_means_none(self, running: list[tuple[str, str]]) -> None:
        assert filled(*(pod(*one) for one in running)).find_login("A+B+C") is None

    @pytest.mark.parametrize("typed", ["", "carol", "+", "alice/gpu", "\x00", "a" * 5000])
    def test_what_means_no_running_server_finds_nothing(self, typed: str) -> None:
        assert filled(pod("alice", "gpu")).find_login(typed) is None

    def test_two_pods_of_the_one_match_are_refused(self) -> None:
        table = filled(pod("alice", run=1), pod("alice", run=2))
        assert isinstance(table.find_login("alice"), Ambiguous)


pods = st.builds(
    pod,
    st.sampled_from(["alice", "Alice", "bob"]),
    st.sampled_from(["", "gpu"]),
    run=st.integers(1, 3),
    port=st.integers(1, 2),
)


def replay(running: dict[object, Pod], changes: list[Change]) -> None:
    """What somebody believes who knows nothing but the changes."""
    for change in changes:
        if isinstance(change, Started):
            assert running.setdefault(change.pod.identity, change.pod) is change.pod
        elif isinstance(change, Moved):
            assert running[change.old.identity] == change.old
            running[change.new.identity] = change.new
        else:
            assert running.pop(change.pod.identity) == change.pod


@given(st.lists(st.lists(pods, max_size=8, unique_by=lambda one: one.identity), max_size=6))
def test_whoever_follows_the_changes_knows_exactly_what_runs(lists: list[list[Pod]]) -> None:
    table, believed = Table(), dict[object, Pod]()
    for listed in lists:
        replay(believed, table.replace(listed, 0.0))
        assert set(believed.values()) == set(listed)
        servers = [one.server for one in listed]
        assert set(table.running()) == {one for one in listed if servers.count(one.server) == 1}
        assert len(table) == len(listed)
    replay(believed, table.replace([], 0.0))
    assert believed == {}
    assert table.running() == ()
    assert vars(table) == vars(filled())
