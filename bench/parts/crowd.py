"""Why: a class of hundreds has its sessions open all day; what they cost idle, and whether typing stays pleasant.

At each size: memory while nothing happens, then keystrokes on all sessions, then keystrokes while four bulk copies run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bench.crew import Crew, crew
from bench.figures import Spread, at_most, percentile, ratios, spread
from bench.measure import pss_bytes, waited_seconds
from bench.processes import running
from bench.scale import Scale
from bench.stage import Route, Stage
from bench.table import Bars, Result, Row

_ROUTES = (Route.DIRECT, Route.OPENSSH)
_PARALLEL = 32
_EACH = 2.0
"""Seconds between two keystrokes of one session; small crowds type more often, for enough samples."""
_LEAST_RATE = 50.0
_SETTLE = 1.0
_FIRST = 2
"""Sessions before memory is looked at: what a server loads or makes once, for the first, is not every session's."""


@dataclass(slots=True)
class _Seen:
    memory: list[float] = field(default_factory=list)
    """kB per session"""
    quiet: list[float] = field(default_factory=list)
    """p99 of the echo, ms"""
    busy: list[float] = field(default_factory=list)
    """the same while four copies run"""
    busy_half: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    """percent of that time for which the load generator was ready, but had no core"""
    failed: int = 0


async def measure(stage: Stage, scale: Scale) -> Result:
    """Memory and echo at each size of the crowd, for both routes."""
    seen = {(size, route): _Seen() for size in scale.crowds for route in _ROUTES}
    for size in scale.crowds:
        for number in range(scale.memory_rounds if size <= 100 else 1):
            async with stage.serving():
                for route in _ROUTES:
                    await _crowd(stage, scale, route, size, seen[size, route], typing=number == 0)
    return _result(seen, scale)


async def _crowd(stage: Stage, scale: Scale, route: Route, size: int, seen: _Seen, *, typing: bool) -> None:
    pid = stage.pid(route)
    async with crew(stage, route, size) as load:
        await load.ask(do="connect", count=_FIRST, parallel=1, session=True)
        before = pss_bytes(pid)
        answer = await load.ask(do="connect", count=size, parallel=_PARALLEL, session=True)
        seen.failed += answer["failed"]
        await asyncio.sleep(_SETTLE)
        seen.memory.append((pss_bytes(pid) - before) / max(1, size - answer["failed"]) / 1e3)
        if typing:
            await _type(stage, scale, route, size, load, seen)
        await load.ask(do="close")


async def _type(stage: Stage, scale: Scale, route: Route, size: int, load: Crew, seen: _Seen) -> None:
    rate = max(_LEAST_RATE, size / _EACH)
    for _ in range(scale.rounds):
        answer = await load.ask(do="type", seconds=scale.typing, rate=rate)
        seen.failed += answer["failed"] + answer["lost"]
        seen.quiet.append(percentile(answer["seconds"], 0.99) * 1e3)
    async with copies(stage, route):
        for _ in range(scale.rounds):
            began, waited = time.monotonic(), waited_seconds(load.process.pid)
            answer = await load.ask(do="type", seconds=scale.typing, rate=rate)
            seen.waited.append(100 * (waited_seconds(load.process.pid) - waited) / (time.monotonic() - began))
            seen.failed += answer["failed"] + answer["lost"]
            seen.busy.append(percentile(answer["seconds"], 0.99) * 1e3)
            seen.busy_half.append(percentile(answer["seconds"], 0.5) * 1e3)


@asynccontextmanager
async def copies(stage: Stage, route: Route) -> AsyncIterator[None]:
    """Four bulk copies that go on until the block ends: two down, two up, each an ssh of its own."""
    async with AsyncExitStack() as stack:
        ssh = [*stage.ssh(route), route.value]
        for number in range(4):
            if number % 2:
                await stack.enter_async_context(running([*ssh, "cat /dev/zero"]))
            else:
                zeroes = stack.enter_context(open("/dev/zero", "rb"))  # noqa: PTH123, SIM115
                await stack.enter_async_context(running([*ssh, "cat >/dev/null"], stdin=zeroes))
        await asyncio.sleep(2 * _SETTLE)
        yield


def _result(seen: dict[tuple[int, Route], _Seen], scale: Scale) -> Result:
    one, other = _ROUTES
    last = scale.crowds[-1]
    rows = []
    for size in scale.crowds:
        ours, theirs = seen[size, one].memory, seen[size, other].memory
        what = f"memory per idle session, {size:,} sessions"
        rows.append(Row(what, "kB", spread(ours), spread(theirs), ratios(ours, theirs), at_most(1 / 20)))
    for size in scale.crowds:
        ours, theirs = seen[size, one].quiet, seen[size, other].quiet
        rows.append(
            Row(f"keystroke echo p99, {size:,} sessions", "ms", spread(ours), spread(theirs), ratios(ours, theirs))
        )
    for size in scale.crowds:
        ours, theirs = seen[size, one].busy, seen[size, other].busy
        rows.append(
            Row(
                f"keystroke echo p99 while 4 bulk copies run, {size:,} sessions",
                "ms",
                spread(ours),
                spread(theirs),
                ratios(ours, theirs),
                at_most(100, "ms") if size == last else None,
            )
        )
        ours, theirs = seen[size, one].busy_half, seen[size, other].busy_half
        rows.append(Row("the same, p50", "ms", spread(ours), spread(theirs), ratios(ours, theirs)))
        ours, theirs = seen[size, one].waited, seen[size, other].waited
        rows.append(
            Row("the load generator meanwhile ready, but without a core", "% of the time", spread(ours), spread(theirs))
        )
    failed = spread([float(seen[last, one].failed)])
    theirs_failed = spread([float(seen[last, other].failed)])
    rows.append(
        Row(
            f"connects, sessions and keystrokes lost, {last:,} sessions",
            "lost",
            failed,
            theirs_failed,
            goal=at_most(0, "lost"),
            worst=True,
        )
    )
    text = (
        f"Memory is what each session adds after the first {_FIRST}. "
        "Every session is a connection of its own with a terminal, of one user each, made and typed on by one asyncssh "
        f"process; each session types about every {_EACH:g} s (small crowds more often, {_LEAST_RATE:g} keystrokes a "
        "second in all). The four copies are OpenSSH's clients. Load generator, clients and pods share the other "
        "cores, the load generator before the others where the system lets it; what they wait for each other is in the "
        "echo too, on both routes."
    )
    return Result("Many sessions", tuple(rows), _panels(seen, scale), text)


def _panels(seen: dict[tuple[int, Route], _Seen], scale: Scale) -> tuple[Bars, ...]:
    def bars(name: str) -> tuple[tuple[str, Spread, Spread | None], ...]:
        return tuple(
            (
                f"{size:,} sessions",
                spread(getattr(seen[size, Route.DIRECT], name)),
                spread(getattr(seen[size, Route.OPENSSH], name)),
            )
            for size in scale.crowds
        )

    return (
        Bars("Memory per idle session (less is better)", "kB", bars("memory")),
        Bars("Keystroke echo, p99, while 4 bulk copies run (less is better)", "ms", bars("busy")),
    )
