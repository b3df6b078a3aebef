"""Exists to keep one sshd beside one notebook server: enrolled, running, renewed, and gone when the server is gone.

One event loop, in the process's main thread, because the kernel ties children to the thread that started them. Only
calls to the api run in threads. Nothing here may harm the notebook: whatever goes wrong is a sentence in its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, NoReturn

from . import children, ports, sshd, storage
from .enrol import Api, Enrolment, News, Refused
from .installation import Installation
from .keys_http import KeyServer
from .log import say
from .settings import Settings

_FIRST_PAUSE = 0.5  # seconds; doubles up to the longest
_LONGEST_PAUSE = 30.0
_LASTING_PAUSE = 300.0
_REFRESH = 3600.0  # CA keys rotate: ask at least hourly
_FIRST_LIST = 3.0  # seconds that SSH waits for the list of revoked certificates; later looks bring it too
_GRACE = 1.5  # seconds that sessions get to end politely
_HEAD_START = 0.7  # seconds that the api, and then the bastion, get before sessions are killed
_WITHDRAWAL = 3.0  # seconds for the last word to the api


class Supervisor:
    """sshd, the key service and the enrolment of one server."""

    def __init__(self, settings: Settings, account: sshd.Account) -> None:
        self._settings = settings
        self._account = account
        self._api = Api(url=settings.api_url, token=settings.token)
        self._enrolment: Enrolment | None = None
        self._listener: subprocess.Popen[bytes] | None = None
        self._trouble = ""
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._installed = asyncio.Event()
        self._again = asyncio.Event()
        self._readers: set[asyncio.Task[None]] = set()

    async def run(self) -> str:
        """Work until told to stop. Why it stopped, as half a sentence. Raises SshdError, OSError before it began."""
        loop = asyncio.get_running_loop()
        stop: asyncio.Future[str] = loop.create_future()

        def told(why: str) -> None:
            if not stop.done():
                stop.set_result(why)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, told, "the server is ending")
        loop.add_signal_handler(signal.SIGCHLD, self._collect)
        self._prepare()
        self._key_port = await KeyServer(self._settings.authorized_keys).start(
            self._settings.listen, self._settings.key_port
        )
        work = [asyncio.ensure_future(self._root(part, told)) for part in (self._keep_enrolled(), self._keep_sshd())]
        why = await stop
        for task in work:
            task.cancel()
        return why

    def finish(self) -> None:
        """Tell the api, end every process, clean up. Takes at most a few seconds.

        The api hears first, and sessions get a moment: then the bastion ends them with a sentence. Killed here, they
        would just break off.
        """
        farewell = threading.Thread(target=self._withdraw, daemon=True)
        farewell.start()
        farewell.join(_HEAD_START)
        if self._listener is not None and not farewell.is_alive():
            children.until_childless(self._listener.pid, _HEAD_START)
        left = children.end_all(self._listener.pid if self._listener else None, _GRACE)
        if left:
            say(f"{left} processes of SSH sessions could not be ended.")
        farewell.join(_WITHDRAWAL)
        if hasattr(self, "_storage"):
            with contextlib.suppress(OSError):
                self._storage.remove(keep_host_key=self._settings.storage_dies_with_pod)

    def _withdraw(self) -> None:
        if self._enrolment is None:
            return
        refused = replace(self._api, timeout=_WITHDRAWAL).withdraw(self._enrolment.withdraw_token)
        say(f"Not withdrawn from the bastion: {refused.sentence}" if refused else "Withdrawn from the bastion.")

    async def _root(self, part: Coroutine[Any, Any, None], told: Callable[[str], None]) -> None:
        try:
            await part
        except sshd.SshdError as problem:
            told(str(problem))
        except Exception as problem:  # noqa: BLE001 - a task's root: the notebook must not notice
            told(f"an error in this program ({type(problem).__name__})")

    # -- before anything is reachable

    def _prepare(self) -> None:
        self._storage = storage.open_storage(self._settings.storage_key, os.environ)
        self._files = Installation(self._storage, self._settings, self._account)
        self._ssh_port = self._settings.ssh_port or ports.free(self._settings.listen)

    # -- enrolment

    async def _keep_enrolled(self) -> None:
        pause, said = _FIRST_PAUSE, ""
        while True:
            self._again.clear()
            answer = await asyncio.to_thread(
                self._api.enrol, self._files.host_key, self._ssh_port, self._key_port, self._account.name
            )
            if isinstance(answer, Enrolment):
                self._enrolment = answer
                self._files.revoked.take(await asyncio.to_thread(replace(self._api, timeout=_FIRST_LIST).krl))
                await self._until_due(answer)
                pause, said = _FIRST_PAUSE, ""
                continue
            if answer.sentence != said:
                said = answer.sentence
                say(f"Not enrolled{' yet, trying again' if not answer.lasting else ''}: {said}")
            await asyncio.sleep(_wait(answer, pause))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _until_due(self, enrolment: Enrolment) -> None:
        """Put an enrolment in place, keep it there, and return when it is time to enrol again."""
        in_place, pause = self._install(enrolment), _FIRST_PAUSE
        due = time.monotonic() + _renewal(self._files.valid_before - time.time())
        while (left := due - time.monotonic()) > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                patience = self._settings.poll if in_place else min(pause, self._settings.poll)
                await asyncio.wait_for(self._again.wait(), min(left, patience))
                return
            if not in_place or not self._files.is_whole():
                in_place = self._install(enrolment)
                pause = _FIRST_PAUSE if in_place else min(pause * 2, _LONGEST_PAUSE)
            news = await asyncio.to_thread(self._api.news)
            if isinstance(news, News) and news.epoch != enrolment.epoch:
                say("The bastion's api has lost its records: enrolling again.")
                return
            if isinstance(news, News) and news.krl not in ("", self._files.revoked.tag):
                self._files.revoked.take(await asyncio.to_thread(self._api.krl))

    def _install(self, enrolment: Enrolment) -> bool:
        """Put an enrolment into the files that sshd reads, and let sshd know. Whether that worked.

        Raises OSError, SshdError, TimeoutExpired when nothing was in place before. Afterwards sshd and its sessions go
        on with what there is: a full folder or a busy machine is no reason to end them.
        """
        old, whole = self._files.current, self._files.is_whole()
        try:
            new = self._files.put(enrolment, self._ssh_port)
        except (OSError, sshd.SshdError, subprocess.TimeoutExpired) as problem:
            if old is None:
                raise
            why = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
            if why != self._trouble:
                say(f"sshd's files cannot be renewed, trying again; sessions go on: {why.rstrip('.')}.")
            self._trouble = why
            return False
        if old is not None and (self._trouble or not whole):
            say("sshd's files are whole again.")
        self._trouble = ""
        if old is None:
            say(f"Enrolled as {new.login}: sshd on port {self._ssh_port}, keys on port {self._key_port}.")
        elif self._listener is not None and old.host_certificate != new.host_certificate:
            # Principals and CA keys are read at each login, the certificate only when sshd starts anew, which ends
            # no session.
            self._listener.send_signal(signal.SIGHUP)
        self._installed.set()
        return True

    # -- sshd

    async def _keep_sshd(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await self._installed.wait()
            began = time.monotonic()
            status = await self._run_sshd()
            if time.monotonic() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            say(f"sshd ended ({_ending(status)}) and is started again.")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            if not self._settings.ssh_port and not ports.is_free(self._settings.listen, self._ssh_port):
                # Somebody took the port we had picked: pick another, and tell the api before sshd listens there.
                self._ssh_port = ports.free(self._settings.listen)
                self._installed.clear()
                self._again.set()

    async def _run_sshd(self) -> int:
        command = [sys.executable, "-I", children.__file__, str(os.getpid()), *self._files.sshd_command()]
        # Its environment is not the sessions': they get theirs from the configuration.
        surroundings = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
        listener = subprocess.Popen(  # noqa: ASYNC220 - asyncio's own would wait for pids that _collect collects
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=surroundings,
            cwd="/",
        )
        self._listener = listener
        self._ended[listener.pid] = asyncio.get_running_loop().create_future()
        reader = asyncio.ensure_future(_repeat(listener))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        status = await self._ended[listener.pid]
        self._listener = None
        listener.returncode = status  # Collected by _collect: Popen must not look for it.
        return status

    def _collect(self) -> None:
        for pid, status in children.reap().items():
            future = self._ended.pop(pid, None)
            if future is not None and not future.done():
                future.set_result(os.waitstatus_to_exitcode(status))


async def _repeat(listener: subprocess.Popen[bytes]) -> None:
    """Copy sshd's log into ours, line by line."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), listener.stderr)
    rest = b""
    while chunk := await reader.read(4096):
        *lines, rest = (rest + chunk).replace(b"\r", b"").split(b"\n")
        rest = rest[-4096:]
        for line in lines:
            say(f"sshd: {line.decode('utf-8', 'replace')}")


