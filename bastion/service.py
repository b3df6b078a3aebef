"""The running bastion: the rooms joined, the tasks that keep them told, and the way it ends."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from bastion.admin import AdminError, AdminServer, Command
from bastion.admission import DoorRules
from bastion.auth import Authenticator
from bastion.authority import Authority, AuthorityStore, HopCertificates, read_secret
from bastion.directory.enrolled import EnrolledDirectory
from bastion.directory.table import Moved, Stopped
from bastion.hostkey import HostKey
from bastion.inside import Inside
from bastion.knowledge import Known
from bastion.listener import Gate, Waiting, front_of
from bastion.pubkeys import Ages, KeyCache, PodKeys, PodLimits
from bastion.registry import Limits, Registry
from bastion.relay.limits import RelayLimits, default_algorithms, has_fast_aes
from bastion.relay.wire import Entrance
from bastion.relay.wire import HostKey as ShownKey
from bastion.server import House
from bastion.settings import Settings
from bastion.target import Reach
from ca.audit import AuditLog, Event
from ca.errors import BastionError, MalformedName
from ca.names import Server, parse_login

_log = logging.getLogger(__name__)

RESTARTING = "The bastion is shutting down. Save your work: this session ends soon; connect again in a minute."
ENDED = "The bastion has shut down. Connect again in a minute."


async def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Raises `BastionError` with a sentence if it cannot start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        bastion = await Bastion.make(settings, stack)
        await bastion.run(stop)
    return 0


class Bastion:
    """The parts, and what connects them."""

    def __init__(self, settings: Settings, audit_stream: TextIO, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._audit = AuditLog(audit_stream)
        limits = RelayLimits(
            login_seconds=settings.login.grace,
            signed_attempts=settings.login.attempts,
            channels=settings.limits.channels,
        )
        algorithms = default_algorithms(fast_aes=has_fast_aes(_cpuinfo()))
        self.host_key = HostKey(settings.state_directory)
        self.store = AuthorityStore(settings.state_directory)
        self.authority = Authority(
            settings.api.url, read_secret(settings.api.secret_file), allow_plain_http=settings.api.allow_http
        )
        self.known = Known(max_age=settings.directory.max_age, word=self.store.load())
        self.directory = EnrolledDirectory()
        self.pod_keys = PodKeys(PodLimits(seconds=settings.keys.fetch_timeout))
        self.keys = KeyCache(
            self.directory,
            self.pod_keys.fetch,
            ages=Ages(full=settings.keys.full_after, partial=settings.keys.partial_after),
            clock=clock,
        )
        self.hops = HopCertificates(self.authority)
        self.registry: Registry[Inside] = Registry(
            Limits(total=settings.limits.connections, per_user=settings.limits.connections_per_user)
        )
        self.reach = Reach(
            hops=self.hops,
            trust=lambda: self.known.trust,
            zone=lambda: self.known.zone,
            networks=settings.pods.networks,
            limits=limits,
            algorithms=algorithms,
            lost=lambda pod: self.directory.lost(pod.instance),
        )
        self.waiting = Waiting(settings.limits.unauthenticated, settings.limits.unauthenticated_per_address)
        self.house = House(
            authenticator=Authenticator(
                knowledge=self.known,
                directory=self.directory,
                keys=self.keys,
                rules=DoorRules(
                    jump_names=frozenset(settings.login.jump_names),
                    raw_keys=settings.login.raw_keys,
                    raw_keys_direct=settings.login.raw_keys_direct,
                ),
                max_age=settings.directory.max_age,
                wall=time.time,
                clock=time.monotonic,
            ),
            directory=self.directory,
            registry=self.registry,
            reach=self.reach,
            note=self.note,
            wall=time.time,
            zone=lambda: self.known.zone,
            cut_at_expiry=settings.login.cut_at_expiry,
        )
        self.entrance = Entrance(front_of(self.house, self.waiting), self._shown_keys(), limits, algorithms)
        self.informed = asyncio.Event()
        if self.known.word is not None:
            self.informed.set()

    @classmethod
    async def make(
        cls, settings: Settings, stack: AsyncExitStack, clock: Callable[[], float] = time.monotonic
    ) -> "Bastion":
        """Make the parts, and see to it that they are closed. `clock` is that of the key cache's ages."""
        _private_directory(settings.state_directory)
        audit_stream = _audit_stream(settings.log.audit_file)
        if audit_stream is not sys.stdout:
            stack.callback(audit_stream.close)
        bastion = cls(settings, audit_stream, clock)
        stack.push_async_callback(bastion.authority.aclose)
        stack.push_async_callback(bastion.pod_keys.aclose)
        stack.push_async_callback(bastion.keys.aclose)
        return bastion

    def note(self, event: Event) -> None:
        """Write an audit line."""
        self._audit.write(event, time.time())

    async def run(self, stop: asyncio.Event) -> None:
        """Listen as soon as it is known whom to trust; end in order."""
        admin = AdminServer(self._settings.admin_socket, self._commands())
        await admin.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._listen_to_api(), name="api"),
                    tasks.create_task(self._follow_directory(), name="directory"),
                    tasks.create_task(
                        self.host_key.keep_certified(
                            self.authority, time.time, lambda: self.entrance.present(self._shown_keys())
                        ),
                        name="host certificate",
                    ),
                ]
                await self._accept(stop)
                for task in running:
                    task.cancel()
        finally:
            await admin.stop()

    async def _accept(self, stop: asyncio.Event) -> None:
        if not self.informed.is_set():
            _log.info(
                "waiting for the api at %s: nobody can be let in before it has said whom to trust",
                self._settings.api.url,
            )
        if not await _first(self.informed, stop):
            return
        listen = self._settings.listen
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: Gate(self.waiting, self.entrance), listen.host, listen.port, backlog=512
            )
        except OSError as error:
            raise BastionError(f"Cannot listen on {listen.host} port {listen.port}: {error.strerror}.") from None
        port = server.sockets[0].getsockname()[1]
        _log.info("listening on %s port %d", listen.host, port)
        await stop.wait()
        server.close()
        _log.info("shutting down: %d sessions", len(self.registry))
        await self.registry.drain(RESTARTING, self._settings.shutdown_grace, ENDED)

    async def _listen_to_api(self) -> None:
        """Take each word of the api: whom to trust, what is revoked, which servers are enrolled."""
        async for state in self.authority.feed():
            changed = self.known.hear(state.word)
            self.directory.apply(state.enrolled, state.version, state.hub_heard_at, state.epoch)
            self.informed.set()
            if changed:
                self.registry.revise(lambda session: session.still_valid())
            try:
                await self.store.keep(state.word)
            except OSError as error:
                _log.warning("the state directory cannot be written: %s", error)

    async def _follow_directory(self) -> None:
        """Tell everybody who must know that a server started, moved or stopped."""
        async for change in self.directory.changes():
            self.keys.heed(change)
            if isinstance(change, Stopped):
                self.reach.forget(change.pod)
                told = self.registry.cut(change.pod.instance, change.why)
                if told:
                    _log.info("%s stopped: %d sessions end", change.pod.instance.principal, told)
            elif isinstance(change, Moved):
                self.reach.forget(change.old)

    def _shown_keys(self) -> list[ShownKey]:
        key = self.host_key
        plain = ShownKey(key.private)
        return [ShownKey(key.private, key.certificate)] if key.certificate is not None else [plain]

    def _commands(self) -> Mapping[str, Command]:
        return {"sessions": self._sessions, "refresh-keys": self._refresh_keys, "cut": self._cut}

    async def _sessions(self, request: Mapping[str, object]) -> Mapping[str, object]:
        del request
        lines = []
        for one in self.registry.sessions():
            about = one.about
            lines.append(
                {
                    "id": one.id,
                    "identity": about.identity,
                    "login": about.login,
                    "server": str(about.instance.server) if about.instance is not None else "",
                    "instance": str(about.instance.id) if about.instance is not None else "",
                    "mode": about.mode,
                    "serial": None if about.serial is None else str(about.serial),
                    "peer": about.peer,
                    "since": datetime.fromtimestamp(about.since, UTC).isoformat(timespec="seconds"),
                    "received": one.received,
                    "sent": one.sent,
                    "ending": one.ending,
                }
            )
        return {"sessions": lines}

    async def _refresh_keys(self, request: Mapping[str, object]) -> Mapping[str, object]:
        del request
        counts = await self.keys.refresh()
        said = f"{counts.pods} pods answered with {counts.keys} keys; {counts.failed} pods did not answer."
        return {"said": said, "pods": counts.pods, "keys": counts.keys, "failed": counts.failed}

    async def _cut(self, request: Mapping[str, object]) -> Mapping[str, object]:
        named, why = str(request.get("server", "")), str(request.get("why", ""))[:400]
        kind, _, number = named.partition(":")
        if kind == "session" and number.isdecimal():
            told = self.registry.cut_session(int(number), why)
        else:
            told = self.registry.cut(_server(named), why)
        return {"said": f"{told} session{'' if told == 1 else 's'} told to end.", "cut": told}


def _server(named: str) -> Server:
    """A server as an operator writes it: `alice/gpu`, or its login name. Raises `AdminError`."""
    try:
        if "/" in named:
            owner, _, name = named.partition("/")
            return Server(owner, name)
        return parse_login(named)
    except MalformedName:
        raise AdminError(f"{named!r} names no server: write alice, alice/gpu or a login name.") from None


async def _first(wanted: asyncio.Event, stop: asyncio.Event) -> bool:
    """Wait for either; whether it was `wanted`."""
    waits = [asyncio.ensure_future(wanted.wait()), asyncio.ensure_future(stop.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waits:
            one.cancel()
    return wanted.is_set() and not stop.is_set()


def _private_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise BastionError(
            f"The state directory {path} cannot be used ({error.strerror}): set BASTION_STATE_DIRECTORY."
        ) from None


def _audit_stream(path: Path | None) -> TextIO:
    if path is None:
        return sys.stdout
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    except OSError as error:
        raise BastionError(f"The audit file {path} cannot be written: {error.strerror}.") from None
    return os.fdopen(number, "a", encoding="utf-8")


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return ""
