"""Keeps the KRL that OpenSSH servers read, made from the same rows as the list that the bastions are told.

It is made anew when something was revoked or a CA key changed, at once; and for a minute after a user or a server was
revoked every few seconds, since a certificate may have been decided on before and recorded after that. Its tag stands
for what it says, so all replicas give one tag to one content, whatever their headers say of when they made it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from api import statements, tables
from api.database import read_meta
from api.errors import StoreUnavailable
from api.records import instances_in
from api.store import Snapshot, Store
from ca.keys import PublicKey
from ca.krl import Recorded, krl, revoked_serials, sections
from ca.names import Instance
from ca.revocation import Revocations
from ca.signer import Signer

log = structlog.get_logger(__name__)

Clock = Callable[[], float]
"""Seconds since the epoch."""

APART_SECONDS = 5.0
"""How long a list stays that only certificates recorded since could change."""

AGE_SECONDS = 3600.0
"""How long a list stays that nothing but the end of certificates could change."""

GRACE_SECONDS = 3600
"""How long a certificate stays listed after its end, for servers whose clock is late."""

RECORD_SECONDS = 60
"""More than a certificate takes from the moment in its serial to its record."""

_VERSION_SECONDS = 32
"""Bits of a version that hold seconds; above them stands the database's own count of writes."""

_ROWS = 200
"""Rows read at a time, so that a long table holds up nobody."""


@dataclass(frozen=True, slots=True)
class Published:
    """A KRL. `tag` is that of its content, `made_at` its moment in seconds since the epoch."""

    content: bytes = field(repr=False)
    tag: str
    made_at: int


@dataclass(frozen=True, slots=True)
class _Made:
    """What a list was made from, to tell whether it is the present one."""

    published: Published
    snapshot: Snapshot
    authorities: tuple[PublicKey, ...]
    looked_at: float


class KrlDesk:
    """The present KRL of one service."""

    def __init__(self, store: Store, signer: Signer, clock: Clock) -> None:
        self._store = store
        self._signer = signer
        self._clock = clock
        self._made: _Made | None = None
        self._making = asyncio.Lock()
        self.exact = True
        """False while the list is so long that it refuses certificates that count."""

    async def published(self) -> Published:
        """The list that holds now. Raises `StoreUnavailable`."""
        if (made := self._present()) is not None:
            return made.published
        async with self._making:
            if (made := self._present()) is None:
                made = self._made = await self._make()
            return made.published

    async def tag(self) -> str:
        """The tag of the list that holds now; that of the last one while the database is away, "" if there is none."""
        try:
            return (await self.published()).tag
        except StoreUnavailable:
            return "" if self._made is None else self._made.published.tag

    def _present(self) -> _Made | None:
        made = self._made
        if made is None or made.authorities != self._signer.public.user:
            return None
        snapshot, age = self._store.snapshot, self._clock() - made.looked_at
        if made.snapshot.revocations != snapshot.revocations or not 0 <= age < AGE_SECONDS:
            return None
        late = made.looked_at < _newest(snapshot.revocations) / 1000 + RECORD_SECONDS
        if late and made.snapshot.meta.high_water != snapshot.meta.high_water and age >= APART_SECONDS:
            return None
        return made

    async def _make(self) -> _Made:
        snapshot, authorities, now = self._store.snapshot, self._signer.public.user, self._clock()
        async with self._store.reading() as connection:
            meta = await read_meta(connection)
            if meta is None:
                raise StoreUnavailable("The database is empty. Try again in a minute.")
            revocations = await statements.revocations(connection, meta, int(now * 1000))
            recorded = [one async for one in _recorded(connection, revocations, now)]
        serials = await asyncio.to_thread(revoked_serials, revocations, recorded)
        body = await asyncio.to_thread(sections, serials, authorities)
        if self.exact and not serials.exact:
            log.warning("krl_too_long", note="certificates that count are refused by servers that read it")
        self.exact = serials.exact
        tag = hashlib.sha256(body).hexdigest()[:32]
        if self._made is not None and self._made.published.tag == tag:
            published = self._made.published
        else:
            version = meta.high_water << _VERSION_SECONDS | int(now) & (1 << _VERSION_SECONDS) - 1
            published = Published(krl(body, version, int(now)), tag, int(now))
        return _Made(published, snapshot, authorities, now)


def _newest(revocations: Revocations) -> int:
    """The newest watermark of a user, a server or a share, 0 where there is none."""
    shares = (before for servers in revocations.shares.values() for before in servers.values())
    return max((*revocations.users.values(), *revocations.servers.values(), *shares), default=0)


async def _recorded(connection: AsyncConnection, revocations: Revocations, now: float) -> AsyncIterator[Recorded]:
    """The user certificates that live and that a watermark of a user, a server or a share may refuse."""
    named = {*revocations.users, *revocations.shares}
    if not named and not revocations.servers:
        return
    table = tables.certificates
    query = select(table.c.serial, table.c.user, table.c.principals).where(
        table.c.kind == "user",
        table.c.valid_before > int(now) - GRACE_SECONDS,
        table.c.issued_at < _newest(revocations) + RECORD_SECONDS * 1000,
    )
    # Names are only read where they matter: reading each of a hundred thousand would take seconds.
    servers = {Instance(server, 1).principal.rpartition(":")[0] for server in revocations.servers}
    async with connection.stream(query) as rows:
        async for some in rows.partitions(_ROWS):
            for row in some:
                if row.user in named or any(one.rpartition(":")[0] in servers for one in row.principals):
                    yield Recorded(int(row.serial), row.user, instances_in(row.principals))
