"""What stands on the first page of somebody who is logged in, gathered once for each view.

JupyterHub may be away: then the page says so, and shows what does not depend on it.
"""

from dataclasses import dataclass
from functools import partial

from api import desk, live, progress, servers, views
from api.client_files import Reach, ssh_config
from api.commands import Door, commands_for, in_words
from api.errors import HubUnavailable
from api.first_lines import FirstLogin, first_login
from api.progress import Progress
from api.servers import Person, Seen, State
from api.services import Services
from api.session import LIFETIME, Session
from api.views import CertificateView, ServerView, SessionView
from ca.claims import groups_of
from ca.errors import Refusal
from ca.limits import RESTORABLE_BY_OWNER
from ca.names import Server


@dataclass(frozen=True, slots=True)
class Home:
    """The first page's values.

    `first` and `direct` are what to type in a terminal to log in with a browser, where the site offers that: to get a
    certificate, or for one connection. `unknown` says why it is not known what runs. `failed` is why a watched start
    failed; `refresh`: a browser without scripts loads the page again in a moment, to follow a start.
    """

    servers: tuple[ServerView, ...]
    certificates: tuple[CertificateView, ...]
    sessions: tuple[SessionView, ...]
    may_start: bool
    as_admin: bool
    may_jump: bool
    ssh_config: str
    first: FirstLogin | None
    direct: str | None
    login_left: str | None
    unknown: str | None = None
    failed: str | None = None
    refresh: bool = False

    @property
    def choices(self) -> tuple[ServerView, ...]:
        """The servers that a certificate may be had for."""
        return tuple(one for one in self.servers if one.ready)


async def gather(services: Services, door: Door, session: Session, watch: str = "") -> Home | Refusal:
    """The page of this session, watching the start of the server that `watch` names, if it is one of theirs.

    Raises `StoreUnavailable`.
    """
    who = Person(session.user, session.made)
    found: tuple[Seen, ...] = ()
    watched: tuple[Server, Progress] | None = None
    unknown, as_admin, jumps = None, False, True
    try:
        listed = await servers.listing(services, who)
        if isinstance(listed, Refusal):
            return listed
        watched = await _watched(services, who, listed, watch)
        if watched is not None and watched[1].over:
            # The list is older than that news: with the two together it would start for ever on this page.
            listed = await servers.listing(services, who)
            if isinstance(listed, Refusal):
                return listed
        found = listed
        jumps = await _may_jump(services, session.user)
        as_admin = services.rules.admin_ssh and await desk.still_admin(services, session)
    except HubUnavailable as error:
        unknown = f"{error} It is not known which of your servers run. Reload this page in a minute."
    now, settings = services.now(), services.settings
    shown = views.server_views(found, {one.instance: one for one in services.store.snapshot.enrolments}, door, watched)
    reach = _reach(services, session.user, found, jumps=jumps)
    return Home(
        servers=shown,
        certificates=views.certificate_views(await desk.own_certificates(services, session.user), now),
        sessions=views.session_views(
            await live.seen_by(services, session.user), session.user, partial(live.ending, services), now
        ),
        may_start=settings.servers.start,
        as_admin=as_admin,
        may_jump=jumps,
        ssh_config=ssh_config(settings.bastion, settings.zone, settings.pods.unix_user, settings.public_url, reach),
        first=first_login(settings.public_url, door, reach) if settings.logins.device else None,
        direct=commands_for(door, Server(session.user), None).ssh if settings.logins.holds_connections else None,
        login_left=in_words(session.ends_at - now) if session.ends_at - now < LIFETIME / 2 else None,
        unknown=unknown,
        failed=watched[1].message if watched is not None and watched[1].failed else None,
        refresh=watched is not None and not watched[1].over,
    )


async def _may_jump(services: Services, user: str) -> bool:
    """Whether jump mode is open to this user, as things are now. Raises `HubUnavailable`."""
    model = await services.hub.user(user) if services.rules.groups else None
    groups = groups_of(model) if model is not None else frozenset()
    return services.rules.capabilities_of(groups) >= RESTORABLE_BY_OWNER


def _reach(services: Services, user: str, found: tuple[Seen, ...], *, jumps: bool) -> Reach:
    """What differs in this person's ssh_config. One line serves all servers, so there is one account in it."""
    own = next((one.unix_user for one in found if one.unix_user and one.server.owner == user), None)
    account = None if own == services.settings.pods.unix_user else own
    alike = tuple(one.server for one in found if one.unix_user in (None, own or services.settings.pods.unix_user))
    return Reach(alike or (Server(user),), direct=not jumps, unix_user=account)


async def _watched(
    services: Services, who: Person, found: tuple[Seen, ...], watch: str
) -> tuple[Server, Progress] | None:
    if not watch:
        return None
    one = servers.choose(watch, who.user, found)
    if isinstance(one, Refusal) or (one.state is State.RUNNING and not _young(services, one)):
        return None
    return one.server, await progress.glance(services, who, one.server)


def _young(services: Services, one: Seen) -> bool:
    """Whether this run began so lately that its pod may still be on its way."""
    return one.instance is not None and services.now() - one.instance.id / 1e6 < progress.YOUNG_SECONDS
