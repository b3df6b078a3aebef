"""Why: a stopped server must be out of reach at once: from the news of the stop to the end of the connections to it.

The news is the api's answer to the bastion's open question; in production a directory of Kubernetes pods brings it
without that way through HTTP, which is therefore in the figure.
"""

from __future__ import annotations

import asyncio
import time

import asyncssh

from bench.figures import Spread, at_most, percentile
from bench.scale import Scale
from bench.stage import RUNS, Stage
from bench.table import Result, Row

_CROWD = 20
_LIMIT = 30.0


async def measure(stage: Stage, scale: Scale) -> Result:
    """Stops of a run with one connection, and of a run with a crowd on it."""
    async with stage.serving():
        single = [await _stop(stage, number, 1) for number in range(1, scale.stops + 1)]
        crowds = [await _stop(stage, scale.stops + number, _CROWD) for number in range(1, scale.stops // 10 + 1)]
    if len(single) + len(crowds) >= RUNS:
        raise RuntimeError("the pod does not know so many runs")
    rows = (
        _row(f"stop → connection closed, {len(single)} stops", [one for run in single for one in run], 100),
        _row(f"stop → all of {_CROWD} connections closed, {len(crowds)} stops", [max(run) for run in crowds], None),
        Row(
            "the slowest of all these",
            "ms",
            _one(max(one for run in (*single, *crowds) for one in run)),
            goal=at_most(1000, "ms"),
            worst=True,
        ),
    )
    text = (
        "From the change in the directory to the client's connection closed, with the sentence that tells the person "
        "why; the client is asyncssh with an open session. The Kubernetes watch is not in it yet. The spread is that "
        "of the stops."
    )
    return Result("Stops", rows, text=text)


def _one(value: float) -> Spread:
    return Spread(value, value, value, 1)


def _row(what: str, seconds: list[float], bound: float | None) -> Row:
    found = Spread(percentile(seconds, 0.5), min(seconds), max(seconds), len(seconds))
    return Row(what, "ms", found, goal=None if bound is None else at_most(bound, "ms"))


async def _stop(stage: Stage, number: int, people: int) -> list[float]:
    """Start a run, connect so many people to it, stop it: when each was closed, in ms after the news."""
    instance = stage.instance(number)
    stage.list_run(number)
    certificate = asyncssh.import_certificate(stage.credentials.user("alice", instance))
    connections = [await _connect(stage, certificate) for _ in range(people)]
    told = time.perf_counter()
    stage.list_run(None)
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
