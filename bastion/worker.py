"""One of several processes on one port: the whole bastion, without an operator's socket and a metrics port of its own.

It is given bound sockets to listen on, and a line to its supervisor, over which operators' commands come. When that
line ends it ends as well: workers without a supervisor would be in the way of the next one.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from bastion.crew import LISTENING
from bastion.crewlink import CrewLink
from bastion.service import Bastion
from bastion.settings import Settings

_log = logging.getLogger(__name__)


async def work(settings: Settings, number: int, link: int, doors: Sequence[int], *, insist: bool) -> int:
    """Run as worker `number` until SIGTERM, or until the supervisor is gone.

    `link` and `doors` are file descriptors: the socket pair's end, and the sockets to listen on. `insist`: not to
    listen before it is known which servers run.
    """
    stop, retire = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for by in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(by, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)  # it is the supervisor's to act on
    async with AsyncExitStack() as stack:
        bastion = await Bastion.make(settings, stack, prefix=f"{number}.")

        async def metrics(request: Mapping[str, object]) -> Mapping[str, object]:
            del request
            return {"text": (await bastion.metrics_text()).decode()}

        async def leave(request: Mapping[str, object]) -> Mapping[str, object]:
            del request
            retire.set()
            return {}

        crew = CrewLink({**bastion.commands.table(), "metrics": metrics, "retire": leave})

        async def follow() -> None:
            await crew.follow(socket.socket(fileno=link))
            if not stop.is_set():
                _log.warning("the supervisor is gone: this worker ends")
            stop.set()

        sockets = [socket.socket(fileno=door) for door in doors]
        following = asyncio.create_task(follow(), name="supervisor")
        try:
            await bastion.work(
                stop,
                doors=sockets,
                retire=retire,
                listening=lambda: crew.tell(LISTENING),
                insist=insist,
            )
        finally:
            for door in sockets:
                door.close()
            following.cancel()
            await asyncio.wait([following])
    return 0
