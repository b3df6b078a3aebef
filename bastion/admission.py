"""Who may enter what: the pure part of letting somebody in, run again whenever something changes.

A certificate and a raw key end in the same `Admission`, so that nothing downstream can tell them apart and forget
one. Login and "still allowed?" are the same functions on the same values.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from string import ascii_lowercase, ascii_uppercase
from typing import Protocol

from bastion.directory.table import Ambiguous, Found, Pod, claiming
from bastion.pubkeys import Listing
from ca.errors import Reason, Refusal
from ca.keys import PublicKey
from ca.limits import ALL, RESTORABLE_BY_OWNER, Capabilities, usable
from ca.names import Instance, Server, login_candidates
from ca.revocation import Revocations, issued_ms
from ca.trust import Presented

_CAPITALS = str.maketrans(ascii_uppercase, ascii_lowercase)


class Runs(Protocol):
    """What runs: a `bastion.directory.table.Table`, or any directory."""

    def find(self, server: Server) -> Found:
        """The pod that runs `server`, `Ambiguous` where two claim to, None where none does."""
        ...


class How(StrEnum):
    """With what somebody came."""

    CERTIFICATE = "certificate"
    KEY = "key"
    INTERACTIVE = "interactive"
    """Without a key: a certificate came for this one connection, after somebody approved it in a browser."""


class Mode(StrEnum):
    """`direct`: the bastion is the SSH server. `jump`: it carries bytes to a pod's SSH port that it cannot read."""

    DIRECT = "direct"
    JUMP = "jump"


@dataclass(frozen=True, slots=True)
class DoorRules:
    """The bastion's own part of policy."""

    jump_names: frozenset[str] = frozenset({"jump"})
    raw_keys: bool = True
    raw_keys_direct: bool = True
    raw_key_capabilities: Capabilities = ALL


@dataclass(frozen=True, slots=True)
class Admission:
    """What somebody who was let in may reach and do.

    `identity` is the JupyterHub user of a certificate, or `key:SHA256:…`: a raw key never speaks with its owner's
    name. `target` is the instance that sessions and forwards lead to, None for a jump login. `instances` may be
    reached in jump mode, and `closed` are the servers that the certificate names and does not open now, with the
    reason. `expires_at`: no new channel from then on (seconds since the epoch).
    """

    identity: str
    how: How
    login: str
    key: PublicKey
    target: Instance | None
    instances: tuple[Instance, ...]
    capabilities: Capabilities
    closed: tuple[tuple[Server, Refusal], ...] = ()
    expires_at: float | None = None
    serial: int | None = None
    certificate: bytes | None = field(default=None, repr=False)

    @property
    def certified(self) -> bool:
        """Whether a certificate of a JupyterHub user stands behind it, however it came here."""
        return self.how is not How.KEY

    @property
    def mode(self) -> Mode:
        """Direct where the login names a server."""
        return Mode.JUMP if self.target is None else Mode.DIRECT


def admit_certificate(
    login: str, presented: Presented, blob: bytes, running: Runs, rules: DoorRules
) -> Admission | Refusal:
    """Whether a genuine, valid certificate opens what `login` asks for, as things run now."""
    base = Admission(
        identity=presented.user,
        how=How.CERTIFICATE,
        login=login,
        key=presented.key,
        target=None,
        instances=(),
        capabilities=usable(presented.capabilities),
        expires_at=float(presented.valid_before),
        serial=presented.serial,
        certificate=blob,
    )
    if login in rules.jump_names:
        servers = dict.fromkeys(one.server for one in presented.instances)
        judged = {server: _running_one(server, presented, running) for server in servers}
        closed = tuple((server, why) for server, why in judged.items() if isinstance(why, Refusal))
        return _admit_to_jump(replace(base, closed=closed), list(judged.values()))
    server = _meant({one.server for one in presented.instances}, login, presented.user)
    if server is None:
        return Refusal(
            Reason.NOT_NAMED, f"Your certificate does not open that login. It opens: {_logins(presented.instances)}."
        )
    instance = _running_one(server, presented, running)
    if isinstance(instance, Refusal):
        return instance
    return replace(base, target=instance, instances=(instance,))


def admit_key(
    login: str, key: PublicKey, listings: Iterable[Listing], running: Runs, rules: DoorRules
) -> Admission | Refusal | None:
    """Whether a raw key opens what `login` asks for. `listings` are the pods of that login that list the key.

    None: nothing lists it; whoever holds it is a stranger and learns nothing. A line with options (`command=`,
    `from=`, `restrict`) admits to jump only, where the pod's own sshd obeys them.
    """
    there = [(one, pod) for one in listings if (pod := _run(one.pod.instance, running)) is not None]
    if not there or not rules.raw_keys:
        return None
    current = [one for one, pod in there if pod.ready]
    if not current:
        return not_ready(there[0][1].server)
    base = Admission(
        identity=f"key:{key.fingerprint}",
        how=How.KEY,
        login=login,
        key=key,
        target=None,
        instances=(),
        capabilities=usable(rules.raw_key_capabilities),
    )
    if login in rules.jump_names:
        return _admit_to_jump(base, [one.pod.instance for one in current])
    if len(current) > 1:
        return None
    pod, options = current[0].pod, current[0].options
    if not rules.raw_keys_direct:
        return Refusal(Reason.JUMP_ONLY, "Plain keys open jump mode only: use ssh -J, or log in for a certificate.")
    if options:
        return Refusal(
            Reason.JUMP_ONLY, "Your key has restrictions in authorized_keys, which only jump mode can keep: use ssh -J."
        )
    if not rules.raw_key_capabilities:
        return Refusal(
            Reason.NOTHING_GRANTED,
            f"Plain keys open nothing in {pod.server}: log in for a certificate, or ask the administrator of this hub.",
        )
    return replace(base, target=pod.instance, instances=(pod.instance,))


