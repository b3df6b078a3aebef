"""Exists because several servers of one machine cannot share a port, so some of them pick a free one."""

from __future__ import annotations

import socket


def free(listen: str) -> int:
    """A port that is free at this moment; another program may still take it before sshd does."""
    with _socket(listen) as probe:
        probe.bind((listen, 0))
        return int(probe.getsockname()[1])


def is_free(listen: str, port: int) -> bool:
    """Whether a program could listen there now."""
    with _socket(listen) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen, port))
        except OSError:
            return False
    return True


def _socket(listen: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in listen else socket.AF_INET, socket.SOCK_STREAM)
