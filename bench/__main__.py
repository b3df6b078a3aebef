"""Why: the command line; `make bench` calls it."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncssh

from bench.machine import CpuTime, describe
from bench.parts import PARTS
from bench.plot import svg
from bench.processes import CommandFailed, Cores
from bench.scale import FULL, QUICK, Scale
from bench.stage import ROOT, Stage, staged
from bench.table import MarkersMissing, Result, Row, markdown, splice

DOCUMENT = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "images" / "performance.svg"


def main() -> int:
    """Measure and print; write the document when everything was measured in full. 1: some part failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="The bastion beside OpenSSH as jump host.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds; writes nothing")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    asked = parser.parse_args()
    parts = asked.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}")
    complete = set(parts) == set(PARTS) and not asked.quick and not asked.dry
    _raise_file_limit()
    began = CpuTime.now()
    cores = Cores.divide()
    os.sched_setaffinity(0, cores.others)
    # Short, since sockets of OpenSSH lie in it.
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as folder:
        try:
            results, failed = asyncio.run(_measure(Path(folder), cores, parts, QUICK if asked.quick else FULL))
        except (asyncio.CancelledError, KeyboardInterrupt):
            return 130
    measured = markdown(results)
    print(measured)
    if complete and not failed:
        try:
            _write(measured, results, CpuTime.now().stolen_since(began))
        except MarkersMissing as error:
            print(f"bench: {DOCUMENT.name} is not written: {error}", file=sys.stderr)
            return 1
    return 1 if failed else 0


async def _measure(folder: Path, cores: Cores, parts: Sequence[str], scale: Scale) -> tuple[list[Result], bool]:
    running = asyncio.current_task()
    if running is not None:  # so that SIGTERM, too, ends what was started and removes the folder
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    results, failed = [], False
    async with staged(folder, cores) as stage:
        for part in parts:
            began = time.monotonic()
            print(f"bench: {part} …", file=sys.stderr, flush=True)
            try:
                results.append(await PARTS[part](stage, scale))
            except (CommandFailed, RuntimeError, TimeoutError, OSError, asyncssh.Error) as error:
                failed = True
                results.append(Result(part, (Row(part, why=f"failed: {type(error).__name__}"),)))
                print(f"bench: {part} failed: {error!r}{_last_words(stage)}", file=sys.stderr)
            print(f"bench: {part} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return results, failed


def _last_words(stage: Stage) -> str:
    log = stage.folder / "bastion.log"
    return "\n" + log.read_text(errors="replace")[-2000:] if log.exists() else ""


def _write(measured: str, results: Sequence[Result], taken: float) -> None:
    day = datetime.now(UTC).date().isoformat()
    head = f"Measured on {day}, in one run, on this machine:\n\n{describe(taken)}\n\n"
    picture = "![Bars of the medians with their spreads](images/performance.svg)\n\n"
    DOCUMENT.write_text(splice(DOCUMENT.read_text("utf-8"), head + picture + measured), "utf-8")
    PLOT.write_text(svg([panel for result in results for panel in result.panels]), "utf-8")


def _raise_file_limit() -> None:
    """A thousand sessions are two thousand sockets."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
