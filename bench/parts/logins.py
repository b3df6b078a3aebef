"""Why: scripts and editors connect over and over: what a connection takes, alone and many at once, and costs."""

from __future__ import annotations

import time

from bench.crew import crew
from bench.figures import Spread, at_most, percentile, ratios, spread
from bench.measure import cpu_seconds
from bench.processes import run
from bench.scale import Scale
from bench.stage import Route, Stage
from bench.table import Bars, Result, Row

_ROUTES = (Route.DIRECT, Route.OPENSSH)
_PARALLEL = 32


async def measure(stage: Stage, scale: Scale) -> Result:
    """`ssh host true`, and parallel connects with and without a session."""
    async with stage.serving():
        alone = await _alone(stage, scale)
    many = await _many(stage, scale)
    text = (
        "`ssh host true` is OpenSSH's client. Parallel connects are made by one asyncssh process, "
        f"{_PARALLEL} at a time, each user with a certificate of her own; it shares its core with the pod's sshd, "
        "which is then the limit, so what a connection costs the measured core is given as well."
    )
    panels = () if alone.bastion is None else (_panel(alone.bastion, alone.openssh),)
    return Result("Logins", (alone, *many), panels, text)


def _panel(ours: Spread, theirs: Spread | None) -> Bars:
    return Bars("ssh host true (less is better)", "s", (("median of a round", ours, theirs),))


async def _alone(stage: Stage, scale: Scale) -> Row:
    seen: dict[Route, list[float]] = {route: [] for route in _ROUTES}
    for _ in range(scale.rounds):
        taken: dict[Route, list[float]] = {route: [] for route in _ROUTES}
        for _ in range(scale.logins):
            for route in _ROUTES:
                began = time.perf_counter()
                await run([*stage.ssh(route), route.value, "true"], stage.folder / "login.log")
                taken[route].append(time.perf_counter() - began)
        for route in _ROUTES:
            seen[route].append(spread(taken[route]).median)
    ours, theirs = (seen[route] for route in _ROUTES)
    what = f"`ssh host true`, median of {scale.logins}"
    return Row(what, "s", spread(ours), spread(theirs), ratios(ours, theirs), at_most(0.6))


async def _many(stage: Stage, scale: Scale) -> list[Row]:
    """Everything from fresh servers, so that no hop certificate is there yet."""
    rate: dict[Route, list[float]] = {route: [] for route in _ROUTES}
    half: dict[Route, list[float]] = {route: [] for route in _ROUTES}
    late: dict[Route, list[float]] = {route: [] for route in _ROUTES}
    cost: dict[Route, list[float]] = {route: [] for route in _ROUTES}
    entry: list[float] = []
    entry_cost: list[float] = []
    failed = 0
    for _ in range(scale.rounds):
        async with stage.serving():
            for route in _ROUTES:
                cpu = cpu_seconds(stage.pid(route))
                async with crew(stage, route, scale.connects) as load:
                    seen = await load.ask(do="connect", count=scale.connects, parallel=_PARALLEL, session=True)
                    failed += seen["failed"]
                    cost[route].append((cpu_seconds(stage.pid(route)) - cpu) / scale.connects * 1e3)
                    await load.ask(do="close")
                rate[route].append(scale.connects / seen["took"])
                half[route].append(percentile(seen["seconds"], 0.5) * 1e3)
                late[route].append(percentile(seen["seconds"], 0.99) * 1e3)
            async with crew(stage, Route.DIRECT, scale.connects) as load:
                cpu = cpu_seconds(stage.pid(Route.DIRECT))
                seen = await load.ask(do="connect", count=scale.connects, parallel=_PARALLEL, session=False)
                failed += seen["failed"]
                entry.append(scale.connects / seen["took"])
                entry_cost.append((cpu_seconds(stage.pid(Route.DIRECT)) - cpu) / scale.connects * 1e3)
                await load.ask(do="close")
    one, other = _ROUTES
    named = f"{scale.connects} connects, {_PARALLEL} at a time"
    return [
        Row(f"{named}: per second", "/s", spread(rate[one]), spread(rate[other]), ratios(rate[one], rate[other])),
        Row(f"{named}: p50", "ms", spread(half[one]), spread(half[other]), ratios(half[one], half[other])),
        Row(f"{named}: p99", "ms", spread(late[one]), spread(late[other]), ratios(late[one], late[other])),
        Row(f"{named}: CPU of each", "ms", spread(cost[one]), spread(cost[other]), ratios(cost[one], cost[other])),
        Row(f"{named}, no session (the pod is not dialled): per second", "/s", spread(entry)),
        Row(f"{named}, no session: CPU of each", "ms", spread(entry_cost)),
        Row("failed connects of all these", "", spread([float(failed)])),
    ]
