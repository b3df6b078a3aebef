"""Takes back certificates for somebody else's server as soon as JupyterHub does not give that server any more.

A certificate is a promise for an hour, and a share can be taken back in the meantime. JupyterHub has no news of that,
so it is asked every few seconds, for the holders of such certificates only. What they hold then stops to open a server
which is not shared any more, and bastions cut their sessions there. Everything else in the same certificate stays: who
shares and takes back must not end a guest's sessions elsewhere. Only a certificate whose holder is gone, or is no
administrator any more, is revoked as a whole.

A session outlives the certificate that it came in with, so those of live sessions are looked after until these end.

Unknown is not taken back: a hub that is away, or that does not tell of shares, ends nothing. Several replicas may do
this at the same time; whoever comes second finds it done.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import select

from api import issue, tables
from api.errors import HubUnavailable, StoreUnavailable
from api.records import AS_ADMIN, CertificateRecord, instances_in, record_of
from api.services import Services
from api.sightings import LiveSession
from api.store import Store
from ca.claims import shared_servers
from ca.errors import MalformedClaims
from ca.names import Server, quote
from ca.revocation import Revocations

log = structlog.get_logger(__name__)

BY = "shares"
"""Who revoked it, in the table and in audit lines."""

OVERLAP_MS = 60 * 1000
"""By how much longer ago is read what was read already: replicas' clocks differ, and commits take time."""

MAX_FAILURES = 3
"""Questions without an answer, after which the rest waits for the next time."""

AT_ONCE = 500
"""Serials in one question to the database."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What JupyterHub says of a user now. `made` None: there is no such user; `shared` None: it does not tell."""

    made: str | None
    admin: bool = False
    shared: frozenset[Server] | None = None


def why_not(record: CertificateRecord, now: Standing, *, admin_ssh: bool) -> str | None:
    """Why a certificate for somebody else's server does not count any more as a whole, or None while it may.

    One that an administrator got as such rests on being one, where the site lets these in.
    """
    if now.made is None:
        return "its user is gone"
    if record.user_made and now.made and record.user_made != now.made:
        return "its user was removed, and another has the name"
    if record.how.endswith(AS_ADMIN):
        return None if admin_ssh and now.admin else "its user may not enter as an administrator any more"
    return None


def taken_back(record: CertificateRecord, now: Standing, revocations: Revocations) -> frozenset[Server]:
    """The servers that a certificate opens and that its holder is not given any more."""
    if now.shared is None or record.how.endswith(AS_ADMIN):
        return frozenset()
    return foreign(record, revocations) - now.shared


def foreign(record: CertificateRecord, revocations: Revocations) -> frozenset[Server]:
    """The servers of others that a certificate opens."""
    if revocations.names(record.serial, record.user):  # the watermark for everybody ends no session
        return frozenset()
    living = revocations.living(record.serial, record.user, instances_in(record.principals))
    return frozenset(one.server for one in living if one.server.owner != record.user)


async def foreign_since(store: Store, since_ms: int, now: float) -> tuple[CertificateRecord, ...]:
    """Certificates for others' servers that were issued after a moment and have not expired.

    Raises `StoreUnavailable`.
    """
    table = tables.certificates
    query = select(table).where(table.c.valid_before > int(now), table.c.issued_at > since_ms, table.c.kind == "user")
    async with store.reading() as connection:
        rows = (await connection.execute(query)).mappings()
        return tuple(record_of(row) for row in rows if _names_others(row["user"], row["principals"]))


async def recorded(store: Store, serials: Iterable[int]) -> tuple[CertificateRecord, ...]:
    """The user certificates with these serials, expired or not. Raises `StoreUnavailable`."""
    table, wanted = tables.certificates, [str(serial) for serial in serials]
    found: list[CertificateRecord] = []
    async with store.reading() as connection:
        for begin in range(0, len(wanted), AT_ONCE):
            some = table.c.serial.in_(wanted[begin : begin + AT_ONCE])
            rows = (await connection.execute(select(table).where(some, table.c.kind == "user"))).mappings()
            found.extend(record_of(row) for row in rows)
    return tuple(found)


