"""The PROXY protocol, versions 1 and 2: behind a load balancer the client's address is in a header, not on the socket.

A header decides whom limits, audit lines and source-address restrictions speak of, so it is read only from
addresses that the operator named, and read strictly: anything but a whole, well-formed header ends the connection.
Nothing here waits; the listener gives a header its own short time.

Formats (HAProxy's proxy-protocol.txt). Version 1 (section 2.1; the only one that nginx writes, and so ingress-nginx):
one line of at most 107 bytes, `PROXY TCP4 <source> <destination> <source port> <destination port>`, or `PROXY UNKNOWN`
and anything. Version 2 (section 2.2): 12 bytes of signature; version and command; address family and transport; the
length of the rest (big endian); addresses; then type-length-value fields, which are skipped here.
"""

import ipaddress
import re
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_REST = 2048
"""Bytes after the fixed part. Addresses take 36 at most; balancers add a few hundred of fields."""

MAX_LINE = 107
"""Bytes of a header of version 1, its line end included."""

_LINE = b"PROXY "
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
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
    if data[:6] == _LINE[: len(data)]:
        return _read_line(data) if data else None
    return _read_binary(data)


def _read_line(data: bytes) -> Header | Misread | None:
    """Version 1."""
    line, end, _ = data[:MAX_LINE].partition(b"\r\n")
    if not end:
        return Misread("it is too long") if len(data) >= MAX_LINE else None
    size = len(line) + len(end)
    words = line.decode("ascii", "replace").split(" ")
    if words[1] == "UNKNOWN":
        return Header(None, size)
    if len(words) != 6 or words[1] not in {"TCP4", "TCP6"}:
        return Misread("its line is not one of version 1")
    try:
        source, _target = (_address(word, words[1]) for word in words[2:4])
        port, _target_port = (_port(word) for word in words[4:6])
    except ValueError:
        return Misread("an address or a port cannot be read")
    return Header((source, port), size)


def _address(word: str, family: str) -> str:
    """An address of the line's family, as text. Raises `ValueError`."""
    if family == "TCP4":
        return str(ipaddress.IPv4Address(word))
    address = ipaddress.IPv6Address(word)
    if address.scope_id is not None:
        raise ValueError("an interface means nothing here")
    return str(address.ipv4_mapped or address)


def _port(word: str) -> int:
    """Raises `ValueError`."""
    if not _PORT.fullmatch(word) or int(word) > 65535:
        raise ValueError("no port")
    return int(word)


def _read_binary(data: bytes) -> Header | Misread | None:
    """Version 2."""
    if data[:12] != SIGNATURE[: len(data)]:
        return Misread("there is no header")
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
