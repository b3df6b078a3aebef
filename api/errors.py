"""What can go wrong here, and what each thing is called in HTTP. The mapping is made once, in `api.app`.

    BastionError (ca.errors)
    ├── SettingsError (api.settings)   ours: the service does not start
    ├── Unavailable                    an outage: 503, try again later
    │   ├── HubUnavailable             JupyterHub cannot be reached or does not answer as JupyterHub
    │   └── StoreUnavailable           the database cannot be read or written; nothing was handed out
    ├── TokenRefused                   theirs: JupyterHub does not know the token they sent: 401
    └── Refused                        a `Refusal` on its way to the edge

Decisions are values (`ca.errors.Refusal`). `Refused` exists only to carry one out of a FastAPI dependency.
"""

from collections.abc import Mapping

from ca.errors import BastionError, Reason, Refusal


class Unavailable(BastionError):
    """Something that we need is away. The text is a sentence for whoever asked."""

    code = "unavailable"


class HubUnavailable(Unavailable):
    """JupyterHub cannot be reached, or what answers is not JupyterHub. It says nothing about what runs."""

    code = "hub_unavailable"


class StoreUnavailable(Unavailable):
    """The database cannot be read or written. Whatever was asked for has not been done."""

    code = "store_unavailable"


class TokenRefused(BastionError):
    """JupyterHub does not accept the token that was sent."""

    def __init__(self) -> None:
        super().__init__("JupyterHub does not know this token, or it has ended. Make a new one at JupyterHub.")


class Refused(BastionError):
    """Carries a refusal out of a dependency to the error mapping."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


STATUS: Mapping[Reason, int] = {
    Reason.INVALID_TOKEN: 401,
    Reason.UNKNOWN_CREDENTIAL: 401,
    Reason.CLOCK_OFF: 401,
    Reason.INVALID_PROOF: 401,
    Reason.WRONG_CODE: 400,
    Reason.ACCESS_DENIED: 400,
    Reason.EXPIRED_TOKEN: 400,
    Reason.INVALID_GRANT: 400,
    Reason.BAD_NAME: 400,
    Reason.BAD_KEY: 400,
    Reason.BAD_LIFETIME: 400,
    Reason.NO_SERVER: 409,
    Reason.SERVER_NOT_RUNNING: 409,
    Reason.SERVER_BUSY: 409,
    Reason.START_FAILED: 409,
    Reason.HOST_KEY_CONFLICT: 409,
    Reason.TOO_MANY_SERVERS: 400,
    Reason.TOO_MANY: 429,
    Reason.UNAVAILABLE: 503,
}
"""HTTP status of a refusal; those that are not listed are 403: understood, and no."""


def status_of(refusal: Refusal) -> int:
    """The HTTP status that says what kind of "no" this is."""
    return STATUS.get(refusal.reason, 403)
