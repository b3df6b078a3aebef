"""A door for the reverse proxy of this machine, which no notebook server here can open.

Where servers run beside the api, loopback is theirs as much as the proxy's, so whoever believed `X-Forwarded-For` from
there would believe notebooks. A unix socket has an owner, a group and a mode: who may open it is the proxy, and what it
wrote last is the sender.
"""

import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from api.sender import THROUGH_PROXY
from ca.errors import BastionError

MODE = 0o660
"""The owner is the api's user, the group that of the folder (mode 2750) or of the api's process."""


class ProxySocketError(BastionError):
    """The socket cannot be listened on; the text is a sentence that says what to do."""


class FromProxy:
    """Wraps an app: what comes in here came through the proxy (`api.sender.peer_of`)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        await self._app({**scope, THROUGH_PROXY: True}, receive, send)


@contextmanager
def proxy_socket(path: Path) -> Iterator[socket.socket]:
    """A socket at `path`, gone at the end. Raises `ProxySocketError`."""
    _make_room(path)
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(str(path))
        path.chmod(MODE)  # before anybody can come: nobody is answered until it listens
        listening.listen(512)
    except OSError as error:
        listening.close()
        raise ProxySocketError(f"{path} cannot be listened on: {error.strerror or error}.") from None
    try:
        yield listening
    finally:
        listening.close()
        with suppress(OSError):
            path.unlink()


def _make_room(path: Path) -> None:
    """Take away what an earlier process left. Whoever can write in the folder could stand in for the api."""
    try:
        if path.parent.stat().st_mode & stat.S_IWOTH:
            raise ProxySocketError(
                f"Everybody may write in {path.parent}. Put SSH_API_LISTEN_PROXY_SOCKET into a folder of the api's own."
            )
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ProxySocketError(f"{path} is there already and is no socket. Take it away, or name another path.")
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ProxySocketError(f"{path} cannot be made: {error.strerror}.") from None
