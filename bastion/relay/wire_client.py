"""The client's connection: who it is, and what it may open.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncssh
from asyncssh.constants import (
    DISC_NO_MORE_AUTH_METHODS_AVAILABLE,
    MSG_CHANNEL_FAILURE,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_CONNECT_FAILED,
    OPEN_RESOURCE_SHORTAGE,
    OPEN_UNKNOWN_CHANNEL_TYPE,
)

from bastion.relay.answers import Slot
from bastion.relay.front import (
    ChannelOpen,
    ChannelRequest,
    ClientLink,
    Front,
    GlobalRequest,
    PodLink,
    RelayRefused,
    Tunnel,
)
from bastion.relay.limits import RelayLimits
from bastion.relay.meanings import (
    X11,
    Agent,
    AgentChannel,
    ForwardedStreamlocal,
    ForwardedTcp,
    Keepalive,
    Malformed,
    NoMoreSessions,
    Opened,
    Session,
    StreamlocalForward,
    TcpForward,
    Unknown,
    X11Channel,
)
from bastion.relay.proof import proves
from bastion.relay.requests import FROM_CLIENTS, needed_capability, requested, shown
from bastion.relay.requests import asked as parse_global
from bastion.relay.tunnel import TunnelEnd
from bastion.relay.wire_channel import NOWHERE, Leg
from bastion.relay.wire_cipher import Workbench
from bastion.relay.wire_link import Feeder, GlobalReply, Link, Offered, OpenFailure
from bastion.relay.wire_pod import Client, PodSide
from ca.errors import Refusal

NAME = "jupyterhub-bastion"
LOST = "The connection to your server was lost: it has stopped, or its network failed."
_INVITES: dict[type, type[Opened]] = {
    Agent: AgentChannel,
    X11: X11Channel,
    TcpForward: ForwardedTcp,
    StreamlocalForward: ForwardedStreamlocal,
}


_ENDED_BY = (
    ("Login timeout", "login_seconds"),
    ("not responding to keepalive", "keepalive_count"),
    ("Too many unanswered", "unanswered"),
)
"""What asyncssh, or we, say of a connection that a bound ended."""


class ClientOwner(asyncssh.SSHServer):
    """asyncssh's call-backs for the client's connection."""

    def __init__(self) -> None:
        self._client: ClientSide | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Remember whose call-backs these are."""
        if isinstance(conn, ClientSide):
            self._client = conn
            conn.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        if self._client is not None:
            self._client.over(exc)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002 - asyncssh's interface
        """Everybody must authenticate."""
        return True

    def auth_completed(self) -> None:
        """The client is in."""
        if self._client is not None:
            self._client.entered()

    def public_key_auth_supported(self) -> bool:
        """The only method."""
        return True


