"""The running bastion: the tasks that keep its parts told, who listens when, and the way it ends."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress

from bastion.admin import AdminServer
from bastion.directory.enrolled import EnrolledDirectory
from bastion.directory.pods import PodDirectory
from bastion.directory.table import Moved, Pod, Stopped
from bastion.listener import Gate
from bastion.metricsport import MetricsPort
from bastion.parts import Parts
from bastion.settings import Settings, bind_to
from ca.errors import BastionError, Reason, Refusal

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted."""

PATIENCE = 5.0
"""Seconds that the bastion waits before it listens without a host certificate, or only to say that it does not know
which servers run."""

ASK_AGAIN = (1.0, 2.0, 5.0, 12.0, 30.0)
"""Seconds between the tries to learn a new pod's keys ahead, until it has answered."""

RESTARTING = "The bastion is shutting down. Save your work: this session ends soon; connect again in a minute."
ENDED = "The bastion has shut down. Connect again in a minute."

RESTARTED = "The bastion is shutting down. Type your ssh command again in a minute for a new code."

GOODBYE_SECONDS = 3.0
"""How long those may take to go who never were in, and as long again the api to hear of their logins."""

_log = logging.getLogger(__name__)


async def serve(settings: Settings) -> int:
    """Run until SIGTERM, SIGINT or SIGHUP. Raises `BastionError` with a sentence if it cannot start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        bastion = await Bastion.make(settings, stack)
        await bastion.run(stop)
    return 0


class Bastion(Parts):
    """The parts at work."""

    async def run(self, stop: asyncio.Event) -> None:
        """All of the bastion in one process, until `stop`: with an operator's socket, and metrics where wanted."""
        admin = AdminServer(self._settings.admin_socket, self.commands.table())
        await admin.start()
        try:
            async with AsyncExitStack() as stack:
                if self._settings.metrics_port is not None:
                    port = MetricsPort(self._settings.metrics_host, self._settings.metrics_port, self.metrics_text)
                    await port.start()
                    stack.callback(port.stop)
                await self.work(stop, insist=insists(self._settings))
        finally:
            await admin.stop()

    async def metrics_text(self) -> bytes:
        """What Prometheus reads."""
        return self.metrics.text()

    async def work(
        self,
        stop: asyncio.Event,
        *,
        doors: Sequence[socket.socket] = (),
        retire: asyncio.Event | None = None,
        listening: Callable[[], None] = lambda: None,
        insist: bool = False,
    ) -> None:
        """Listen as soon as it is known whom to trust and which servers run; end in order.

        `doors` are bound sockets to listen on, none for the one of the settings; `listening` is called when it does.
        After `retire` nobody new is accepted, and those who are here may stay as long as the settings say.
        Whoever does not `insist` listens after `PATIENCE` though it is not known which servers run.
        """
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._listen_to_api(), name="api"),
                tasks.create_task(self._follow_directory(), name="directory"),
                tasks.create_task(self.metrics.watch_loop(), name="event loop"),
                tasks.create_task(self.browser.run(), name="browser logins"),
                tasks.create_task(self.reports.run(self.registry, self._settings.activity_interval), name="reports"),
                tasks.create_task(
                    self.host_key.keep_certified(self.authority, lambda: self.entrance.present(self.shown_keys())),
                    name="host certificate",
                ),
            ]
            if isinstance(self.directory, PodDirectory):
                running.append(tasks.create_task(self.directory.run(), name="pods"))
            if await self._ready(stop, insist):
                await self._accept(stop, doors, retire or asyncio.Event(), listening)
            for task in running:
                task.cancel()
            await self.reports.farewell()

    async def _ready(self, stop: asyncio.Event, insist: bool) -> bool:
        """Wait until there is something to listen for. False: `stop` came first."""
        if not self.informed.is_set():
            _log.info(
                "waiting for the api at %s: nobody can be let in before it has said whom to trust",
                self._settings.api.url,
            )
        if await _first(stop, self.informed) is stop:
            return False
        # Both at once: what the one takes is not to be waited for again with the other.
        await asyncio.gather(
            self._wait_for_servers(stop, insist),
            _within(PATIENCE, stop, self.host_key.certified),
        )
        if not self.host_key.certified.is_set() and not stop.is_set():
            _log.warning("listening without a host certificate: whoever trusts the CA alone is shown an unknown key")
        return not stop.is_set()

    async def _wait_for_servers(self, stop: asyncio.Event, insist: bool) -> None:
        heard = self.directory.heard
        if await _within(PATIENCE, stop, heard):
            return
        _log.warning("which servers run is not known yet: nobody can be let in before it is")
        if insist:
            await _first(stop, heard)

    async def _accept(
        self,
        stop: asyncio.Event,
        doors: Sequence[socket.socket],
        retire: asyncio.Event,
        listening: Callable[[], None],
    ) -> None:
        servers = await self._listen(doors)
        listening()
        await _first(stop, retire)
        for server in servers:
            server.close()
        if not stop.is_set():
            await self._see_out(stop)
        _log.info("shutting down: %d sessions", len(self.registry))
        self.hall.close(Refusal(Reason.UNAVAILABLE, RESTARTED))
        await self.registry.drain(RESTARTING, self._settings.shutdown_grace, ENDED)
        await self._see_off()

    def _gate(self) -> Gate:
        """The protocol of a new connection."""
        return Gate(self.hall)

    async def _listen(self, doors: Sequence[socket.socket]) -> list[asyncio.Server]:
        loop, listen = asyncio.get_running_loop(), self._settings.listen
        if doors:
            return [await loop.create_server(self._gate, sock=door, backlog=BACKLOG) for door in doors]
        try:
            server = await loop.create_server(self._gate, bind_to(listen.host), listen.port, backlog=BACKLOG)
        except OSError as error:
            raise BastionError(cannot_listen(self._settings, error)) from None
        _log.info("listening on %s port %d", listen.host, server.sockets[0].getsockname()[1])
        return [server]

    async def _see_out(self, stop: asyncio.Event) -> None:
        """A newer process accepts: go on for those who are here until they have gone, or time is up."""
        _log.info("accepting nobody any more: %d connections go on", len(self.hall.lobby))
        empty = asyncio.Event()
        self.hall.lobby.when_empty(empty.set)
        try:
            async with asyncio.timeout(self._settings.restart_grace):
                await _first(empty, stop)
        except TimeoutError:
            _log.info("%d connections stayed longer than BASTION_RESTART_GRACE", len(self.hall.lobby))

    async def _see_off(self) -> None:
        """Those who never were in go as well, each with its line; and the api hears whose logins nobody waits for."""
        empty = asyncio.Event()
        self.hall.lobby.when_empty(empty.set)
        self.hall.lobby.clear()
        await _within(GOODBYE_SECONDS, empty)
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self.browser.settled()

    async def _listen_to_api(self) -> None:
        """Take each word of the api: whom to trust, what is revoked, which servers are enrolled."""
        async for state in self.authority.feed(mark=self.known.word.mark if self.known.word is not None else 0):
            changed = self.known.hear(state.word)
            if isinstance(self.directory, EnrolledDirectory):
                self.directory.apply(state.enrolled, state.version, state.hub_heard_at, state.epoch)
            self.tally.pods_dropped = state.dropped
            self.browser.permitted = state.interactive
            self.informed.set()
            self.host_key.api_heard()
            if changed:
                self.registry.revise(lambda session: session.still_valid())
            self.reports.heed(state.ended, self.registry)
            try:
                await self.store.keep(state.word)
            except OSError as error:
                _log.warning("the state directory cannot be written: %s", error)

    async def _follow_directory(self) -> None:
        """Tell everybody who must know that a server started, moved or stopped."""
        async with asyncio.TaskGroup() as later:
            async for change in self.directory.changes():
                self.keys.heed(change)
                if isinstance(change, Stopped):
                    self.reach.forget(change.pod)
                    told = self.registry.cut(change.pod.instance, change.why)
                    if told:
                        _log.info("%s stopped: %d sessions end", change.pod.instance.principal, told)
                elif isinstance(change, Moved):
                    self.reach.forget(change.old)
                elif isinstance(self.directory, PodDirectory):
                    later.create_task(self._ask_ahead_again(change.pod), name="keys of a new pod")

    async def _ask_ahead_again(self, pod: Pod) -> None:
        """To Kubernetes a pod is ready when its container runs, which is a moment before it answers for its keys."""
        for pause in ASK_AGAIN:
            await asyncio.sleep(pause)
            self.keys.prefetch(pod)


def insists(settings: Settings) -> bool:
    """Whether a process in whose place nobody listens waits without end for which servers run, and does not listen
    only to say that it does not know.

    In Kubernetes it does, as for the api's first word: what does not listen is not ready, so other bastions get the
    connections, and an upgrade leaves the old ones where they are.
    """
    return settings.directory.source == "kubernetes"


def cannot_listen(settings: Settings, error: OSError) -> str:
    """The sentence for the operator."""
    listen = settings.listen
    return f"Cannot listen on {listen.host} port {listen.port}: {error.strerror or error}."


async def _first(*events: asyncio.Event) -> asyncio.Event:
    """Wait for any of these; the first of those that have happened."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
    return next(event for event in events if event.is_set())


async def _within(seconds: float, *events: asyncio.Event) -> bool:
    """Whether any of these happens within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await _first(*events)
    except TimeoutError:
        return False
    return True
