"""What operators see: counters that the audit lines feed, and gauges read when somebody asks.

The hub's state is a metric and no part of readiness, so that an upgrade of JupyterHub takes nothing down.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ca.audit import Event

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one service; each has its own registry, so that two in one process do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._events = Counter(
            "bastion_api_events", "Audit events by name and reason.", ("event", "reason"), registry=self._registry
        )
        self._requests = Counter(
            "bastion_api_requests", "HTTP answers by port and status.", ("port", "status"), registry=self._registry
        )
        self._slowed = Counter(
            "bastion_api_slowed",
            "Requests of users who had asked for too many in a short time, by what they asked for.",
            ("kind",),
            registry=self._registry,
        )

        self._proxied = Counter(
            "bastion_api_unknown_proxy",
            "Logins by device that came through a proxy which is not among the trusted ones.",
            registry=self._registry,
        )

    def saw(self, event: Event) -> None:
        """Count one audit event."""
        self._events.labels(event.name, getattr(event, "reason", "")).inc()

    def answered(self, port: str, status: int) -> None:
        """Count one HTTP answer."""
        self._requests.labels(port, str(status)).inc()

    def slowed(self, kind: str) -> None:
        """Count one request that came too soon."""
        self._slowed.labels(kind).inc()

    def proxied(self) -> None:
        """Count one request whose sender's address a proxy hides."""
        self._proxied.inc()

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show `value()` as a gauge, read whenever the metrics are."""
        Gauge(f"bastion_api_{name}", meaning, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