def still_valid(admission: Admission, revocations: Revocations, running: Runs) -> Refusal | None:
    """Whether somebody who was let in may stay: the target still runs, and nobody revoked him. A jump connection has no
    target: each of its tunnels ends with its own pod. A second pod that claims the server ends nobody's session.

    The watermark that a lost database sets for everybody does not end sessions: it keeps certificates from counting
    anew. Expiry does not end sessions either (a setting of the registry's user does).
    """
    instances = admission.instances
    if admission.serial is not None:
        if revocations.names(admission.serial, admission.identity):
            return Refusal(Reason.REVOKED, "Your certificate was revoked.")
        instances = revocations.living(admission.serial, admission.identity, instances)
        if not instances:
            return Refusal(Reason.REVOKED, f"Your access to {_servers(admission.instances)} was revoked.")
    if admission.target is not None and not _runs(admission.target, running):
        return stopped(admission.target.server)
    return None


def only(admission: Admission, instance: Instance) -> Admission:
    """The same person, as far as one instance goes: what a tunnel of a jump connection stands on."""
    return replace(admission, instances=(instance,))


def may_jump(admission: Admission) -> Refusal | None:
    """Jump mode is end to end: closed to whoever lacks a capability that the pod's owner could restore for herself."""
    missing = RESTORABLE_BY_OWNER - admission.capabilities
    if not missing:
        return None
    return Refusal(
        Reason.NOT_PERMITTED,
        f"Jump mode is closed to you, since {', '.join(sorted(missing))} is not permitted here: "
        "connect with the server's own login name, or ask the administrator of this hub.",
    )


def stopped(server: Server) -> Refusal:
    """What somebody hears whose server is not running, or was started without SSH."""
    return Refusal(
        Reason.SERVER_STOPPED,
        f"Your server {server} is not running with SSH. Start it in JupyterHub with Enable SSH ticked, "
        "then log in for a new certificate.",
    )


def claimed_twice(server: Server, running: Runs) -> Refusal | None:
    """What somebody hears whose server two pods claim to run: nothing new goes to either."""
    if not isinstance(running.find(server), Ambiguous):
        return None
    return Refusal(
        Reason.AMBIGUOUS_SERVER,
        f"Two pods claim to be {server}; neither is used. Ask the administrator of this hub.",
    )


def not_ready(server: Server) -> Refusal:
    """What somebody hears whose server runs and is not ready."""
    return Refusal(Reason.UNAVAILABLE, f"Your server {server} is not ready at the moment. Try again in a minute.")


def _admit_to_jump(base: Admission, judged: Sequence[Instance | Refusal]) -> Admission | Refusal:
    """Whoever may enter one server at least may jump; else the first reason why not. `judged` is never empty."""
    current = tuple(one for one in judged if isinstance(one, Instance))
    if not current:
        return next(one for one in judged if isinstance(one, Refusal))
    admission = replace(base, instances=current)
    return may_jump(admission) or admission


def _meant(servers: set[Server], login: str, user: str) -> Server | None:
    """Which of `servers`, those of a certificate of `user`, somebody means who types `login`, whatever runs.

    Our own spelling means that server, and of other people's servers nothing else. What people type instead means
    the one server of theirs that is written so, in any capitals, and else the one that was shared with them.
    """
    candidates = login_candidates(login)
    spelled = [one for one in candidates if one.login == login]
    if spelled and spelled[0] in servers:
        return spelled[0]
    for group in ({one for one in servers if one.owner == user}, set() if spelled else servers):
        exact = [one for one in candidates if one in group]
        any_capitals = {_lower(one) for one in candidates}
        if alike := exact or [one for one in group if _lower(one) in any_capitals]:
            return alike[0] if len(alike) == 1 else None
    return None


def _lower(server: Server) -> tuple[str, str]:
    """For comparing in any capitals, those of ASCII only: beyond it, different letters become one."""
    return server.owner.translate(_CAPITALS), server.name.translate(_CAPITALS)


def _running_one(server: Server, presented: Presented, running: Runs) -> Instance | Refusal:
    """The run of `server` that a certificate opens."""
    if refusal := claimed_twice(server, running):
        return refusal
    found = running.find(server)
    if not isinstance(found, Pod):
        return stopped(server)
    if not found.is_run_of(presented.instances, issued_ms(presented.serial)):
        if all(found.instance.id < one.id for one in presented.instances if one.server == server):
            return not_ready(server)  # the certificate knows of a later start than this bastion
        return Refusal(
            Reason.SERVER_RESTARTED,
            f"Your server {server} was restarted since your certificate was made. Log in again for a new one.",
        )
    return found.instance if found.ready else not_ready(server)


def _runs(instance: Instance, running: Runs) -> bool:
    return any(one.instance == instance for one in claiming(running.find(instance.server)))


def _run(instance: Instance, running: Runs) -> Pod | None:
    """The pod of exactly this run, unless another claims its server."""
    found = running.find(instance.server)
    return found if isinstance(found, Pod) and found.instance == instance else None


def _servers(instances: Iterable[Instance]) -> str:
    return ", ".join(sorted({str(one.server) for one in instances})[:5])


def _logins(instances: Iterable[Instance]) -> str:
    logins = sorted({one.server.login for one in instances})
    return ", ".join(logins[:5]) + (" …" if len(logins) > 5 else "")
