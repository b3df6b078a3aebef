"""Why: whoever has not logged in yet may be anybody, so what they send must neither pile up nor take others' time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import Boolean, String

from bastion.hall import Hall
from bastion.interactive import BrowserLogins
from bastion.listener import Gate
from bastion.lobby import Lobby, LobbyLimits
from bastion.relay.limits import RelayLimits, default_algorithms
from bastion.relay.wire import Entrance, HostKey
from bastion.server import Door
from tests.bastion.relay.test_hostile import until


@dataclass
class Porch:
    """A listener whose house takes as long as `answered` to say that it does not know a key."""

    gates: list[Gate] = field(default_factory=list)
    asked: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def offer(self) -> bool:
        self.asked += 1
        self.news.set()
        await self.answered.wait()
        return False

    @asynccontextmanager
    async def open(self, patch: pytest.MonkeyPatch) -> AsyncIterator[Porch]:
        patch.setattr(Door, "offer", lambda *_: self.offer())
        desk: Any = None  # no login with a browser is begun here
        browser = BrowserLogins(desk, enabled=False, jump_names=frozenset(), seconds=1.0)
        house: Any = SimpleNamespace(authenticator=None, browser=browser, note=lambda _: None)
        room: Any = None  # nobody logs in with a browser here
        entrance = Entrance(
            lambda _: pytest.fail("the gate makes fronts of its own"),
            [HostKey(asyncssh.generate_private_key("ssh-ed25519"))],
            RelayLimits(),
            default_algorithms(fast_aes=True),
        )
        self.hall = Hall(Lobby(LobbyLimits()), entrance, house, room)

        def gate() -> Gate:
            self.gates.append(Gate(self.hall))
            return self.gates[-1]

        server = await asyncio.get_running_loop().create_server(gate, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
        await until(lambda: len(self.hall.lobby) == len(self.hall.turns) == 0)

    async def comes(self, **more: Any) -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(
            "127.0.0.1",
            self.port,
            username="alice",
            client_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            known_hosts=None,
            config=None,
            agent_path=None,
            **more,
        )


class Owner(asyncssh.SSHClient):
    """Keeps the connection before it has logged in."""

    made: asyncssh.SSHClientConnection

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        type(self).made = conn


@pytest.fixture
def porch() -> Porch:
    return Porch()


async def test_a_key_is_looked_at_in_its_turn_and_the_login_goes_on(
    porch: Porch, monkeypatch: pytest.MonkeyPatch
) -> None:
    porch.answered.set()
    async with porch.open(monkeypatch):
        with pytest.raises(asyncssh.PermissionDenied):
            await porch.comes()
    assert porch.asked == 1


async def test_what_comes_while_a_key_is_looked_up_is_judged_at_once_and_does_not_pile_up(
    porch: Porch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking a pod for its keys takes seconds: nobody may fill the memory meanwhile."""
    async with porch.open(monkeypatch):
        coming = asyncio.create_task(porch.comes(client_factory=Owner))
        await asyncio.wait_for(porch.news.wait(), 20)
        made: Any = Owner.made
        made._transport.write(bytes(64 << 20))
        with pytest.raises((asyncssh.Error, OSError)):
            await coming
        await until(lambda: len(porch.hall.lobby) == 0)
        assert not porch.answered.is_set()


async def test_a_client_that_waits_for_no_answer_may_not_ask_more_than_one_that_does(
    porch: Porch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with porch.open(monkeypatch):
        coming = asyncio.create_task(porch.comes(client_factory=Owner))
        await asyncio.wait_for(porch.news.wait(), 20)
        made: Any = Owner.made
        blob = asyncssh.generate_private_key("ssh-ed25519").public_data
        asks = b"".join((String("alice"), String("ssh-connection"), String("publickey"), Boolean(False)))
        for _ in range(10 * RelayLimits().probes):
            made.send_packet(50, asks + String("ssh-ed25519") + String(blob))
        with pytest.raises(asyncssh.DisconnectError, match="Too many authentication failures"):
            await coming
    assert porch.asked <= 2 * RelayLimits().probes


async def test_who_leaves_before_his_turn_leaves_nothing(porch: Porch, monkeypatch: pytest.MonkeyPatch) -> None:
    async with porch.open(monkeypatch):
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", porch.port)
            writer.write(b"SSH-2.0-x\r\n")
            writer.transport.abort()
        await until(lambda: len(porch.gates) == 20)
