"""Why: editors, sync tools and notebooks move many small files, where every round trip through the bastion counts."""

from __future__ import annotations

import shutil
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from bench.figures import ratios, spread
from bench.processes import run
from bench.scale import Scale
from bench.stage import Route, Stage
from bench.table import Result, Row

_ROUTES = (Route.DIRECT, Route.OPENSSH)
_SMALL = 1024


async def measure(stage: Stage, scale: Scale) -> Result:
    """An sftp upload of many small files, and rsync of a source tree."""
    small, tree = stage.folder / "small", stage.folder / "tree"
    _write_small(small, scale.small_files)
    count, size = _copy_library(tree)
    rsync = f"rsync of a source tree, {count:,} files, {size / 1e6:.0f} MB"
    rows = []
    async with stage.serving():
        sftp = f"sftp, {scale.small_files:,} files of {_SMALL} bytes"
        rows.append(await _row(stage, scale, sftp, lambda route, goal: _sftp(stage, route, goal)))
        if shutil.which("rsync") is None:
            rows.append(Row(rsync, why="not measured: there is no rsync here"))
        else:
            rows.append(await _row(stage, scale, rsync, lambda route, goal: _rsync(stage, tree, route, goal)))
    return Result("Many files", tuple(rows), text="The login is in these figures.")


async def _row(stage: Stage, scale: Scale, what: str, command: Callable[[Route, Path], list[str]]) -> Row:
    seen: dict[Route, list[float]] = {route: [] for route in _ROUTES}
    goal = stage.folder / "goal"
    for _ in range(scale.rounds):
        for route in _ROUTES:
            shutil.rmtree(goal, ignore_errors=True)
            goal.mkdir()
            asked = command(route, goal)
            began = time.perf_counter()
            await run(asked, stage.folder / "files.log")
            seen[route].append(time.perf_counter() - began)
    ours, theirs = (seen[route] for route in _ROUTES)
    return Row(what, "s", spread(ours), spread(theirs), ratios(ours, theirs))


def _rsync(stage: Stage, tree: Path, route: Route, goal: Path) -> list[str]:
    return ["rsync", "-a", "-e", " ".join(stage.ssh(route)), f"{tree}/", f"{route.value}:{goal}/"]


def _sftp(stage: Stage, route: Route, goal: Path) -> list[str]:
    batch = stage.folder / "batch"
    batch.write_text(f"put -r {stage.folder}/small {goal}/\n")
    return [*stage.ssh(route, program="sftp"), "-q", "-b", str(batch), route.value]


def _write_small(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:05}").write_bytes(number.to_bytes(4, "big") * (_SMALL // 4))


def _copy_library(goal: Path) -> tuple[int, int]:
    """A source tree that every machine has: Python's standard library. How many files, how many bytes."""
    library = Path(sysconfig.get_path("stdlib"))
    ignored = shutil.ignore_patterns("__pycache__", "site-packages", "config-*", "*.so", "*.a")
    shutil.copytree(library, goal, ignore=ignored, symlinks=True)
    files = [one for one in goal.rglob("*") if one.is_file()]
    return len(files), sum(one.stat().st_size for one in files)
