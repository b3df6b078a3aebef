"""Why: what the benchmark starts has its core, ends with the benchmark, and leaves nothing running."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import die_with_parent

LIMIT = 600.0
"""Seconds that one command may take."""
END_SECONDS = 15.0


class CommandFailed(Exception):
    """A command that is measured did not do its work; the message ends with what it said."""


@dataclass(frozen=True, slots=True)
class Cores:
    """`served`: the one core of whatever is measured. `others`: everything else's."""

    served: int
    others: frozenset[int]

    @classmethod
    def divide(cls) -> Cores:
        """The first core that this process may use is the measured one's; raises `RuntimeError` for a single core."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            raise RuntimeError("Two cores are needed: one for what is measured, one for the rest.")
        return cls(allowed[0], frozenset(allowed[1:]))

    def pinned(self, command: Sequence[str]) -> list[str]:
        """The command on the measured core."""
        return ["taskset", "-c", str(self.served), *command]


@asynccontextmanager
async def running(command: Sequence[str], **options: Any) -> AsyncIterator[Process]:
    """A process that ends with the block, by SIGTERM and after a while by SIGKILL; or with this one."""
    process = await asyncio.create_subprocess_exec(
        *command,
        **{"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL, **options},
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(END_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def run(command: Sequence[str], log: Path, **options: Any) -> None:
    """Run a command to its end. Raises `CommandFailed`; `log` takes its standard error."""
    with log.open("wb") as errors:
        async with running(command, stderr=errors, **options) as process, asyncio.timeout(LIMIT):
            status = await process.wait()
    if status != 0:
        said = log.read_text(errors="replace")[-500:]
        raise CommandFailed(f"{command[0]} ended with status {status}: {said}")