def _wait(answer: Refused, pause: float) -> float:
    if answer.lasting:
        pause = _LASTING_PAUSE
    # Many servers start when a hub comes back: not all of them in the same moment.
    return max(answer.retry_after or 0.0, pause * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret


def _renewal(lifetime: float) -> float:
    """Seconds until the next enrolment for a host certificate that lives so long."""
    if lifetime <= 0:
        return 60.0  # This machine's clock is wrong, or the api's: no reason to hurry for ever.
    return max(1.0, min(lifetime * 2 / 3, _REFRESH * random.uniform(0.9, 1.0)))  # noqa: S311


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


def supervise(settings: Settings, parent: int | None) -> NoReturn:
    """Run until told to stop, or until `parent` ends; then leave the process, taking every descendant along."""
    children.adopt_orphans()
    if parent is not None and not children.die_with(parent, signal.SIGTERM):
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    try:
        asyncio.run(_supervise(settings, sshd.account()))
    except sshd.SshdError as problem:
        say(str(problem))
    os._exit(1)


async def _supervise(settings: Settings, account: sshd.Account) -> NoReturn:
    supervisor = Supervisor(settings, account)
    status = 0
    try:
        why = await supervisor.run()
    except (sshd.SshdError, OSError, subprocess.TimeoutExpired) as problem:
        why, status = str(problem), 1
    say(f"SSH ends: {why.rstrip('.')}.")
    supervisor.finish()
    # Not a return: a thread that waits for the api must not hold up the end, and nothing of the caller's may run.
    os._exit(status)


def _watch(parent: int) -> None:
    """Where the kernel does not tell of a parent's end: look once a second."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
