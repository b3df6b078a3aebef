"""From the payloads of channel opens, channel requests and global requests to their meaning.

The relay passes payloads on untouched; policy needs to know what they say. So each known type is parsed here,
strictly: a payload with missing, trailing or impossible parts is `Malformed` and never reaches the pod, since two
programs that read one packet differently is how restrictions get lost.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from bastion.relay.meanings import (
    UNKNOWN,
    X11,
    Agent,
    AgentChannel,
    Asked,
    Break,
    CancelStreamlocalForward,
    CancelTcpForward,
    DirectStreamlocal,
    DirectTcp,
    Env,
    Exec,
    FlowControl,
    ForwardedStreamlocal,
    ForwardedTcp,
    Keepalive,
    Malformed,
    NoMoreSessions,
    Opened,
    Pty,
    Requested,
    Session,
    Shell,
    Signal,
    StreamlocalForward,
    Subsystem,
    TcpForward,
    Unknown,
    WindowChange,
    X11Channel,
)
from ca.limits import Capability


class _Cut(Exception):
    """The payload ends too early, goes on too long, or holds an impossible value."""


class _Reader:
    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._payload):
            raise _Cut("it ends too early")
        taken = self._payload[self._at : end]
        self._at = end
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def boolean(self) -> bool:
        return self.take(1) != b"\0"

    def string(self) -> bytes:
        return self.take(self.number())

    def text(self) -> str:
        return self.string().decode("utf-8", "backslashreplace")

    def port(self) -> int:
        port = self.number()
        if port > 65535:
            raise _Cut("the port is out of range")
        return port

    def end(self) -> None:
        if self._at != len(self._payload):
            raise _Cut("it goes on too long")


def _direct_tcp(r: _Reader) -> DirectTcp:
    return DirectTcp(host=r.text(), port=r.port(), origin_host=r.text(), origin_port=r.number())


def _forwarded_tcp(r: _Reader) -> ForwardedTcp:
    return ForwardedTcp(host=r.text(), port=r.port(), origin_host=r.text(), origin_port=r.number())


def _direct_streamlocal(r: _Reader) -> DirectStreamlocal:
    path = r.text()
    r.string()  # reserved
    r.number()  # reserved
    return DirectStreamlocal(path)


def _forwarded_streamlocal(r: _Reader) -> ForwardedStreamlocal:
    path = r.text()
    r.string()  # reserved
    return ForwardedStreamlocal(path)


def _pty(r: _Reader) -> Pty:
    term, columns, rows = r.text(), r.number(), r.number()
    r.number()  # width in pixels
    r.number()  # height in pixels
    r.string()  # terminal modes
    return Pty(term, columns, rows)


def _window_change(r: _Reader) -> WindowChange:
    columns, rows = r.number(), r.number()
    r.number()
    r.number()
    return WindowChange(columns, rows)


def _x11(r: _Reader) -> X11:
    single = r.boolean()
    r.string()  # authentication protocol
    r.string()  # authentication cookie
    return X11(single, r.number())


_OPENS: Mapping[bytes, Callable[[_Reader], Opened]] = {
    b"session": lambda _: Session(),
    b"direct-tcpip": _direct_tcp,
    b"direct-streamlocal@openssh.com": _direct_streamlocal,
    b"forwarded-tcpip": _forwarded_tcp,
    b"forwarded-streamlocal@openssh.com": _forwarded_streamlocal,
    b"auth-agent@openssh.com": lambda _: AgentChannel(),
    b"x11": lambda r: X11Channel(r.text(), r.number()),
}
_REQUESTS: Mapping[bytes, Callable[[_Reader], Requested]] = {
    b"pty-req": _pty,
    b"shell": lambda _: Shell(),
    b"exec": lambda r: Exec(r.string()),
    b"subsystem": lambda r: Subsystem(r.text()),
    b"env": lambda r: Env(r.string(), r.string()),
    b"auth-agent-req@openssh.com": lambda _: Agent(),
    b"x11-req": _x11,
    b"window-change": _window_change,
    b"signal": lambda r: Signal(r.text()),
    b"break": lambda r: Break(r.number()),
    b"xon-xoff": lambda r: FlowControl(r.boolean()),
}
_GLOBALS: Mapping[bytes, Callable[[_Reader], Asked]] = {
    b"tcpip-forward": lambda r: TcpForward(r.text(), r.port()),
    b"cancel-tcpip-forward": lambda r: CancelTcpForward(r.text(), r.port()),
    b"streamlocal-forward@openssh.com": lambda r: StreamlocalForward(r.text()),
    b"cancel-streamlocal-forward@openssh.com": lambda r: CancelStreamlocalForward(r.text()),
    b"keepalive@openssh.com": lambda _: Keepalive(),
    b"no-more-sessions@openssh.com": lambda _: NoMoreSessions(),
}


FROM_CLIENTS = frozenset({b"session", b"direct-tcpip", b"direct-streamlocal@openssh.com"})
"""The channels that clients may open; whatever else they try is an unknown type."""
FROM_PODS = frozenset({b"forwarded-tcpip", b"forwarded-streamlocal@openssh.com", b"auth-agent@openssh.com", b"x11"})
"""The channels that pods may open, once the client has asked for them."""


def opened(kind: bytes, payload: bytes) -> Opened:
    """What a channel open of type `kind` asks for; `payload` is what follows the maximum packet size."""
    return _read(_OPENS.get(kind), payload)


def requested(name: bytes, payload: bytes) -> Requested:
    """What the channel request `name` asks for; `payload` is what follows `want reply`."""
    return _read(_REQUESTS.get(name), payload)


def asked(name: bytes, payload: bytes) -> Asked:
    """What the global request `name` asks for; `payload` is what follows `want reply`."""
    return _read(_GLOBALS.get(name), payload)


_Meaning = TypeVar("_Meaning")


def _read(parse: Callable[[_Reader], _Meaning] | None, payload: bytes) -> _Meaning | Unknown | Malformed:
    if parse is None:
        return UNKNOWN
    reader = _Reader(payload)
    try:
        meaning = parse(reader)
        reader.end()
    except _Cut as cut:
        return Malformed(str(cut))
    return meaning


_NEEDS: Mapping[type, Capability | None] = {
    Session: None,
    DirectTcp: Capability.LOCAL_FORWARD,
    DirectStreamlocal: Capability.STREAMLOCAL,
    ForwardedTcp: Capability.REMOTE_FORWARD,
    ForwardedStreamlocal: Capability.STREAMLOCAL,
    AgentChannel: Capability.AGENT,
    X11Channel: Capability.X11,
    Pty: Capability.PTY,
    Shell: Capability.EXEC,
    Exec: Capability.EXEC,
    Subsystem: Capability.SUBSYSTEM,
    Env: None,
    Agent: Capability.AGENT,
    X11: Capability.X11,
    WindowChange: None,
    Signal: None,
    Break: None,
    FlowControl: None,
    TcpForward: Capability.REMOTE_FORWARD,
    CancelTcpForward: None,
    StreamlocalForward: Capability.STREAMLOCAL,
    CancelStreamlocalForward: None,
    Keepalive: None,
    NoMoreSessions: None,
}


def needed_capability(meaning: Opened | Requested | Asked) -> Capability | Unknown | None:
    """The capability that `meaning` needs; None where it needs none; `UNKNOWN` for types without an opinion.

    Unknown and malformed are both `UNKNOWN` here. The relay itself refuses every malformed payload, unknown channel
    types and unknown global requests before it asks anybody; only unknown channel requests on an open channel,
    which are harmless, are left to the front.
    """
    return _NEEDS.get(type(meaning), UNKNOWN)


def shown(name: bytes) -> str:
    """A type or request name for people and audit lines: ASCII, at most 64 characters."""
    return name[:64].decode("ascii", "backslashreplace")[:64]
