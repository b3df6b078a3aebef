"""Why: an sshd that reads a new host certificate is away for an instant, and one that hangs costs people patience."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncssh
import pytest

from bastion.admission import Admission, How
from bastion.authority.hop import Hop
from bastion.directory.table import Pod
from bastion.relay.front import RelayRefused
from bastion.relay.limits import RelayLimits
from bastion.target import Reach
from ca.keys import parse_public_key
from ca.limits import ALL
from ca.trust import TrustedKeys
from tests.bastion.relay.doors import ALGORITHMS, Door, connect
from tests.support.pods import key, pod
from tests.support.sshd import Sshd

Treat = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd.running(tmp_path_factory.mktemp("sshd")) as running:
        yield running


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A process that is stopped: the kernel takes the connection for it."""
    del writer
    await reader.read()


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An sshd that has too many logins at once."""
    await reader.readline()
    writer.close()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A connection that waited for an sshd which begins anew."""
    await reader.readline()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Port:
    """An address that treats connections in this way, one after another, and then as the sshd does."""

    def __init__(self, sshd: Sshd, *treats: Treat) -> None:
        self._sshd = sshd
        self._treats = list(treats)
        self.dialled = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        try:
            if self._treats:
                await self._treats.pop(0)(reader, writer)
            else:
                await self._join(reader, writer)
        finally:
            writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._sshd.port)

        async def pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(1 << 16):
                sink.write(data)
            sink.close()

        await asyncio.gather(pour(reader, forth), pour(back, writer))


def reach(sshd: Sshd, failed: list[str]) -> Reach:
    """With certificates for that sshd; `failed` is told why it could not be had."""
    private = asyncssh.generate_private_key("ssh-ed25519")

    async def hop(*_: object) -> Hop:
        return Hop(private, sshd.certificate(private), 1 << 62)

    async def lost(_: Pod) -> None:
        """Nobody looks after it."""

    ca = parse_public_key(sshd.host_ca.export_public_key())
    return Reach(
        hops=cast("Any", SimpleNamespace(hop=hop)),
        trust=lambda: TrustedKeys(host=(ca,)),
        zone=lambda: "hub",
        networks=(ip_network("127.0.0.0/8"),),
        limits=RelayLimits(),
        algorithms=ALGORITHMS,
        lost=lost,
        failed=failed.append,
    )


async def dial(directory: Path, sshd: Sshd, port: Port, limits: RelayLimits | None = None) -> list[str]:
    """Log in at the pod behind that port, for a client that is in. Why it failed, each time."""
    failed: list[str] = []
    async with Door(sshd, directory, limits or RelayLimits()).serving() as door, port.open() as number:
        host_key = parse_public_key(sshd.host_key.export_public_key())
        there = pod("pod", ssh_port=number, unix_user=sshd.user, host_key=host_key)
        admission = Admission(
            identity="alice",
            how=How.KEY,
            login="pod",
            key=key(1),
            target=there.instance,
            instances=(there.instance,),
            capabilities=ALL,
        )
        async with connect(door):
            with suppress(RelayRefused):
                await reach(sshd, failed).connect(door.sides[0], there, admission)
    return failed


async def test_a_pod_that_says_nothing_is_dialled_once(sshd: Sshd, tmp_path: Path) -> None:
    port = Port(sshd, says_nothing, says_nothing)
    assert await dial(tmp_path, sshd, port, RelayLimits(pod_login_seconds=0.5)) == ["unreachable"]
    assert port.dialled == 1


@pytest.mark.parametrize("treat", [closes, resets])
async def test_a_pod_that_turns_one_connection_away_is_dialled_again(sshd: Sshd, tmp_path: Path, treat: Treat) -> None:
    port = Port(sshd, treat)
    assert await dial(tmp_path, sshd, port) == []
    assert port.dialled == 2


@pytest.mark.parametrize("treat", [closes, resets])
async def test_a_pod_that_turns_everything_away_is_dialled_twice(sshd: Sshd, tmp_path: Path, treat: Treat) -> None:
    port = Port(sshd, treat, treat, treat)
    assert len(await dial(tmp_path, sshd, port)) == 1
    assert port.dialled == 2
