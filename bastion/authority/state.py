"""What the api says about the world, read strictly: who signs, what is revoked, which servers are enrolled.

Reading is all or nothing where something missing would let somebody in: a revocation or a CA key that cannot
be read makes the whole answer unusable, and the last good one stays. A pod that cannot be read is dropped
alone, since without it nobody gets in anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bastion.authority.errors import AuthorityUnavailable
from bastion.directory.enrolled import Enrolled, read_enrolled
from bastion.directory.table import Pod
from ca.errors import Malformed
from ca.keys import PublicKey, parse_public_key
from ca.limits import Capabilities, Capability
from ca.names import Server, check_zone, parse_login
from ca.revocation import Revocations
from ca.trust import TrustedKeys

_MAX_CA_KEYS = 16
_REVOCATIONS = frozenset({"everyone_before", "serials", "users", "servers"})


@dataclass(frozen=True, slots=True)
class RawKeys:
    """What the site lets people do who come with a key from a pod's `authorized_keys`. `owners`: in whose servers that
    is less, since it is never more than the owner might do."""

    direct: bool
    capabilities: Capabilities
    owners: Mapping[str, Capabilities] = field(default_factory=dict)

    def of(self, owner: str) -> Capabilities:
        """What they may do in a server of `owner`."""
        return self.capabilities & self.owners.get(owner, self.capabilities)


NO_RAW_KEYS = RawKeys(direct=False, capabilities=frozenset())


@dataclass(frozen=True, slots=True)
class Word:
    """What the bastion must know to judge a credential, and when it was told.

    `heard_at` is in seconds of the monotonic clock: when the api, or the file it was remembered in, said so. `mark`
    grows with all that the api promises; shown to an api that knows less, it says that the database was restored.
    """

    zone: str
    trust: TrustedKeys
    revocations: Revocations
    heard_at: float
    raw_keys: RawKeys
    mark: int = 0


@dataclass(frozen=True, slots=True)
class AuthorityState:
    """One answer of `GET /internal/state`.

    `answered_at` is in seconds of the monotonic clock. `heard_seconds_ago` is how long before that the api had
    last heard JupyterHub; None: never. `dropped` counts enrolled pods that could not be read. `epoch` names the
    database that the api speaks from: another one begins without enrolments. `interactive`: people may log in with a
    browser from an ssh connection; an api that does not say so does not know how. `ended`: who ended live sessions
    lately, by the public names of these (`ca.sessions`).
    """

    version: str
    zone: str
    answered_at: float
    heard_seconds_ago: float | None
    trust: TrustedKeys
    revocations: Revocations
    enrolled: tuple[Pod, ...]
    raw_keys: RawKeys
    dropped: int = 0
    epoch: str = ""
    interactive: bool = False
    ended: Mapping[str, str] = field(default_factory=dict)
    mark: int = 0

    @property
    def word(self) -> Word:
        """The part that decides what a credential is worth."""
        return Word(self.zone, self.trust, self.revocations, self.answered_at, self.raw_keys, self.mark)

    @property
    def hub_heard_at(self) -> float | None:
        """When JupyterHub was last heard, in seconds of the monotonic clock."""
        return None if self.heard_seconds_ago is None else self.answered_at - self.heard_seconds_ago


def read_state(raw: object, answered_at: float) -> AuthorityState:
    """Read the JSON of `GET /internal/state`. Raises `AuthorityUnavailable` for anything but its documented form."""
    body = _mapping(raw, "the answer")
    version = body.get("version")
    if not isinstance(version, str) or not version.isprintable() or not 0 < len(version) <= 256:
        raise AuthorityUnavailable("the api's state has no usable version")
    enrolled: Enrolled = read_enrolled(body.get("enrolled"))
    return AuthorityState(
        version=version,
        zone=read_zone(body.get("zone")),
        answered_at=answered_at,
        heard_seconds_ago=_heard(body.get("heard_seconds_ago", "absent")),
        trust=read_trust(body.get("trust")),
        revocations=read_revocations(body.get("revocations")),
        enrolled=enrolled.pods,
        dropped=enrolled.dropped,
        epoch=_epoch(body.get("epoch")),
        raw_keys=read_raw_keys(body.get("raw_keys")),
        interactive=body.get("interactive") is True,
        ended=_ended(body.get("ended_sessions", {})),
        mark=read_mark(body.get("mark", 0)),
    )


def read_mark(raw: object) -> int:
    """How much the api's database knows."""
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw < 1 << 63:
        raise AuthorityUnavailable("the api's mark cannot be read")
    return raw


def read_zone(raw: object) -> str:
    """The zone of host names."""
    if not isinstance(raw, str):
        raise AuthorityUnavailable("the api's state has no zone")
    try:
        return check_zone(raw)
    except Malformed as error:
        raise AuthorityUnavailable(str(error)) from None


