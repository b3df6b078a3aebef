"""Why: whatever works against a plain sshd must work the same through the relay: commands and sessions.

Each command runs once against the sshd and once through the relay, and both must end alike, to the byte.
"""

from __future__ import annotations

import pytest

from tests.bastion.relay.doors import Answer, Door, Way
from tests.support.sshd import Sshd


async def same(sshd: Sshd, door: Door, *arguments: str | bytes, stdin: bytes = b"", **more: object) -> Answer:
    straight = await Way.direct(sshd).run(*arguments, stdin=stdin, **more)
    relayed = await Way.through(door).run(*arguments, stdin=stdin, **more)
    assert relayed == straight
    return relayed


@pytest.mark.parametrize(
    "command",
    [
        b"echo hello",
        b"printf '\\377\\376 \xff\xfe\x80'",
        b"exit 3",
        b"kill -TERM $$",
        b"kill -KILL $$",
        b"echo out; echo err >&2; exit 4",
        b"head -c 300000 /dev/zero | tr '\\0' 'x'; exit 5",
        b"head -c 300000 /dev/zero | tr '\\0' 'x' >&2; exit 6",
        b"(sleep 0.2; echo late) & exit 0",
        b"true",
    ],
    ids=range(10),
)
async def test_a_command_ends_as_it_does_directly(sshd: Sshd, door: Door, command: bytes) -> None:
    await same(sshd, door, "--", command)


async def test_half_close_reaches_the_command_and_its_last_words_come_back(sshd: Sshd, door: Door) -> None:
    sent = bytes(range(256)) * 2000
    answer = await same(sshd, door, "--", "cat; echo done", stdin=sent)
    assert answer.out == sent + b"done\n"
