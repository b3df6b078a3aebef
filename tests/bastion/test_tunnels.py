"""Why: one text can name two servers where a namespace is called as the zone, and an attacker chooses names too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bastion.admission import Admission, How
from bastion.directory.table import Pod, Table
from bastion.house import House
from bastion.relay.meanings import DirectTcp
from bastion.tunnels import Tunnels, looks_like_a_pods_name
from ca.limits import ALL
from ca.names import Server
from tests.support.pods import key, pod

ALICE = pod("alice", names=("jupyter-alice.hub",), uid="a")
LOOKALIKE = pod("jupyter-alice", names=("jupyter-jupyter-alice.hub",), uid="m")
BOB = pod("bob", names=("jupyter-bob.hub",), uid="b")


def meant(host: str, running: tuple[Pod, ...], admitted: tuple[Pod, ...], user: str | None = None) -> Server | None:
    """The server that a jump to `host` leads to, for a raw key or for the certificate of `user`."""
    table = Table()
    table.replace(running, 0.0)
    admission = Admission(
        identity=user or "key:SHA256:x",
        how=How.CERTIFICATE if user else How.KEY,
        login="jump",
        key=key(1),
        target=None,
        instances=tuple(one.instance for one in admitted),
        capabilities=ALL,
    )
    house = cast("House", SimpleNamespace(directory=table, zone=lambda: "hub"))
    nobody = cast("Any", None)
    tunnels = Tunnels(house, "s", "127.0.0.1", describe=nobody, noted=nobody, part=nobody, why=nobody)
    return tunnels.target(DirectTcp(host, 22, "127.0.0.1", 1), admission)


def test_a_pods_name_leads_a_raw_key_to_that_pod_though_a_user_is_called_like_it() -> None:
    everyone = (ALICE, LOOKALIKE, BOB)
    assert meant("jupyter-alice.hub", everyone, (ALICE, LOOKALIKE)) == Server("alice")
    assert meant("jupyter-alice.hub", everyone, (LOOKALIKE, ALICE)) == Server("alice")


def test_a_stopped_pods_name_leads_a_raw_key_nowhere() -> None:
    assert meant("jupyter-alice.hub", (LOOKALIKE, BOB), (LOOKALIKE,)) is None


def test_a_server_that_was_shared_does_not_catch_a_certificate_by_a_pods_name() -> None:
    """Whoever is called as alice's pod may share a server with her."""
    assert meant("jupyter-alice.hub", (ALICE, LOOKALIKE), (ALICE, LOOKALIKE), "alice") == Server("alice")
    assert meant("jupyter-alice.hub", (LOOKALIKE,), (LOOKALIKE,), "alice") is None


def test_the_user_who_is_called_as_a_pod_enters_the_own_server_by_its_host_name_with_a_certificate() -> None:
    for running in ((ALICE, LOOKALIKE), (LOOKALIKE,)):
        assert meant("jupyter-alice.hub", running, (LOOKALIKE,), "jupyter-alice") == Server("jupyter-alice")
    assert meant("jupyter-alice.hub", (ALICE,), (), "jupyter-alice") == Server("jupyter-alice")


@pytest.mark.parametrize("user", [None, "alice", "bob"])
def test_host_names_that_are_no_pods_mean_their_servers(user: str | None) -> None:
    everyone = (ALICE, LOOKALIKE, BOB)
    assert meant("alice.hub", everyone, (ALICE, BOB), user) == Server("alice")
    assert meant("bob.hub.", everyone, (ALICE, BOB), user) == Server("bob")
    assert meant("carol.hub", everyone, (ALICE, BOB), user) == Server("carol")
    assert meant("jupyter-jupyter-alice.hub", everyone, (LOOKALIKE,), user) == Server("jupyter-alice")


def test_what_looks_like_a_pods_name_shows_in_how_pods_are_named() -> None:
    assert not looks_like_a_pods_name("alice", ALICE, "hub")
    assert looks_like_a_pods_name("jupyter-alice", LOOKALIKE, "hub")
    assert not looks_like_a_pods_name("jupyter-alice", LOOKALIKE, "ssh"), "no namespace has the zone's name"
    assert not looks_like_a_pods_name("alice", pod("alice"), "hub"), "there are no pods with names"
    assert not looks_like_a_pods_name("alice+gpu", pod("alice", "gpu", names=("x.hub",)), "hub"), "no pod is called so"
    assert looks_like_a_pods_name("alice", pod("alice", names=("nb-0815.hub",)), "hub"), "nothing shows"
    assert not looks_like_a_pods_name("alice", pod("alice", names=("alice.hub",)), "hub"), "it is its own pod's"
