"""What no longer counts, although its signature is good.

Three kinds, all from the same rows: serials; watermarks ("nothing issued before") for a user, a server, or one user in
one server; and one watermark for everybody, which an empty or restored database sets, so that a lost table cannot bring
a revoked certificate back. A serial carries its time of issue, so a watermark needs no list.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ca.names import Instance, Server

SERIAL_RANDOM_BITS = 20


def make_serial(now_ms: int, random_bits: int) -> int:
    """Milliseconds since the epoch, then 20 random bits; fits a signed 64-bit integer for two centuries."""
    return now_ms << SERIAL_RANDOM_BITS | random_bits & (1 << SERIAL_RANDOM_BITS) - 1


def issued_ms(serial: int) -> int:
    """When a serial was made, in milliseconds since the epoch."""
    return serial >> SERIAL_RANDOM_BITS


@dataclass(frozen=True, slots=True)
class Revocations:
    """Everything revoked, at one moment. Watermarks are milliseconds since the epoch."""

    everyone_before: int = 0
    serials: frozenset[int] = frozenset()
    users: Mapping[str, int] = field(default_factory=dict)
    servers: Mapping[Server, int] = field(default_factory=dict)
    shares: Mapping[str, Mapping[Server, int]] = field(default_factory=dict)
    """By user: what was issued to this one before does not open that server. Their own servers stay open to them."""

    def refuses(self, serial: int, user: str, instances: Iterable[Instance]) -> str | None:
        """Why the certificate does not count ("serial", "user", "server", "everyone"), or None.

        The watermark of a server or a share refuses only where every server of the certificate is under one ("server"):
        see `living`.
        """
        if named := self.names(serial, user):
            return named
        instances = tuple(instances)
        if instances and not self.living(serial, user, instances):
            return "server"
        return "everyone" if issued_ms(serial) < self.everyone_before else None

    def names(self, serial: int, user: str) -> str | None:
        """Whether somebody revoked this very certificate or this user's ("serial", "user"), or None.

        The watermark for everybody is left out: it keeps certificates from counting anew after a lost
        database, and is no reason to cut sessions that were let in when they did.
        """
        if serial in self.serials:
            return "serial"
        return "user" if issued_ms(serial) < self.users.get(user, 0) else None

    def living(self, serial: int, user: str, instances: Iterable[Instance]) -> tuple[Instance, ...]:
        """Those of a certificate's instances whose server has no later watermark, for everybody or for `user`."""
        issued, shares = issued_ms(serial), self.shares.get(user, {})
        return tuple(
            one for one in instances if issued >= max(self.servers.get(one.server, 0), shares.get(one.server, 0))
        )
