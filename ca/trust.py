"""What a certificate is worth to us: the only reader of certificate internals outside the signer.

`examine` has three answers. `None`: not signed by our CA; whoever shows it is a stranger and learns nothing.
`Refusal`: genuine but useless, and the sentence says why. `Presented`: what it says, checked.
"""

import ipaddress
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ca.certificate import Certificate, Kind, decode, string
from ca.errors import Malformed, MalformedCertificate, MalformedName, Reason, Refusal
from ca.keys import PublicKey, parse_key_blob
from ca.limits import Capabilities, capabilities_in
from ca.names import Instance, parse_principal
from ca.revocation import Revocations

MAX_PRINCIPALS = 256

_ED25519_SIGNATURE = string(b"ssh-ed25519") + (64).to_bytes(4, "big")  # RFC 8709 section 6, then 64 bytes
_LOGIN_AGAIN = "Log in again for a new certificate."


HELD_CONNECTION = "held-connection@jupyterhub-bastion"
"""Critical option of certificates for connections that a bastion holds while somebody approves them in a browser.
Nobody proves the key of one, so whoever shows one took a bastion's place: no sshd and no door of ours takes it."""


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The public keys of our three CAs: previous, current and next of each."""

    user: tuple[PublicKey, ...] = ()
    host: tuple[PublicKey, ...] = ()
    hop: tuple[PublicKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Presented:
    """A genuine, valid user certificate, as far as it can be judged without knowing what runs."""

    user: str
    serial: int
    instances: tuple[Instance, ...]
    capabilities: Capabilities
    valid_before: int
    key: PublicKey


def genuine(blob: bytes, trusted: tuple[PublicKey, ...]) -> Certificate | None:
    """The certificate if one of `trusted` really signed it, else None. Checks nothing else.

    Raises nothing: bytes that are no certificate are simply not ours.
    """
    try:
        certificate = decode(blob)
    except MalformedCertificate:
        return None
    for ca in trusted:
        if ca.blob == certificate.ca_blob:
            return certificate if _signed_by(ca, certificate) else None
    return None


def examine(
    blob: bytes,
    trusted: tuple[PublicKey, ...],
    revocations: Revocations,
    now: float,
    peer: str | None,
    *,
    held: bool = False,
) -> Presented | Refusal | None:
    """Judge a user certificate at time `now` (seconds since the epoch), shown from address `peer`.

    `peer` None means that no address is known; a certificate bound to addresses is then refused. `held`: it came for
    a connection that a bastion holds, or stands behind a hop certificate; those of held connections count nowhere else.
    """
    certificate = genuine(blob, trusted)
    if certificate is None:
        return None
    if certificate.kind != Kind.USER:
        return Refusal(Reason.WRONG_CERTIFICATE_TYPE, "That is a host certificate; it lets nobody in.")
    if refusal := _refuse_time(certificate, now):
        return refusal
    if refusal := _refuse_critical(certificate, peer, held):
        return refusal
    instances = _instances(certificate)
    if isinstance(instances, Refusal):
        return instances
    try:
        key = parse_key_blob(certificate.key_blob)
    except Malformed as error:
        return Refusal(Reason.BAD_KEY, str(error))
    if revocations.refuses(certificate.serial, certificate.key_id, instances):
        return Refusal(Reason.REVOKED, f"Your certificate was revoked. {_LOGIN_AGAIN}")
    return Presented(
        user=certificate.key_id,
        serial=certificate.serial,
        instances=revocations.living(certificate.serial, certificate.key_id, instances),
        capabilities=capabilities_in(name for name, data in certificate.extensions if not data),
        valid_before=certificate.valid_before,
        key=key,
    )


def _signed_by(ca: PublicKey, certificate: Certificate) -> bool:
    # A CA key is ed25519 (`ca.signer`), so a signature of any other kind is not ours whatever it says.
    head, raw = certificate.signature[:-64], certificate.signature[-64:]
    if ca.algorithm != "ssh-ed25519" or head != _ED25519_SIGNATURE:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(ca.blob[-32:]).verify(raw, certificate.signed)
    except InvalidSignature:
        return False
    return True


def _refuse_time(certificate: Certificate, now: float) -> Refusal | None:
    if now < certificate.valid_after:
        return Refusal(
            Reason.NOT_YET_VALID, "Your certificate is not valid yet: check the clock of the machine that issued it."
        )
    if now >= certificate.valid_before:
        return Refusal(Reason.EXPIRED, f"Your certificate has expired. {_LOGIN_AGAIN}")
    return None


def _refuse_critical(certificate: Certificate, peer: str | None, held: bool) -> Refusal | None:
    for name, data in certificate.critical:
        if held and (name, data) == (HELD_CONNECTION, b""):
            continue
        if name != "source-address":
            return Refusal(
                Reason.UNKNOWN_CRITICAL_OPTION, "Your certificate carries a restriction that is not known here."
            )
        if peer is None or not _address_allowed(data, peer):
            return Refusal(
                Reason.SOURCE_ADDRESS,
                "Your certificate is bound to another network address. Log in again from here for one that is not.",
            )
    return None


def _address_allowed(data: bytes, peer: str) -> bool:
    """PROTOCOL.certkeys: a string holding a comma-separated list of addresses in CIDR form.

    As strict as OpenSSH: host bits or a written-out netmask spoil the whole list.
    """
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 or len(data) != 4 + size:
        return False
    try:
        address = ipaddress.ip_address(peer)
        texts = data[4:].decode("ascii").split(",")
        networks = [ipaddress.ip_network(text, strict=True) for text in texts]
    except ValueError:
        return False
    if any("." in text.partition("/")[2] for text in texts):
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any(candidate in network for network in networks for candidate in (address, mapped) if candidate)


def _instances(certificate: Certificate) -> tuple[Instance, ...] | Refusal:
    if not certificate.principals:
        return Refusal(Reason.NO_PRINCIPALS, f"Your certificate names no server. {_LOGIN_AGAIN}")
    if len(certificate.principals) > MAX_PRINCIPALS:
        return Refusal(Reason.BAD_PRINCIPAL, f"Your certificate names too many servers. {_LOGIN_AGAIN}")
    try:
        return tuple(parse_principal(name) for name in certificate.principals)
    except MalformedName:
        return Refusal(Reason.BAD_PRINCIPAL, f"Your certificate names something that is no server. {_LOGIN_AGAIN}")
