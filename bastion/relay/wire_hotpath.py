"""The few steps that each packet of a bulk copy goes through, without asyncssh's copies.

asyncssh's own steps cost about three times what the encryption and the system calls cost: it copies the whole receive
buffer for each packet, makes a cipher object for each, asks the kernel for padding, and writes each packet with a
system call of its own. Here a data packet is decrypted from the receive buffer into a scratch, its channel number and
padding are replaced there, and it is encrypted into the buffer that goes to the socket: no copy besides these.

Replaced is only what is safe: AES-GCM, after authentication, outside of key exchanges, without compression; of what is
received, only well-formed data and window adjustments of open channels. Everything else, and whatever is wrong in any
way, is given to asyncssh as it came from the socket, one packet at a time, so that one implementation judges it.

This is part of the room that touches asyncssh's internals (see `wire`).
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Final, cast

from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST, MSG_USERAUTH_LAST
from asyncssh.encryption import GCMEncryption
from asyncssh.packet import SSHPacketLogger

from bastion.relay.ciphers import BULK, better_ciphers
from bastion.relay.wire_channel import Leg
from bastion.relay.wire_cipher import BLOCK, PACKET, TAG, GcmCipher, Workbench
from bastion.relay.wire_reading import Reading

_LENGTH: Final = 4
_LEAST_PADDING: Final = 4
_HEAD: Final = struct.Struct(">BBII")
"""Padding length, message, channel, and the length of data or the number of bytes granted."""
_UNTIMED: Final = 31
"""Of 32 packets that are treated here, so many are taken without a look at the clock. No read holds 32 large ones."""


class HotPath(Reading, asyncio.BufferedProtocol):
    """An SSH connection that relays bulk data. `legs` are its channels."""

    bench: Workbench
    legs: dict[int, Leg]
    _last_heard = 0.0
    _slowly = 0
    _settled = False

    # what arrives

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's interface
        """Where the socket's next bytes go: behind those of a packet that has begun."""
        begun = len(self._inpbuf)
        if begun > PACKET:  # asyncssh collects a longer packet, or waits for something
            return self.bench.inbox
        self.bench.inbox[:begun] = self._inpbuf
        return self.bench.inbox[begun:]

    def buffer_updated(self, nbytes: int) -> None:
        """They have arrived."""
        begun = len(self._inpbuf)
        if self._muted:
            return
        inbox = self.bench.inbox
        if begun > PACKET:
            self._inpbuf += bytes(inbox[:nbytes])
        elif self._takes_over():
            self._inpbuf = inbox[: begun + nbytes]  # type: ignore[assignment]  # nobody but `_recv_pkthdr` sees it
        else:
            self._inpbuf = bytes(inbox[: begun + nbytes])
            self._slowly += nbytes
            self._prefer_fast()
        self._work()

    def data_received(self, data: bytes, datatype: int | None = None) -> None:  # noqa: ARG002 - asyncssh's interface
        """Bytes from whoever read them before this connection had the socket. After the farewell they mean nothing."""
        if not self._muted:
            self._inpbuf += data
            self._work()

    def _work(self) -> None:
        bench = self.bench
        bench.reading += 1
        try:
            self._recv_data()
        finally:
            bench.reading -= 1
            if isinstance(cast("object", self._inpbuf), memoryview):  # after an error: the inbox is not ours to keep
                self._inpbuf = b""
            bench.flush()

    def _takes_over(self) -> bool:
        """Whether the next bytes begin a packet that may be treated here."""
        if (
            self._transport is None
            or not self._auth_complete
            or not self._kex_complete
            or self._kex is not None
            or self._next_recv_encryption is not None
            or self._decompressor is not None
            or self._recv_handler != self._recv_pkthdr
        ):
            return False
        if type(self._recv_encryption) is GCMEncryption:
            self._recv_encryption = GcmCipher.instead_of(self._recv_encryption)
        return type(self._recv_encryption) is GcmCipher

    def _recv_pkthdr(self) -> bool:
        """asyncssh's step at the beginning of each packet: here all packets of a turn, where that may be."""
        if self.turn_is_over():
            self._inpbuf = bytes(self._inpbuf)
            self.rest()
            return False
        if self._takes_over():
            return self._walk(memoryview(self._inpbuf))
        self._inpbuf = bytes(self._inpbuf)
        return super()._recv_pkthdr()

    def _walk(self, view: memoryview) -> bool:
        """Take the packets one by one. True: asyncssh goes on with what is left in its buffer."""
        start, end, count = 0, len(view), 0
        while end - start >= BLOCK:
            size = int.from_bytes(view[start : start + _LENGTH], "big")
            if size < BLOCK or size > PACKET:
                self._inpbuf = bytes(view[start:])
                return super()._recv_pkthdr()
            stop = start + _LENGTH + size + TAG
            if stop > end:
                break
            if self._took(view[start : start + _LENGTH], view[start + _LENGTH : stop], size):
                count += 1
                pause = not count & _UNTIMED and self.turn_is_over()
            else:
                self._inpbuf = bytes(view[start:stop])
                super()._recv_pkthdr()
                self._recv_handler()
                pause = not self._takes_over() or self.turn_is_over()
            start = stop
            if pause:
                self._inpbuf = bytes(view[start:])
                return True
        self._inpbuf = bytes(view[start:])
        return False

    def _took(self, header: memoryview, sealed: memoryview, size: int) -> bool:
        """Whether this was well-formed data or a window adjustment, and has been dealt with."""
        cipher = self._recv_encryption
        packet = self.bench.packet
        if not isinstance(cipher, GcmCipher) or not cipher.peek(sealed, header, packet[:size]):
            return False
        padding, kind, channel, number = _HEAD.unpack_from(packet)
        leg = self.legs.get(channel)
        if leg is None or padding < _LEAST_PADDING:
            return False
        if kind == MSG_CHANNEL_DATA:
            if size != _HEAD.size + number + padding or not leg.take(number):
                return False
            self._count_packet(cipher)
            self._relay(leg, number)
            return True
        if kind == MSG_CHANNEL_WINDOW_ADJUST and size == _HEAD.size + padding and leg.listens:
            self._count_packet(cipher)
            leg.far.widen(number)
            return True
        return False

    def _count_packet(self, cipher: GcmCipher) -> None:
        cipher.took()
        self._auth_final = True
        self._recv_seq = (self._recv_seq + 1) & 0xFFFFFFFF

    def _relay(self, leg: Leg, size: int) -> None:
        """Pass on the data in the scratch, which the leg has counted."""
        far = leg.far
        if type(far) is Leg and far.writable:
            other = far.connection
            if isinstance(other, HotPath) and other.sends_fast():
                far.sent += size
                _HEAD.pack_into(self.bench.packet, 0, 0, MSG_CHANNEL_DATA, far.remote, size)
                other.seal(_HEAD.size + size)
                leg.grant_due()
                return
        far.data(MSG_CHANNEL_DATA, size, bytes(self.bench.packet[6 : _HEAD.size + size]))
        leg.grant_due()

    # keepalives

    def _reset_keepalive_timer(self) -> None:
        """Note that the peer was heard. asyncssh's own makes a new timer for each read, of which a heap fills."""
        self._last_heard = self._loop.time()
        if self._keepalive_timer is None or not self._keepalive_interval:
            super()._reset_keepalive_timer()

    def _keepalive_timer_callback(self) -> None:
        """Ask whether the peer is there, unless it was heard since the timer was set."""
        left = self._last_heard + self._keepalive_interval - self._loop.time()
        if left > 0:
            self._keepalive_timer = self._loop.call_later(left, self._keepalive_timer_callback)
        else:
            super()._keepalive_timer_callback()

    # what is sent

    def sends_fast(self) -> bool:
        """Whether a packet may be sent by the steps here: otherwise asyncssh keeps it, or exchanges keys first."""
        if (
            self._muted
            or not self._auth_complete
            or not self._kex_complete
            or self._compressor is not None
            or self._rekey_bytes_sent >= self._rekey_bytes
            or (self._rekey_seconds and time.monotonic() >= self._rekey_time)
        ):
            return False
        if type(self._send_encryption) is GCMEncryption:
            self._send_encryption = GcmCipher.instead_of(self._send_encryption)
        return type(self._send_encryption) is GcmCipher

    def send_packet(self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None) -> None:
        """Send, or keep until a key exchange is over."""
        if pkttype <= MSG_USERAUTH_LAST or not self.sends_fast():
            self._prefer_fast()
            super().send_packet(pkttype, *args, handler=handler)
            return
        payload = b"".join(args)
        size = len(payload)
        if size > PACKET - BLOCK:
            super().send_packet(pkttype, payload, handler=handler)
            return
        packet = self.bench.packet
        packet[1] = pkttype
        packet[2 : 2 + size] = payload
        self.seal(2 + size)

    def seal(self, used: int) -> None:
        """Send what the first `used` bytes of the scratch hold, but for the padding, whose length comes first.

        Only after `sends_fast`.
        """
        bench, cipher = self.bench, self._send_encryption
        if not isinstance(cipher, GcmCipher):
            raise TypeError("this connection does not send AES-GCM")
        padding = -used % BLOCK
        if padding < _LEAST_PADDING:
            padding += BLOCK
        size = used + padding
        packet = bench.packet
        packet[0] = padding
        packet[used:size] = bench.padding(padding)
        header = size.to_bytes(_LENGTH, "big")
        start = bench.room(self, _LENGTH + size + TAG)
        body = start + _LENGTH
        bench.outbox[start:body] = header
        cipher.seal(packet[:size], header, bench.outbox[body : body + size + TAG])
        self._send_seq = (self._send_seq + 1) & 0xFFFFFFFF
        self._rekey_bytes_sent += size
        if not bench.reading:
            bench.flush()

    def _send(self, data: bytes) -> None:
        """asyncssh's way to the socket: behind what is in the outbox."""
        self.flush()
        super()._send(data)

    def _prefer_fast(self) -> None:
        """Once, when much has gone by another cipher: exchange keys for AES-GCM, where the client knows it."""
        if self._settled or max(self._slowly, self._rekey_bytes_sent) < BULK:
            return
        if not self._auth_complete or not self._kex_complete or self._kex is not None:
            return
        self._settled = True
        if self.is_client():  # there our own order decided
            return
        better = better_ciphers(self._enc_algs, self._client_kexinit, (self._enc_alg_cs, self._enc_alg_sc))
        if better:
            self._enc_algs = better
            self._send_kexinit()
            self._kexinit_sent = True

    def flush(self) -> None:
        """Write what of this connection is in the outbox: before anything else is done to its transport."""
        if self.bench.owner is self:
            self.bench.flush()

    def write_out(self, data: memoryview) -> bool:
        """Write the outbox. True: the transport keeps some of it, so that it must not be used again."""
        super()._send(data)  # type: ignore[arg-type]  # what asyncio takes
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def _force_close(self, exc: Exception | None) -> None:
        """asyncssh forgets the transport here."""
        self.flush()
        super()._force_close(exc)

    @property
    def is_gone(self) -> bool:
        """Whether the TCP connection is over or about to be."""
        return self._transport is None
