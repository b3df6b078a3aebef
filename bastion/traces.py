"""The audit lines of a connection: who was let in, who was not, and who never proved anything."""

from bastion.admission import Admission, How
from ca import audit
from ca.certificate import Certificate, decode, is_certificate
from ca.errors import MalformedCertificate, Reason
from ca.keys import fingerprint

MAX_SHOWN = 256
"""Characters of an unverified name that go into a line."""


def opened(session: str, peer: str, admission: Admission) -> audit.SessionOpened:
    """Somebody was let in."""
    return audit.SessionOpened(
        peer=peer,
        session=session,
        login=admission.login,
        identity=admission.identity,
        how=str(admission.how),
        mode=str(admission.mode),
        fingerprint=admission.key.fingerprint,
        serial=_text(admission.serial),
        principal=admission.target.principal if admission.target is not None else None,
        capabilities=tuple(sorted(admission.capabilities)),
    )


def refused(peer: str, login: str, blob: bytes, reason: Reason) -> audit.ConnectionRefused:
    """A genuine credential, proven, that opens nothing."""
    shown = _certificate(blob)
    return audit.ConnectionRefused(
        peer=peer,
        login=login[:MAX_SHOWN],
        identity=shown.key_id[:MAX_SHOWN] if shown else f"key:{fingerprint(blob)}",
        fingerprint=fingerprint(shown.key_blob if shown else blob),
        serial=_text(shown.serial) if shown else None,
        reason=str(reason),
    )


def interactive_refused(peer: str, login: str, reason: Reason, blob: bytes | None = None) -> audit.ConnectionRefused:
    """Somebody who was to log in with a browser did not get in; `blob` is the certificate that came, if one did."""
    shown = _certificate(blob) if blob is not None else None
    return audit.ConnectionRefused(
        peer=peer,
        login=login[:MAX_SHOWN],
        identity=shown.key_id[:MAX_SHOWN] if shown else None,
        fingerprint=fingerprint(shown.key_blob) if shown else None,
        serial=_text(shown.serial) if shown else None,
        reason=str(reason),
        how=str(How.INTERACTIVE),
    )


def stranger(peer: str, login: str, blob: bytes) -> audit.ConnectionRefused:
    """Something that nobody here knows was offered; nothing that it says of itself is believed."""
    return audit.ConnectionRefused(
        peer=peer,
        login=login[:MAX_SHOWN],
        identity=None,
        fingerprint=fingerprint(blob),
        serial=None,
        reason=str(Reason.UNKNOWN_CA if is_certificate(blob) else Reason.UNKNOWN_CREDENTIAL),
    )


def _certificate(blob: bytes) -> Certificate | None:
    try:
        return decode(blob) if is_certificate(blob) else None
    except MalformedCertificate:
        return None


def _text(serial: int | None) -> str | None:
    return None if serial is None else str(serial)
