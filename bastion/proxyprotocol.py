"""The PROXY protocol, version 2: behind a load balancer the client's address is in a header, not on the socket.

A header decides whom limits, audit lines and source-address restrictions speak of, so it is read only from
addresses that the operator named, and read strictly: anything but a whole, well-formed header ends the connection.
Nothing here waits; the listener gives a header its own short time.

Format (HAProxy's proxy-protocol.txt, section 2.2): 12 bytes of signature; version and command; address family and
transport; the length of the rest (big endian); addresses; then type-length-value fields, which are skipped here.
"""

import ipaddress
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_REST = 2048
"""Bytes after the fixed part. Addresses take 36 at most; balancers add a few hundred of fields."""

_FIXED = 16
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_NEEDED = {_TCP4: 12, _TCP6: 36}


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header. `source` is the client's address and port; None: the connection is the proxy's own (a health
    check), or the proxy does not know. `size` is the header's length in bytes: SSH begins after it."""

    source: tuple[str, int] | None
    size: int


@dataclass(frozen=True, slots=True)
class Misread:
    """These bytes are not the beginning of a header that counts here."""

    why: str


def read_header(data: bytes) -> Header | Misread | None:
    """The header at the beginning of `data`; None while it is not there whole."""
    if data[:12] != SIGNATURE[: len(data)]:
        return Misread("there is no header of version 2")
    if len(data) < _FIXED:
        return None
    command, family, rest = data[12], data[13], int.from_bytes(data[14:16], "big")
    if command not in {_LOCAL, _PROXY}:
        return Misread("its version or command is not known")
    if rest > MAX_REST:
        return Misread("it is too long")
    size = _FIXED + rest
    if len(data) < size:
        return None
    if command == _LOCAL or family == _UNSPECIFIED:
        return Header(None, size)
    if family not in _NEEDED:
        return Misread("it speaks of something else than TCP")
    if rest < _NEEDED[family]:
        return Misread("its addresses are cut short")
    return Header(_source(data, family), size)


def _source(data: bytes, family: int) -> tuple[str, int]:
    """The client's end of the addresses: both ends' addresses come first, then both ports."""
    width = 4 if family == _TCP4 else 16
    ports = _FIXED + 2 * width
    address = ipaddress.ip_address(data[_FIXED : _FIXED + width])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), int.from_bytes(data[ports : ports + 2], "big")