def read_trust(raw: object) -> TrustedKeys:
    """The CA public keys. Each list must have one key at least, and every key must be readable."""
    body = _mapping(raw, "trust")
    return TrustedKeys(user=_keys(body, "user"), host=_keys(body, "host"), hop=_keys(body, "hop"))


def write_trust(trust: TrustedKeys) -> dict[str, object]:
    """The JSON that `read_trust` reads."""
    return {
        "user": [key.line for key in trust.user],
        "host": [key.line for key in trust.host],
        "hop": [key.line for key in trust.hop],
    }


def read_revocations(raw: object) -> Revocations:
    """What is revoked. An unknown field is a restriction that we would not obey, so it is refused too."""
    body = _mapping(raw, "revocations")
    if not _REVOCATIONS <= set(body) <= _REVOCATIONS | {"shares"}:
        raise AuthorityUnavailable("the api's revocations have other fields than those known here")
    serials = body["serials"]
    if not isinstance(serials, list):
        raise AuthorityUnavailable("the revoked serials are not a list")
    try:
        servers = _servers(body["servers"])
        shares = {user: _servers(one) for user, one in _mapping(body.get("shares", {}), "shares").items()}
    except Malformed as error:
        raise AuthorityUnavailable(f"a revoked server cannot be read: {error}") from None
    return Revocations(
        everyone_before=_milliseconds(body["everyone_before"]),
        serials=frozenset(_serial(serial) for serial in serials),
        users={user: _milliseconds(at) for user, at in _mapping(body["users"], "users").items()},
        servers=servers,
        shares=shares,
    )


def write_revocations(revocations: Revocations) -> dict[str, object]:
    """The JSON that `read_revocations` reads."""
    return {
        "everyone_before": revocations.everyone_before,
        "serials": [str(serial) for serial in sorted(revocations.serials)],
        "users": dict(revocations.users),
        "servers": _by_login(revocations.servers),
        "shares": {user: _by_login(servers) for user, servers in revocations.shares.items()},
    }


def read_raw_keys(raw: object) -> RawKeys:
    """What raw keys may do. A capability that is not known here cannot be granted here, so it is passed over."""
    body = _mapping(raw, "raw_keys")
    direct, names = body.get("direct"), body.get("capabilities")
    if not isinstance(direct, bool):
        raise AuthorityUnavailable("the api does not say what raw keys may do")
    owners = {owner: _capabilities(theirs) for owner, theirs in _mapping(body.get("owners", {}), "owners").items()}
    return RawKeys(direct, _capabilities(names), owners)


def write_raw_keys(raw_keys: RawKeys) -> dict[str, object]:
    """The JSON that `read_raw_keys` reads."""
    owners = {owner: sorted(theirs) for owner, theirs in raw_keys.owners.items()}
    return {"direct": raw_keys.direct, "capabilities": sorted(raw_keys.capabilities), "owners": owners}


def _capabilities(names: object) -> Capabilities:
    if not isinstance(names, list):
        raise AuthorityUnavailable("the api does not say what raw keys may do")
    return frozenset(one for one in Capability if one.value in names)


def _epoch(raw: object) -> str:
    if not isinstance(raw, str) or not raw.isalnum() or len(raw) > 64:
        raise AuthorityUnavailable("the api does not say which database it speaks from")
    return raw


def _ended(raw: object) -> Mapping[str, str]:
    """An api from before sessions could be ended says nothing of them."""
    return {name: by for name, by in _mapping(raw, "ended_sessions").items() if isinstance(by, str)}


def _mapping(raw: object, what: str) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise AuthorityUnavailable(f"{what} in the api's state is not an object")
    return raw


def _servers(raw: object) -> dict[Server, int]:
    return {parse_login(login): _milliseconds(at) for login, at in _mapping(raw, "servers").items()}


def _by_login(servers: Mapping[Server, int]) -> dict[str, int]:
    return {server.login: at for server, at in servers.items()}


def _keys(body: dict[str, object], kind: str) -> tuple[PublicKey, ...]:
    lines = body.get(kind)
    if not isinstance(lines, list) or not 0 < len(lines) <= _MAX_CA_KEYS:
        raise AuthorityUnavailable(f"the api's state names no usable {kind} CA keys")
    try:
        return tuple(parse_public_key(line if isinstance(line, str) else "") for line in lines)
    except Malformed:
        raise AuthorityUnavailable(f"a {kind} CA key in the api's state cannot be read") from None


def _heard(raw: object) -> float | None:
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw < float("inf"):
        raise AuthorityUnavailable("the api does not say when it last heard JupyterHub")
    return float(raw)


def _milliseconds(raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw < 1 << 63:
        raise AuthorityUnavailable("a revocation's time cannot be read")
    return raw


def _serial(raw: object) -> int:
    if not isinstance(raw, str) or not raw.isascii() or not raw.isdigit() or len(raw) > 20:
        raise AuthorityUnavailable("a revoked serial cannot be read")
    return int(raw)
