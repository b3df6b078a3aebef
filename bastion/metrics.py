"""What operators watch: counters that events feed, and gauges read from the rooms when somebody asks.

No label holds a user's name, a server's, an address or a key: whoever may read metrics learns how much happens here,
and not who does it (that is what audit lines are for). So the number of series is small and does not grow with users.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from bastion.admission import Mode
from bastion.authority import Authority, HopCertificates
from bastion.directory.table import Directory
from bastion.hall import Hall
from bastion.inside import Inside
from bastion.knowledge import Known
from bastion.pubkeys import KeyCache
from bastion.registry import Line, Registry
from bastion.settings import LimitSettings
from ca import audit

PREFIX = "jupyterhub_bastion_"
LAG_SECONDS = 1.0
"""How often the event loop is asked how late it is."""

_SETTINGS = {
    "login_seconds": "login_grace",
    "signed_attempts": "login_attempts",
    "probes": "login_probes",
    "interactive_seconds": "login_interactive_seconds",
}
"""The settings of bounds that have another name where they are kept; the others are `limits_…`."""

_NOT_REACHED = frozenset({"unauthenticated_rate", "keepalive", "rekey_bytes", "rekey_seconds"})
"""Settings that are counted under another (a chance, a pause between questions), or that nobody can take much of."""

BOUNDS = (
    *(f"limits_{name}" for name in LimitSettings.model_fields if name not in _NOT_REACHED),
    *_SETTINGS.values(),
)
"""Every bound that can be reached, by its setting: counted from the start, so that what was never reached reads 0."""

_LAGS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(slots=True)
class Tally:
    """What has happened since this process began."""

    limits: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(BOUNDS, 0)))
    logins: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    actions_refused: Counter[str] = field(default_factory=Counter)
    pods_failed: Counter[str] = field(default_factory=Counter)
    tunnels: int = 0
    closed: int = 0
    received: int = 0
    sent: int = 0
    pods_dropped: int = 0
    """Enrolled pods in the api's last list that could not be read."""

    def reached(self, limit: str) -> None:
        """A bound was reached; `limit` is its name in the room that keeps it."""
        self.limits[_SETTINGS.get(limit, f"limits_{limit}")] += 1

    def pod_failed(self, why: str) -> None:
        """A pod could not be had."""
        self.pods_failed[why] += 1

    def saw(self, event: audit.Event) -> None:
        """An audit line was written."""
        match event:
            case audit.SessionOpened():
                self.logins["accepted", event.how, ""] += 1
            case audit.ConnectionRefused():
                self.logins["refused", event.how or "", event.reason] += 1
            case audit.TunnelOpened():
                self.tunnels += 1
            case audit.ActionRefused():
                self.actions_refused[event.reason] += 1
            case audit.SessionClosed():
                self.closed += 1
                self.received += event.bytes_in
                self.sent += event.bytes_out


@dataclass(frozen=True, slots=True)
class Sources:
    """The rooms that gauges are read from. `clock` is the monotonic clock that their ages are in."""

    tally: Tally
    hall: Hall
    registry: Registry[Inside]
    keys: KeyCache
    hops: HopCertificates
    directory: Directory
    pods_unusable: Callable[[], Mapping[str, int]]
    known: Known
    authority: Authority
    audit_lost: Callable[[], int]
    clock: Callable[[], float]


