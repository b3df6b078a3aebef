"""Why: ssh asks hubssh before each connection, so what that takes is added to every `ssh gpu.hub`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

from bench.figures import at_most, spread
from bench.scale import Scale
from bench.stage import Stage
from bench.table import Result, Row
from deploy.client import hubssh

_LIFETIME = 12 * 3600


async def measure(stage: Stage, scale: Scale) -> Result:
    """What ssh runs from `Match exec` while the certificate is good, as a process of its own."""
    return await asyncio.to_thread(_measure, stage, scale)


def _measure(stage: Stage, scale: Scale) -> Result:
    os.sched_setaffinity(0, {stage.cores.served})  # of this thread and what it starts; it ends with the part
    script = _laptop(stage.folder / "laptop")
    seen = []
    for _ in range(scale.rounds):
        taken = []
        for _ in range(5 * scale.logins):
            began = time.perf_counter()
            done = subprocess.run([script, "gpu.hub"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
            taken.append((time.perf_counter() - began) * 1e3)
            if done.returncode != 1 or done.stderr:  # 1: nothing keeps ssh from going on
                raise RuntimeError(f"the check had something to say: {done.stderr!r}")
        seen.append(spread(taken).median)
    what = f"`Match exec` with a good certificate, median of {5 * scale.logins}"
    row = Row(what, "ms", spread(seen), goal=at_most(100, "ms"), note="a shell script, Python and hubssh in it")
    return Result("hubssh", (row,))


def _laptop(folder: Path) -> str:
    """An ssh folder as `hubssh login` leaves it, but for the key and the certificate, which the check does not read."""
    store = hubssh.Store(hubssh.Machine(), str(folder))
    now = int(time.time())
    certificate = hubssh.Certificate(
        serial="1",
        user="alice",
        principals=["alice/:1763000000000000", "alice/gpu:1763000000000001"],
        valid_after=now - 60,
        valid_before=now + _LIFETIME,
        extensions=sorted(hubssh.JUMP_NEEDS),
        renew_until=now + 2 * _LIFETIME,
    )
    site = hubssh.Site(
        public_url="https://ssh.example.org",
        key=str(folder / "hubssh" / "ssh.example.org" / "id_ed25519"),
        own_key=True,
        zone="hub",
        hosts=["ssh.example.org"],
        port=2222,
        jump_login="jump",
        unix_user="jovyan",
        user="alice",
        certificate=certificate,
    )
    store.save(site)
    hubssh.configure(store)
    return str(folder / "hubssh" / hubssh.SCRIPT)
