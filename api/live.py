"""Who sees which live sessions, and who may end them: those who came in, and the owners of what they came into.

Ending a session revokes nothing: whoever may come in can come in again. The page, scripts and the command of the
client all come through here.

Everything here raises `StoreUnavailable` while the database is away.
"""

from collections.abc import Iterable

from api.pace import Kind
from api.services import Services
from api.sightings import LiveSession
from ca.audit import RequestRefused, SessionEnded
from ca.errors import Reason, Refusal

_NOT_THERE = Refusal(
    Reason.NOT_YOURS,
    "You have no live session of this name; perhaps it has ended. The list of yours shows their names.",
)


async def seen_by(services: Services, user: str) -> tuple[LiveSession, ...]:
    """The sessions that `user` opened, and those of anybody in a server of `user`'s, the oldest first."""
    return _in_order(one for one in await _all(services) if concerns(one, user))


async def everybodys(services: Services) -> tuple[LiveSession, ...]:
    """Every session, for administrators."""
    return _in_order(await _all(services))


def concerns(session: LiveSession, user: str) -> bool:
    """Whether `user` opened this session, or owns the server that it leads to."""
    return session.told.user == user or (session.server is not None and session.server.owner == user)


async def is_of(services: Services, name: str, user: str) -> bool:
    """Whether the live session of this public name concerns `user`."""
    return any(one.name == name and concerns(one, user) for one in await _all(services))


def ending(services: Services, session: LiveSession) -> bool:
    """Whether somebody ended it by hand, and its bastion has not said yet that it is gone."""
    return session.name in services.store.snapshot.ended_sessions


async def end(services: Services, name: str, by: str, *, anybodys: bool, peer: str | None) -> Refusal | None:
    """Cut the session of this public name. Doing it twice changes nothing.

    `anybodys`: an administrator may end what concerns others.
    """
    if services.store.snapshot.ended_sessions.get(name) == by:
        return None
    session = next((one for one in await _all(services) if one.name == name), None)
    if session is None or not (anybodys or concerns(session, by)):
        services.audit(RequestRefused(route="/sessions", reason=_NOT_THERE.reason, peer=peer))
        return _NOT_THERE
    if not ending(services, session):
        if too_fast := services.pace.take(Kind.REVOCATIONS, by):
            return too_fast.refusal
        await services.sightings.end(name, by, services.now_ms())
        await services.roster.publish()
        services.audit(
            SessionEnded(
                peer=peer,
                by=by,
                session=session.told.id,
                identity=session.told.identity,
                server=None if session.server is None else str(session.server),
            )
        )
    return None


async def _all(services: Services) -> tuple[LiveSession, ...]:
    return await services.sightings.everybodys(services.now_ms())


def _in_order(sessions: Iterable[LiveSession]) -> tuple[LiveSession, ...]:
    return tuple(sorted(sessions, key=lambda one: one.told.since))
