"""A person's servers: which there are and in what state, and starting and stopping one's own.

What runs is JupyterHub's word, asked at each view. What this service starts is started with SSH, which is what people
come here for: the check box of the spawn form is ticked for them, and what they chose the last time is sent again,
since JupyterHub forgets it as soon as anything is sent at all.

Only owners start and stop, only servers that there are already (JupyterHub's page makes new ones), and only where the
site switched that on. Everything here raises `HubUnavailable` and `StoreUnavailable` when those are away.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from api import issue
from api.errors import HubUnavailable
from api.hub import Model
from api.hubservers import Said
from api.services import Services
from api.store import Enrolment
from ca.audit import ServerAsked, ServerRefused
from ca.claims import Running, TokenKind, TokenOwner, Via, known_servers, running_servers
from ca.errors import MalformedClaims, MalformedName, Reason, Refusal
from ca.names import Instance, Server, login_candidates

SSH_OPTION = "enable_ssh"
"""The key in `user_options` that the check box of `deploy/hub` sets; JSON true means yes."""

_JUPYTERHUBS_OWN = ("user_options", "display_name")
"""Keys that JupyterHub 6 takes out of a start's body for itself."""

_GONE = Refusal(Reason.NOT_A_USER, "JupyterHub does not know you any more. Log in there again.")
_OFF = Refusal(
    Reason.NOT_PERMITTED,
    "Starting and stopping servers from here is switched off. Use JupyterHub's own page, and tick “Enable SSH” there.",
)


class State(StrEnum):
    """What a server does. A server that failed to start is stopped."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. `made` is JupyterHub's `created` of that user at login, None where a token was shown just now."""

    user: str
    made: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A server as its owner, or somebody with whom it is shared, sees it. `ssh` and `instance` are None unless it
    runs; `ssh` says whether its pod takes SSH connections, and `unix_user` whom its sshd lets in then."""

    server: Server
    state: State
    via: Via = Via.OWN
    ssh: bool | None = None
    instance: Instance | None = None
    unix_user: str | None = None


async def listing(services: Services, who: Person) -> tuple[Seen, ...] | Refusal:
    """The person's own servers, stopped ones included, the default one first; then those shared for SSH that run."""
    model = await _model(services, who)
    if model is None:
        return _GONE
    claims = await issue.claims_for(services, TokenOwner(who.user, TokenKind.ACCESS))
    if isinstance(claims, Refusal):
        return claims
    shared = tuple(one for one in claims.running if one.via is Via.SHARED)
    return seen(model, shared, services.store.snapshot.enrolments)


def seen(model: Model, shared: Iterable[Running], enrolments: Iterable[Enrolment]) -> tuple[Seen, ...]:
    """The same from JupyterHub's model of the user, stopped servers included. Raises `HubUnavailable`."""
    accounts = {one.instance: one.unix_user for one in enrolments}
    try:
        running = {one.server: one for one in running_servers(model)}
        names = dict.fromkeys((Server(str(model.get("name"))), *sorted(known_servers(model))))
    except (MalformedClaims, MalformedName) as error:
        raise HubUnavailable(str(error)) from None
    own = [_seen(server, running.get(server), Via.OWN, accounts) for server in names]
    return (*own, *(_seen(one.server, one, Via.SHARED, accounts) for one in sorted(shared, key=lambda one: one.server)))


async def look(services: Services, who: Person, typed: str) -> Seen | Refusal:
    """One server of the person's own, as people type it: `alice+gpu`, or just `gpu`."""
    model = await _model(services, who)
    if model is None:
        return _GONE
    return choose(typed, who.user, seen(model, (), services.store.snapshot.enrolments))


def choose(typed: str, user: str, own: Iterable[Seen]) -> Seen | Refusal:
    """The one of `user`'s `own` servers that is meant. Nothing typed means the default one."""
    known = {one.server: one for one in own if one.server.owner == user}
    candidates = list(login_candidates(typed)) if typed else [Server(user)]
    try:
        candidates.append(Server(user, typed))
    except MalformedName:
        pass
    matching = [known[server] for server in dict.fromkeys(candidates) if server in known]
    if len(matching) == 1:
        return matching[0]
    if matching:
        exact = " or ".join(one.server.login for one in matching)
        return Refusal(Reason.AMBIGUOUS_SERVER, f"That can mean more than one of your servers: write {exact}.")
    return Refusal(
        Reason.NO_SERVER,
        "You have no server of that name. Only its owner starts and stops a server; new ones are made on JupyterHub's "
        "own page.",
    )


