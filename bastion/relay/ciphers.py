"""Which ciphers one client is offered, and when its connection should change to a faster one.

The client's order decides (RFC 4253 section 7.1), and OpenSSH's clients before 10.0 put AES-CTR before AES-GCM, which
costs the bastion about twice as much. Clients that know no AES-GCM need AES-CTR, so it has to be offered; but a client
that turns out to know both, and to copy much, is asked for new keys, with AES-GCM as the only offer. Sessions that
move little never notice.

Dropbear, the ssh of routers and small containers, knows no encrypt-then-MAC and, as distributions build it, no AES-GCM.
Its only way in that is not encrypt-and-MAC is chacha20, so that is offered to it everywhere. It says who it is in its
first line, which the key exchange signs (RFC 4253 section 8).
"""

from collections.abc import Sequence

from bastion.relay.kexinit import name_lists

BULK = 1 << 20
"""Bytes in one direction from which a change is worth its key exchange, about 4 ms of work."""

CHACHA20 = b"chacha20-poly1305@openssh.com"
_NEEDS_CHACHA20 = b"SSH-2.0-dropbear"

_LISTS_BEFORE = 2  # key exchanges and host keys


def ciphers_for(version: bytes, offered: Sequence[bytes]) -> list[bytes]:
    """What to offer a client whose first line is `version`, where everybody else is offered `offered`."""
    more = [CHACHA20] if version.startswith(_NEEDS_CHACHA20) and CHACHA20 not in offered else []
    return [*offered, *more]


def better_ciphers(offered: Sequence[bytes], client_kexinit: bytes, in_use: Sequence[bytes]) -> list[bytes]:
    """The AES-GCM ciphers that we prefer to those in use and that the client takes in both directions.

    `client_kexinit` is the client's first message of the last key exchange (RFC 4253 section 7.1), from its number on.
    Empty: there is nothing to gain.
    """
    lists = name_lists(client_kexinit, _LISTS_BEFORE + 2)
    others = [name for name in in_use if not _is_gcm(name)]
    if len(lists) < _LISTS_BEFORE + 2 or not others or any(name not in offered for name in others):
        return []
    preferred = offered[: min(list(offered).index(name) for name in others)]
    return [name for name in preferred if _is_gcm(name) and all(name in known for known in lists[_LISTS_BEFORE:])]


def _is_gcm(name: bytes) -> bool:
    return name.endswith(b"-gcm@openssh.com")
