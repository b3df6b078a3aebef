"""Hop certificates: with one of these the bastion logs in to one pod, for one user, for five minutes.

The bastion asks, and is not believed: the user's own certificate is examined here again, the run must be one that
it names and that runs now, and the answer never lasts longer or permits more than that certificate does. For a raw
key there is nothing to examine; it rests on the bastion's word, can be switched off, and is named after the key.
"""

import re
from dataclasses import dataclass

from api.errors import HubUnavailable
from api.roster import running_in
from api.services import Services
from ca.audit import HopIssued, HopRefused
from ca.certificate import blob_of
from ca.claims import groups_of
from ca.errors import Malformed, MalformedClaims, MalformedKey, MalformedName, Reason, Refusal
from ca.keys import PublicKey, parse_public_key
from ca.names import Instance, parse_login
from ca.policy import HopGrant, decide_hop, decide_key_hop
from ca.revocation import SERIAL_RANDOM_BITS
from ca.signer import Signed
from ca.trust import Presented, examine

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_STRANGER = Refusal(Reason.UNKNOWN_CREDENTIAL, "That certificate is not one of ours.")


@dataclass(frozen=True, slots=True)
class HopWish:
    """What the bastion sends, unverified. Exactly one of `certificate` and `raw_key`; `peer` is the user's address."""

    login: str
    instance: str
    public_key: str
    certificate: str | None
    raw_key: str | None
    peer: str | None


async def hop_certificate(services: Services, wish: HopWish) -> Signed | Refusal:
    """Decide and sign. Raises `HubUnavailable` and `StoreUnavailable`."""
    presented = _examined(services, wish)
    grant = presented if isinstance(presented, Refusal) else await _decide(services, wish, presented)
    if isinstance(grant, Refusal):
        services.audit(
            HopRefused(peer=wish.peer, identity=_identity(presented), server=_label(wish.login), reason=grant.reason)
        )
        return grant
    signed = services.signer.sign_hop(grant)
    services.audit(
        HopIssued(
            peer=wish.peer,
            identity=grant.identity,
            serial=str(grant.serial),
            principal=grant.instance.principal,
            for_serial=str(presented.serial) if isinstance(presented, Presented) else None,
            valid_before=grant.valid_before,
        )
    )
    return signed


def _examined(services: Services, wish: HopWish) -> Presented | str | Refusal:
    """What the user has shown: a certificate that counts, or the fingerprint of a raw key."""
    if (wish.certificate is None) == (wish.raw_key is None):
        return Refusal(Reason.BAD_NAME, "Send exactly one of certificate and raw_key.")
    if wish.raw_key is not None:
        good = _FINGERPRINT.fullmatch(wish.raw_key)
        return wish.raw_key if good else Refusal(Reason.BAD_KEY, "raw_key is a fingerprint, SHA256:….")
    try:
        blob = blob_of(wish.certificate or "")
    except Malformed as error:
        return Refusal(Reason.BAD_KEY, str(error))
    trusted = services.signer.public.user
    revocations, now = services.store.snapshot.revocations, services.now()
    return examine(blob, trusted, revocations, now, wish.peer, held=True) or _STRANGER


async def _decide(services: Services, wish: HopWish, shown: Presented | str) -> HopGrant | Refusal:
    asked = _asked(wish)
    if isinstance(asked, Refusal):
        return asked
    instance, key = asked
    if refusal := await _refuse_unless_running(services, instance):
        return refusal
    random_bits = services.random_bits(SERIAL_RANDOM_BITS)
    if isinstance(shown, Presented):
        return decide_hop(shown, instance, key, services.now(), random_bits)
    groups = await _owner_groups(services, instance)
    if isinstance(groups, Refusal):
        return groups
    return decide_key_hop(shown, instance, key, services.rules, groups, services.now(), random_bits)


async def _owner_groups(services: Services, instance: Instance) -> frozenset[str] | Refusal:
    """The groups of the server's owner, asked now where groups have rules: a key does no more than its owner might."""
    if not services.rules.groups:
        return frozenset()
    model = await services.hub.user(instance.server.owner)
    if model is None:
        return Refusal(Reason.SERVER_STOPPED, f"The server {instance.server} is stopped.")
    return groups_of(model)


def _asked(wish: HopWish) -> tuple[Instance, PublicKey] | Refusal:
    """The run and the bastion's key of this request."""
    try:
        server = parse_login(wish.login)
        if not re.fullmatch(r"[1-9][0-9]{0,18}", wish.instance):
            return Refusal(Reason.BAD_NAME, "An instance is a number of microseconds, as text.")
        return Instance(server, int(wish.instance)), parse_public_key(wish.public_key)
    except MalformedName as error:
        return Refusal(Reason.BAD_NAME, str(error))
    except MalformedKey as error:
        return Refusal(Reason.BAD_KEY, str(error))


async def _refuse_unless_running(services: Services, instance: Instance) -> Refusal | None:
    """None when exactly this run is ready. JupyterHub is asked only where no enrolment tells it already."""
    if services.roster.runs(instance):
        return None
    model = await services.hub.user(instance.server.owner)
    try:
        running = running_in([model] if model else []).get(instance.server)
    except MalformedClaims as error:
        raise HubUnavailable(str(error)) from None
    if running is None or not running.ready:
        return Refusal(Reason.SERVER_STOPPED, f"The server {instance.server} is stopped.")
    if running.instance != instance:
        return Refusal(Reason.SERVER_RESTARTED, f"The server {instance.server} was restarted: log in again.")
    return None


def _identity(shown: Presented | str | Refusal) -> str | None:
    if isinstance(shown, Presented):
        return shown.user
    return f"key:{shown}" if isinstance(shown, str) else None


def _label(login: str) -> str | None:
    """The login name for the audit line, if it is one."""
    try:
        return str(parse_login(login))
    except Malformed:
        return None
