"""The operator's door to a running bastion: a unix socket with mode 0600, one line of JSON each way.

Whoever may open the socket may see and cut sessions; the file's mode is the whole of its authentication.
"""

import asyncio
import json
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from ca.errors import BastionError

MAX_LINE = 1 << 16
_TIMEOUT = 60.0

Command = Callable[[Mapping[str, object]], Awaitable[Mapping[str, object]]]


class AdminError(BastionError):
    """The running bastion cannot be reached, or said no; the text is a sentence."""


class AdminServer:
    """Serves `commands` on the socket at `path`."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises `AdminError` when another bastion listens there already."""
        await self._clear_the_place()
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=MAX_LINE)
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            with suppress(FileNotFoundError):
                self._path.unlink()

    async def _clear_the_place(self) -> None:
        """A socket that a killed bastion left behind is removed; one that answers is not ours to take."""
        try:
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise AdminError(f"{self._path} is in the way: it is not a socket. Remove it.")
        except FileNotFoundError:
            return
        try:
            _, writer = await asyncio.open_unix_connection(str(self._path))
        except OSError:
            self._path.unlink(missing_ok=True)
            return
        writer.close()
        raise AdminError(f"Another bastion is running with this state directory: {self._path} answers.")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                answer = await self._answer(await reader.readline())
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Mapping[str, object]:
        try:
            request = json.loads(line)
        except ValueError:
            return {"error": "The request is not JSON."}
        return await carry_out(self._commands, request)


async def carry_out(commands: Mapping[str, Command], request: object) -> Mapping[str, object]:
    """The answer to a request; `error` holds a sentence where it is refused. Raises nothing of the kind."""
    if not isinstance(request, dict) or (command := commands.get(str(request.get("command")))) is None:
        return {"error": f"Commands are: {', '.join(sorted(commands))}."}
    try:
        return await command(request)
    except BastionError as error:
        return {"error": str(error)}


async def ask(path: Path, request: Mapping[str, object]) -> Mapping[str, object]:
    """Put one request to the running bastion. Raises `AdminError` with a sentence."""
    try:
        async with asyncio.timeout(_TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 26)
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                line = await reader.readline()
            finally:
                writer.close()
    except (FileNotFoundError, ConnectionRefusedError):
        raise AdminError(
            f"No bastion is running with this state directory ({path} does not answer). "
            "Set BASTION_STATE_DIRECTORY to that of the running one."
        ) from None
    except PermissionError:
        raise AdminError(f"{path} belongs to another user: run this as the bastion's own user.") from None
    except (OSError, TimeoutError):
        raise AdminError("The bastion did not answer. Look at its log.") from None
    answer = json.loads(line or b"{}")
    if not isinstance(answer, dict) or "error" in answer:
        raise AdminError(str(answer.get("error", "The bastion gave no answer.")))
    return answer
