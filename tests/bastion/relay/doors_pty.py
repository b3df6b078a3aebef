"""Why: what happens on a terminal is seen only from a terminal, so these tests hold the other end of one."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager


class Terminal:
    """The master side of a pseudo-terminal on which a process runs."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._said = b""
        self._news = asyncio.Event()
        self._over = False
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def said(self) -> bytes:
        return self._said

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def until(self, text: bytes, limit: float = 20) -> bytes:
        """Everything said so far, once it holds `text`."""
        async with asyncio.timeout(limit):
            while text not in self._said:
                if self._over:
                    raise AssertionError(f"ended without {text!r}: {self._said!r}")
                self._news.clear()
                await self._news.wait()
        return self._said

    def _read(self) -> None:
        try:
            more = os.read(self._master, 65536)
        except OSError:
            more = b""
        self._over = not more
        self._said += more
        self._news.set()
        if not more:
            asyncio.get_running_loop().remove_reader(self._master)

    def shut(self) -> None:
        if not self._over:
            asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


@asynccontextmanager
async def on_terminal(
    command: Sequence[str | bytes], rows: int = 24, columns: int = 80
) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process]]:
    """Run a command on a new terminal of that size."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "TERM": "vt220"},
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
    )
    os.close(slave)
    terminal = Terminal(master)
    try:
        yield terminal, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        terminal.shut()
