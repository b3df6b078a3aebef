"""Several processes on one port, and one bastion to the operator: the way to use more than one core without Kubernetes.

The supervisor carries no connection. It binds one socket for each worker (SO_REUSEPORT: the kernel spreads connections
over them), keeps it, and starts the workers, which listen. Since the sockets are the supervisor's, what the kernel
has queued for a worker outlives it, and its successor takes it.

    a worker ends by itself   it is started again: at once, and when that fails soon, after a pause that grows. While
                              it pauses its socket is closed, so that the others get its connections
    SIGHUP                    new workers start; each old one stops accepting when its successor accepts, and ends when
                              its last session does, or after BASTION_RESTART_GRACE. One that does not learn in a minute
                              whom to trust and which servers run is ended, and the old one stays
    SIGTERM, SIGINT           all workers say goodbye to their sessions and end
    the supervisor is killed  its line to each worker ends, and they end as with SIGTERM

Operators speak to the supervisor's socket, which asks all workers and puts their answers together.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from itertools import count
from typing import Any

from bastion.admin import AdminError, AdminServer
from bastion.crew import Slot, Worker, pause_before
from bastion.crewview import ANSWER_SECONDS, View
from bastion.hostkey import HostKey
from bastion.metricsport import MetricsPort
from bastion.service import cannot_listen, insists
from bastion.settings import Settings
from bastion.surroundings import private_directory
from ca.errors import BastionError

READY_SECONDS = 60.0
"""How long a new worker may take to accept connections before a graceful restart leaves the old one in place."""

STEADY_SECONDS = 60.0
"""A worker that lived as long as this is started again at once."""

_LAST_SECONDS = 15.0
"""After the workers' own time to say goodbye: then they are killed."""

_log = logging.getLogger(__name__)


async def supervise(settings: Settings) -> int:
    """Run `settings.workers` processes until SIGTERM or SIGINT. Raises `BastionError` if they cannot start."""
    crew = Supervisor(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, crew.stop.set)
    loop.add_signal_handler(signal.SIGHUP, crew.restart)
    return await crew.run()


