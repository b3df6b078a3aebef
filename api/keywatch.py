"""Notices that CA keys were rotated by `python -m api rotate`, in whatever process, and that a key file went bad."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ca.errors import BastionError
from ca.signer import FileSigner

log = structlog.get_logger(__name__)

INTERVAL = 5.0


class KeyWatch:
    """Reads the keys again every few seconds. `problem` is a sentence for `/readyz` while they cannot be read."""

    def __init__(self, signer: FileSigner) -> None:
        self._signer = signer
        self.problem: str | None = None

    def look(self) -> bool:
        """Read the keys; True when a rotation was found. On an error the keys in use stay, and `problem` says so."""
        before = self._signer.generations
        try:
            self._signer.reload()
        except BastionError as error:
            if self.problem is None:
                log.warning("keys_unreadable", why=str(error))
            self.problem = "The CA keys cannot be read. The administrator finds the reason in the log."
            return False
        self.problem = None
        return before != self._signer.generations

    async def run(self, tell: Callable[[], Awaitable[None]]) -> None:
        """For ever, until cancelled; `tell` is awaited after a rotation."""
        while True:
            await asyncio.sleep(INTERVAL)
            if self.look():
                log.info("keys_rotated", generations=self._signer.generations)
                await tell()
