"""When a connection should change to a faster cipher.

The client's order decides (RFC 4253 section 7.1), and OpenSSH's clients before 10.0 put AES-CTR before AES-GCM, which
costs the bastion about twice as much. Clients that know no AES-GCM need AES-CTR, so it has to be offered; but a client
that turns out to know both, and to copy much, is asked for new keys, with AES-GCM as the only offer. Sessions that
move little never notice.
"""

from collections.abc import Sequence

BULK = 1 << 20
"""Bytes in one direction from which a change is worth its key exchange, about 4 ms of work."""

_COOKIE = 17  # message number and cookie
_LISTS_BEFORE = 2  # key exchanges and host keys


def better_ciphers(offered: Sequence[bytes], client_kexinit: bytes, in_use: Sequence[bytes]) -> list[bytes]:
    """The AES-GCM ciphers that we prefer to those in use and that the client takes in both directions.

    `client_kexinit` is the client's first message of the last key exchange (RFC 4253 section 7.1), from its number on.
    Empty: there is nothing to gain.
    """
    lists = _lists(client_kexinit, _LISTS_BEFORE + 2)
    others = [name for name in in_use if not _is_gcm(name)]
    if len(lists) < _LISTS_BEFORE + 2 or not others or any(name not in offered for name in others):
        return []
    preferred = offered[: min(list(offered).index(name) for name in others)]
    return [name for name in preferred if _is_gcm(name) and all(name in known for known in lists[_LISTS_BEFORE:])]


def _is_gcm(name: bytes) -> bool:
    return name.endswith(b"-gcm@openssh.com")


def _lists(kexinit: bytes, count: int) -> list[list[bytes]]:
    found = []
    at = _COOKIE
    for _ in range(count):
        end = at + 4 + int.from_bytes(kexinit[at : at + 4], "big")
        if end > len(kexinit):
            break
        found.append(kexinit[at + 4 : end].split(b","))
        at = end
    return found
