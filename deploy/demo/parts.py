"""Why: the hub, the api and the bastion are started in this order, each awaited by what it answers, not by a pause."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from deploy.demo.family import LAUNCHER
from deploy.demo.scene import ROOT, Scene

PATIENCE = 180.0
"""Seconds that a part may take to answer: a busy machine needs more than half a minute for a notebook server."""
_FAREWELL = 20.0
"""Seconds that a part may take to end."""


class DemoFailed(Exception):
    """The demo cannot go on; the text says what happened and what the log of the part said last."""


@dataclass
class Parts:
    """The running parts. `broken` gets a sentence when one of them ends by itself."""

    scene: Scene
    broken: asyncio.Future[str]
    _running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    _watchers: set[asyncio.Task[None]] = field(default_factory=set)

    async def start_all(self) -> None:
        scene = self.scene
        hub = [str(scene.hub_bin / "jupyterhub"), "-f", str(Path(__file__).with_name("jupyterhub_config.py"))]
        await self._start("JupyterHub", hub, scene.hub_environment(), f"{scene.hub_url}/hub/api/")
        api = [sys.executable, "-m", "api", "serve"]
        await self._start("api", api, scene.api_environment(), f"{scene.public_url}/readyz")
        bastion = [sys.executable, "-m", "bastion", "serve"]
        await self._start("bastion", bastion, scene.bastion_environment(), None)

    async def stop_all(self) -> None:
        """The bastion first, then the hub with its servers, which say goodbye to the api, which is last."""
        for watcher in self._watchers:
            watcher.cancel()
        for name in ("bastion", "JupyterHub", "api"):
            process = self._running.pop(name, None)
            if process is None or process.returncode is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), _FAREWELL)
            except TimeoutError:
                process.kill()
                await process.wait()

    def last_words(self, name: str, lines: int = 25) -> str:
        log = self._log(name)
        text = log.read_text(errors="replace") if log.exists() else ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])

    def _log(self, name: str) -> Path:
        return self.scene.logs / f"{name.lower()}.log"

    async def _start(self, name: str, command: Sequence[str], environment: dict[str, str], url: str | None) -> None:
        began = time.monotonic()
        with self._log(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", LAUNCHER, str(os.getpid()), *command),
                cwd=ROOT,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._running[name] = process
        watcher = asyncio.create_task(self._watch(name, process))
        self._watchers.add(watcher)
        where = url or f"127.0.0.1:{self.scene.ports.bastion}"
        answers = (lambda: _answers_http(url)) if url else (lambda: _answers_ssh(self.scene.ports.bastion))
        late = f"{name} did not answer at {where} within {PATIENCE:.0f} s. Its log ends with"
        await wait_for(answers, lambda: f"{late}\n{self.last_words(name)}")
        say(f"  {name:<11} {where.removesuffix('/hub/api/').removesuffix('/readyz'):<24} "
            f"{time.monotonic() - began:4.1f} s")  # fmt: skip

    async def _watch(self, name: str, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        if not self.broken.done():
            self.broken.set_result(f"{name} ended by itself with status {status}:\n{self.last_words(name)}")


async def wait_for(condition: Callable[[], Awaitable[bool]], otherwise: Callable[[], str]) -> None:
    """Ask ten times a second until the condition holds. Raises DemoFailed with what `otherwise` says."""
    end = time.monotonic() + PATIENCE
    while not await condition():
        if time.monotonic() > end:
            raise DemoFailed(otherwise())
        await asyncio.sleep(0.1)


async def _answers_http(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        with contextlib.suppress(httpx.TransportError):
            return (await client.get(url)).status_code == 200
    return False


async def _answers_ssh(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        return (await asyncio.wait_for(reader.readline(), 5)).startswith(b"SSH-2.0-")
    except (TimeoutError, OSError):
        return False
    finally:
        writer.close()


def say(text: str = "") -> None:
    """Print at once; a closed terminal is no reason to fall over before everything is cleaned up."""
    with contextlib.suppress(OSError):
        print(text, flush=True)
