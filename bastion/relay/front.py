"""What the relay asks, and of whom: the seam between moving bytes and deciding.

The relay holds no policy. It puts each question to a `Front` (one per client connection) as a frozen value that
carries both the parsed meaning and the raw payload, and acts on the value that comes back.

Order of calls for one connection: `offer`, `prove`, `invite` and `invited` while the client authenticates,
`authenticated` once, then the `decide_…` questions and `upstream` as channels are opened, and `closed` exactly once at
the end, whatever happened before. All calls come from the event loop's thread. The `decide_…` functions must not block.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from bastion.relay.meanings import Asked, Opened, Requested
from ca.errors import BastionError, Refusal


class RelayRefused(BastionError):
    """The pod cannot be had. `sentence` is for the person, and goes into the failed channel open."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class PodTrouble(Enum):
    """Why `connect_pod` failed."""

    UNREACHABLE = "unreachable"
    """Nothing answers at the address, or not in time."""
    WRONG_HOST_KEY = "wrong_host_key"
    """What answers is not the pod that was asked for."""
    LOGIN_REFUSED = "login_refused"
    """The pod's sshd does not take the hop certificate."""
    PROTOCOL = "protocol"
    """What answers does not speak SSH as we do."""


class PodFailure(BastionError):
    """The pod could not be connected to. `detail` is for the log of the bastion's operator, not for the person.

    `turned_away`: whatever is there refused, reset or closed the connection, and may not do so in a moment.
    """

    def __init__(self, trouble: PodTrouble, detail: str, *, turned_away: bool = False) -> None:
        super().__init__(f"{trouble.value}: {detail}")
        self.trouble = trouble
        self.detail = detail
        self.turned_away = turned_away


@dataclass(frozen=True, slots=True)
class HostTrust:
    """Whom a pod's sshd must prove to be.

    A host certificate by one of `authorities` (wire format), in its time, that names `name` among its principals and,
    where `key` is given, holds exactly that key. With `bare`, the key alone, without a certificate, does as well.
    """

    name: str
    authorities: frozenset[bytes] = field(repr=False)
    key: bytes | None = field(default=None, repr=False)
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a proven key may enter. A sentence with a "no" is shown to the person as a banner."""

    ok: bool
    sentence: str | None = None


@dataclass(frozen=True, slots=True)
class ChannelOpen:
    """Somebody wants a channel. `channel` numbers it on the connection that it came from."""

    channel: int
    name: str
    meaning: Opened
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChannelRequest:
    """The client asks for something on an open channel. `on` is what that channel was opened for."""

    on: type[Opened]
    name: str
    want_reply: bool
    meaning: Requested
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class GlobalRequest:
    """The client asks for something of the connection as a whole, such as a remote forward."""

    name: str
    want_reply: bool
    meaning: Asked
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ToPod:
    """Open the channel on the pod's connection (`Front.upstream`)."""


class TunnelLink(Protocol):
    """One tunnel, as the front may use it."""

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes from and to the client so far."""

    @property
    def left(self) -> bool:
        """Whether the server ended it, or never took it, before the client or the front did."""

    @property
    def alone(self) -> bool:
        """Whether it is open, and nothing else of the client's connection is in use."""

    def close(self, sentence: str) -> None:
        """Cut this tunnel, and nothing else of the connection. Before it is open, the open fails with `sentence`;
        after that nobody reads it, since the end of a channel has no words."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Join a `direct-tcpip` channel to a TCP connection that the bastion makes (jump mode). `address` is an IP.

    `prepare` is awaited before anything is dialled, and may still refuse; `ended` is called exactly once when the
    channel is over, however far it came.
    """

    address: str
    port: int
    prepare: Callable[[TunnelLink], Awaitable[Refusal | None]] | None = None
    ended: Callable[[], None] | None = None


class ClientLink(Protocol):
    """The client's connection, as the front may use it."""

    @property
    def peer(self) -> tuple[str, int]:
        """The client's address and port as the socket said (the listener may know better, from a proxy header)."""

    @property
    def login(self) -> str:
        """The login name that was proven, "" before that."""

    @property
    def version(self) -> str:
        """The client's identification string, "" before it came. Unverified text: up to 255 ASCII bytes."""

    @property
    def channels(self) -> int:
        """How many channels are open or being opened."""

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes of channel data from and to the client so far."""

    def tell(self, sentence: str) -> None:
        """Show a line on every open session; nothing ends."""

    def abort(self) -> None:
        """Cut the connection at once, without a word."""

    def close(self, sentence: str = "") -> None:
        """End the connection: tell the person why on each open session and in the disconnect message, then close.

        Returns at once; the end comes within `RelayLimits.farewell` seconds, and `Front.closed` says when.
        Calling it again does nothing.
        """


class PodLink(Protocol):
    """A pod's connection, as `connect_pod` made it. The relay closes it together with the client's."""

    def abort(self) -> None:
        """Cut it at once."""


class Front(Protocol):
    """What the relay asks for one client connection."""

    async def offer(self, login: str, blob: bytes) -> bool:
        """Would a signature by this key or certificate (wire format, unverified) be welcome? No side effects.

        May be cancelled when the client goes on to another key.
        """

    async def prove(self, login: str, blob: bytes) -> Verdict:
        """The client proved, for this login, that it holds the key of `blob` (a key or a certificate, wire format;
        the certificate itself is *not* verified: whether its CA is trusted is the front's matter).

        May be cancelled when the client goes on to another key. An `ok` verdict is final only with
        `authenticated`.
        """

    def interactive(self, login: str) -> bool:
        """Whether somebody may come in by this name without a key (keyboard-interactive). Must not block."""

    async def invite(self, login: str) -> str | Refusal:
        """Begin to let somebody in without a key: the text that they have to read, at most 1,000 ASCII characters.

        Called once a connection at most. After a text the connection is let in by `invited` or ends: the grace time
        for logins does not end it any more, so the front has to. May be cancelled.
        """

    async def invited(self, login: str) -> bytes | str | Refusal:
        """The client has shown the text. Wait for what the person does: the credential (wire format) that stands for
        this login from now on, as if it had been proven, for `authenticated`; or another text, that has to be shown
        before this is called again. May be cancelled."""

    def authenticated(self, login: str, blob: bytes) -> None:
        """The client is in: this login, with this key or certificate. Called once, before any channel."""

    async def upstream(self) -> PodLink:
        """Connect to the pod (`connect_pod`). Called when the first channel needs it, never twice at a time, and the
        relay keeps what it gets for the life of the client's connection. Raises `RelayRefused`."""

    def decide_open(self, asked: ChannelOpen) -> ToPod | Tunnel | Refusal:
        """The client opens a channel: session, direct-tcpip or direct-streamlocal. `Tunnel` for direct-tcpip only."""

    def decide_request(self, asked: ChannelRequest) -> Refusal | None:
        """The client asks on an open channel that leads to the pod. None: pass it on."""

    def decide_global(self, asked: GlobalRequest) -> Refusal | None:
        """The client asks for a forward or cancels one. None: pass it on."""

    def decide_pod_open(self, asked: ChannelOpen) -> Refusal | None:
        """The pod opens a channel to the client, of a kind that the client had asked for before (the relay checks
        that): forwarded-tcpip, forwarded-streamlocal, auth-agent, x11. None: pass it on."""

    def pod_lost(self) -> None:
        """The pod's connection is over, and nobody here or at the client's ended it: the client's ends for that."""

    def closed(self, exc: Exception | None) -> None:
        """The client's connection is over; None where it ended in order. Called exactly once."""
