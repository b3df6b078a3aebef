"""Why something was refused, and what can go wrong.

A decision is a value: `Refusal` is returned, never raised, and carries a stable code for machines and a
sentence for the person. Exceptions are for input that is not what it claims to be, and for outages:

    BastionError
    ├── Malformed(ValueError)        theirs: what was sent cannot be read
    │   ├── MalformedName
    │   ├── MalformedKey
    │   ├── MalformedCertificate
    │   ├── MalformedSignature
    │   └── MalformedClaims          JupyterHub's JSON is not what we know
    └── KeyFileError                 ours: a CA key file is missing, unreadable or readable by others
"""

from dataclasses import dataclass
from enum import StrEnum


class BastionError(Exception):
    """Root of every error that this project raises."""


class Malformed(BastionError, ValueError):
    """Something that came from outside cannot be read; the text is a sentence for the person who sent it."""


class MalformedName(Malformed):
    """A login name, principal or host name that is not in our grammar."""


class MalformedKey(Malformed):
    """A public key that cannot be read, or that we do not accept."""


class MalformedCertificate(Malformed):
    """A certificate whose bytes do not follow OpenSSH's PROTOCOL.certkeys."""


class MalformedSignature(Malformed):
    """Bytes that are no signature in OpenSSH's format, or one of a kind that we do not accept."""


class MalformedClaims(Malformed):
    """A JupyterHub answer without the fields, or with other types, than JupyterHub documents."""


class KeyFileError(BastionError):
    """A CA key file is missing, unreadable, readable by others, or not a key."""


class Reason(StrEnum):
    """Stable codes of refusals, as they stand in audit lines and in `error` of JSON answers."""

    # who asks
    INVALID_TOKEN = "invalid_token"  # noqa: S105 - a code, not a secret
    WRONG_TOKEN = "wrong_token"  # noqa: S105 - genuine, but not one that may ask for this
    CLOCK_OFF = "clock_off"
    INVALID_PROOF = "invalid_proof"
    NOT_A_USER = "not_a_user"
    NOT_YOURS = "not_yours"
    BAD_NAME = "bad_name"
    # what is asked for
    BAD_KEY = "bad_key"
    NO_SERVER = "no_server"
    SERVER_NOT_RUNNING = "server_not_running"
    SERVER_BUSY = "server_busy"
    START_FAILED = "start_failed"
    TOO_MANY_SERVERS = "too_many_servers"
    NOTHING_GRANTED = "nothing_granted"
    BAD_LIFETIME = "bad_lifetime"
    HOST_KEY_CONFLICT = "host_key_conflict"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    # a login that waits for a browser; the last three are words of RFC 6749 and RFC 8628
    WRONG_CODE = "wrong_code"
    ACCESS_DENIED = "access_denied"
    EXPIRED_TOKEN = "expired_token"  # noqa: S105 - a code, not a secret
    INVALID_GRANT = "invalid_grant"
    # what a certificate or key is worth at the door
    WRONG_CERTIFICATE_TYPE = "wrong_certificate_type"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    REVOKED = "revoked"
    NO_PRINCIPALS = "no_principals"
    BAD_PRINCIPAL = "bad_principal"
    UNKNOWN_CRITICAL_OPTION = "unknown_critical_option"
    SOURCE_ADDRESS = "source_address"
    UNKNOWN_CREDENTIAL = "unknown_credential"
    UNKNOWN_CA = "unknown_ca"
    NOT_NAMED = "not_named"
    SERVER_STOPPED = "server_stopped"
    SERVER_RESTARTED = "server_restarted"
    AMBIGUOUS_SERVER = "ambiguous_server"
    NOT_PERMITTED = "not_permitted"
    JUMP_ONLY = "jump_only"
    WRONG_TARGET = "wrong_target"
    TOO_MANY = "too_many"
    ABANDONED = "abandoned"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A "no" with its reason. `sentence` is for the person, and says what to do next where there is something.

    `retry_after`: seconds until it may be asked for again, where that is known.
    """

    reason: Reason
    sentence: str
    retry_after: int | None = None
