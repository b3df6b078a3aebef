"""Why a forward was refused, said to somebody who may have no session yet to read it in.

A global request has no text in its answer. So the sentence is a line in the sessions, or in the first one that opens:
OpenSSH asks for forwards and its session in one go, and where it must end on a refused forward, it ends with the "no".

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from bastion.relay.answers import Slot
from bastion.relay.meanings import Session
from bastion.relay.sentences import NAME, printable
from bastion.relay.wire_channel import Leg
from bastion.relay.wire_link import GlobalReply, Link

_MOST = 8
"""Sentences that one connection is told; each is told once, however often it applies."""


class Explaining(Link):
    """The part of the client's connection that says why."""

    def set_up_explaining(self) -> None:
        """Own state."""
        self._reasons: list[str] = []
        self._unread: list[str] = []
        self._readable = asyncio.Event()

    def sessions(self) -> list[Leg]:
        """Sessions of this connection, those that are being opened among them."""
        return [leg for leg in self.legs.values() if leg.opening is Session]

    def begun(self, leg: Leg) -> None:
        """A session can be read in: what nobody could be told so far is told there."""
        if leg.opening is Session:
            unread, self._unread = self._unread, []
            for line in unread:
                leg.say(line)
            self._readable.set()

    def refuse_forward(self, sentence: str, slot: Slot[GlobalReply]) -> None:
        """Answer "no", when the sentence has been read where that is possible."""
        line = f"{NAME}: {printable(sentence)}"
        if line in self._reasons or len(self._reasons) >= _MOST:
            slot.answer(None)
            return
        self._reasons.append(line)
        readers = [leg for leg in self.sessions() if leg.open]
        for leg in readers:
            leg.say(line)
        if not readers:
            self._unread.append(line)
        self.create_task(self._refuse_when_read(slot))

    async def _refuse_when_read(self, slot: Slot[GlobalReply]) -> None:
        if slot.wanted:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.limits.farewell / 2):
                    await self._readable.wait()
            if self._readable.is_set():
                await self.heard()
        slot.answer(None)

    async def heard(self) -> None:
        """Wait, for a while, until the client has read what it was sent: it answers a question that follows it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.farewell / 2):
                await self._make_global_request(b"keepalive@openssh.com")
