"""What a supervisor holds of each worker: its process, its place on the port, and the line to it."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from bastion.crewlink import CrewLink
from bastion.settings import bind_to

LISTENING = "listening"
"""What a worker tells as soon as it accepts connections."""

_MAX_PAUSE = 30.0


@dataclass(slots=True, eq=False)
class Worker:
    """One process. `ready` when it accepts connections or has ended; `leaving` when its end is wanted. `began` is in
    seconds of the monotonic clock."""

    number: int
    slot: "Slot"
    process: asyncio.subprocess.Process
    began: float
    listens: Callable[["Worker"], None]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    listening: bool = False
    leaving: bool = False
    ended: bool = False
    link: CrewLink = field(init=False)

    def __post_init__(self) -> None:
        self.link = CrewLink({}, self._heard)

    def _heard(self, news: str) -> None:
        if news == LISTENING:
            self.listening = True
            self.ready.set()
            self.listens(self)

    @property
    def state(self) -> str:
        """For the operator."""
        if self.leaving:
            return "leaving"
        return "accepting" if self.listening else "starting"

    def terminate(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, or see to it."""
        self.leaving = True
        with suppress(ProcessLookupError):
            self.process.send_signal(by)


@dataclass(slots=True, eq=False)
class Slot:
    """One worker's place on the port. `failures` counts ends in a row that came soon."""

    number: int
    doors: list[socket.socket] = field(default_factory=list)
    current: Worker | None = None
    failures: int = 0
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def open(self, host: str, port: int) -> None:
        """Bind where nothing is bound yet. Raises `OSError`."""
        if not self.doors:
            self.doors = list(_bound(host, port))

    def close(self) -> None:
        """Let the kernel give connections to others."""
        for door in self.doors:
            door.close()
        self.doors = []

    @property
    def accepts(self) -> bool:
        """Whether its worker accepts connections."""
        return self.current is not None and self.current.listening


def pause_before(failures: int) -> float:
    """Seconds before the next attempt after so many ends in a row that came soon: none for the first."""
    return 0.0 if failures <= 1 else min(0.5 * 2.0 ** min(failures - 2, 16), _MAX_PAUSE)


def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Sockets that are bound but do not listen: one for each address of `host`."""
    for family, kind, protocol, _, address in socket.getaddrinfo(
        bind_to(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        door = socket.socket(family, kind, protocol)
        try:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            door.setblocking(False)
            door.bind(address)
        except OSError:
            door.close()
            raise
        yield door