class HeldTunnel:
    """One tunnel in the front's hands."""

    def __init__(self, leg: Leg) -> None:
        self._leg = leg
        self.end: TunnelEnd | None = None

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes from and to the client so far."""
        return self._leg.received, self._leg.sent

    def close(self, sentence: str) -> None:
        """Cut it, or have its open fail."""
        if self.end is not None:
            self.end.abort()
        else:
            self._leg.refused(OPEN_CONNECT_FAILED, _printable(sentence), "en")


class ClientSide(Client, asyncssh.SSHServerConnection):
    """The client's connection."""

    def __init__(
        self,
        front: Callable[[ClientLink], Front],
        options: asyncssh.SSHServerConnectionOptions,
        limits: RelayLimits,
        bench: Workbench,
        peer: tuple[str, int] | None = None,
    ) -> None:
        self.set_up(limits, bench)
        self._told_peer = peer
        self.invited = set()
        self.tunnels: set[TunnelEnd] = set()
        self._pod: PodSide | None = None
        self._dialling: asyncio.Future[PodLink] | None = None
        self._proven: tuple[str, bytes] | None = None
        self._signed = self._probes = 0
        self._no_more_sessions = False
        self._login = ""
        super().__init__(asyncio.get_running_loop(), options, None, None, None)
        self._make_front = front

    def begin(self) -> None:
        """The TCP connection is there, and its address known."""
        self.front = self._make_front(self)

    # what the front may use

    @property
    def peer(self) -> tuple[str, int]:
        """The client's address and port: the socket's, or what a proxy said of them."""
        return self._told_peer or (self._peer_addr, self._peer_port)

    @property
    def login(self) -> str:
        """The login name that was proven."""
        return self._login

    @property
    def version(self) -> str:
        """The client's identification string."""
        return str(self.get_extra_info("client_version", ""))

    @property
    def channels(self) -> int:
        """How many channels are open or being opened."""
        return len(self.legs)

    def tell(self, sentence: str) -> None:
        """Show a line on every open session."""
        self._say_everywhere(f"{NAME}: {_printable(sentence)}")

    def close(self, sentence: str = "") -> None:
        """End the connection, and tell the person why."""
        if self.ending or self.is_gone:
            return
        self.ending = True
        text = _printable(sentence)
        heard = self._say_everywhere(f"{NAME}: {text}") if text else False
        self._part_from_pod()
        self.create_task(self._farewell(text or "The connection is closed.", wait=heard))

    # authentication

    async def reload_config(self) -> None:
        """Nothing: asyncssh would read options and key files again, in a thread, for each login name."""

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """A key offered (no `msg`), or proven. Replaces asyncssh's own judgement wholly."""
        if not msg:
            self._probes += 1
            return await self.front.offer(username, key_data)
        self._signed += 1
        if not proves(key_data, msg, signature, self._session_id):
            return False
        verdict = await self.front.prove(username, key_data)
        if verdict.ok:
            self._proven = username, key_data
        elif verdict.sentence and not self._auth_complete:
            self.send_auth_banner(f"{NAME}: {verdict.sentence}\r\n")
        return verdict.ok

    def send_userauth_failure(self, partial_success: bool) -> None:
        """Bounded: a client that goes on and on is sent away."""
        self._probes += 1
        if self._signed >= self.limits.signed_attempts or self._probes >= 2 * self.limits.probes:
            self.limits.hit("signed_attempts" if self._signed >= self.limits.signed_attempts else "probes")
            raise asyncssh.DisconnectError(DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "Too many authentication failures")
        super().send_userauth_failure(partial_success)

    async def send_userauth_success(self) -> None:
        """Only for the login name that the front let in, whatever path led here."""
        if self._proven is None or self._proven[0] != self._username:
            self.send_userauth_failure(False)
            return
        await super().send_userauth_success()

    def entered(self) -> None:
        """The client is in."""
        if self._proven is not None:
            self._login, blob = self._proven
            self.front.authenticated(self._login, blob)

    # the pod

    def feeders(self) -> list[Feeder]:
        """What the client is sent comes from the pod and from tunnels."""
        pod: list[Feeder] = [] if self._pod is None else [self._pod]
        return pod + list(self.tunnels)

    async def across(self) -> Link:
        """The pod's connection, made when first needed and shared by all channels."""
        if self._pod is not None:
            return self._pod
        if self._dialling is None:
            self._dialling = asyncio.ensure_future(self.front.upstream())
            self._dialling.add_done_callback(self._dialled)
        link = await asyncio.shield(self._dialling)
        if not isinstance(link, PodSide):
            raise TypeError("upstream() must give what connect_pod() made")
        return link

    def _dialled(self, dialling: asyncio.Future[PodLink]) -> None:
        self._dialling = None
        if not dialling.cancelled() and dialling.exception() is None and (self.is_gone or self.ending):
            dialling.result().abort()

    def attach(self, pod: PodSide) -> None:
        """The pod's connection was made."""
        if self.ending or self.is_gone:
            pod.abort()
            return
        self._pod = pod
        self.hold_with(pod)

    def pod_lost(self) -> None:
        """A client whose pod is gone has nothing left to ask for."""
        self._pod = None
        self.close(LOST)

    def _part_from_pod(self) -> None:
        for leg in list(self.legs.values()):
            far, leg.far = leg.far, NOWHERE
            if isinstance(far, Leg):
                far.far = NOWHERE
        if self._dialling is not None:
            self._dialling.cancel()
        for tunnel in list(self.tunnels):
            tunnel.abort()
        pod, self._pod = self._pod, None
        if pod is not None:
            pod.hang_up("the client is gone")

    # channels and requests

    def judge_open(self, asked: ChannelOpen, kind: bytes) -> OpenFailure | Callable[[Leg, Offered], Awaitable[None]]:
        """Sessions and connections made from the pod, as the front allows."""
        meaning = asked.meaning
        if kind not in FROM_CLIENTS:
            return OpenFailure(OPEN_UNKNOWN_CHANNEL_TYPE, f"unknown channel type {shown(kind)}")
        if isinstance(meaning, Malformed):
            return OpenFailure(OPEN_CONNECT_FAILED, f"malformed request: {meaning.why}")
        if len(self.legs) >= self.limits.channels:
            self.limits.hit("channels")
            return OpenFailure(OPEN_RESOURCE_SHORTAGE, f"at most {self.limits.channels} channels on one connection")
        if isinstance(meaning, Session):
            if self._no_more_sessions:
                return OpenFailure(OPEN_ADMINISTRATIVELY_PROHIBITED, "the client wanted no more sessions")
            if self._sessions() >= self.limits.sessions:
                self.limits.hit("sessions")
                return OpenFailure(OPEN_RESOURCE_SHORTAGE, f"at most {self.limits.sessions} sessions on one connection")
        way = self.front.decide_open(asked)
        if isinstance(way, Refusal):
            return OpenFailure(OPEN_ADMINISTRATIVELY_PROHIBITED, way.sentence)
        if isinstance(way, Tunnel):
            return lambda leg, offered: self._open_tunnel(leg, offered, way)
        return self.open_across

    def _sessions(self) -> int:
        return sum(1 for leg in self.legs.values() if leg.opening and isinstance(leg.opening.meaning, Session))

    async def _open_tunnel(self, leg: Leg, offered: Offered, target: Tunnel) -> None:
        leg.ended = target.ended
        held = HeldTunnel(leg)
        refusal = await target.prepare(held) if target.prepare is not None else None
        if refusal is not None:
            leg.refused(OPEN_ADMINISTRATIVELY_PROHIBITED, refusal.sentence, "en")
            return
        if self._too_late_for(leg):
            return
        end = TunnelEnd(
            leg,
            offered=offered.window,
            packet=min(offered.packet, self.limits.packet),
            window=self.limits.window,
            buffered=self.limits.buffered,
            ended=self.tunnels.discard,
        )
        try:
            async with asyncio.timeout(self.limits.dial_seconds):
                await self._loop.create_connection(lambda: end, target.address, target.port)
        except OSError:  # TimeoutError is one
            leg.refused(OPEN_CONNECT_FAILED, "the server's SSH port does not answer", "en")
            return
        if self._too_late_for(leg):
            end.abort()
            return
        leg.far = held.end = end
        self.tunnels.add(end)
        self.hold_with(end)
        end.start()

    def _too_late_for(self, leg: Leg) -> bool:
        if leg.gone or self.ending:
            leg.refused(OPEN_CONNECT_FAILED, "the connection is ending", "en")
            return True
        return False

    def wish(self, leg: Leg, name: bytes, payload: bytes, slot: Slot[int] | None) -> None:
        """The client asks for something on a channel: a shell, a terminal, a forwarded agent, a signal."""
        if leg.opening is None:  # a channel that the pod opened: there is nothing to decide on it
            leg.far.request(name, payload, slot)
            return
        asked = ChannelRequest(leg.opening, shown(name), slot is not None, requested(name, payload), payload)
        if isinstance(asked.meaning, Malformed):
            if slot is not None:
                slot.answer(MSG_CHANNEL_FAILURE)
            return
        refusal = self.front.decide_request(asked)
        if refusal is None:
            self._invite(type(asked.meaning))
            leg.far.request(name, payload, slot)
            return
        if needed_capability(asked.meaning) is not None and not isinstance(asked.meaning, Unknown):
            leg.say(f"{NAME}: {refusal.sentence}")
        if slot is not None:
            self.create_task(self._refuse_after_reading(slot))

    async def _refuse_after_reading(self, slot: Slot[int]) -> None:
        """OpenSSH's client ends at once on a refused shell or subsystem, and loses what it has not written yet."""
        await self._heard()
        slot.answer(MSG_CHANNEL_FAILURE)

    def _invite(self, meaning: type) -> None:
        invited = _INVITES.get(meaning)
        if invited is not None:
            self.invited.add(invited)

    def judge_global(self, name: bytes, payload: bytes, slot: Slot[GlobalReply] | None) -> None:
        """Forwards, as the front allows; keepalives are answered; whatever else is answered "no"."""
        asked = GlobalRequest(shown(name), slot is not None, parse_global(name, payload), payload)
        reply: GlobalReply = None
        if isinstance(asked.meaning, NoMoreSessions):
            self._no_more_sessions = True
            reply = b""
        elif isinstance(asked.meaning, Keepalive):
            reply = b""
        elif self._may_ask(asked):
            self._invite(type(asked.meaning))
            self.create_task(self._relay_global(name, payload, slot))
            return
        if slot is not None:
            slot.answer(reply)

    def _may_ask(self, asked: GlobalRequest) -> bool:
        if self.ending or isinstance(asked.meaning, Malformed | Unknown):
            return False
        return self.front.decide_global(asked) is None

    async def _relay_global(self, name: bytes, payload: bytes, slot: Slot[GlobalReply] | None) -> None:
        reply: GlobalReply = None
        try:
            pod = await self.across()
            reply = await pod.ask_global(name, payload, want_reply=slot is not None)
        except RelayRefused:
            pass  # the answer is "no"; a channel would be told why
        if slot is not None:
            slot.answer(reply)

    # the end

    def _say_everywhere(self, line: str) -> bool:
        sessions = [leg for leg in self.legs.values() if leg.opening and isinstance(leg.opening.meaning, Session)]
        for leg in sessions:
            leg.say(line)
        return bool(sessions)

    async def _heard(self) -> None:
        """Wait, for a while, until the client has read what it was sent: it answers a question that follows it."""
        try:
            async with asyncio.timeout(self.limits.farewell / 2):
                await self._make_global_request(b"keepalive@openssh.com")
        except TimeoutError:
            pass

    async def _farewell(self, text: str, *, wait: bool) -> None:
        if wait:
            await self._heard()
        self.hang_up(text)

    def over(self, exc: Exception | None) -> None:
        """The connection is over."""
        self.let_go()
        for words, limit in _ENDED_BY:
            if exc is not None and words in str(exc):
                self.limits.hit(limit)
        in_order = self.ending
        self.ending = True
        self._part_from_pod()
        self.front.closed(None if in_order else exc)


def _printable(sentence: str) -> str:
    return "".join(char if char.isprintable() else " " for char in sentence)[:400]
