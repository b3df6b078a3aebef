"""The client's connection: who it is, and what it may open.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncssh
from asyncssh.constants import (
    MSG_CHANNEL_FAILURE,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_CONNECT_FAILED,
    OPEN_RESOURCE_SHORTAGE,
    OPEN_UNKNOWN_CHANNEL_TYPE,
)

from bastion.relay.answers import Slot
from bastion.relay.far import NOWHERE
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
from bastion.relay.requests import FROM_CLIENTS, needed_capability, requested, shown
from bastion.relay.requests import asked as parse_global
from bastion.relay.sentences import NAME, printable
from bastion.relay.wire_channel import Leg
from bastion.relay.wire_cipher import Workbench
from bastion.relay.wire_explain import Explaining
from bastion.relay.wire_link import GlobalReply, Link, Offered, OpenFailure
from bastion.relay.wire_login import Entering
from bastion.relay.wire_pod import PodSide
from bastion.relay.wire_pressure import Feeder
from bastion.relay.wire_tunnels import Tunnels
from ca.errors import Refusal

LOST = "The connection to your server was lost: it has stopped, or its network failed."
_INVITES: dict[type, type[Opened]] = {
    Agent: AgentChannel,
    X11: X11Channel,
    TcpForward: ForwardedTcp,
    StreamlocalForward: ForwardedStreamlocal,
}


class ClientSide(Tunnels, Explaining, Entering):
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
        self.set_up_explaining()
        self._told_peer = peer
        self.invited = set()
        self.tunnels = set()
        self._pod: PodSide | None = None
        self._dialling: asyncio.Future[PodLink] | None = None
        self._no_more_sessions = False
        super().__init__(asyncio.get_running_loop(), options, None, None, None)
        self._make_front = front
        self.expect_strangers()

    def begin(self) -> None:
        """The TCP connection is there, and its address known."""
        self.front = self._make_front(self)

    # what the front may use

    @property
    def peer(self) -> tuple[str, int]:
        """The client's address and port: the socket's, or what a proxy said of them."""
        return self._told_peer or (self._peer_addr, self._peer_port)

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
        self._say_everywhere(f"{NAME}: {printable(sentence)}")

    def close(self, sentence: str = "") -> None:
        """End the connection, and tell the person why."""
        if self.ending or self.is_gone:
            return
        self.ending = True
        text = printable(sentence)
        heard = bool(text) and self._say_everywhere(f"{NAME}: {text}")
        self._part_from_pod()
        self.create_task(self._farewell(text or "The connection is closed.", wait=heard))

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

    def carries_only(self, leg: Leg) -> bool:
        """Whether nothing but this tunnel is in use here: a forward keeps the pod's connection without a channel."""
        return self._pod is None and self._dialling is None and super().carries_only(leg)

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
        if not (self.ending or self.is_gone):
            self.front.pod_lost()
            self.close(LOST)

    def _part_from_pod(self) -> None:
        for leg in list(self.legs.values()):
            far, leg.far = leg.far, NOWHERE
            if isinstance(far, Leg):
                far.far = NOWHERE
        if self._dialling is not None:
            self._dialling.cancel()
        for tunnel in list(self.tunnels):
            tunnel.part()
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
            if len(self.sessions()) >= self.limits.sessions:
                self.limits.hit("sessions")
                return OpenFailure(OPEN_RESOURCE_SHORTAGE, f"at most {self.limits.sessions} sessions on one connection")
        way = self.front.decide_open(asked)
        if isinstance(way, Refusal):
            return OpenFailure(OPEN_ADMINISTRATIVELY_PROHIBITED, way.sentence)
        if isinstance(way, Tunnel):
            return lambda leg, offered: self.open_tunnel(leg, offered, way)
        return self.open_across

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
        await self.heard()
        slot.answer(MSG_CHANNEL_FAILURE)

    def _invite(self, meaning: type) -> None:
        invited = _INVITES.get(meaning)
        if invited is not None:
            self.invited.add(invited)

    def judge_global(self, name: bytes, payload: bytes, slot: Slot[GlobalReply]) -> None:
        """Forwards, as the front allows; keepalives are answered; whatever else is answered "no"."""
        asked = GlobalRequest(shown(name), slot.wanted, parse_global(name, payload), payload)
        reply: GlobalReply = None
        if isinstance(asked.meaning, NoMoreSessions):
            self._no_more_sessions = True
            reply = b""
        elif isinstance(asked.meaning, Keepalive):
            reply = b""
        elif not self.ending and not isinstance(asked.meaning, Malformed | Unknown):
            refusal = self.front.decide_global(asked)
            if refusal is not None:
                self.refuse_forward(refusal.sentence, slot)
                return
            self._invite(type(asked.meaning))
            self.create_task(self._relay_global(name, payload, slot))
            return
        slot.answer(reply)

    async def _relay_global(self, name: bytes, payload: bytes, slot: Slot[GlobalReply]) -> None:
        reply: GlobalReply = None
        try:
            pod = await self.across()
            reply = await pod.ask_global(name, payload, want_reply=slot.wanted)
        except RelayRefused:
            pass  # the answer is "no"; a channel would be told why
        slot.answer(reply)

    # the end

    def _say_everywhere(self, line: str) -> bool:
        for leg in self.sessions():
            leg.say(line)
        return bool(self.sessions())

    async def _farewell(self, text: str, *, wait: bool) -> None:
        if wait:
            await self.heard()
        self.hang_up(text)

    def over(self, exc: Exception | None) -> None:
        """The connection is over."""
        self.let_go()
        self.count_silence(exc)
        if exc is not None and "Login timeout" in str(exc):  # asyncssh's words
            self.limits.hit("login_seconds")
        in_order, self.ending = self.ending, True
        self._part_from_pod()
        self.front.closed(None if in_order else exc)
