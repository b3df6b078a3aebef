"""Why: whoever has not logged in yet takes memory as well, and there may be more than a thousand of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import String, UInt32

from bastion.relay.wire_login import ENTERING_PACKET, STRANGERS_PACKET
from ca.certificate import MAX_CERTIFICATE_BYTES
from tests.bastion.relay.doors import Door, Way, connect
from tests.bastion.relay.raw import until

IGNORE = 2


async def test_a_stranger_may_begin_no_larger_packet_than_the_protocol_asks_for(door: Door) -> None:
    writers = []
    for size in (STRANGERS_PACKET, STRANGERS_PACKET + 1, 262_000):
        _, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writers.append(writer)
        writer.write(b"SSH-2.0-x\r\n" + UInt32(size) + bytes(STRANGERS_PACKET - 100))
    for _ in range(2):
        assert "Max packet size" in str((await door.next_end()).ended[0])
    left = [side for side in door.sides if not side.is_gone]
    await until(lambda: [len(side._inpbuf) for side in left] == [STRANGERS_PACKET - 104])
    for writer in writers:
        writer.transport.abort()
    await door.next_end()


@pytest.mark.parametrize("size", [ENTERING_PACKET - 100, ENTERING_PACKET + 100])
async def test_who_has_keys_but_is_not_logged_in_may_send_what_a_login_needs(door: Door, size: int) -> None:
    class Hasty(asyncssh.SSHClient):
        def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
            self._conn: Any = conn

        def public_key_auth_requested(self) -> asyncssh.SSHKey:
            self._conn.send_packet(IGNORE, String(bytes(size)))
            return door.sshd.user_key

    if size < ENTERING_PACKET:
        async with connect(door, client_keys=None, client_factory=Hasty) as conn:
            conn.send_packet(IGNORE, String(bytes(200_000)))  # inside, the usual bound counts
            assert (await conn.run("echo in", encoding=None)).stdout == b"in\n"
    else:
        with pytest.raises(asyncssh.Error):
            await connect(door, client_keys=None, client_factory=Hasty)
        assert "Max packet size" in str((await door.next_end()).ended[0])


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "rsa"])
async def test_the_largest_certificate_that_counts_gets_in(door: Door, tmp_path: Path, algorithm: str) -> None:
    sizes = {"key_size": 4096} if algorithm == "rsa" else {}
    key = asyncssh.generate_private_key("ssh-rsa" if algorithm == "rsa" else algorithm, **sizes)
    names = [f"{number:04}" + "n" * 240 for number in range(255)]
    certificate = asyncssh.generate_private_key("ssh-ed25519").generate_user_certificate(
        key, "x", principals=names, valid_after="-1m", valid_before="+1m"
    )
    assert MAX_CERTIFICATE_BYTES - 4096 < len(certificate.public_data) <= MAX_CERTIFICATE_BYTES
    path = tmp_path / "large"
    path.touch(mode=0o600)
    path.write_bytes(key.export_private_key("openssh"))
    (tmp_path / "large-cert.pub").write_bytes(certificate.export_certificate())
    door.welcome = {certificate.public_data}
    answer = await replace(Way.through(door), identity=path).run("--", "echo in")
    assert (answer.status, answer.out) == (0, b"in\n")
