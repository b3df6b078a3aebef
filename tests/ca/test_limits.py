"""Why: a capability is what its extensions say on both sides, and absent means refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ca.limits import (
    ALL,
    EXTENSIONS,
    RESTORABLE_BY_OWNER,
    Capabilities,
    Capability,
    capabilities_in,
    extensions_for,
    usable,
)
from tests.ca import strategies

NAMES = sorted({name for needed in EXTENSIONS.values() for name in needed})


@given(strategies.capabilities)
def test_capabilities_survive_being_written_as_extensions(capabilities: Capabilities) -> None:
    names = extensions_for(capabilities)
    assert capabilities_in(names) == capabilities
    assert list(names) == sorted(set(names))


@given(st.sets(st.sampled_from([*NAMES, "permit-everything", "permit-pty "])))
def test_a_capability_needs_each_of_its_extensions(present: set[str]) -> None:
    for capability in Capability:
        assert (capability in capabilities_in(present)) is (EXTENSIONS[capability] <= present)


def test_every_capability_has_its_extensions_and_ours_end_in_a_domain() -> None:
    assert set(EXTENSIONS) == ALL == set(Capability)
    standard = {"permit-pty", "permit-user-rc", "permit-port-forwarding", "permit-agent-forwarding"}
    for name in NAMES:
        assert name in standard | {"permit-X11-forwarding"} or name.endswith("@jupyterhub-bastion")
    assert RESTORABLE_BY_OWNER < ALL


@given(strategies.capabilities)
def test_forwards_into_a_pod_are_only_for_whoever_has_what_its_own_sshd_would_give(capabilities: Capabilities) -> None:
    left = usable(capabilities)
    assert left <= capabilities
    assert usable(left) == left
    if {Capability.EXEC, Capability.SUBSYSTEM} <= capabilities:
        assert left == capabilities
    else:
        assert left == capabilities - {Capability.LOCAL_FORWARD, Capability.STREAMLOCAL}