class Supervisor:
    """Starts workers and keeps them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.stop = asyncio.Event()
        self._slots = [Slot(number) for number in range(settings.workers)]
        self._workers: dict[int, Worker] = {}
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._view = View(self._workers)
        self._served = False
        self._announced = False
        self._status = 0

    async def run(self) -> int:
        """Until `stop`. The exit status is that of a worker that could not even start."""
        private_directory(self._settings.state_directory)
        HostKey(self._settings.state_directory)  # made once, before several workers would each make one
        admin = AdminServer(self._settings.admin_socket, self._view.commands())
        await admin.start()
        port = None
        try:
            self._bind()
            if self._settings.metrics_port is not None:
                port = MetricsPort(self._settings.metrics_host, self._settings.metrics_port, self._view.metrics)
                await port.start()
            for slot in self._slots:
                async with slot.changing:
                    slot.current = await self._start(slot, insist=insists(self._settings))
            await self.stop.wait()
        finally:
            if port is not None:
                port.stop()
            await self._end_all()
            await admin.stop()
        return self._status

    def restart(self) -> None:
        """Replace every worker, gracefully."""
        _log.info("graceful restart: new workers begin")
        self._view.restarts += 1
        for slot in self._slots:
            self._spawn(self._replace(slot), f"replace worker of place {slot.number}")

    # --- workers

    def _bind(self) -> None:
        try:
            for slot in self._slots:
                self._open(slot)
                if self._settings.listen.port == 0:
                    port = slot.doors[0].getsockname()[1]
                    listen = self._settings.listen.model_copy(update={"port": port})
                    self._settings = self._settings.model_copy(update={"listen": listen})
        except OSError as error:
            raise BastionError(cannot_listen(self._settings, error)) from None

    def _open(self, slot: Slot) -> None:
        slot.open(self._settings.listen.host, self._settings.listen.port)

    async def _start(self, slot: Slot, *, insist: bool) -> Worker:
        number = next(self._numbers)
        ours, theirs = socket.socketpair()
        doors = [door.fileno() for door in slot.doors]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "bastion", "worker", *(("--insist",) if insist else ())),
                *map(str, (number, theirs.fileno(), *doors)),
                env={**os.environ, "BASTION_WORKERS": str(self._settings.workers)},
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *doors],
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = Worker(number, slot, process, time.monotonic(), self._listens)
        self._workers[number] = worker
        self._spawn(self._watch(worker, ours), f"worker {number}")
        return worker

    async def _watch(self, worker: Worker, end: socket.socket) -> None:
        """Follow one worker to its end, and see to a successor where none was wanted."""
        await worker.link.follow(end)
        status = await worker.process.wait()
        worker.ended = True
        worker.ready.set()
        del self._workers[worker.number]
        if worker.leaving or self.stop.is_set():
            _log.info("worker %d has ended", worker.number)
            return
        if not self._served and status in {1, 2}:
            self._status = status  # it has said why; the others would say the same
            self.stop.set()
            return
        self._view.crashes += 1
        _log.error("worker %d ended with status %d", worker.number, status)
        if worker.slot.current is worker:
            await self._revive(worker)

    async def _revive(self, dead: Worker) -> None:
        slot = dead.slot
        async with slot.changing:
            if slot.current is not dead:
                return  # a graceful restart has seen to it
            slot.failures = 0 if time.monotonic() - dead.began >= STEADY_SECONDS else slot.failures + 1
            pause = pause_before(slot.failures)
            while not self.stop.is_set():
                if pause:
                    slot.close()
                    _log.warning("place %d pauses for %g s before its next worker", slot.number, pause)
                    if await _happens(self.stop, pause):
                        return
                try:
                    self._open(slot)
                    # The kernel queues people for it already: rather a sentence than no answer.
                    slot.current = await self._start(slot, insist=False)
                    return
                except OSError as error:
                    _log.error("no worker for place %d: %s", slot.number, error)
                    slot.failures += 1
                    pause = pause_before(slot.failures)

    async def _replace(self, slot: Slot) -> None:
        """A new worker in this place; the old one leaves when the new one accepts."""
        async with slot.changing:
            if self.stop.is_set():
                return
            if slot.current is None:  # its first worker is about to start, and is new anyway
                return
            try:
                self._open(slot)
                new = await self._start(slot, insist=True)
            except OSError as error:
                _log.error("no new worker for place %d: %s", slot.number, error)
                return
            old = slot.current
            await _ready(new, old)
            if new.ended:
                _log.error("worker %d could not take the place of the one before it", new.number)
                return
            if not new.listening:
                if old.process.returncode is None:
                    _log.error("worker %d does not accept connections: worker %d stays", new.number, old.number)
                new.terminate()
                return
            slot.current, slot.failures = new, 0
        if not old.ended:
            old.leaving = True
            with suppress(AdminError):
                await old.link.ask({"command": "retire"}, ANSWER_SECONDS)

    def _listens(self, worker: Worker) -> None:
        self._served = True
        _log.info("worker %d (process %d) accepts connections", worker.number, worker.process.pid)
        if not self._announced and all(slot.accepts for slot in self._slots):
            self._announced = True
            listen = self._settings.listen
            _log.info("listening with %d workers on %s port %d", len(self._slots), listen.host, listen.port)

    async def _end_all(self) -> None:
        self.stop.set()
        for slot in self._slots:
            slot.close()
        for worker in list(self._workers.values()):
            worker.terminate()
        try:
            async with asyncio.timeout(self._settings.shutdown_grace + _LAST_SECONDS):
                while self._tasks:
                    await asyncio.wait(set(self._tasks))
        except TimeoutError:
            _log.error("%d workers did not end in time and are killed", len(self._workers))
            for worker in list(self._workers.values()):
                worker.terminate(signal.SIGKILL)
            while self._tasks:
                await asyncio.wait(set(self._tasks))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s failed", task.get_name(), exc_info=error)


async def _ready(new: Worker, old: Worker) -> None:
    """Wait until the new worker is ready, as long as the old one can be left in its place."""
    waits = [asyncio.ensure_future(new.ready.wait()), asyncio.ensure_future(old.process.wait())]
    try:
        await asyncio.wait(waits, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether it happens within so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
