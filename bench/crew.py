"""Why: the benchmark's side of a load generator: start it for a route, tell it what to do, read what it saw."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from bench.processes import LIMIT, CommandFailed, running
from bench.stage import ROOT, Route, Stage

ANSWER_BYTES = 64 << 20
IDLE = "exec sleep 86400"
"""What runs in the pod's terminal: the terminal itself echoes."""
_URGENT = -15
"""A stopwatch that waits for its core measures its own wait: it goes before what it shares the core with, if it may."""


@dataclass(slots=True)
class Crew:
    """A load generator."""

    process: Process

    async def ask(self, **what: Any) -> dict[str, Any]:
        """One command. Raises `CommandFailed` if the generator ends or takes too long."""
        if self.process.stdin is None or self.process.stdout is None:
            raise CommandFailed("the load generator has no pipes")
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        async with asyncio.timeout(LIMIT):
            line = await self.process.stdout.readline()
        if not line:
            raise CommandFailed("the load generator ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def crew(stage: Stage, route: Route, people: int) -> AsyncIterator[Crew]:
    """A load generator with the certificates of so many people, each of whom may enter alice's server."""
    certificates = stage.folder / "people"
    lines = [stage.credentials.user(f"user{number}", stage.instance()) for number in range(people)]
    certificates.write_text("\n".join(lines) + "\n")
    pod = {"port": stage.pod.port, "login": getpass.getuser()}
    jump = {"port": stage.jump.port if stage.jump else 0, "login": getpass.getuser()}
    ways: dict[Route, dict[str, Any]] = {
        Route.DIRECT: {"port": stage.bastion_port, "login": "alice", "jump": None},
        Route.OPENSSH: pod | {"jump": jump},
    }
    about = {"key": str(stage.folder / "id"), "certificates": str(certificates), "command": IDLE}
    command = [sys.executable, "-m", "bench.load"]
    log = stage.folder / "load.log"
    with log.open("ab") as errors:
        async with running(command, stdin=PIPE, stdout=PIPE, stderr=errors, cwd=ROOT, limit=ANSWER_BYTES) as process:
            with suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, process.pid, _URGENT)
            if process.stdin is not None:
                process.stdin.write(json.dumps(ways[route] | about).encode() + b"\n")
            yield Crew(process)
