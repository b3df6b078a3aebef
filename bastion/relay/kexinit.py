"""What the first message of a key exchange says (RFC 4253 section 7.1), from its number on."""

_COOKIE = 17  # message number and cookie
_LISTS = 10


def name_lists(kexinit: bytes, count: int = _LISTS) -> list[list[bytes]]:
    """The first `count` lists of names, or as many as there are: key exchanges, host keys, ciphers of both directions,
    MACs of both, compressions of both, languages of both."""
    return _read(kexinit, count)[0]


def guessed_wrong(client: bytes, server: bytes) -> bool:
    """Whether the client has sent a first message for a key exchange that is not the one, which is to be ignored.

    The guess is right only where both put the same key exchange, and the same kind of host key, first (section 7).
    """
    theirs, end = _read(client, _LISTS)
    ours = name_lists(server, 2)
    if client[end : end + 1] in {b"", b"\0"} or len(theirs) < _LISTS or len(ours) < 2:
        return False
    return theirs[0][0] != ours[0][0] or theirs[1][0] != ours[1][0]


def _read(kexinit: bytes, count: int) -> tuple[list[list[bytes]], int]:
    found = []
    at = _COOKIE
    for _ in range(count):
        end = at + 4 + int.from_bytes(kexinit[at : at + 4], "big")
        if end > len(kexinit):
            break
        found.append(kexinit[at + 4 : end].split(b","))
        at = end
    return found, at
