"""Exists because several servers of one machine cannot share a port, so some of them pick a free one, and because a
pod may have addresses of either family: `::` means all of both here, and all of IPv4 where there is no IPv6."""

from __future__ import annotations

import socket

_ALL, _ALL_OF_IPV4 = "::", "0.0.0.0"  # noqa: S104 - the bastion comes from another machine


def addresses(listen: str) -> tuple[str, ...]:
    """What to name to a program that takes `::` for IPv6 alone, as sshd does."""
    if listen != _ALL:
        return (listen,)
    return (_ALL_OF_IPV4, _ALL) if socket.has_dualstack_ipv6() else (_ALL_OF_IPV4,)


def bound(listen: str, port: int) -> socket.socket:
    """One socket that is bound there and does not listen yet; port 0 picks one. Raises OSError."""
    address = addresses(listen)[-1]
    door = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        # What the connections of a predecessor left behind is in nobody's way.
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(listen != _ALL))
        door.bind((address, port))
    except OSError:
        door.close()
        raise
    return door


def free(listen: str) -> int:
    """A port that is free at this moment; another program may still take it before sshd does."""
    with bound(listen, 0) as probe:
        return int(probe.getsockname()[1])


def is_free(listen: str, port: int) -> bool:
    """Whether a program could listen there now."""
    try:
        bound(listen, port).close()
    except OSError:
        return False
    return True
