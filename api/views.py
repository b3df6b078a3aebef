"""What the pages show, as plain values: templates hold words and no decisions."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from api.commands import Commands, Door, commands_for, in_words, size_in_words
from api.desk import instances_of
from api.progress import Progress
from api.servers import Seen, State
from api.sightings import LiveSession
from api.store import CertificateRecord, Enrolment
from ca.claims import Via
from ca.names import Instance, Server


@dataclass(frozen=True, slots=True)
class ServerView:
    """A server on a page. `state` is JupyterHub's; `enrolled`: its pod takes SSH connections. `via`: own or shared.

    `progress` and `percent` tell how a start goes that this page watches.
    """

    label: str
    owner: str
    name: str
    login: str
    host_name: str
    via: str
    state: State
    enrolled: bool
    commands: Commands
    watched: bool = False
    progress: str = ""
    percent: int | None = None

    @property
    def ready(self) -> bool:
        """Whether it runs, so that a certificate may name it."""
        return self.state is State.RUNNING

    @property
    def moves(self) -> bool:
        """Whether its state is about to change."""
        return self.state in (State.STARTING, State.STOPPING)


@dataclass(frozen=True, slots=True)
class CertificateView:
    """A certificate in the list of one's own. `left` is in words."""

    serial: str
    fingerprint: str
    servers: tuple[str, ...]
    valid_before: int
    left: str


@dataclass(frozen=True, slots=True)
class SessionView:
    """A live SSH session. `mine`: whoever looks opened it. `ago`, `received` and `sent` are in words."""

    name: str
    label: str
    who: str
    mine: bool
    peer: str
    how: str
    since: float
    ago: str
    received: str
    sent: str
    ending: bool


def server_views(
    servers: Iterable[Seen], enrolled: Mapping[Instance, Enrolment], door: Door, watched: tuple[Server, Progress] | None
) -> tuple[ServerView, ...]:
    """Every server of a person, in the order given. `watched` is one whose start this page follows."""
    return tuple(_with(watched, one, _view(one, enrolled, door)) for one in servers)


def certified_views(
    instances: Iterable[Instance], user: str, enrolled: Mapping[Instance, Enrolment], door: Door
) -> tuple[ServerView, ...]:
    """The servers that a certificate names."""

    def running(one: Instance) -> Seen:
        via = Via.OWN if one.server.owner == user else Via.SHARED
        return Seen(one.server, State.RUNNING, via, one in enrolled, one)

    return tuple(_view(running(one), enrolled, door) for one in instances)


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


def session_views(
    sessions: Iterable[LiveSession], user: str, ending: Callable[[LiveSession], bool], now: float
) -> tuple[SessionView, ...]:
    """The live sessions that concern `user`."""
    return tuple(_session(one, user, ending(one), now) for one in sessions)


def _session(one: LiveSession, user: str, ending: bool, now: float) -> SessionView:
    told = one.told
    return SessionView(
        name=one.name,
        label="not connected to a server yet" if one.server is None else str(one.server),
        who=told.identity,
        mine=told.user == user,
        peer=told.peer,
        how=" ".join((_HOW.get(told.how, told.how), *(("as a jump host",) if told.mode == "jump" else ()))),
        since=told.since,
        ago=in_words(now - told.since),
        received=size_in_words(told.received),
        sent=size_in_words(told.sent),
        ending=ending,
    )


_HOW = {"certificate": "with a certificate", "key": "with a key of the server's own", "interactive": "with the browser"}


def _view(one: Seen, enrolled: Mapping[Instance, Enrolment], door: Door) -> ServerView:
    enrolment = enrolled.get(one.instance) if one.instance is not None else None
    return ServerView(
        label=str(one.server),
        owner=one.server.owner,
        name=one.server.name,
        login=one.server.login,
        host_name=one.server.host_name(door.zone),
        via=str(one.via),
        state=one.state,
        enrolled=bool(one.ssh),
        commands=commands_for(door, one.server, enrolment.unix_user if enrolment else None),
    )


def _with(watched: tuple[Server, Progress] | None, one: Seen, view: ServerView) -> ServerView:
    if watched is None or watched[0] != one.server or watched[1].over:
        return view
    progress = watched[1]
    return replace(view, watched=True, state=progress.state, progress=progress.message, percent=progress.percent)
