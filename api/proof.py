"""Somebody shows to hold the key of a certificate that we gave out, and counts as its user for a few requests.

Proof is an `Authorization` header of the scheme SSHSIG:

    SSHSIG serial="…", nonce="<32 hex digits>", time="<seconds>", signature="<base64>"

with a signature of `ssh-keygen -Y sign -n jupyterhub-bastion` over

    jupyterhub-bastion\\n METHOD \\n URL \\n serial \\n nonce \\n time \\n SHA-256 of the body in hex \\n

so that it is good for this request at this service, for two minutes, once. The URL is made from the settings: a
signature that another site got out of somebody is none here. Nothing is looked up in JupyterHub, and no nonce is
remembered, before the signature was verified.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.dialects import postgresql, sqlite

from api import tables
from api.logins import Kind
from api.records import CertificateRecord, instances_in
from api.services import Services
from api.store import Store
from ca.claims import TokenKind
from ca.errors import MalformedName, MalformedSignature, Reason, Refusal
from ca.keys import PublicKey
from ca.names import instance_id
from ca.sshsig import Signature, parse_signature

NAMESPACE = b"jupyterhub-bastion"
SCHEME = "sshsig"
CLOCKS_DIFFER = 60
"""Seconds by which the client's clock may be wrong."""

_PARAMETER = re.compile(r'([a-z]+)="([^"\\]*)"')
_FORMS: Mapping[str, re.Pattern[str]] = {
    "serial": re.compile(r"[1-9][0-9]{0,18}"),
    "nonce": re.compile(r"[0-9a-f]{32}"),
    "time": re.compile(r"[0-9]{1,12}"),
    "signature": re.compile(r"[A-Za-z0-9+/]{1,24000}={0,2}"),
}

_UNREADABLE = Refusal(
    Reason.INVALID_PROOF,
    'This proof cannot be read. It looks like SSHSIG serial="…", nonce="…", time="…", signature="…".',
)
_NOT_PROVEN = Refusal(
    Reason.INVALID_PROOF,
    "This does not prove that you hold the key of that certificate. Log in again: hubssh login",
)
_USED = Refusal(Reason.INVALID_PROOF, "This proof was used already. Sign a new one for each request.")
_EXPIRED = Refusal(Reason.EXPIRED, "This certificate has expired. Log in again: hubssh login")
_REVOKED = Refusal(Reason.REVOKED, "This certificate was revoked. Log in again: hubssh login")
_WORTH_NOTHING = Refusal(
    Reason.NOT_PERMITTED,
    "This certificate opens servers, and proves nothing here. Log in with hubssh login, or use the page in a browser.",
)
_GONE = Refusal(Reason.NOT_A_USER, "JupyterHub does not know the user of this certificate any more.")


OPEN_SERVERS_ONLY = frozenset({str(TokenKind.SERVER), str(Kind.INTERACTIVE)})
"""`how` of certificates that no proof may rest on. What a server's own token got is for that server, and its holder
may be whoever can read that token: it must not become the owner's account. And of a connection that a bastion holds
nobody has the key, so whoever shows a proof took the bastion's place."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was signed, as it arrived: `path` as it stood on the wire, with its query."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Holder:
    """Whoever holds the key of a certificate that counts."""

    user: str
    key: PublicKey
    record: CertificateRecord


@dataclass(frozen=True, slots=True)
class _Shown:
    """The header, read and not believed."""

    serial: str
    nonce: str
    time: int
    signature: Signature


def is_proof(authorization: str) -> bool:
    """Whether an `Authorization` header is of our scheme."""
    return authorization.partition(" ")[0].lower() == SCHEME


def message(request: Request, public_url: str, serial: str, nonce: str, time: int) -> bytes:
    """The bytes that are signed."""
    body = hashlib.sha256(request.body).hexdigest()
    lines = ("jupyterhub-bastion", request.method, f"{public_url}{request.path}", serial, nonce, str(time), body)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


async def judge(services: Services, authorization: str, request: Request) -> Holder | Refusal:
    """Whose request this is. Raises `StoreUnavailable`.

    The record alone says who the user is: ask `is_gone` before anything is done for a user of that name.
    """
    shown = _read(authorization)
    if isinstance(shown, Refusal):
        return shown
    now = services.now()
    if abs(now - shown.time) > CLOCKS_DIFFER:
        return Refusal(Reason.CLOCK_OFF, _clock_sentence(now, shown.time))
    record = await services.store.certificate(int(shown.serial))
    key = shown.signature.key
    if record is None or record.kind != "user" or record.fingerprint != key.fingerprint:
        return _NOT_PROVEN
    signed = message(request, services.settings.public_url, shown.serial, shown.nonce, shown.time)
    if not shown.signature.is_of(signed, NAMESPACE):
        return _NOT_PROVEN
    if record.how in OPEN_SERVERS_ONLY:
        return _WORTH_NOTHING
    if now >= record.valid_before:
        return _EXPIRED
    if services.store.snapshot.revocations.refuses(record.serial, record.user, instances_in(record.principals)):
        return _REVOKED
    if not await is_new(services.store, shown.serial, shown.nonce, services.now_ms()):
        return _USED
    return Holder(record.user, key, record)


async def is_gone(services: Services, holder: Holder) -> Refusal | None:
    """Why the holder counts for nobody: the user is gone, or the name was given to somebody else since.

    Raises `HubUnavailable`.
    """
    model = await services.hub.user(holder.user)
    if model is None:
        return _GONE
    made = model.get("created")
    made = made if isinstance(made, str) else ""
    if holder.record.user_made is not None:
        return None if holder.record.user_made == made else _GONE
    try:
        issued = holder.record.issued_at * 1000 + CLOCKS_DIFFER * 1_000_000  # the hub's clock is not ours
        return _GONE if made and instance_id(made) > issued else None
    except MalformedName:
        return _GONE


def _read(authorization: str) -> _Shown | Refusal:
    parts = [part.strip() for part in authorization.partition(" ")[2].split(",")]
    matches = [_PARAMETER.fullmatch(part) for part in parts]
    given = {match[1]: match[2] for match in matches if match is not None}
    if len(parts) != len(_FORMS) or set(given) != set(_FORMS):
        return _UNREADABLE
    if not all(form.fullmatch(given[name]) for name, form in _FORMS.items()):
        return _UNREADABLE
    try:
        signature = parse_signature(base64.b64decode(given["signature"], validate=True))
    except MalformedSignature as error:
        return Refusal(Reason.INVALID_PROOF, str(error))
    except binascii.Error:
        return _UNREADABLE
    return _Shown(given["serial"], given["nonce"], int(given["time"]), signature)


def _clock_sentence(now: float, shown: int) -> str:
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    how = "ahead" if shown > now else "behind"
    return f"Your computer's clock is {abs(shown - now):.0f} seconds {how} of ours: here it is {moment}. Set it right."


async def is_new(store: Store, serial: str, nonce: str, now_ms: int) -> bool:
    """Whether a proof is seen for the first time; of many at once, on whichever replica, one is."""
    table = tables.nonces
    name = hashlib.sha256(f"{serial} {nonce}".encode()).hexdigest()
    async with store.noting() as connection:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        row = insert(table).values(nonce_sha256=name, used_at=now_ms).on_conflict_do_nothing()
        return (await connection.execute(row.returning(table.c.nonce_sha256))).first() is not None
