"""What the pages show, as plain values: templates hold words and no decisions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from api.commands import Commands, Door, commands_for, in_words
from api.desk import instances_of
from api.store import CertificateRecord, Enrolment
from ca.claims import Running
from ca.names import Instance, Server


@dataclass(frozen=True, slots=True)
class ServerView:
    """A server on a page. `enrolled`: its pod takes SSH connections. `via`: own, shared or admin."""

    label: str
    owner: str
    login: str
    via: str
    ready: bool
    enrolled: bool
    commands: Commands


@dataclass(frozen=True, slots=True)
class CertificateView:
    """A certificate in the list of one's own. `left` is in words."""

    serial: str
    fingerprint: str
    servers: tuple[str, ...]
    valid_before: int
    left: str


def running_views(
    running: Iterable[Running], enrolled: Mapping[Instance, Enrolment], door: Door
) -> tuple[ServerView, ...]:
    """The running servers, one's own first."""
    ordered = sorted(running, key=lambda one: (one.via != "own", one.server))
    return tuple(_view(one.server, one.via, one.ready, enrolled.get(one.instance), door) for one in ordered)


def certified_views(
    instances: Iterable[Instance], user: str, enrolled: Mapping[Instance, Enrolment], door: Door
) -> tuple[ServerView, ...]:
    """The servers that a certificate names."""
    return tuple(
        _view(one.server, "own" if one.server.owner == user else "shared", True, enrolled.get(one), door)
        for one in instances
    )


def certificate_views(records: Iterable[CertificateRecord], now: float) -> tuple[CertificateView, ...]:
    """The list of one's own certificates."""
    return tuple(
        CertificateView(
            serial=str(one.serial),
            fingerprint=one.fingerprint,
            servers=tuple(str(instance.server) for instance in instances_of(one)),
            valid_before=one.valid_before,
            left=in_words(one.valid_before - now),
        )
        for one in records
    )


def _view(server: Server, via: str, ready: bool, enrolment: Enrolment | None, door: Door) -> ServerView:
    return ServerView(
        label=str(server),
        owner=server.owner,
        login=server.login,
        via=str(via),
        ready=ready,
        enrolled=enrolment is not None,
        commands=commands_for(door, server, enrolment.unix_user if enrolment else None),
    )
