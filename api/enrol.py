"""A pod tells its host key: whose pod it is, that it runs, and that nobody else spoke first.

Nothing in a request says *who* the pod is. That comes from the token (its one server, and its user must own it)
and from JupyterHub (the run, asked with our own token); where it is comes from the connection's own address. What
the pod chooses, its host key, ports and Unix user, is checked here and believed only as far as a connection to that
address shows that very host key.
"""

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from api.errors import HubUnavailable, Refused, TokenRefused
from api.hub import Model
from api.pace import Kind
from api.roster import running_in
from api.services import Services
from api.settings import Network
from api.store import CertificateRecord, Enrolment
from ca.audit import Enrolled, EnrolmentRefused, HostCertificateIssued, Unenrolled
from ca.claims import Running, judge_enrolment
from ca.errors import MalformedClaims, MalformedKey, Reason, Refusal
from ca.keys import HOST_ALGORITHMS, PublicKey, parse_public_key
from ca.names import Server
from ca.policy import CLOCK_SKEW, HostGrant
from ca.revocation import SERIAL_RANDOM_BITS, make_serial
from ca.signer import Signed

_UNIX_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,31}\$?")
_FIRST_FREE_PORT = 1024
_NOT_RUNNING = Refusal(
    Reason.SERVER_NOT_RUNNING, "JupyterHub does not list this server as running. Try again in a moment."
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pod sends, unverified. `address` is where the connection came from."""

    host_key: str
    ssh_port: int
    key_port: int
    unix_user: str
    address: str | None


@dataclass(frozen=True, slots=True)
class EnrolledPod:
    """An enrolment that was accepted, with what the pod's sshd needs."""

    enrolment: Enrolment
    host_certificate: Signed
    withdraw_token: str = field(repr=False)


async def enrol(services: Services, token: str, wish: Wish) -> EnrolledPod | Refusal:
    """Enrol the pod that holds `token`. Raises `HubUnavailable` and `StoreUnavailable`: then nothing was done."""
    try:
        model = await services.strangers.whose(token, wish.address)
    except TokenRefused as error:
        return _refused(services, Refusal(Reason.INVALID_TOKEN, str(error)), wish, None, None)
    except Refused as error:
        return _refused(services, error.refusal, wish, None, None)
    server = _judge(model)
    user = str(model.get("name"))
    if isinstance(server, Refusal):
        return _refused(services, server, wish, user, None)
    if too_fast := services.pace.take(Kind.ENROLMENTS, user):
        return _refused(services, too_fast.refusal, wish, user, server) if too_fast.first else too_fast.refusal
    pod = read_wish(wish, services.settings.pods.networks)
    if isinstance(pod, Refusal):
        return _refused(services, pod, wish, user, server)
    running = await _running(services, server)
    if running is None or running.pending == "stop":
        return _refused(services, _NOT_RUNNING, wish, user, server)
    return await _accept(services, wish, pod, running)


async def withdraw(services: Services, token: str, peer: str | None) -> bool:
    """End the enrolment that this withdraw token belongs to; False when there is none. JupyterHub is not needed."""
    instance = await services.store.withdraw(_hashed(token), services.now_ms())
    if instance is None:
        return False
    await services.roster.publish()
    services.audit(Unenrolled(peer=peer, server=str(instance.server), instance=str(instance.id), reason="withdrawn"))
    return True


async def host_certificate(services: Services, key: PublicKey, key_id: str, names: Iterable[str]) -> Signed:
    """A host certificate for `names`, which come from claims and settings only. Raises `StoreUnavailable`."""
    now = services.now()
    grant = HostGrant(
        key_id=key_id,
        key=key,
        serial=make_serial(services.now_ms(), services.random_bits(SERIAL_RANDOM_BITS)),
        names=tuple(names),
        valid_after=int(now) - CLOCK_SKEW,
        valid_before=int(now) + services.settings.pods.host_certificate_lifetime,
    )
    await services.store.record(
        CertificateRecord(
            serial=grant.serial,
            kind="host",
            user=key_id,
            fingerprint=key.fingerprint,
            principals=grant.names,
            valid_after=grant.valid_after,
            valid_before=grant.valid_before,
            issued_at=services.now_ms(),
            how="enrolment",
        )
    )
    signed = services.signer.sign_host(grant)
    services.audit(
        HostCertificateIssued(
            serial=str(grant.serial),
            fingerprint=key.fingerprint,
            principals=signed.principals,
            valid_before=signed.valid_before,
        )
    )
    return signed


@dataclass(frozen=True, slots=True)
class Checked:
    """A wish whose every part was checked."""

    host_key: PublicKey
    ssh_port: int
    key_port: int
    unix_user: str
    address: str


def read_wish(wish: Wish, networks: Iterable[Network]) -> Checked | Refusal:
    """Check what a pod sent.

    Ports: from 1024 up on loopback, where the lower ones are the machine's own services and not a user's sshd;
    any port elsewhere, since a pod that has its own address has its own port 22.
    """
    try:
        address = ipaddress.ip_address(wish.address or "")
    except ValueError:
        return Refusal(Reason.ADDRESS_NOT_ALLOWED, "The address that this enrolment came from is not known.")
    address = getattr(address, "ipv4_mapped", None) or address
    if not any(address in network for network in networks):
        return Refusal(
            Reason.ADDRESS_NOT_ALLOWED,
            f"Enrolments from {address} are not accepted: it is not in the networks that notebook servers live in "
            "(SSH_API_PODS_NETWORKS).",
        )
    try:
        host_key = parse_public_key(wish.host_key, algorithms=HOST_ALGORITHMS)
    except MalformedKey as error:
        return Refusal(Reason.BAD_KEY, str(error))
    lowest = _FIRST_FREE_PORT if address.is_loopback else 1
    if not all(lowest <= port <= 65535 for port in (wish.ssh_port, wish.key_port)):
        return Refusal(Reason.BAD_NAME, f"Ports of a notebook server here lie between {lowest} and 65535.")
    if wish.ssh_port == wish.key_port:
        return Refusal(Reason.BAD_NAME, "The SSH port and the key port are the same.")
    if not _UNIX_USER.fullmatch(wish.unix_user):
        return Refusal(Reason.BAD_NAME, "The Unix user has characters that no Unix user name has.")
    return Checked(host_key, wish.ssh_port, wish.key_port, wish.unix_user, str(address))


async def _accept(services: Services, wish: Wish, pod: Checked, running: Running) -> EnrolledPod | Refusal:
    server = running.server
    withdraw_token = secrets.token_urlsafe(32)
    new = Enrolment(
        instance=running.instance,
        host_key=pod.host_key,
        address=pod.address,
        ssh_port=pod.ssh_port,
        key_port=pod.key_port,
        unix_user=pod.unix_user,
        enrolled_at=services.now_ms(),
        seen_ready=running.ready,
    )
    stored = await services.store.enrol(new, _hashed(withdraw_token))
    if isinstance(stored, Refusal):
        return _refused(services, stored, wish, server.owner, server, pod.host_key.fingerprint)
    names = (server.host_name(services.settings.zone),)
    certificate = await host_certificate(services, pod.host_key, running.instance.principal, names)
    await services.roster.publish()
    services.audit(
        Enrolled(
            peer=wish.address,
            server=str(server),
            instance=str(running.instance.id),
            fingerprint=pod.host_key.fingerprint,
            address=f"{pod.address}:{pod.ssh_port}",
        )
    )
    return EnrolledPod(stored, certificate, withdraw_token)


async def _running(services: Services, server: Server) -> Running | None:
    model = await services.hub.user(server.owner)
    if model is None:
        return None
    try:
        return running_in([model]).get(server)
    except MalformedClaims as error:
        raise HubUnavailable(str(error)) from None


def _judge(model: Model) -> Server | Refusal:
    try:
        return judge_enrolment(model)
    except MalformedClaims as error:
        raise HubUnavailable(str(error)) from None


def _refused(
    services: Services,
    refusal: Refusal,
    wish: Wish,
    user: str | None,
    server: Server | None,
    fingerprint: str | None = None,
) -> Refusal:
    services.audit(
        EnrolmentRefused(
            peer=wish.address,
            user=user,
            server=None if server is None else str(server),
            reason=refusal.reason,
            fingerprint=fingerprint,
        )
    )
    return refusal


def _hashed(token: str) -> str:
    """A random token of 256 bits needs no salt and no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
