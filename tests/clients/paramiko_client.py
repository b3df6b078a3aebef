"""Why: paramiko has its own ideas of windows, threads and key exchanges. Run as a program: its threads end with it.

paramiko_client.py PORT LOGIN KEY FOLDER TARGET
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import paramiko

CONTENT = os.urandom(3_000_000)


def main(port: int, login: str, key: str, folder: Path, target: int) -> None:
    """All of it, or an error."""
    identity = paramiko.Ed25519Key.from_private_key_file(key)
    identity.load_certificate(f"{key}-cert.pub")
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    for compress in (True, False):
        client.connect(
            "127.0.0.1", port, login, pkey=identity, allow_agent=False, look_for_keys=False, compress=compress
        )
        commands(client)
        transport = client.get_transport()
        files(client.open_sftp(), folder)
        terminal(client)
        forwards(transport, target)
        transport.renegotiate_keys()
        commands(client)
        windows(transport)
        client.close()
    print("all of it")


def commands(client: Any) -> None:
    """Streams, a status, and half-close."""
    _, out, err = client.exec_command("echo out; echo err >&2; exit 42")
    assert (out.read(), err.read(), out.channel.recv_exit_status()) == (b"out\n", b"err\n", 42)
    given, out, _ = client.exec_command("cat; exit 3")
    sender = threading.Thread(target=lambda: (given.write(CONTENT), given.channel.shutdown_write()))
    sender.start()
    assert out.read() == CONTENT
    sender.join()
    assert out.channel.recv_exit_status() == 3


def files(sftp: Any, folder: Path) -> None:
    """A file there and back, with many requests on their way."""
    there = str(folder / "paramiko")
    with sftp.open(there, "wb") as file:
        file.set_pipelined(True)
        file.write(CONTENT)
    sftp.get(there, str(folder / "back"))
    assert (folder / "back").read_bytes() == CONTENT
    sftp.rename(there, there + "-moved")
    assert sftp.stat(there + "-moved").st_size == len(CONTENT)
    sftp.remove(there + "-moved")
    sftp.close()


def terminal(client: Any) -> None:
    """A shell on a terminal that changes its size."""
    shell = client.invoke_shell(term="xterm", width=80, height=24)
    shell.resize_pty(width=132, height=43)
    shell.sendall(b"stty -echo; stty size; echo $((6*7)); exit 7\n")
    said = b""
    while part := shell.recv(1000):
        said += part
    assert b"43 132" in said, said
    assert b"42" in said, said
    assert shell.recv_exit_status() == 7


def forwards(transport: Any, target: int) -> None:
    """To a port in the pod, and from one."""
    prove(transport.open_channel("direct-tcpip", ("127.0.0.1", target), ("127.0.0.1", 1)))
    port = transport.request_port_forward("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as stream:
        stream.sendall(b"from the pod")
        stream.shutdown(socket.SHUT_WR)
        coming = transport.accept(60)
        assert coming.recv(100) == b"from the pod"
        assert coming.recv(100) == b""
        coming.sendall(b"from the client")
        coming.close()
        assert stream.recv(100) == b"from the client"
    transport.cancel_port_forward("127.0.0.1", port)


def prove(channel: Any) -> None:
    """The service answers with a sum of what it was sent."""
    channel.sendall(CONTENT)
    channel.shutdown_write()
    got = b""
    while part := channel.recv(1 << 16):
        got += part
    assert got[:64] == hashlib.sha256(CONTENT).hexdigest().encode()
    channel.close()


def windows(transport: Any) -> None:
    """Two gigabytes, and next to nothing."""
    channel = transport.open_session(window_size=0x7FFFFFFF, max_packet_size=0x7FFFFFFF)
    channel.exec_command("head -c 5000000 /dev/zero")
    size = 0
    while part := channel.recv(1 << 20):
        size += len(part)
    assert (size, channel.recv_exit_status()) == (5_000_000, 0)
    channel = transport.open_session(window_size=1, max_packet_size=1)
    channel.exec_command("echo tiny")
    said = b""
    while part := channel.recv(1):
        said += part
    assert said == b"tiny\n"


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