async def start(services: Services, who: Person, typed: str, peer: str | None) -> Seen | Refusal:
    """Start one of the person's own servers, with SSH. One that runs or starts already is left as it is.

    It returns as soon as JupyterHub has begun: `api.progress` tells the rest. Every refusal is audited.
    """
    if not services.settings.servers.start:
        return _refused(services, _OFF, who, None, "start", peer)
    model = await _model(services, who)
    found = _GONE if model is None else choose(typed, who.user, seen(model, (), services.store.snapshot.enrolments))
    if isinstance(found, Refusal) or model is None:
        return _refused(services, found if isinstance(found, Refusal) else _GONE, who, None, "start", peer)
    if found.state in (State.RUNNING, State.STARTING):
        return found
    if found.state is State.STOPPING:
        busy = Refusal(Reason.SERVER_BUSY, f"{found.server} is just stopping. Start it again in a moment.")
        return _refused(services, busy, who, found.server, "start", peer)
    options = options_with_ssh(known_servers(model).get(found.server, {}))
    said = await services.hub_servers.start(found.server.owner, found.server.name, options)
    if refusal := _not_done(said, found.server, "start"):
        return _refused(services, refusal, who, found.server, "start", peer)
    after = await look(services, who, found.server.login)
    if isinstance(after, Refusal) or after.state is State.STOPPED:
        failed = Refusal(
            Reason.START_FAILED, f"{found.server} did not start. JupyterHub's page may say why; try it there."
        )
        return _refused(services, failed, who, found.server, "start", peer)
    services.audit(ServerAsked(peer=peer, user=who.user, server=str(found.server), action="start"))
    return after


async def stop(services: Services, who: Person, typed: str, peer: str | None) -> Seen | Refusal:
    """Stop one of the person's own servers; what is stopped already stays so. Every refusal is audited."""
    if not services.settings.servers.start:
        return _refused(services, _OFF, who, None, "stop", peer)
    found = await look(services, who, typed)
    if isinstance(found, Refusal):
        return _refused(services, found, who, None, "stop", peer)
    if found.state in (State.STOPPING, State.STOPPED):
        return found
    said = await services.hub_servers.stop(found.server.owner, found.server.name)
    if refusal := _not_done(said, found.server, "stop"):
        return _refused(services, refusal, who, found.server, "stop", peer)
    services.audit(ServerAsked(peer=peer, user=who.user, server=str(found.server), action="stop"))
    return await look(services, who, found.server.login)


def options_with_ssh(last: Mapping[str, object]) -> dict[str, object]:
    """What is sent to start a server with SSH: the choices of its last run, and the box ticked."""
    kept = {key: value for key, value in last.items() if key not in _JUPYTERHUBS_OWN}
    return {**kept, SSH_OPTION: True}


def _seen(server: Server, running: Running | None, via: Via, accounts: Mapping[Instance, str]) -> Seen:
    if running is None:
        return Seen(server, State.STOPPED, via)
    if running.pending == "stop":
        return Seen(server, State.STOPPING, via, None, running.instance)
    if not running.ready:
        return Seen(server, State.STARTING, via, None, running.instance)
    account = accounts.get(running.instance)
    return Seen(server, State.RUNNING, via, account is not None, running.instance, account)


async def _model(services: Services, who: Person) -> Model | None:
    """JupyterHub's model of the person, stopped servers included. None when that user is gone, and also when the name
    was given to somebody else since the login."""
    model = await services.hub.user(who.user, stopped=True)
    if model is None or (who.made is not None and issue.made_at(model) != who.made):
        return None
    return model


def _not_done(said: Said | None, server: Server, action: str) -> Refusal | None:
    """JupyterHub's "no" to a start or stop, in its own words; None when it did not say no."""
    if said is None or said.done:
        return None
    words = f" It says: {said.words}" if said.words else ""
    if said.status == 429:
        return Refusal(Reason.TOO_MANY, f"JupyterHub has no room for {server} at the moment.{words}")
    if said.status in (400, 409):
        return Refusal(Reason.SERVER_BUSY, f"JupyterHub does not {action} {server} now.{words}")
    if said.status in (403, 404):
        return Refusal(Reason.NOT_PERMITTED, f"JupyterHub does not {action} {server} for you.{words}")
    return Refusal(Reason.START_FAILED, f"{server} could not be {_DONE[action]}.{words}")


_DONE = {"start": "started", "stop": "stopped"}


def _refused(
    services: Services, refusal: Refusal, who: Person, server: Server | None, action: str, peer: str | None
) -> Refusal:
    services.audit(
        ServerRefused(
            peer=peer,
            user=who.user,
            server=None if server is None else str(server),
            action=action,
            reason=refusal.reason,
        )
    )
    return refusal
