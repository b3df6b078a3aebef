"""What a session may do: capabilities, and how they are written into certificates.

OpenSSH has extensions for some of these (sshd(8) and PROTOCOL.certkeys: `permit-pty`,
`permit-port-forwarding`, `permit-agent-forwarding`, `permit-X11-forwarding`); the rest get custom names, which
PROTOCOL.certkeys asks to end in `@domain` and which OpenSSH ignores. A capability that needs one of each is
granted only where both stand. Absent means refused.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import lru_cache


class Capability(StrEnum):
    """One thing that a session may do. The value is its name in settings, refusals and audit lines."""

    PTY = "pty"
    EXEC = "exec"
    SUBSYSTEM = "subsystem"
    LOCAL_FORWARD = "local-forward"
    REMOTE_FORWARD = "remote-forward"
    STREAMLOCAL = "streamlocal"
    AGENT = "agent"
    X11 = "x11"


Capabilities = frozenset[Capability]

ALL: Capabilities = frozenset(Capability)

_OURS = "@jupyterhub-bastion"

EXTENSIONS: Mapping[Capability, frozenset[str]] = {
    Capability.PTY: frozenset({"permit-pty"}),
    Capability.EXEC: frozenset({f"permit-exec{_OURS}", "permit-user-rc"}),
    Capability.SUBSYSTEM: frozenset({f"permit-subsystem{_OURS}"}),
    Capability.LOCAL_FORWARD: frozenset({"permit-port-forwarding", f"permit-local-forward{_OURS}"}),
    Capability.REMOTE_FORWARD: frozenset({"permit-port-forwarding", f"permit-remote-forward{_OURS}"}),
    Capability.STREAMLOCAL: frozenset({"permit-port-forwarding", f"permit-streamlocal{_OURS}"}),
    Capability.AGENT: frozenset({"permit-agent-forwarding"}),
    Capability.X11: frozenset({"permit-X11-forwarding"}),
}

RESTORABLE_BY_OWNER: Capabilities = frozenset(
    {
        Capability.EXEC,
        Capability.SUBSYSTEM,
        Capability.LOCAL_FORWARD,
        Capability.REMOTE_FORWARD,
        Capability.STREAMLOCAL,
    }
)
"""What the owner of a pod could restore for herself over an end-to-end connection, since a certificate cannot
express its absence to a plain sshd. Jump mode is closed to whoever lacks one of these."""

_RESTS_ON = frozenset({Capability.EXEC, Capability.SUBSYSTEM})
_FORWARDS_INTO_THE_POD = frozenset({Capability.LOCAL_FORWARD, Capability.STREAMLOCAL})


def usable(capabilities: Capabilities) -> Capabilities:
    """What of `capabilities` may be had. A forward into a pod reaches the pod's own sshd as well, under any address or
    through anything that the owner lets listen there; that sshd takes the user's certificate or key, and gives commands
    and subsystems to whoever it lets in. So forwards into the pod are only for whoever has both anyway."""
    return capabilities if capabilities >= _RESTS_ON else capabilities - _FORWARDS_INTO_THE_POD


@lru_cache(maxsize=256)
def extensions_for(capabilities: Capabilities) -> tuple[str, ...]:
    """The extension names that express exactly `capabilities`, sorted as PROTOCOL.certkeys asks."""
    return tuple(sorted({name for capability in capabilities for name in EXTENSIONS[capability]}))


def capabilities_in(extensions: Iterable[str]) -> Capabilities:
    """The capabilities whose every extension is present."""
    present = frozenset(extensions)
    return frozenset(capability for capability, needed in EXTENSIONS.items() if needed <= present)
