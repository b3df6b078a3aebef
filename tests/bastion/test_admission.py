"""Why: what somebody may do is judged when a credential is shown, whatever was written into it once."""

from __future__ import annotations

import pytest

from bastion.admission import Admission, DoorRules, admit_certificate, admit_key
from bastion.directory.table import Table
from bastion.pubkeys import Listing
from ca.errors import Reason
from ca.limits import Capabilities, Capability
from ca.trust import Presented
from tests.support.pods import key, pod

ALICE = pod("alice")
FORWARDS: Capabilities = frozenset({Capability.PTY, Capability.LOCAL_FORWARD, Capability.STREAMLOCAL})


def test_forwards_without_commands_open_nothing_whatever_a_certificate_or_the_site_says() -> None:
    table = Table()
    table.put(ALICE)
    presented = Presented(
        user="alice",
        serial=7,
        instances=(ALICE.instance,),
        capabilities=FORWARDS,
        valid_before=1000,
        key=key(1),
    )
    by_certificate = admit_certificate("alice", presented, b"", table, DoorRules())
    by_key = admit_key("alice", key(1), [Listing(ALICE, ())], table, DoorRules(raw_key_capabilities=FORWARDS))
    for admitted in (by_certificate, by_key):
        assert isinstance(admitted, Admission)
        assert admitted.capabilities == {Capability.PTY}


def meant(login: str, user: str, *servers: tuple[str, str]) -> str | Reason:
    """The server that a certificate of `user` for `servers`, which run, opens by that login."""
    table = Table()
    table.replace([pod(*one) for one in servers], 0.0)
    presented = Presented(
        user=user,
        serial=7,
        instances=tuple(pod(*one).instance for one in servers),
        capabilities=FORWARDS,
        valid_before=1000,
        key=key(1),
    )
    admitted = admit_certificate(login, presented, b"", table, DoorRules())
    return str(admitted.target.server) if isinstance(admitted, Admission) and admitted.target else admitted.reason  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("login", "alike"), [("jess", "je\u017f\u017f"), ("strasse", "stra\u00dfe"), ("jess", "Jess"), ("jess+k", "jess+k")]
)
def test_a_shared_server_does_not_catch_the_login_of_ones_own(login: str, alike: str) -> None:
    assert meant(login, login.partition("+")[0], (alike, "")) is Reason.NOT_NAMED


def test_people_type_their_own_servers_as_they_know_them() -> None:
    assert meant("alice", "Alice", ("Alice", "")) == "Alice"
    assert meant("bob@EXAMPLE.org+GPU", "Bob@example.org", ("Bob@example.org", "gpu")) == "Bob@example.org/gpu"
    assert meant("Bob@example.org", "alice", ("Bob@example.org", ""), ("alice", "")) == "Bob@example.org"
    assert meant("BOB", "alice", ("Bob", ""), ("bob", "")) is Reason.NOT_NAMED
    assert meant("BOB", "bob", ("Bob", ""), ("bob", "")) == "bob"
