"""Why: a pod decides where people's sessions go, so what counts of it, and what does not, is spelled out here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.directory.podspec import NotOurs, PodRules, Unusable, Why, read_pod
from bastion.directory.table import Pod
from ca.names import Instance, Server
from tests.support.kube.cluster import pod_object
from tests.support.kube.store import merge

RULES = PodRules(namespaces=("hub",))
STARTED = 1795302746279903


def pod(name: str = "jupyter-alice", user: str = "alice", server: str = "", **how: Any) -> dict[str, Any]:
    made = pod_object(name, user, server, **{"instance": STARTED, **how})
    made["metadata"] |= {"uid": "u1", "creationTimestamp": "2026-11-21T23:12:27Z"}
    return made


def changed(patch: dict[str, Any], **how: Any) -> dict[str, Any]:
    made = pod(**how)
    merge(made, patch)
    return made


def read(raw: dict[str, Any], rules: PodRules = RULES) -> Pod:
    judged = read_pod(raw, rules)
    assert isinstance(judged, Pod), judged
    return judged


def test_a_marked_pod_is_exactly_its_run() -> None:
    assert read(pod(server="gpu")) == Pod(
        instance=Instance(Server("alice", "gpu"), STARTED),
        address="127.1.255.2",
        ssh_port=22,
        key_port=8080,
        unix_user="jovyan",
        host_key=None,
        names=("jupyter-alice.hub",),
        uid="u1",
    )


@pytest.mark.parametrize("user", ["Bob.Smith@example.org", "ünï", "a b", "a--b"])
def test_the_user_is_the_annotation_and_never_the_label(user: str) -> None:
    labels = {"hub.jupyter.org/username": "mallory", "hub.jupyter.org/servername": "hers"}
    assert read(pod(user=user, labels=labels)).server == Server(user)


def test_a_pod_without_our_annotation_is_judged_by_its_creation_and_jumped_to_only() -> None:
    found = read(pod(instance=None))
    assert found.created_ms == 1795302747000
    assert found.instance.id // 1_000_000 == 1795302747
    assert found.unix_user is None


def test_two_unmarked_pods_of_one_second_are_two_instances() -> None:
    one, other = pod(instance=None), pod(instance=None)
    other["metadata"]["uid"] = "u2"
    assert read(one).instance != read(other).instance


def test_an_unmarked_pod_is_meant_by_certificates_that_are_younger() -> None:
    found = read(pod(instance=None))
    old_run = (Instance(Server("alice"), 1),)
    assert found.is_run_of(old_run, 1795302747000)
    assert not found.is_run_of(old_run, 1795302746999)
    assert not found.is_run_of((Instance(Server("alice", "gpu"), 1),), 1795302747000)


def test_a_marked_pod_is_meant_by_its_run_alone_however_young_the_certificate_is() -> None:
    found = read(pod())
    assert found.is_run_of((Instance(Server("alice"), STARTED),), 0)
    assert not found.is_run_of((Instance(Server("alice"), STARTED + 1),), 1 << 60)


def test_annotations_say_where_a_pod_differs_from_the_settings() -> None:
    notes = {
        "jupyterhub-bastion/ssh-port": "2222",
        "jupyterhub-bastion/key-port": "8081",
        "jupyterhub-bastion/unix-user": "rstudio",
    }
    found = read(pod(annotations=notes))
    assert (found.ssh_port, found.key_port, found.unix_user) == (2222, 8081, "rstudio")


@pytest.mark.parametrize(
    "patch",
    [
        {"metadata": {"deletionTimestamp": "2026-11-21T23:20:00Z"}},
        {"status": {"phase": "Succeeded"}},
        {"status": {"phase": "Failed"}},
        {"status": {"containerStatuses": [{"name": "notebook", "state": {"terminated": {"exitCode": 0}}}]}},
        {
            "spec": {"restartPolicy": "Never"},
            "status": {"containerStatuses": [{"name": "notebook", "state": {"terminated": {"exitCode": 1}}}]},
        },
    ],
    ids=["deleted", "succeeded", "failed", "ended in peace", "never restarted"],
)
def test_a_pod_has_stopped_although_it_keeps_its_address(patch: dict[str, Any]) -> None:
    assert read_pod(changed(patch), RULES) == Unusable(Why.STOPPED)


@pytest.mark.parametrize(
    "statuses",
    [
        [{"name": "notebook", "state": {"terminated": {"exitCode": 1}}}],
        [{"name": "notebook", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
        [{"name": "side", "state": {"terminated": {"exitCode": 0}}}, {"name": "notebook", "state": {"running": {}}}],
    ],
    ids=["restarted after a crash", "waits for its restart", "a sidecar ended"],
)
def test_a_container_that_is_restarted_is_the_same_run(statuses: list[dict[str, Any]]) -> None:
    found = read(changed({"status": {"containerStatuses": statuses}}))
    assert found.instance.id == STARTED


def test_a_pod_that_is_not_ready_says_so() -> None:
    assert not read(pod(ready=False)).ready
    assert not read(changed({"status": {"conditions": None}})).ready


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({"status": {"podIP": None}}, Why.STARTING),
        ({"status": {"podIP": "kubernetes.default"}}, Why.BAD_ADDRESS),
        ({"spec": {"hostNetwork": True}}, Why.HOST_NETWORK),
        ({"metadata": {"annotations": {"jupyterhub-bastion/instance": ""}}}, Why.BAD_INSTANCE),
        ({"metadata": {"annotations": {"jupyterhub-bastion/instance": "1795302746.279"}}}, Why.BAD_INSTANCE),
        ({"metadata": {"annotations": {"jupyterhub-bastion/instance": "9" * 19}}}, Why.BAD_INSTANCE),
        ({"metadata": {"annotations": {"jupyterhub-bastion/ssh-port": "0"}}}, Why.BAD_PORT),
        ({"metadata": {"annotations": {"jupyterhub-bastion/key-port": "65536"}}}, Why.BAD_PORT),
        ({"metadata": {"annotations": {"jupyterhub-bastion/unix-user": "-oProxyCommand=x"}}}, Why.BAD_UNIX_USER),
        ({"metadata": {"uid": "\ud800"}}, Why.BAD_UID),
        ({"metadata": {"annotations": {"hub.jupyter.org/username": ""}}}, Why.BAD_NAME),
        ({"metadata": {"annotations": {"hub.jupyter.org/username": "a" * 256}}}, Why.BAD_NAME),
    ],
)
def test_what_cannot_be_read_is_not_offered_and_not_guessed(patch: dict[str, Any], why: Why) -> None:
    assert read_pod(changed(patch), RULES) == Unusable(why)


@pytest.mark.parametrize("raw", [{}, {"metadata": None}, {"metadata": {"namespace": "hub"}}, {"metadata": []}])
def test_what_is_no_notebook_server_is_not_ours(raw: dict[str, Any]) -> None:
    assert read_pod(raw, RULES) == NotOurs()


def test_a_namespace_counts_by_name_or_pattern() -> None:
    elsewhere = pod(namespace="jupyter-alice")
    assert read_pod(elsewhere, RULES) == NotOurs()
    assert read_pod(elsewhere, PodRules(namespaces=("hub", "jupyter-*"))) != NotOurs()
    assert read_pod(pod(namespace="mallory"), PodRules(namespaces=("hub", "jupyter-*"))) == NotOurs()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=6,
)
PLACES = [
    *(
        ("metadata", name)
        for name in ("uid", "name", "namespace", "creationTimestamp", "deletionTimestamp", "annotations")
    ),
    *(("spec", name) for name in ("hostNetwork", "restartPolicy")),
    *(("status", name) for name in ("podIP", "phase", "conditions", "containerStatuses")),
    *(("metadata", "annotations", f"jupyterhub-bastion/{name}") for name in ("instance", "ssh-port", "unix-user")),
    *(("metadata", "annotations", f"hub.jupyter.org/{name}") for name in ("username", "servername")),
]


@given(st.dictionaries(st.sampled_from(PLACES), json_values | st.just("\udfff") | st.just("\u0661"), max_size=4))
def test_no_odd_pod_raises_and_what_is_offered_can_be_written_down(odd: dict[tuple[str, ...], object]) -> None:
    raw = pod()
    del raw["metadata"]["annotations"]["jupyterhub-bastion/instance"]
    for (*path, last), value in sorted(odd.items()):
        place: Any = raw
        for step in path:
            place = place[step] if isinstance(place, dict) and step in place else {}
        if isinstance(place, dict):
            place[last] = value
    judged = read_pod(raw, RULES)
    if isinstance(judged, Pod):
        assert judged.instance.principal.isascii()
        judged.uid.encode()
