"""Everything that a handler may use, put together once by `api.__main__` and handed to the apps.

Handlers get it as an argument: `services: Injected`. There is no other way to a setting, a door or a key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.activity import Activity
from api.hub import HubClient
from api.hubservers import HubServers
from api.keywatch import KeyWatch
from api.krl import KrlDesk
from api.lines import Line
from api.metrics import Metrics
from api.pace import Pace
from api.quiet import Quiet
from api.roster import Roster
from api.sender import UnknownProxies
from api.settings import Settings
from api.sightings import Sightings
from api.store import Store
from api.strangers import Strangers
from api.watchers import Watchers
from ca.audit import AuditLog, Event
from ca.policy import Rules
from ca.signer import Signer

Clock = Callable[[], float]
"""Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the running service."""

    settings: Settings
    rules: Rules
    hub: HubClient
    hub_servers: HubServers
    store: Store
    signer: Signer
    keys: KeyWatch
    roster: Roster
    krl: KrlDesk
    pace: Pace
    sightings: Sightings
    activity: Activity
    strangers: Strangers
    pollers: Line
    quiet: Quiet
    audit_log: AuditLog
    metrics: Metrics
    clock: Clock
    random_bits: Callable[[int], int]
    watchers: Watchers
    proxies: UnknownProxies

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.clock()

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return int(self.clock() * 1000)

    def audit(self, event: Event) -> None:
        """Write one audit line, and count it. Of what strangers cause not every one is written (`api.quiet`)."""
        self.quiet.write(event)
        self.metrics.saw(event)


def services_of(request: Request) -> Services:
    """The services of the app that answers `request`."""
    services = request.app.state.services
    if not isinstance(services, Services):
        raise TypeError("the app was made without its services")
    return services


Injected = Annotated[Services, Depends(services_of)]
