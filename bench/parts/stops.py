"""Why: a stopped server must be out of reach at once: from the news of the stop to the end of the connections to it.

The news is an event of the Kubernetes watch, or the api's answer to the bastion's open question; both ways through HTTP
are in the figures. And where news is lost, since the Kubernetes API was away or its connection died, the stop must be
noticed in the time that the documents state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncssh

from bench.figures import Spread, at_most, percentile
from bench.kubernetes import Pods, pods
from bench.scale import Scale
from bench.stage import RUNS, Stage
from bench.table import Result, Row

_CROWD = 20
_LIMIT = 60.0
_AWAY_SECONDS = 3.0

Tell = Callable[[int | None], None]
"""Tells of a run of the server, or of the end of the one that was."""


async def measure(stage: Stage, scale: Scale) -> Result:
    """Stops of a run with one connection and of a run with a crowd on it, by both ways; then outages."""
    each = scale.stops + scale.stops // 10
    if 2 * each + 2 * scale.outages >= RUNS:
        raise RuntimeError("the pod does not know so many runs")
    with pods(stage, first=0) as cluster:
        async with stage.serving(cluster.settings):
            kubernetes = await _stops(stage, cluster.list_run, scale.stops, 1)
            last = 2 * each
            away = [await _outage(stage, cluster, last + one, _restarted) for one in range(1, scale.outages + 1)]
            last += scale.outages
            silent = [await _outage(stage, cluster, last + one, _cut) for one in range(1, scale.outages + 1)]
    async with stage.serving():
        api = await _stops(stage, stage.list_run, scale.stops, each + 1)
    rows = (*_rows("Kubernetes", *kubernetes), *_rows("the api", *api), *_outages(away, silent))
    text = (
        "From the event to the client's connection closed, with the sentence that tells the person why; the client is "
        "asyncssh with an open session. Kubernetes: from the moment that the pod gets its `deletionTimestamp` at an "
        "API server that is watched over HTTP. The api: from the moment that it knows, which is itself up to a second "
        "after JupyterHub. Outages: the pod is deleted while the Kubernetes API is away, or its watch hears nothing "
        "any more, and the goal is the time that [kubernetes.md](kubernetes.md) states. The "
        "spread is that of the stops."
    )
    return Result("Stops", rows, text=text)


def _rows(source: str, single: list[list[float]], crowds: list[list[float]]) -> tuple[Row, ...]:
    every = [one for run in (*single, *crowds) for one in run]
    return (
        _row(
            f"stop event of {source} → connection closed, {len(single)} stops",
            [one for run in single for one in run],
            100,
        ),
        _row(f"the same → all of {_CROWD} connections closed, {len(crowds)} stops", [max(run) for run in crowds], None),
        Row(f"the slowest of all these, {source}", "ms", _one(max(every)), goal=at_most(1000, "ms"), worst=True),
    )


def _outages(away: list[float], silent: list[float]) -> tuple[Row, ...]:
    def row(what: str, milliseconds: list[float], bound: float) -> Row:
        seconds = [one / 1e3 for one in milliseconds]
        found = Spread(percentile(seconds, 0.5), min(seconds), max(seconds), len(seconds))
        return Row(what, "s", found, goal=at_most(bound, "s"), worst=True)

    away_for = f"the Kubernetes API away for {_AWAY_SECONDS:g} s, its history forgotten and a pod deleted meanwhile"
    return (
        row(f"{away_for}: from its return → connection closed", away, 10),
        row("the watch cut without a word, then a pod deleted: from that event → connection closed", silent, 36),
    )


def _one(value: float) -> Spread:
    return Spread(value, value, value, 1)


def _row(what: str, milliseconds: list[float], bound: float | None) -> Row:
    found = Spread(percentile(milliseconds, 0.5), min(milliseconds), max(milliseconds), len(milliseconds))
    return Row(what, "ms", found, goal=None if bound is None else at_most(bound, "ms"))


async def _stops(stage: Stage, tell: Tell, count: int, first: int) -> tuple[list[list[float]], list[list[float]]]:
    """Stops with one connection each, and a tenth as many with a crowd."""

    async def stop(number: int, people: int) -> list[float]:
        connections = await _connected(stage, tell, number, people)
        told = time.perf_counter()
        tell(None)
        return await _all_closed(connections, told)

    single = [await stop(first + number, 1) for number in range(count)]
    return single, [await stop(first + count + number, _CROWD) for number in range(count // 10)]


async def _outage(stage: Stage, cluster: Pods, number: int, happens: Callable[[Pods], Awaitable[float]]) -> float:
    """A stop that the watch does not hear of: when the connection was closed, in ms."""
    connections = await _connected(stage, cluster.list_run, number, 1)
    (closed,) = await _all_closed(connections, await happens(cluster))
    return closed


async def _restarted(cluster: Pods) -> float:
    """The Kubernetes API goes, the pod is deleted, history is compacted, and the API comes back."""
    cluster.cluster.kill()
    cluster.list_run(None)
    cluster.cluster.compact()
    await asyncio.sleep(_AWAY_SECONDS)
    began = time.perf_counter()
    cluster.cluster.restart()
    return began


async def _cut(cluster: Pods) -> float:
    """The connection of the watch dies without an end."""
    cluster.cluster.cut_silently()
    began = time.perf_counter()
    cluster.list_run(None)
    return began


async def _connected(stage: Stage, tell: Tell, number: int, people: int) -> list[asyncssh.SSHClientConnection]:
    """Start a run and connect so many people to it."""
    tell(number)
    certificate = asyncssh.import_certificate(stage.credentials.user("alice", stage.instance(number)))
    return [await _connect(stage, certificate) for _ in range(people)]


async def _all_closed(connections: list[asyncssh.SSHClientConnection], told: float) -> list[float]:
    """When each was closed, in ms after that moment."""
    async with asyncio.timeout(_LIMIT):
        return await asyncio.gather(*(_closed(connection, told) for connection in connections))


async def _connect(stage: Stage, certificate: asyncssh.SSHCertificate) -> asyncssh.SSHClientConnection:
    """Log in; as long as the bastion has not heard of the run yet, again."""
    end = time.perf_counter() + _LIMIT
    while True:
        try:
            connection = await asyncssh.connect(
                "127.0.0.1",
                stage.bastion_port,
                username="alice",
                client_keys=[(stage.credentials.client_key, certificate)],
                known_hosts=None,
                config=None,
                agent_path=None,
            )
        except asyncssh.PermissionDenied:
            if time.perf_counter() > end:
                raise
            await asyncio.sleep(0.05)
            continue
        await connection.create_process("exec sleep 86400")
        return connection


async def _closed(connection: asyncssh.SSHClientConnection, told: float) -> float:
    await connection.wait_closed()
    return (time.perf_counter() - told) * 1e3
