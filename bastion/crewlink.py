"""What supervisor and worker say to each other: lines of JSON over a socket pair that only the two have.

Either may ask, and answers come in any order. The end of the stream says that the other is gone, however it went, so
a worker never outlives its supervisor unnoticed.

    {"ask": 7, "request": {"command": "sessions"}}     a question
    {"answer": 7, "result": {"sessions": []}}          its answer; {"error": "A sentence."} where it cannot be given
    {"news": "listening"}                              something to know
"""

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from itertools import count

from bastion.admin import AdminError, Command, carry_out

MAX_LINE = 64 << 20
"""Bytes of one line: the sessions of a full worker are a few megabytes."""


class CrewLink:
    """One end."""

    def __init__(self, commands: Mapping[str, Command], heard: Callable[[str], None] = lambda _: None) -> None:
        """`commands` are what the other may ask; `heard` is called with each of its news."""
        self._commands = commands
        self._heard = heard
        self._writer: asyncio.StreamWriter | None = None
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Mapping[str, object]]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def follow(self, end: socket.socket) -> None:
        """Read what the other says until it is gone. Takes the socket over."""
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=MAX_LINE)
        self._writer = writer
        try:
            while line := await reader.readline():
                self._take(json.loads(line))
        except (OSError, ValueError):
            pass  # the same as its end
        finally:
            self._writer = None
            writer.close()
            for answer in self._waiting.values():
                answer.cancel()
            self._waiting.clear()

    async def ask(self, request: Mapping[str, object], seconds: float) -> Mapping[str, object]:
        """Put a question, and wait so long for its answer. Raises `AdminError`."""
        number = next(self._numbers)
        answer: asyncio.Future[Mapping[str, object]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._send({"ask": number, "request": request})
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait([answer])
        except TimeoutError:
            raise AdminError("A worker did not answer in time.") from None
        finally:
            self._waiting.pop(number, None)
        if answer.cancelled():
            raise AdminError("A worker ended before it had answered.")
        result = answer.result()
        if "error" in result:
            raise AdminError(str(result["error"]))
        return result

    def tell(self, news: str) -> None:
        """Say something that needs no answer."""
        self._send({"news": news})

    def _take(self, message: object) -> None:
        match message:
            case {"ask": int(number), "request": dict(request)}:
                task = asyncio.create_task(self._answer(number, request), name=f"answer {number}")
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            case {"answer": int(number), "result": dict(result)}:
                waiting = self._waiting.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(result)
            case {"news": str(news)}:
                self._heard(news)

    async def _answer(self, number: int, request: Mapping[str, object]) -> None:
        self._send({"answer": number, "result": await carry_out(self._commands, request)})

    def _send(self, message: Mapping[str, object]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")
            return
        for answer in self._waiting.values():
            answer.cancel()
