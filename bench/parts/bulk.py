"""Why: what people copy goes through one core of the bastion; how fast, and what a gigabyte costs there.

Each route has one connection that stays (OpenSSH's ControlMaster), and each copy is a session on it: the login is not
in the figure. The routes take turns within a round.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bench.figures import Spread, at_least, at_most, ratios, spread
from bench.measure import cpu_seconds
from bench.processes import run, running
from bench.scale import Scale
from bench.stage import Cipher, Route, Stage
from bench.table import Bars, Result, Row

_BLOCK = 1 << 20
_WAYS = ("down", "up")
_TITLE = {Cipher.DEFAULT: "default ciphers", Cipher.GCM: "aes128-gcm"}


@dataclass(slots=True)
class _Seen:
    rate: list[float] = field(default_factory=list)
    """MB/s"""
    cost: list[float] = field(default_factory=list)
    """CPU seconds per GB"""


async def measure(stage: Stage, scale: Scale) -> Result:
    """Throughput and CPU of copies each way, with the client's default ciphers and with aes128-gcm."""
    seen = {(cipher, way, route): _Seen() for cipher in Cipher for way in _WAYS for route in Route}
    async with stage.serving():
        for cipher in Cipher:
            async with AsyncExitStack() as stack:
                for route in Route:
                    await stack.enter_async_context(connected(stage, route, cipher))
                for _ in range(scale.rounds):
                    for way in _WAYS:
                        for route in Route:
                            await _copy(stage, route, cipher, way, scale.bulk_bytes, seen[cipher, way, route])
    return _result(seen, scale)


@asynccontextmanager
async def connected(stage: Stage, route: Route, cipher: Cipher) -> AsyncIterator[None]:
    """A connection to the pod that sessions can share."""
    socket = stage.folder / f"m-{route.value}"
    command = [*stage.ssh(route, cipher), "-M", "-S", str(socket), "-N", route.value]
    async with running(command) as master:
        async with asyncio.timeout(60):
            while not socket.exists():
                if master.returncode is not None:
                    raise RuntimeError(f"ssh could not connect by {route.value}")
                await asyncio.sleep(0.02)
        yield


async def _copy(stage: Stage, route: Route, cipher: Cipher, way: str, size: int, seen: _Seen) -> None:
    ssh = [*stage.ssh(route, cipher), "-S", str(stage.folder / f"m-{route.value}"), route.value]
    source = f"dd if=/dev/zero bs={_BLOCK} count={size // _BLOCK} status=none"
    log, pid = stage.folder / "copy.log", stage.pid(route)
    cpu, began = cpu_seconds(pid), time.perf_counter()
    if way == "down":
        await run([*ssh, source], log)
    else:
        await run(["sh", "-c", f"{source} | {shlex.join(ssh)} 'cat >/dev/null'"], log)
    took = time.perf_counter() - began
    seen.rate.append(size / took / 1e6)
    seen.cost.append((cpu_seconds(pid) - cpu) / (size / 1e9))


def _result(seen: dict[tuple[Cipher, str, Route], _Seen], scale: Scale) -> Result:
    rows = []
    for cipher, goal in ((Cipher.DEFAULT, at_least(1.6)), (Cipher.GCM, at_least(1.0))):
        for way in _WAYS:
            ours, theirs = seen[cipher, way, Route.DIRECT].rate, seen[cipher, way, Route.OPENSSH].rate
            what = f"bulk copy {way}, direct mode, {_TITLE[cipher]}"
            rows.append(Row(what, "MB/s", spread(ours), spread(theirs), ratios(ours, theirs), goal))
    for cipher, limit in ((Cipher.DEFAULT, at_most(1.0)), (Cipher.GCM, None)):
        for way in _WAYS:
            ours, theirs = seen[cipher, way, Route.DIRECT].cost, seen[cipher, way, Route.OPENSSH].cost
            what = f"CPU per GB {way}, direct mode, {_TITLE[cipher]}"
            rows.append(Row(what, "s", spread(ours), spread(theirs), ratios(ours, theirs), limit))
    for cipher in Cipher:
        for way in _WAYS:
            one, other = seen[cipher, way, Route.JUMP], seen[cipher, way, Route.OPENSSH]
            what = f"bulk copy {way}, jump mode, {_TITLE[cipher]}"
            rows.append(Row(what, "MB/s", spread(one.rate), spread(other.rate), ratios(one.rate, other.rate)))
            what = f"CPU per GB {way}, jump mode, {_TITLE[cipher]}"
            rows.append(Row(what, "s", spread(one.cost), spread(other.cost), ratios(one.cost, other.cost)))
    text = (
        f"{scale.bulk_bytes >> 20} MiB of zeroes per copy on a connection that is there already. Direct mode decrypts "
        "and encrypts every byte at the bastion; a jump host only undoes the outer of two encryptions, the client does "
        "both. "
        "With default ciphers OpenSSH's clients speak chacha20 to an sshd. To the bastion, which offers no chacha20 "
        "where the CPU has AES instructions, they speak AES-GCM; those before 10.0 begin with AES-CTR "
        "and change after 1 MiB."
    )
    return Result("Bulk copies", tuple(rows), _panels(seen), text)


def _panels(seen: dict[tuple[Cipher, str, Route], _Seen]) -> tuple[Bars, ...]:
    def bars(of: Callable[[_Seen], list[float]]) -> tuple[tuple[str, Spread, Spread | None], ...]:
        return tuple(
            (
                f"{way}, {_TITLE[cipher]}",
                spread(of(seen[cipher, way, Route.DIRECT])),
                spread(of(seen[cipher, way, Route.OPENSSH])),
            )
            for cipher in Cipher
            for way in _WAYS
        )

    return (
        Bars("Bulk copy, direct mode (more is better)", "MB/s", bars(lambda one: one.rate)),
        Bars("CPU of the bastion or jump host per GB (less is better)", "s", bars(lambda one: one.cost)),
    )
