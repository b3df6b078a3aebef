"""Why: a header that is read wrongly lets a client choose the address that limits and audit lines speak of."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bastion.proxyprotocol import MAX_LINE, MAX_REST, SIGNATURE, Header, Misread, read_header


def header(source: str = "192.0.2.7", port: int = 4711, command: int = 0x21, fields: bytes = b"") -> bytes:
    """A header as a balancer sends it."""
    address = ipaddress.ip_address(source)
    there = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    ends = address.packed + there.packed + port.to_bytes(2, "big") + (2222).to_bytes(2, "big") + fields
    family = b"\x11" if address.version == 4 else b"\x21"
    return SIGNATURE + bytes([command]) + family + len(ends).to_bytes(2, "big") + ends


@pytest.mark.parametrize("source", ["192.0.2.7", "2001:db8::7"])
def test_the_clients_address_is_read_and_what_follows_is_left(source: str) -> None:
    data = header(source)
    assert read_header(data + b"SSH-2.0-x\r\n") == Header((source, 4711), len(data))


def test_an_ipv4_address_inside_ipv6_is_that_address() -> None:
    assert read_header(header("::ffff:192.0.2.7")) == Header(("192.0.2.7", 4711), 52)


def test_fields_after_the_addresses_are_skipped() -> None:
    data = header(fields=b"\x04\x00\x03abc")
    assert read_header(data + b"S") == Header(("192.0.2.7", 4711), len(data))


def test_a_proxys_own_connection_has_no_other_address() -> None:
    assert read_header(SIGNATURE + b"\x20\x00\x00\x00") == Header(None, 16)
    assert read_header(header(command=0x20)) == Header(None, 28)
    assert read_header(SIGNATURE + b"\x21\x00\x00\x00") == Header(None, 16)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00",
        b"proxy TCP4 192.0.2.7 127.0.0.1 4711 2222\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4  192.0.2.7 127.0.0.1 4711 2222\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 2222 \r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4711\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 2222\n" + bytes(MAX_LINE),
        b"PROXY TCP4 192.0.2.07 127.0.0.1 4711 2222\r\n",
        b"PROXY TCP4 192.0.2.7 nobody 4711 2222\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 2222\r\n",
        b"PROXY TCP6 192.0.2.7 127.0.0.1 4711 2222\r\n",
        b"PROXY TCP6 fe80::7%eth0 ::1 4711 2222\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 04711 2222\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 65536\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 +4711 2222\r\n",
        b"PROXY UDP4 192.0.2.7 127.0.0.1 4711 2222\r\n",
        b"PROXY UNKNOWN " + bytes(MAX_LINE),
        SIGNATURE + b"\x11\x11\x00\x0c",
        SIGNATURE + b"\x22\x11\x00\x0c",
        SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11" + (MAX_REST + 1).to_bytes(2, "big"),
    ],
)
def test_anything_else_is_no_header(data: bytes) -> None:
    assert isinstance(read_header(data), Misread)


@given(st.binary(max_size=80))
def test_a_header_is_awaited_or_misread_but_never_made_up(data: bytes) -> None:
    read = read_header(data)
    assert read is None or isinstance(read, Misread) or data.startswith((SIGNATURE, b"PROXY "))


@pytest.mark.parametrize(
    ("line", "source"),
    [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 2222\r\n", ("192.0.2.7", 4711)),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 2222\r\n", ("2001:db8::7", 4711)),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 2222\r\n", ("192.0.2.7", 4711)),
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 0 65535\r\n", ("192.0.2.7", 0)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    ],
)
def test_a_line_of_version_1_says_the_same(line: bytes, source: tuple[str, int] | None) -> None:
    assert read_header(line + b"SSH-2.0-x\r\n") == Header(source, len(line))
    assert all(read_header(line[:size]) is None for size in range(len(line)))


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 65535), st.integers(0, 65535))
def test_the_longest_line_of_version_1_is_short_enough(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address,
    target: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    target_port: int,
) -> None:
    line = f"PROXY TCP{4 if source.version == 4 else 6} {source} {target} {port} {target_port}\r\n".encode()
    read = read_header(line)
    assert isinstance(read, Header) == (source.version == target.version)


@given(st.ip_addresses(), st.integers(0, 65535), st.binary(max_size=64))
def test_every_beginning_of_a_header_is_awaited(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, fields: bytes
) -> None:
    data = header(str(source), port, fields=fields)
    assert all(read_header(data[:size]) is None for size in range(len(data)))
    assert isinstance(read_header(data), Header)
