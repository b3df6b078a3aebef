"""Who gets which certificate: the decision, and nothing but the decision.

`decide` narrows and never widens: servers come from the claims, capabilities from the rules, and the end from
the earliest of everything that limits it. A property test holds it to that.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from ca.claims import Claims, Running, TokenKind, Via
from ca.errors import Reason, Refusal
from ca.keys import PublicKey
from ca.limits import ALL, Capabilities, usable
from ca.names import Instance, Server
from ca.revocation import make_serial
from ca.trust import MAX_PRINCIPALS, Presented

CLOCK_SKEW = 60
"""Seconds by which a certificate begins in the past, for clients and pods whose clocks run behind."""
MIN_LIFETIME = 60
MAX_PRINCIPAL_BYTES = 32768
"""For all principals together; a certificate that names more is longer than ours may be (`ca.certificate`)."""
HOP_LIFETIME = 300
KEY_IDENTITY = "key:"
"""How the identity of a raw key begins, in audit lines, limits and hop certificates. No user is called so."""


@dataclass(frozen=True, slots=True)
class GroupRule:
    """What membership in a JupyterHub group adds to and takes from the site's capabilities; taking wins."""

    allow: Capabilities = frozenset()
    deny: Capabilities = frozenset()


@dataclass(frozen=True, slots=True)
class Rules:
    """The site's policy. Lifetimes are in seconds."""

    lifetime: int = 12 * 3600
    shared_lifetime: int = 3600
    capabilities: Capabilities = ALL
    groups: Mapping[str, GroupRule] = field(default_factory=dict)
    admin_ssh: bool = False
    bind_source_address: bool = False
    raw_keys_direct: bool = True
    raw_key_capabilities: Capabilities = ALL

    def capabilities_of(self, groups: frozenset[str]) -> Capabilities:
        """The site's capabilities, widened and then narrowed by the rules of the groups, as far as they can be had."""
        rules = [rule for group, rule in self.groups.items() if group in groups]
        allowed = self.capabilities.union(*(rule.allow for rule in rules))
        return usable(allowed.difference(*(rule.deny for rule in rules)))

    @property
    def withheld(self) -> tuple[str, ...]:
        """A sentence for the administrator for each set of capabilities of which a part cannot be had as it stands.
        What a group takes shows in its members' certificates alone."""
        sets = {"sessions": self.capabilities, "plain keys": self.raw_key_capabilities}
        return tuple(
            f"{', '.join(sorted(lost))} is not given to {whom}, since forwards reach the pod's own sshd: "
            "permit exec and subsystem as well, or take it away."
            for whom, given in sets.items()
            if (lost := given - usable(given))
        )

    def plain_key_capabilities(self, groups: frozenset[str] = frozenset()) -> Capabilities:
        """What raw keys may do in the servers of somebody in `groups`: never more than a certificate there, since the
        owner of a server writes its `authorized_keys` herself. Where this is said, and nowhere else."""
        return usable(self.raw_key_capabilities & self.capabilities & self.capabilities_of(groups))


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What somebody asks for. `servers` None means every server; `lifetime` None means as long as allowed. `held`: for
    one connection that a bastion holds meanwhile."""

    key: PublicKey
    servers: tuple[Server, ...] | None = None
    lifetime: int | None = None
    peer: str | None = None
    held: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """A user certificate that may be signed, in every detail. Times are seconds since the epoch."""

    user: str
    key: PublicKey
    serial: int
    instances: tuple[Instance, ...]
    capabilities: Capabilities
    valid_after: int
    valid_before: int
    source_address: str | None
    as_admin: bool
    held: bool = False


@dataclass(frozen=True, slots=True)
class HopGrant:
    """A hop certificate that may be signed: one pod, one user, minutes."""

    identity: str
    key: PublicKey
    serial: int
    instance: Instance
    capabilities: Capabilities
    valid_after: int
    valid_before: int


@dataclass(frozen=True, slots=True)
class HostGrant:
    """A host certificate that may be signed. `names` come from claims and settings, never from a request."""

    key_id: str
    key: PublicKey
    serial: int
    names: tuple[str, ...]
    valid_after: int
    valid_before: int


def decide(request: CertificateRequest, claims: Claims, rules: Rules, now: float, random_bits: int) -> Grant | Refusal:
    """Whether `claims` earn the certificate that `request` asks for at time `now` (seconds since the epoch).

    `random_bits` are the 20 random bits of the serial.
    """
    if claims.user.startswith(KEY_IDENTITY):
        return Refusal(
            Reason.BAD_NAME,
            f"Names that begin with {KEY_IDENTITY!r} stand for plain keys here. Ask the administrator for another.",
        )
    chosen = _choose(request.servers, claims, rules)
    if isinstance(chosen, Refusal):
        return chosen
    if len(chosen) > MAX_PRINCIPALS or (len(chosen) > 1 and _principal_bytes(chosen) > MAX_PRINCIPAL_BYTES):
        return Refusal(
            Reason.TOO_MANY_SERVERS,
            f"You can enter {len(chosen)} servers, which is more than a certificate can name: say which one.",
        )
    capabilities = rules.capabilities_of(claims.groups)
    if not capabilities:
        return Refusal(Reason.NOTHING_GRANTED, "SSH is switched off for you. Ask the administrator of this hub.")
    end = _end(request, claims, rules, chosen, now)
    if isinstance(end, Refusal):
        return end
    address = _bound_address(request.peer) if rules.bind_source_address else None
    if isinstance(address, Refusal):
        return address
    return Grant(
        user=claims.user,
        key=request.key,
        serial=make_serial(int(now * 1000), random_bits),
        instances=tuple(sorted(one.instance for one in chosen)),
        capabilities=capabilities,
        valid_after=int(now) - CLOCK_SKEW,
        valid_before=end,
        source_address=address,
        as_admin=any(one.via is Via.ADMIN for one in chosen),
        held=request.held,
    )


def decide_hop(
    presented: Presented, instance: Instance, key: PublicKey, now: float, random_bits: int
) -> HopGrant | Refusal:
    """Whether the bastion may log in to `instance`, which runs, for the holder of a user certificate."""
    if instance not in presented.instances:
        return Refusal(Reason.NOT_NAMED, "The certificate does not name this run of the server.")
    if presented.valid_before <= now:
        return Refusal(Reason.EXPIRED, "The certificate has expired. Log in again for a new one.")
    capabilities = usable(presented.capabilities)
    return _hop(presented.user, key, instance, capabilities, presented.valid_before, now, random_bits)


def decide_key_hop(
    fingerprint: str,
    instance: Instance,
    key: PublicKey,
    rules: Rules,
    owner_groups: frozenset[str],
    now: float,
    random_bits: int,
) -> HopGrant | Refusal:
    """The same for somebody with a raw key, into a server whose owner is in `owner_groups`. It rests on the bastion's
    word; the threat model says what that means."""
    if not rules.raw_keys_direct:
        return Refusal(Reason.NOT_PERMITTED, "Plain keys open jump mode only: use ssh -J, or get a certificate.")
    capabilities = rules.plain_key_capabilities(owner_groups)
    if not capabilities:
        return Refusal(Reason.NOTHING_GRANTED, "Plain keys are switched off here: get a certificate.")
    return _hop(f"{KEY_IDENTITY}{fingerprint}", key, instance, capabilities, None, now, random_bits)


def _choose(wanted: tuple[Server, ...] | None, claims: Claims, rules: Rules) -> tuple[Running, ...] | Refusal:
    """The running servers that the certificate will name."""
    may_enter = [one for one in claims.running if one.via is not Via.ADMIN or _admin_may(claims, rules)]
    if wanted is None:
        chosen = tuple(one for one in may_enter if one.ready and one.via is not Via.ADMIN)
        if chosen:
            return chosen
        return Refusal(Reason.NO_SERVER, "None of your servers is running. Start one in JupyterHub, then try again.")
    by_server = {one.server: one for one in may_enter}
    for server in wanted:
        if server not in by_server:
            return Refusal(
                Reason.SERVER_NOT_RUNNING,
                f"You have no running server {server}. Start it in JupyterHub, then try again.",
            )
        if not by_server[server].ready:
            return Refusal(Reason.SERVER_NOT_RUNNING, f"The server {server} is not ready yet. Try again in a moment.")
    if not wanted:
        return Refusal(Reason.NO_SERVER, "Say which server the certificate is for.")
    return tuple(by_server[server] for server in dict.fromkeys(wanted))


def _principal_bytes(chosen: tuple[Running, ...]) -> int:
    return sum(4 + len(one.instance.principal) for one in chosen)


def _bound_address(peer: str | None) -> str | Refusal:
    """The address as `source-address` takes it: an IPv4 address as such, also where a dual-stack socket mapped it."""
    try:
        address = ipaddress.ip_address((peer or "").partition("%")[0])
    except ValueError:
        return Refusal(
            Reason.SOURCE_ADDRESS, "Your network address is not known, and certificates here are bound to it."
        )
    return str(getattr(address, "ipv4_mapped", None) or address)


def _admin_may(claims: Claims, rules: Rules) -> bool:
    return rules.admin_ssh and claims.admin and claims.kind is TokenKind.BROWSER


def _end(
    request: CertificateRequest, claims: Claims, rules: Rules, chosen: tuple[Running, ...], now: float
) -> int | Refusal:
    """When the certificate ends: the earliest of the site's limit, the asked lifetime and the authorisation's end."""
    only_own = all(one.via is Via.OWN for one in chosen)
    lifetime = rules.lifetime if only_own else min(rules.lifetime, rules.shared_lifetime)
    if request.lifetime is not None:
        if request.lifetime < MIN_LIFETIME:
            return Refusal(Reason.BAD_LIFETIME, f"A certificate lives at least {MIN_LIFETIME} seconds.")
        lifetime = min(lifetime, request.lifetime)
    end = int(now) + lifetime
    if claims.until is not None:
        end = min(end, int(claims.until))
    if end <= now:
        return Refusal(Reason.EXPIRED, "Your login has expired. Log in again.")
    return end


def _hop(
    identity: str,
    key: PublicKey,
    instance: Instance,
    capabilities: Capabilities,
    not_after: int | None,
    now: float,
    random_bits: int,
) -> HopGrant:
    end = int(now) + HOP_LIFETIME
    return HopGrant(
        identity=identity,
        key=key,
        serial=make_serial(int(now * 1000), random_bits),
        instance=instance,
        capabilities=capabilities,
        valid_after=int(now) - CLOCK_SKEW,
        valid_before=end if not_after is None else min(end, not_after),
    )
