"""The words in which the relay and policy talk about what a client or a pod asks for.

One frozen value for each channel open, channel request and global request that has a meaning to us. `requests`
makes them from payloads. Sources: RFC 4254; OpenSSH's PROTOCOL; RFC 4335 (`break`).

Host names, paths and other text that need not be UTF-8 are shown with backslash escapes: such a text never equals
a name that policy knows.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Unknown(Enum):
    """A type that this project has no opinion about."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN


@dataclass(frozen=True, slots=True)
class Malformed:
    """A payload of a known type that cannot be read as that type."""

    why: str


# what a channel open means


@dataclass(frozen=True, slots=True)
class Session:
    """`session`: a shell, a command or a subsystem, which is said later by a request."""


@dataclass(frozen=True, slots=True)
class DirectTcp:
    """`direct-tcpip`: -L, -D, -W, -J. `host` as the client wrote it, lower and upper case kept."""

    host: str
    port: int
    origin_host: str
    origin_port: int


@dataclass(frozen=True, slots=True)
class DirectStreamlocal:
    """`direct-streamlocal@openssh.com`: -L to a unix socket."""

    path: str


@dataclass(frozen=True, slots=True)
class ForwardedTcp:
    """`forwarded-tcpip`: somebody connected to a port that -R asked for."""

    host: str
    port: int
    origin_host: str
    origin_port: int


@dataclass(frozen=True, slots=True)
class ForwardedStreamlocal:
    """`forwarded-streamlocal@openssh.com`: the same for a unix socket."""

    path: str


@dataclass(frozen=True, slots=True)
class AgentChannel:
    """`auth-agent@openssh.com`: a program in the pod talks to the user's agent."""


@dataclass(frozen=True, slots=True)
class X11Channel:
    """`x11`: a program in the pod talks to the user's display."""

    origin_host: str
    origin_port: int


# what a channel request means


@dataclass(frozen=True, slots=True)
class Pty:
    """`pty-req`."""

    term: str
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Shell:
    """`shell`."""


@dataclass(frozen=True, slots=True)
class Exec:
    """`exec`. The command is bytes: nothing says that it is UTF-8."""

    command: bytes


@dataclass(frozen=True, slots=True)
class Subsystem:
    """`subsystem`."""

    name: str


@dataclass(frozen=True, slots=True)
class Env:
    """`env`."""

    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Agent:
    """`auth-agent-req@openssh.com`."""


@dataclass(frozen=True, slots=True)
class X11:
    """`x11-req`. The cookie is not kept: it is a secret."""

    single: bool
    screen: int


@dataclass(frozen=True, slots=True)
class WindowChange:
    """`window-change`."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Signal:
    """`signal`: the name without SIG."""

    name: str


@dataclass(frozen=True, slots=True)
class Break:
    """`break`, in milliseconds."""

    length: int


@dataclass(frozen=True, slots=True)
class FlowControl:
    """`xon-xoff`."""

    client_can_do: bool


# what a global request means


@dataclass(frozen=True, slots=True)
class TcpForward:
    """`tcpip-forward`: -R. An empty host means every address; port 0 lets the pod choose."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class CancelTcpForward:
    """`cancel-tcpip-forward`."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class StreamlocalForward:
    """`streamlocal-forward@openssh.com`."""

    path: str


@dataclass(frozen=True, slots=True)
class CancelStreamlocalForward:
    """`cancel-streamlocal-forward@openssh.com`."""

    path: str


@dataclass(frozen=True, slots=True)
class Keepalive:
    """`keepalive@openssh.com`: answered here, it asks whether the peer is there."""


@dataclass(frozen=True, slots=True)
class NoMoreSessions:
    """`no-more-sessions@openssh.com`: the client will open no session again, and wants that enforced."""


Opened = (
    Session
    | DirectTcp
    | DirectStreamlocal
    | ForwardedTcp
    | ForwardedStreamlocal
    | AgentChannel
    | X11Channel
    | Unknown
    | Malformed
)
Requested = (
    Pty
    | Shell
    | Exec
    | Subsystem
    | Env
    | Agent
    | X11
    | WindowChange
    | Signal
    | Break
    | FlowControl
    | Unknown
    | Malformed
)
Asked = (
    TcpForward
    | CancelTcpForward
    | StreamlocalForward
    | CancelStreamlocalForward
    | Keepalive
    | NoMoreSessions
    | Unknown
    | Malformed
)
