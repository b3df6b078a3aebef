"""What the tables hold, as values: certificates, enrolments, and the state that the bastion is told.

Rows become values here and nowhere else, so that no column name travels further than `api.store`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, RowMapping

from api import tables
from api.database import Meta
from ca.errors import MalformedName
from ca.keys import HOST_ALGORITHMS, PublicKey, parse_public_key
from ca.names import Instance, Server, parse_principal
from ca.revocation import Revocations


@dataclass(frozen=True, slots=True)
class BrowserLogin:
    """A login through JupyterHub's own page, on which certificates rest. `at` and `ends_at` are in seconds.

    `made` is JupyterHub's `created` of the user at that moment: a name may be given to somebody else.
    """

    at: int
    ends_at: int
    made: str


AS_ADMIN = " as admin"
"""How `CertificateRecord.how` ends where somebody's being an administrator was needed."""


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """A certificate as it is remembered. `issued_at` is in milliseconds, the other moments are in seconds.

    `login_at` is the browser login that it rests on, and `user_made` JupyterHub's `created` of the user then; None
    where it rests on a token.
    """

    serial: int
    kind: str
    user: str
    fingerprint: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    issued_at: int
    how: str
    address: str | None = None
    login_at: int | None = None
    user_made: str | None = None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A pod's sshd: where it is, and the host key that it showed first. `enrolled_at` is in milliseconds."""

    instance: Instance
    host_key: PublicKey
    address: str
    ssh_port: int
    key_port: int
    unix_user: str
    enrolled_at: int = field(compare=False)
    seen_ready: bool = False

    @property
    def server(self) -> Server:
        """The server of which this is a run."""
        return self.instance.server


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the bastion needs to know, as the database had it at one moment.

    `ended_sessions`: who ended the live sessions of these public names (`ca.sessions`) in the last minutes.
    `logged_out`: browser sessions that are over, by the SHA-256 of their ids.
    """

    meta: Meta
    revocations: Revocations
    enrolments: tuple[Enrolment, ...]
    ended_sessions: Mapping[str, str] = field(default_factory=dict)
    logged_out: frozenset[str] = frozenset()


def instances_in(principals: Iterable[str]) -> tuple[Instance, ...]:
    """The runs that a certificate's principals name."""
    found: list[Instance] = []
    for principal in principals:
        try:
            found.append(parse_principal(principal))
        except MalformedName:
            continue
    return tuple(found)


def is_instance(one: Instance) -> tuple[ColumnElement[bool], ...]:
    """The condition that finds the row of one run."""
    table = tables.enrolments
    return (
        table.c.owner == one.server.owner,
        table.c.server_name == one.server.name,
        table.c.instance == str(one.id),
    )


def instance_of(row: Mapping[str, Any] | RowMapping) -> Instance:
    """The run that a row of `enrolments` is about."""
    return Instance(Server(row["owner"], row["server_name"]), int(row["instance"]))


def enrolment_of(row: Mapping[str, Any] | RowMapping) -> Enrolment:
    """An enrolment from its row."""
    return Enrolment(
        instance=instance_of(row),
        host_key=_host_key(row["host_key"]),
        address=row["address"],
        ssh_port=row["ssh_port"],
        key_port=row["key_port"],
        unix_user=row["unix_user"],
        enrolled_at=row["enrolled_at"],
        seen_ready=row["seen_ready"],
    )


@lru_cache(maxsize=16384)
def _host_key(line: str) -> PublicKey:
    return parse_public_key(line, algorithms=HOST_ALGORITHMS)


def columns_of(record: CertificateRecord) -> dict[str, object]:
    """A record as a row of `certificates`."""
    return {
        "serial": str(record.serial),
        "kind": record.kind,
        "user": record.user,
        "fingerprint": record.fingerprint,
        "principals": list(record.principals),
        "valid_after": record.valid_after,
        "valid_before": record.valid_before,
        "issued_at": record.issued_at,
        "how": record.how,
        "address": record.address,
        "login_at": record.login_at,
        "user_made": record.user_made,
    }


def record_of(row: RowMapping) -> CertificateRecord:
    """A record from its row."""
    return CertificateRecord(
        serial=int(row["serial"]),
        kind=row["kind"],
        user=row["user"],
        fingerprint=row["fingerprint"],
        principals=tuple(row["principals"]),
        valid_after=row["valid_after"],
        valid_before=row["valid_before"],
        issued_at=row["issued_at"],
        how=row["how"],
        address=row["address"],
        login_at=row["login_at"],
        user_made=row["user_made"],
    )
