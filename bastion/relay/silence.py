"""A peer that is there no more, or that takes nothing any more, as the kernel sees it.

A network that failed says nothing, and neither does a program that hangs. SSH can ask its peer, but only while it reads
the answers; a tunnel has no messages of its own at all. The kernel sees both.
"""

import math
import socket

_SAID = ("not responding to keepalive", "Connection timed out")
"""What asyncssh, and the kernel, say of such an end."""


def notice_death(sock: socket.socket, silence: float, questions: int) -> None:
    """End the connection (with an error) when its peer is gone for (`questions` + 1) × `silence` seconds.

    Keepalive asks while nothing is on its way (tcp(7)); what is, and is not acknowledged, or finds no room at the other
    end, is waited for as long.
    """
    seconds = max(1, math.ceil(silence))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, questions)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * seconds * (questions + 1))


def was_silence(problem: Exception | None) -> bool:
    """Whether a connection ended with this because its peer was gone."""
    return problem is not None and any(words in str(problem) for words in _SAID)
