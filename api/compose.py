"""Puts the parts together from settings. `python -m api` and the tests build the service in this one way."""

import logging
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TextIO

from api.activity import Activity
from api.hub import HubClient
from api.hubservers import HubServers
from api.keywatch import KeyWatch
from api.krl import KrlDesk
from api.lines import POLLERS, Line
from api.metrics import Metrics
from api.pace import Pace
from api.quiet import Quiet
from api.roster import Roster
from api.secret import open_secret
from api.sender import UnknownProxies
from api.services import Clock, Services
from api.settings import Settings
from api.sightings import Sightings
from api.store import Store
from api.strangers import Strangers
from api.watchers import Watchers
from ca.audit import AuditLog, Unenrolled
from ca.errors import KeyFileError
from ca.names import Instance
from ca.signer import FileSigner

_log = logging.getLogger(__name__)


def open_audit(settings: Settings) -> TextIO:
    """Where audit lines go: the file of the settings, appended to, or standard output. Raises `KeyFileError`."""
    path = settings.log.audit_file
    if path is None:
        return sys.stdout
    try:
        return path.open("a", encoding="ascii")
    except OSError as error:
        raise KeyFileError(f"The audit log {path} cannot be opened: {error.strerror}.") from None


def open_signer(settings: Settings) -> FileSigner:
    """The CA keys in the state directory, made at first start. Raises `KeyFileError`."""
    try:
        settings.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return FileSigner(settings.state_directory / "keys", settings.certificates.keys_group)
    except OSError as error:
        raise KeyFileError(f"{settings.state_directory} cannot be used: {error.strerror}.") from None


def internal_secret(settings: Settings) -> bytes:
    """The secret that the bastion shows. Raises `KeyFileError`."""
    path = settings.internal.secret_file or settings.state_directory / "internal-secret"
    return open_secret(path, settings.certificates.keys_group)


@asynccontextmanager
async def open_services(settings: Settings, audit: TextIO, clock: Clock = time.time) -> AsyncIterator[Services]:
    """The parts, ready to be used; the database may still be away. Raises `KeyFileError`."""
    signer = open_signer(settings)
    metrics = Metrics()
    audit_log = AuditLog(audit)
    async with (
        HubClient(settings.hub.api_url, settings.hub.secret, timeout=settings.hub.timeout) as hub,
        HubClient(settings.hub.api_url, settings.hub.secret, timeout=settings.hub.timeout) as asked_by_strangers,
        HubServers(settings.hub.api_url, settings.hub.secret, timeout=settings.hub.timeout) as hub_servers,
        Store(settings.database, settings.state_directory) as store,
    ):

        def ended(instance: Instance, why: str) -> None:
            event = Unenrolled(server=str(instance.server), instance=str(instance.id), reason=why)
            audit_log.write(event, clock())
            metrics.saw(event)

        rules = settings.certificates.rules
        for sentence in rules.withheld:
            _log.warning("%s", sentence)
        roster = Roster(
            store,
            hub,
            signer,
            settings.zone,
            rules,
            interactive=settings.logins.holds_connections,
            interval=settings.hub.poll_interval,
            clock=clock,
            on_end=ended,
        )
        services = Services(
            settings=settings,
            rules=rules,
            hub=hub,
            hub_servers=hub_servers,
            store=store,
            signer=signer,
            keys=KeyWatch(signer),
            roster=roster,
            krl=KrlDesk(store, signer, clock),
            pace=Pace(settings.limits.by_kind, clock, metrics.slowed),
            sightings=Sightings(store),
            activity=Activity(hub, roster, on=settings.hub.activity),
            strangers=Strangers(asked_by_strangers, clock),
            pollers=Line(POLLERS, "logins"),
            quiet=Quiet(lambda event: audit_log.write(event, clock()), clock),
            audit_log=audit_log,
            metrics=metrics,
            clock=clock,
            random_bits=secrets.randbits,
            watchers=Watchers(),
            proxies=UnknownProxies(settings.listen.trusted_proxies, metrics.proxied),
        )
        _watch(services)
        yield services


def _watch(services: Services) -> None:
    """The gauges."""
    roster, store = services.roster, services.store

    def heard() -> float:
        ago = roster.heard_seconds_ago
        return float("inf") if ago is None else ago

    metrics = services.metrics
    metrics.watch("hub_heard_seconds_ago", "Seconds since JupyterHub last said which servers run.", heard)
    metrics.watch("store_ready", "1 while the database can be used.", lambda: float(store.problem is None))
    metrics.watch("keys_ready", "1 while the CA keys can be read.", lambda: float(services.keys.problem is None))
    metrics.watch("servers_listed", "Enrolled servers that run.", lambda: float(roster.size))
    metrics.watch("krl_exact", "0 while the KRL refuses more than the bastions do.", lambda: float(services.krl.exact))
    metrics.watch("audit_lines_lost", "Audit lines that could not be written.", lambda: float(services.audit_log.lost))
