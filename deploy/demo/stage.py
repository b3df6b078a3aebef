"""Why: the order of events of one demo: set up, start, show or check, stop."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from deploy.demo.guide import guide
from deploy.demo.parts import DemoFailed, Parts, say, wait_for
from deploy.demo.people import Administrator
from deploy.demo.scene import Scene, set_up
from deploy.demo.tour import Tour

SERVICE_SCOPE = "access:services!service=ssh"


def play(folder: Path, *, hub_bin: Path, check: bool) -> int:
    """Run the demo in `folder` until it is told to stop, or until everything was tried. An exit status."""
    return asyncio.run(_play(set_up(folder, hub_bin), check=check))


async def _play(scene: Scene, *, check: bool) -> int:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, told.set)
    parts = Parts(scene, loop.create_future())
    work = asyncio.create_task(_perform(scene, parts, check=check))
    stop = asyncio.create_task(told.wait())
    try:
        ends: list[asyncio.Future[Any]] = [work, stop, parts.broken]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if told.is_set():
            say("\nStopping.")
            return 130 if check else 0
        return await _finished(work, parts)
    finally:
        for task in (work, stop):
            task.cancel()
        await asyncio.gather(work, stop, return_exceptions=True)
        await parts.stop_all()
        say("Everything is stopped and removed.")


async def _finished(work: asyncio.Task[int], parts: Parts) -> int:
    try:
        if not work.done():
            raise DemoFailed(parts.broken.result())
        return await work
    except DemoFailed as failure:
        say(f"\nThe demo failed: {failure}")
        return 1


async def _perform(scene: Scene, parts: Parts, *, check: bool) -> int:
    say("Starting, all on 127.0.0.1:")
    await parts.start_all()
    async with Administrator(scene) as administrator:
        await administrator.start_server("alice")
        await wait_for(administrator.enrolled("alice"), lambda: _no_ssh("alice", parts))
        say("  alice's server, with SSH enabled")
        await administrator.furnish_laptop(SERVICE_SCOPE)
        if check:
            return await Tour(scene, administrator, parts).take()
        say(guide(scene))
        await asyncio.Event().wait()
    return 0


def _no_ssh(login: str, parts: Parts) -> str:
    return f"{login} did not enrol. The hub's log ends with\n{parts.last_words('JupyterHub')}"
