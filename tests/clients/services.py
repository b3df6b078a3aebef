"""Why: a forward is proven by what arrives at its end, so tests put something there that accounts for every byte."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

LATER = hashlib.shake_256(b"sent after the client's end").digest(300_000)
"""What a service sends after it has seen the end of what it was sent."""


class _Prove(socketserver.BaseRequestHandler):
    """Reads to the end, answers with the sum of what came, and goes on sending: half-close works or nothing comes."""

    def handle(self) -> None:
        digest = hashlib.sha256()
        while block := self.request.recv(1 << 16):
            digest.update(block)
        with contextlib.suppress(OSError):
            self.request.sendall(digest.hexdigest().encode() + LATER)


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


class _Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


@contextlib.contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def service() -> Iterator[int]:
    """A port on loopback that proves what it was sent."""
    server = _Tcp(("127.0.0.1", 0), _Prove)
    with _serving(server):
        yield server.server_address[1]


@contextlib.contextmanager
def unix_service(path: Path) -> Iterator[Path]:
    """The same at a unix socket."""
    with _serving(_Unix(str(path), _Prove)):
        yield path


def proof(content: bytes) -> bytes:
    """What a service answers to `content`."""
    return hashlib.sha256(content).hexdigest().encode() + LATER


def ask(where: int | Path | socket.socket, content: bytes = b"") -> None:
    """Send `content` to a service through a forward, and see that the whole answer comes back."""
    content = content or os.urandom(400_000)
    with _connected(where) as stream:
        sender = threading.Thread(target=_send, args=(stream, content))
        sender.start()
        answer = b"".join(iter(lambda: stream.recv(1 << 16), b""))
        sender.join()
    assert answer == proof(content), (len(answer), answer[:100])


def _send(stream: socket.socket, content: bytes) -> None:
    stream.sendall(content)
    stream.shutdown(socket.SHUT_WR)


def _connected(where: int | Path | socket.socket) -> socket.socket:
    if isinstance(where, socket.socket):
        return where
    if isinstance(where, int):
        return socket.create_connection(("127.0.0.1", where), timeout=60)
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(60)
    stream.connect(str(where))
    return stream


def refuses(port: int) -> bool:
    """Whether nothing listens there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60):
            return False
    except ConnectionRefusedError:
        return True


def through_socks(proxy: int, port: int) -> socket.socket:
    """A connection to a port of the pod through a SOCKS 5 proxy (RFC 1928), by name."""
    stream = socket.create_connection(("127.0.0.1", proxy), timeout=60)
    stream.sendall(b"\x05\x01\x00")
    assert _exactly(stream, 2) == b"\x05\x00"
    name = b"localhost"
    stream.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port))
    assert _exactly(stream, 10)[1] == 0
    return stream


def _exactly(stream: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = stream.recv(size - len(got))
        assert more, "closed too early"
        got += more
    return got


@contextlib.contextmanager
def display() -> Iterator[tuple[int, list[bytes]]]:
    """An X display of our own: its number, and the cookies that were shown to it."""
    cookies: list[bytes] = []

    class Greet(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            cookies.append(_exactly(self.request, 12 + 20 + 16)[-16:])
            self.request.sendall(b"hello from X")

    for number in range(400, 600):
        try:
            server = _Tcp(("127.0.0.1", 6000 + number), Greet)
        except OSError:
            continue
        with _serving(server):
            yield number, cookies
        return
    raise AssertionError("no display number is free")
