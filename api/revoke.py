"""Who may take back what: people all that they were given and their own servers, administrators everybody's.

A user or a server is revoked as of now: nothing issued until this moment counts any more, and new certificates can be
had at once. It is in the database before anybody is told that it is done, and no JupyterHub is needed for it.
"""

from dataclasses import dataclass

from api import issue
from api.services import Services
from ca.audit import RequestRefused
from ca.errors import MalformedName, Reason, Refusal
from ca.names import MAX_NAME_LENGTH, Server, login_candidates, parse_login

MAX_WHY = 200

_NOT_YOURS = Refusal(
    Reason.NOT_YOURS,
    "You can revoke your own certificates, everything that you were given, and your own servers. "
    "For more, ask an administrator.",
)


@dataclass(frozen=True, slots=True)
class Revoker:
    """Who asks. `anybodys`: an administrator, who may revoke what belongs to others."""

    user: str
    anybodys: bool
    peer: str | None


async def revoke(services: Services, what: str | Server, who: Revoker, why: str | None) -> Refusal | None:
    """End every certificate of a user (the name) or for a server. Doing it again is no error.

    Raises `StoreUnavailable`: then nothing was done.
    """
    owner = what.owner if isinstance(what, Server) else what
    if owner != who.user and not who.anybodys:
        services.audit(RequestRefused(route="/revocations", reason=_NOT_YOURS.reason, peer=who.peer))
        return _NOT_YOURS
    reason = why or ("by its owner" if owner == who.user else "by an administrator")
    if isinstance(what, Server):
        await issue.revoke_server(services, what, who.user, reason, who.peer)
    else:
        await issue.revoke_user(services, what, who.user, reason, who.peer)
    return None


def read_user(text: str) -> str | Refusal:
    """The user name that somebody sent. Whether JupyterHub knows it makes no difference: a user may be gone."""
    if not 0 < len(text) <= MAX_NAME_LENGTH or not text.isprintable():
        return Refusal(Reason.BAD_NAME, "That is not the name of a user.")
    return text


def read_server(text: str, user: str) -> Server | Refusal:
    """The server that somebody means: its login name, or as it is written for people, where only one can be meant."""
    try:
        return parse_login(text)
    except MalformedName:
        pass
    owner, slash, name = text.partition("/")
    candidates = login_candidates(text)
    if slash:
        try:
            candidates = (Server(owner, name),)
        except MalformedName:
            candidates = ()
    mine = tuple(one for one in candidates if one.owner == user)
    if len(chosen := mine or candidates) != 1:
        return Refusal(Reason.BAD_NAME, "That does not name one server. Write its login name, like alice or alice+gpu.")
    return chosen[0]
