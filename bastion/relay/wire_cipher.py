"""AES-GCM without copies, and the buffers that it works in.

asyncssh's own object makes a new cipher for each packet and joins and cuts byte strings around it; its buffers are the
packets themselves. Here the cipher is made once for each key, and works from one buffer into another.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import os
from typing import Final, Protocol

from asyncssh.encryption import Encryption, GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

READ: Final = 256 << 10
"""Bytes read from a socket at once, about."""
PACKET: Final = 128 << 10
"""Largest packet that is treated here; asyncssh takes up to 256 KB."""
BLOCK: Final = 16
TAG: Final = 16
_POOL: Final = 4096


class GcmCipher(Encryption):
    """AES-GCM (RFC 5647) in one direction: asyncssh's interface, and the same without copies.

    It takes the place of asyncssh's object, so that both kinds of steps count with one counter.
    """

    __slots__ = ("_aead", "_count", "_fixed")

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._aead = AESGCM(key)
        self._fixed = iv[:4]
        self._count = int.from_bytes(iv[4:], "big")

    @classmethod
    def instead_of(cls, theirs: GCMEncryption) -> GcmCipher:
        """Go on where asyncssh's object is."""
        return cls(theirs._cipher._key, theirs._cipher._iv)

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:  # noqa: ARG002
        """For asyncssh: the packet with its length before it and its tag behind it."""
        sealed = self._aead.encrypt(self._nonce(), packet, header)
        self._advance()
        return header + sealed, b""

    def decrypt_header(self, seq: int, first_block: bytes, header_len: int) -> tuple[bytes, bytes]:  # noqa: ARG002
        """For asyncssh: the length is not encrypted."""
        return first_block, first_block[:header_len]

    def decrypt_packet(self, seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes) -> bytes | None:  # noqa: ARG002
        """For asyncssh: the packet, None if it is not genuine."""
        try:
            packet = self._aead.decrypt(self._nonce(), first[header_len:] + rest + mac, first[:header_len])
        except InvalidTag:
            return None
        self._advance()
        return packet

    def seal(self, packet: memoryview, header: bytes, into: memoryview) -> None:
        """Encrypt `packet` into a buffer that is 16 bytes larger."""
        self._aead.encrypt_into(self._fixed + self._count.to_bytes(8, "big"), packet, header, into)
        self._count = (self._count + 1) & 0xFFFFFFFFFFFFFFFF

    def peek(self, sealed: memoryview, header: memoryview, into: memoryview) -> bool:
        """Decrypt into a buffer that is 16 bytes smaller; False: not genuine. The packet counts only with `took`."""
        try:
            self._aead.decrypt_into(self._fixed + self._count.to_bytes(8, "big"), sealed, header, into)
        except InvalidTag:
            return False
        return True

    def took(self) -> None:
        """The packet that was peeked at is done with."""
        self._count = (self._count + 1) & 0xFFFFFFFFFFFFFFFF

    def _nonce(self) -> bytes:
        return self._fixed + self._count.to_bytes(8, "big")

    _advance = took


class Writer(Protocol):
    """Whose packets are in the outbox."""

    def write_out(self, data: memoryview) -> bool:
        """Write them. True: the buffer is kept, and must not be used again."""


class Workbench:
    """The buffers that all connections of one event loop share, since only one of them is at work at any moment.

    A buffer of its own for each would be most of what an idle connection costs.
    """

    __slots__ = ("_outbox", "_padding", "_used", "filled", "inbox", "outbox", "owner", "packet", "reading")

    def __init__(self) -> None:
        self.inbox = memoryview(bytearray(READ + PACKET))
        self.packet = memoryview(bytearray(PACKET + 2 * BLOCK))
        self.outbox = memoryview(bytearray(READ + PACKET))
        self.filled = 0
        self.owner: Writer | None = None
        self.reading = 0
        self._padding = b""
        self._used = 0

    def padding(self, size: int) -> bytes:
        """Random bytes, each given once."""
        start = self._used
        if start + size > len(self._padding):
            self._padding = os.urandom(_POOL)
            start = 0
        self._used = start + size
        return self._padding[start : start + size]

    def room(self, owner: Writer, size: int) -> int:
        """Where in the outbox `size` bytes of this connection go. Whoever had it, or has filled it, is flushed."""
        if self.owner is not owner or self.filled + size > len(self.outbox):
            self.flush()
            self.owner = owner
        start = self.filled
        self.filled = start + size
        return start

    def flush(self) -> None:
        """Write what is in the outbox."""
        owner, size = self.owner, self.filled
        self.owner, self.filled = None, 0
        if owner is not None and size and owner.write_out(self.outbox[:size]):
            self.outbox = memoryview(bytearray(READ + PACKET))