class Metrics(Collector):
    """The metrics of one process, in a registry of their own."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._lag = Histogram(
            f"{PREFIX}event_loop_lag_seconds",
            "How late the event loop was, asked every second: what everybody here waits.",
            buckets=_LAGS,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)

    async def watch_loop(self) -> None:
        """For ever: see how late the event loop is."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self._lag.observe(max(loop.time() - due, 0.0))

    def collect(self) -> Iterator[Metric]:
        """Read every room."""
        yield from self._connections()
        yield from self._sessions()
        yield from self._knowledge()
        yield from self._caches()

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not ask the rooms for names that it can take as they come."""
        return ()

    def _connections(self) -> Iterator[Metric]:
        hall, tally = self._sources.hall, self._sources.tally
        yield _counter("connections_accepted", "TCP connections taken.", hall.lobby.accepted)
        yield _by("connections_refused", "TCP connections turned away, by reason.", "reason", hall.refused)
        yield _gauge("connections", "TCP connections now, logged in or not.", len(hall.lobby))
        yield _gauge("connections_waiting", "Of these, not logged in yet.", hall.lobby.waiting)
        yield _gauge("login_steps_waiting", "Steps of logins that wait for their turn.", len(hall.turns))
        yield _gauge("addresses_waiting", "Addresses that those come from.", hall.lobby.addresses_waiting)
        yield _by(
            "logins_abandoned", "Connections that ended before they had logged in, by reason.", "reason", hall.abandoned
        )
        yield _gauge("interactive_waiting", "Connections that wait for a login in a browser.", len(hall.room))
        yield _gauge("interactive_addresses_waiting", "Addresses that those come from.", hall.room.addresses)
        yield _by("interactive_logins", "Logins in a browser: begun, and what became of them.", "result", hall.invited)
        logins = CounterMetricFamily(
            f"{PREFIX}logins", "Logins by result, kind of credential and reason.", labels=("result", "how", "reason")
        )
        for labels, count in sorted(tally.logins.items()):
            logins.add_metric(labels, count)
        yield logins
        yield _by("limit_reached", "How often a bound was reached, by its setting.", "limit", tally.limits)

    def _sessions(self) -> Iterator[Metric]:
        lines, tally = self._sources.registry.sessions(), self._sources.tally
        live = {"direct": 0, "jump": 0, "tunnel": 0}
        received, sent = tally.received, tally.sent
        for line in lines:
            kind = _kind(line)
            live[kind] += 1
            if kind != "tunnel":  # its bytes are those of its jump connection
                received += line.received
                sent += line.sent
        sessions = GaugeMetricFamily(f"{PREFIX}sessions", "Live sessions by mode.", labels=("mode",))
        for mode, count in live.items():
            sessions.add_metric((mode,), count)
        yield sessions
        yield _counter("sessions_closed", "Sessions that ended, tunnels aside.", tally.closed)
        yield _counter("tunnels_opened", "Tunnels of jump connections.", tally.tunnels)
        yield _by("actions_refused", "Channels and requests refused, by reason.", "reason", tally.actions_refused)
        yield _by(
            "pod_connection_failures",
            "Connections to pods that failed, by reason.",
            "reason",
            tally.pods_failed,
        )
        carried = CounterMetricFamily(f"{PREFIX}bytes", "Bytes of channel data, by direction.", labels=("direction",))
        carried.add_metric(("from_clients",), received)
        carried.add_metric(("to_clients",), sent)
        yield carried

    def _knowledge(self) -> Iterator[Metric]:
        sources = self._sources
        now = sources.clock()
        word, heard = sources.known.word, sources.directory.heard_at
        told = None if word is None else word.heard_at
        fresh = sources.known.fresh(now) and sources.directory.fresh(now, sources.known.max_age)
        yield _gauge("servers", "Running servers that can be entered.", len(sources.directory.running()))
        yield _gauge("servers_ambiguous", "Servers that two pods claim to run.", len(sources.directory.ambiguous()))
        yield _gauge("servers_unreadable", "Entries of the api's list that cannot be read.", sources.tally.pods_dropped)
        unusable = GaugeMetricFamily(
            f"{PREFIX}pods_unusable", "Pods of notebook servers that are not offered, by reason.", labels=("reason",)
        )
        for reason, count in sorted(sources.pods_unusable().items()):
            unusable.add_metric((reason,), count)
        yield unusable
        yield _age(
            "directory_age_seconds", "Since the source of running servers was last heard; absent: never.", now, heard
        )
        yield _age("api_age_seconds", "Since the api last said whom to trust; absent: never.", now, told)
        yield _gauge("api_reachable", "1 while the api answers.", int(bool(sources.authority.reachable)))
        yield _gauge("fresh", "1 while what is known is young enough to let anybody in.", int(fresh))
        yield _counter("audit_lines_lost", "Audit lines that could not be written.", sources.audit_lost())

    def _caches(self) -> Iterator[Metric]:
        keys = self._sources.keys
        counts = keys.counts
        yield _gauge("key_cache_pods", "Pods whose public keys are known.", counts.pods)
        yield _gauge("key_cache_keys", "Public keys known.", counts.keys)
        yield _gauge("key_cache_failed", "Pods that did not answer when last asked.", counts.failed)
        refreshes = CounterMetricFamily(
            f"{PREFIX}key_cache_refreshes", "Refreshes of the key cache, by tier.", labels=("tier",)
        )
        refreshes.add_metric(("rebuild",), keys.rebuilds)
        refreshes.add_metric(("fill",), keys.fills)
        yield refreshes
        yield _gauge("hop_certificates", "Hop certificates kept.", len(self._sources.hops))


def merged(texts: dict[str, bytes]) -> Iterator[Metric]:
    """The metrics of several processes as one set, each sample with the label `worker`."""
    families: dict[str, Metric] = {}
    for worker, text in sorted(texts.items()):
        for family in text_string_to_metric_families(text.decode()):
            kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                kept.samples.append(sample._replace(labels={**sample.labels, "worker": worker}))
    yield from families.values()


def rendered(families: Iterable[Metric]) -> bytes:
    """These families in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Given(list(families)))
    return generate_latest(registry)


class _Given(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families

    def describe(self) -> Iterable[Metric]:
        return ()


def _kind(line: Line) -> str:
    if line.about.mode == Mode.JUMP and line.about.instance is not None:
        return "tunnel"
    return str(line.about.mode)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}{name}", meaning, value=value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}{name}", meaning, value=value)


def _age(name: str, meaning: str, now: float, since: float | None) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}{name}", meaning)
    if since is not None:
        family.add_metric((), max(now - since, 0.0))
    return family


def _by(name: str, meaning: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}{name}", meaning, labels=(label,))
    for value, count in sorted(counts.items()):
        family.add_metric((value,), count)
    return family
