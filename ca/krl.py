"""Tells OpenSSH what is revoked: a KRL that says of every certificate what `Revocations` says.

Source: OpenSSH's PROTOCOL.krl. Integers are big-endian, `string` is four bytes of length and the bytes:

    uint64 magic, uint32 format, uint64 version, uint64 moment, uint64 flags, string reserved, string comment
    then sections: byte 1 (certificates), string of
        string CA key, string reserved
        then subsections: byte 0x20, string of serials  |  byte 0x21, string of two serials, both included

A watermark for a user, a server or a share is no range of serials: others' certificates lie in that range. So whatever
was recorded and is refused by one of them is listed by its serial; that a certificate opens some of its servers and
others not any more is nothing that a KRL could say. The watermark for everybody is a range, and so holds for
certificates whose record was lost too. Key ids are not used: one would refuse certificates that are issued later as
well. Neither are bitmaps: serials lie a million apart. Every section names one CA key, so that hop certificates, which
carry serials of the same kind, stay as they are.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ca.certificate import string
from ca.keys import PublicKey
from ca.names import Instance
from ca.revocation import SERIAL_RANDOM_BITS, Revocations

MAX_SERIALS = 65536
"""Serials in one list: half a megabyte for each CA key. sshd reads the whole file at each login."""

_MAGIC = b"SSHKRL\n\0"
_FORMAT = 1
_CERTIFICATES = 1
_SERIAL_LIST, _SERIAL_RANGE = 0x20, 0x21
_FIRST_SERIAL = 1
"""OpenSSH reads no list or range with serial 0, which stands for "none": our signer gives none to anybody."""
_SERIALS = 1 << 64


@dataclass(frozen=True, slots=True)
class Recorded:
    """What of a certificate's record decides whether it is revoked."""

    serial: int
    user: str
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class RevokedSerials:
    """Serials that do not count: all below `below`, and `single` ones, in ascending order.

    `exact`: whether no other one is refused. False: there were too many, so `below` reaches over some that count.
    """

    below: int
    single: tuple[int, ...]
    exact: bool = True


def revoked_serials(revocations: Revocations, recorded: Iterable[Recorded], most: int = MAX_SERIALS) -> RevokedSerials:
    """The serials that `revocations` refuse. `recorded` are the certificates that may be under a watermark; others do
    no harm. Beyond `most` the oldest are not named any more: everything up to them is refused."""
    below = revocations.everyone_before << SERIAL_RANDOM_BITS
    found = {one for one in revocations.serials if below <= one < _SERIALS}
    for one in recorded:
        if below <= one.serial < _SERIALS and revocations.refuses(one.serial, one.user, one.instances):
            found.add(one.serial)
    single = sorted(found - {0})
    if len(single) <= most:
        return RevokedSerials(below, tuple(single))
    return RevokedSerials(single[-most - 1] + 1, tuple(single[-most:]) if most else (), exact=False)


def sections(revoked: RevokedSerials, authorities: Iterable[PublicKey]) -> bytes:
    """Everything of a KRL but its header: the same serials for each of `authorities`, whichever of them signed."""
    ranges = list(_ranges(revoked))
    listed = b"".join(struct.pack(">Q", first) for first, last in ranges if first == last)
    parts = [_section(_SERIAL_RANGE, struct.pack(">QQ", first, last)) for first, last in ranges if first != last]
    if listed:
        parts.append(_section(_SERIAL_LIST, listed))
    if not parts:
        return b""
    serials = b"".join(parts)
    return b"".join(_section(_CERTIFICATES, string(key.blob) + string(b"") + serials) for key in authorities)


def krl(body: bytes, version: int, generated_at: int) -> bytes:
    """A KRL of these `sections`. `version` has to grow with every change; `generated_at`: seconds since the epoch."""
    header = struct.pack(">IQQQ", _FORMAT, version, generated_at, 0)
    return _MAGIC + header + string(b"") + string(b"jupyterhub-bastion") + body


def _ranges(revoked: RevokedSerials) -> Iterator[tuple[int, int]]:
    """First and last of each unbroken row of serials, ascending."""
    if revoked.below > _FIRST_SERIAL:
        yield _FIRST_SERIAL, min(revoked.below, _SERIALS) - 1
    if not revoked.single:
        return
    first = revoked.single[0]
    for before, after in pairwise(revoked.single):
        if after != before + 1:
            yield first, before
            first = after
    yield first, revoked.single[-1]


def _section(kind: int, content: bytes) -> bytes:
    return bytes((kind,)) + string(content)
