"""One line of JSON for every certificate, enrolment, session and refusal: who was where.

Events are typed and frozen; a field that could hold a secret does not exist. Lines are written whole and
flushed, and a log that cannot be written (a full disk) never stops the service: it is counted instead, and the
count is a metric.
"""

import json
import math
import threading
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import ClassVar, TextIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event has: the address it came from, where there is one."""

    name: ClassVar[str] = "event"
    peer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateIssued(Event):
    """A user certificate was signed and recorded."""

    name: ClassVar[str] = "certificate_issued"
    user: str
    serial: str
    fingerprint: str
    principals: tuple[str, ...]
    extensions: tuple[str, ...]
    valid_before: int
    how: str
    as_admin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRefused(Event):
    """Somebody asked for a user certificate and got none."""

    name: ClassVar[str] = "certificate_refused"
    user: str | None
    reason: str
    how: str
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HopIssued(Event):
    """The bastion got a hop certificate for one pod."""

    name: ClassVar[str] = "hop_issued"
    identity: str
    serial: str
    principal: str
    for_serial: str | None
    valid_before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HopRefused(Event):
    """The bastion asked for a hop certificate and got none."""

    name: ClassVar[str] = "hop_refused"
    identity: str | None
    server: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCertificateIssued(Event):
    """A host certificate was signed, for the bastion or for a pod."""

    name: ClassVar[str] = "host_certificate_issued"
    serial: str
    fingerprint: str
    principals: tuple[str, ...]
    valid_before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled(Event):
    """A pod told its host key for the first time."""

    name: ClassVar[str] = "enrolled"
    server: str
    instance: str
    fingerprint: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRefused(Event):
    """A pod, or somebody who says so, was not enrolled."""

    name: ClassVar[str] = "enrolment_refused"
    user: str | None
    server: str | None
    reason: str
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unenrolled(Event):
    """A pod is no longer listed."""

    name: ClassVar[str] = "unenrolled"
    server: str
    instance: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked(Event):
    """Certificates stopped counting. One of serial, user and server is set; user and server together mean this user's
    way into that server; none means everybody's."""

    name: ClassVar[str] = "revoked"
    by: str
    reason: str
    serial: str | None = None
    user: str | None = None
    server: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn(Event):
    """Somebody came through the browser login."""

    name: ClassVar[str] = "logged_in"
    user: str
    admin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRefused(Event):
    """The browser login failed or was refused."""

    name: ClassVar[str] = "login_refused"
    user: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLoginBegun(Event):
    """A client asked for a certificate that somebody has to approve in a browser. `kind`: device or interactive."""

    name: ClassVar[str] = "device_login_begun"
    kind: str
    fingerprint: str
    server: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLoginApproved(Event):
    """Somebody let a waiting client in. `peer` is the browser's address and `client` the client's."""

    name: ClassVar[str] = "device_login_approved"
    user: str
    kind: str
    fingerprint: str
    client: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLoginDenied(Event):
    """Somebody sent a waiting client away."""

    name: ClassVar[str] = "device_login_denied"
    user: str
    kind: str
    fingerprint: str
    client: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLoginRefused(Event):
    """A login by a browser and a second device was not begun, not shown or not approved, or its code was not good."""

    name: ClassVar[str] = "device_login_refused"
    user: str | None
    reason: str
    kind: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRefused(Event):
    """A request to the service was refused before anything was decided (secret, CSRF, origin)."""

    name: ClassVar[str] = "request_refused"
    route: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalsLeftOut(Event):
    """So many refusals of strangers have no line of their own, since they were too many; from `peer`'s network where
    one is said."""

    name: ClassVar[str] = "refusals_left_out"
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAsked(Event):
    """JupyterHub was told to start or stop somebody's server, on that person's word. `action` is "start" or "stop"."""

    name: ClassVar[str] = "server_asked"
    user: str
    server: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRefused(Event):
    """Somebody wanted a server started or stopped, and it was not done. `server` is theirs only where it is known."""

    name: ClassVar[str] = "server_refused"
    user: str | None
    server: str | None
    action: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRefused(Event):
    """Somebody proved to hold a key, or was to log in with a browser (`how` is "interactive"), and was not let in."""

    name: ClassVar[str] = "connection_refused"
    login: str
    identity: str | None
    fingerprint: str | None
    serial: str | None
    reason: str
    how: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened(Event):
    """Somebody was let in. `how` is "certificate", "key" or "interactive"; `mode` is "direct" or "jump"."""

    name: ClassVar[str] = "session_opened"
    session: str
    login: str
    identity: str
    how: str
    mode: str
    fingerprint: str
    serial: str | None
    principal: str | None
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelOpened(Event):
    """A tunnel of a session to a pod's SSH port was let through. `tunnel` is the session's name, a dot and a number."""

    name: ClassVar[str] = "tunnel_opened"
    session: str
    identity: str
    tunnel: str
    principal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelClosed(Event):
    """A tunnel ended. `why` is as in `SessionClosed`; "client" or "pod" is whoever closed its end first, or "pod" where
    its port did not answer. What goes on in a tunnel cannot be read, so no more is known."""

    name: ClassVar[str] = "tunnel_closed"
    session: str
    identity: str
    tunnel: str
    principal: str
    why: str
    seconds: float
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRefused(Event):
    """Somebody who was let in asked for something that was not permitted."""

    name: ClassVar[str] = "action_refused"
    session: str
    identity: str
    action: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed(Event):
    """A session ended. `why` is "client" (it left, or was gone), "pod" (its connection was lost), or the sentence with
    which the bastion cut it: a stop, a revocation, the end of a certificate, a person's word, a shutdown."""

    name: ClassVar[str] = "session_closed"
    session: str
    identity: str
    why: str
    seconds: float
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded(Event):
    """Somebody ended a live session by hand. `session` is its name in the bastion's audit lines."""

    name: ClassVar[str] = "session_ended"
    by: str
    session: str
    identity: str
    server: str | None = None


def line(event: Event, at: float) -> str:
    """The event as one line of JSON. `at` is seconds since the epoch. Absent values are left out."""
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    shown: dict[str, object] = {"audit": event.name, "at": moment}
    for one in fields(event):
        value = getattr(event, one.name)
        # JSON has no word for infinity: one such number would make the whole line unreadable.
        if value is not None and not (isinstance(value, float) and not math.isfinite(value)):
            shown[one.name] = list(value) if isinstance(value, tuple) else value
    return json.dumps(shown, ensure_ascii=True, separators=(",", ":"))


class AuditLog:
    """Writes events to a text stream, a whole line at a time. Never raises for a stream that cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.lost = 0

    def write(self, event: Event, at: float) -> None:
        """Append one event; on failure only `lost` grows."""
        text = line(event, at) + "\n"
        with self._lock:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                self.lost += 1