def leading_elsewhere(sessions: Iterable[LiveSession]) -> frozenset[int]:
    """The serials of certificates whose sessions lead to somebody else's server, or may do so in jump mode."""
    return frozenset(
        int(one.told.serial)
        for one in sessions
        if one.told.serial and (one.server is None or one.server.owner != one.told.user)
    )


def _names_others(user: str, principals: Iterable[str]) -> bool:
    """A look at the text alone: nearly all certificates are for own servers, and to read their names takes longer."""
    own = f"{quote(user)}/"
    return not all(principal.startswith(own) for principal in principals)


class ShareWatch:
    """Looks after the certificates for others' servers while `run()` runs."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._watched: dict[int, CertificateRecord] = {}
        self._living: frozenset[int] = frozenset()
        self._read_to = 0
        self._epoch = ""
        self._turn = 0
        self._trouble = ""

    async def run(self) -> None:
        """For ever, until cancelled. A slow JupyterHub is asked at most half of the time."""
        while True:
            began = time.monotonic()
            try:
                await self.look()
            except StoreUnavailable:
                pass  # the roster says so
            except Exception:  # the root of a task: one bad look must not end the watching
                log.exception("shares_not_looked_at")
            elapsed = time.monotonic() - began
            await asyncio.sleep(max(self._services.settings.hub.shares_interval, elapsed))

    async def look(self) -> int:
        """Ask once for each holder, and take back what they are not given any more: how many shares and certificates.

        Raises `StoreUnavailable`.
        """
        await self._read()
        holders = _by_holder(self._watched.values())
        revoked = failures = 0
        names = sorted(holders)
        begin = self._turn % len(names) if names else 0
        for user in names[begin:] + names[:begin]:
            if failures >= MAX_FAILURES:
                break
            self._turn += 1
            try:
                now = await standing(self._services, user)
            except (HubUnavailable, MalformedClaims) as error:
                failures += 1
                self._say(str(error))
                continue
            revoked += await self._judge(user, holders[user], now)
        if not failures:
            self._trouble = ""
        return revoked

    async def _judge(self, user: str, records: Iterable[CertificateRecord], now: Standing) -> int:
        revoked = 0
        gone: set[Server] = set()
        for record in records:
            why = why_not(record, now, admin_ssh=self._services.rules.admin_ssh)
            if why is None:
                gone |= taken_back(record, now, self._services.store.snapshot.revocations)
            else:
                await issue.revoke_serial(self._services, record.serial, BY, why)
                revoked += 1
        for server in sorted(gone):
            await issue.revoke_share(self._services, user, server, BY, f"{server} is not shared any more")
        return revoked + len(gone)

    async def _read(self) -> None:
        """Learn of new certificates and sessions, and forget those that open nothing of others any more."""
        store, now = self._services.store, self._services.now()
        epoch = store.snapshot.meta.epoch
        if epoch != self._epoch:
            self._epoch, self._read_to, self._watched, self._living = epoch, 0, {}, frozenset()
        for record in await foreign_since(store, self._read_to - OVERLAP_MS, now):
            self._watched[record.serial] = record
        living = leading_elsewhere(await self._services.sightings.everybodys(self._services.now_ms()))
        for record in await recorded(store, living - self._living):
            self._watched[record.serial] = record
        self._read_to, self._living = int(now * 1000), living
        revocations = store.snapshot.revocations
        self._watched = {
            serial: one
            for serial, one in self._watched.items()
            if (one.valid_before > now or serial in living) and foreign(one, revocations)
        }

    def _say(self, why: str) -> None:
        if self._trouble != why:  # once, not every few seconds
            log.warning("shares_not_known", why=why)
        self._trouble = why


async def standing(services: Services, user: str) -> Standing:
    """Ask JupyterHub. Raises `HubUnavailable` and `MalformedClaims`."""
    model = await services.hub.user(user)
    if model is None:
        return Standing(made=None)
    made = model.get("created")
    shares = await services.hub.shares_of(user)
    return Standing(
        made=made if isinstance(made, str) else "",
        admin=model.get("admin") is True,
        shared=None if shares is None else shared_servers(shares, services.settings.connect_scope),
    )


def _by_holder(records: Iterable[CertificateRecord]) -> Mapping[str, list[CertificateRecord]]:
    found: dict[str, list[CertificateRecord]] = {}
    for record in records:
        found.setdefault(record.user, []).append(record)
    return found
