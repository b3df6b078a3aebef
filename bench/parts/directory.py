"""Why: the Kubernetes directory must hold thousands of pods without anybody who types noticing it.

Each round is `python -m bench.directory` in a process of its own, with an API server in another.
"""

import asyncio
import json
import subprocess
import sys

from bench.figures import at_most, spread
from bench.scale import Scale
from bench.stage import Stage
from bench.table import Result, Row

_ROUNDS = 3


async def measure(stage: Stage, scale: Scale) -> Result:
    """Lists, changes and lists again."""
    del stage, scale
    rounds = [await _round() for _ in range(_ROUNDS)]

    def row(what: str, figure: str, unit: str, goal: float | None = None) -> Row:
        found = spread([one[figure] for one in rounds])
        return Row(what, unit, found, goal=None if goal is None else at_most(goal, unit))

    rows = (
        row("5,000 pods listed, memory added", "list_rss_mb", "MB", 50),
        row("5,000 pods listed, CPU", "list_cpu_s", "s", 1),
        row("the event loop held up by that list, at most", "list_lag_ms", "ms", 50),
        row("the event loop held up by a list after a break, at most", "relist_lag_ms", "ms", 50),
        row("the event loop held up by 200 changes a second, at most", "changes_lag_ms", "ms", 50),
        row("200 changes a second, share of one core", "changes_cpu_share", ""),
        row("memory added by the list, 200 changes a second and a list after a break", "rss_added_mb", "MB", 50),
    )
    text = (
        "Pods of 8 kB, listed and watched over HTTP without TLS. How long the event loop is held up is counted in CPU "
        "time of its thread, so that other processes on the machine do not show in it."
    )
    return Result("Directory", rows, text=text)


async def _round() -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.directory", stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    figures: dict[str, float] = json.loads(said)
    return figures
