"""From JupyterHub's JSON to frozen claims: who asks, and which servers run.

A token is judged by its scopes, never by whom it names: a token that another service or somebody's notebook
captured from a person answers `/hub/api/user` with that person just as well. What counts is in `judge_token`
and `judge_enrolment`, and nothing else in the project looks at scopes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ca.errors import MalformedClaims, MalformedName, Reason, Refusal
from ca.names import MAX_NAME_LENGTH, Instance, Server, instance_id

CONNECT_SCOPE = "custom:ssh:connect"
"""The custom JupyterHub scope with which an owner shares SSH; sharing a server for the web shares no SSH."""


class TokenKind(StrEnum):
    """What somebody showed. BROWSER: our own OAuth login. ACCESS: a token made for our service. SERVER: a
    server's own token, good for that server only."""

    BROWSER = "browser"
    ACCESS = "token"
    SERVER = "server"


class Via(StrEnum):
    """Why somebody may enter a server."""

    OWN = "own"
    SHARED = "shared"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """Whose token it is, and for what it counts. `server` is set for SERVER tokens only."""

    user: str
    kind: TokenKind
    server: Server | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A server that JupyterHub lists as active. `pending` is JupyterHub's word: spawn, stop, check or None."""

    instance: Instance
    ready: bool
    pending: str | None = None
    via: Via = Via.OWN

    @property
    def server(self) -> Server:
        """The server that this is a run of."""
        return self.instance.server


@dataclass(frozen=True, slots=True)
class Claims:
    """Everything that JupyterHub says, at one moment, of somebody who asks for a certificate.

    `admin` is set only for a browser login. `until` (seconds since the epoch) is when that which authorised the
    request ends, where that is known; no certificate outlives it.
    """

    user: str
    kind: TokenKind
    admin: bool = False
    groups: frozenset[str] = frozenset()
    running: tuple[Running, ...] = ()
    until: float | None = None


def judge_token(model: object, service: str) -> TokenOwner | Refusal:
    """For what a token counts that answers `GET /hub/api/user` with `model`. `service` is our service's name.

    Raises `MalformedClaims` if the answer is not JupyterHub's.
    """
    if _mapping(model).get("kind") != "user":
        return Refusal(Reason.NOT_A_USER, "That token belongs to a service, not to a person.")
    user, scopes = _name(model), _scopes(model)
    if f"access:services!service={service}" in scopes:
        return TokenOwner(user, TokenKind.ACCESS)
    server = judge_enrolment(model)
    if isinstance(server, Server):
        return TokenOwner(user, TokenKind.SERVER, server)
    return Refusal(
        Reason.WRONG_TOKEN,
        f"That token was not made for this service. Make one in JupyterHub (Token page, or POST "
        f"/hub/api/users/{{name}}/tokens) with the scope access:services!service={service}.",
    )


def judge_enrolment(model: object) -> Server | Refusal:
    """Which server a pod's own token speaks for: exactly one `access:servers!server=O/S`, and its user is O.

    A collaborator can mint a token with the scope of a server shared with him, and an admin who looks at a
    server leaves such a token there: neither is the owner. Raises `MalformedClaims`.
    """
    if _mapping(model).get("kind") != "user":
        return Refusal(Reason.NOT_A_USER, "That token belongs to a service, not to a server.")
    user = _name(model)
    access = {scope for scope in _scopes(model) if scope.partition("!")[0] == "access:servers"}
    if len(access) != 1:
        return Refusal(Reason.WRONG_TOKEN, "That token is not the token of one server: use its JUPYTERHUB_API_TOKEN.")
    prefix, _, full_name = access.pop().partition("!server=")
    owner, slash, name = full_name.partition("/")
    if prefix != "access:servers" or not slash or "/" in name or not owner:
        return Refusal(Reason.WRONG_TOKEN, "That token is not the token of one server: use its JUPYTERHUB_API_TOKEN.")
    if owner != user:
        return Refusal(Reason.NOT_YOURS, "That token opens a server that belongs to somebody else.")
    return _server(owner, name) or Refusal(
        Reason.BAD_NAME, f"SSH knows no server with this name: it may have {MAX_NAME_LENGTH} characters at most."
    )


def running_servers(model: object) -> tuple[Running, ...]:
    """The active servers in a JupyterHub user model that holds `servers`. Raises `MalformedClaims`.

    People name their servers, and JupyterHub may take more than our grammar does. A server that cannot be named does
    not exist for us, here and below: it must cost nobody anything, least of all everybody else.

    Without `servers` (the token may not read them) there is nothing to be granted: that is an error of ours.
    """
    servers = _mapping(model).get("servers")
    if not isinstance(servers, Mapping):
        raise MalformedClaims("JupyterHub did not list the user's servers.")
    owner = _name(model)
    found = (_running(owner, name, server) for name, server in servers.items())
    return tuple(one for one in found if one is not None)


def known_servers(model: object) -> Mapping[Server, Mapping[str, object]]:
    """Every server in a user model, with its last `user_options`: what the user chose, in JupyterHub's keeping.

    Stopped servers are there if the model was asked for with them. Raises `MalformedClaims`.
    """
    servers = _mapping(model).get("servers")
    if not isinstance(servers, Mapping):
        raise MalformedClaims("JupyterHub did not list the user's servers.")
    owner = _name(model)
    found: dict[Server, Mapping[str, object]] = {}
    for name, server in servers.items():
        options, named = _mapping(server).get("user_options"), _server(owner, name)
        if named is not None:
            found[named] = options if isinstance(options, Mapping) else {}
    return found


def shared_servers(shares: Iterable[object], scope: str = CONNECT_SCOPE) -> frozenset[Server]:
    """The servers that the items of `GET /hub/api/users/{name}/shared` share for SSH. Raises `MalformedClaims`."""
    found: set[Server] = set()
    for share in shares:
        server = _mapping(_mapping(share).get("server"))
        owner = _text(server.get("user"))
        shared = _server(owner, server.get("name")) if _is_name(owner) else None
        if shared is not None and f"{scope}!server={shared.owner}/{shared.name}" in _scopes(share):
            found.add(shared)
    return frozenset(found)


def groups_of(model: object) -> frozenset[str]:
    """The user's JupyterHub groups; none where JupyterHub does not say."""
    groups = _mapping(model).get("groups")
    if not isinstance(groups, list):
        return frozenset()
    return frozenset(group for group in groups if isinstance(group, str))


def build_claims(
    owner: TokenOwner,
    model: object,
    *,
    shared: Iterable[Running] = (),
    admin: bool = False,
    administered: Iterable[Running] = (),
    until: float | None = None,
) -> Claims:
    """Put together what counts for `owner`: a SERVER token opens that server and nothing shared or administered.

    `model` is JupyterHub's model of that very user, with `servers`. Raises `MalformedClaims`.
    """
    if _name(model) != owner.user:
        raise MalformedClaims("JupyterHub answered with another user than was asked for.")
    own = running_servers(model)
    if owner.kind is TokenKind.SERVER:
        return Claims(
            user=owner.user,
            kind=owner.kind,
            groups=groups_of(model),
            running=tuple(one for one in own if one.server == owner.server),
            until=until,
        )
    browser = owner.kind is TokenKind.BROWSER
    others = [replace(one, via=Via.SHARED) for one in shared if one.server.owner != owner.user]
    if browser and admin:
        known = {one.server for one in (*own, *others)}
        others += [replace(one, via=Via.ADMIN) for one in administered if one.server not in known]
    return Claims(
        user=owner.user,
        kind=owner.kind,
        admin=browser and admin,
        groups=groups_of(model),
        running=(*own, *others),
        until=until,
    )


def _running(owner: str, name: object, server: object) -> Running | None:
    fields = _mapping(server)
    started, pending = fields.get("started"), fields.get("pending")
    if fields.get("stopped") is True or not isinstance(started, str):
        return None
    if not (pending is None or isinstance(pending, str)):
        raise MalformedClaims("JupyterHub listed a server in a form that is not known.")
    named = _server(owner, name)
    if named is None:
        return None
    try:
        instance = Instance(named, instance_id(started))
    except MalformedName as error:
        raise MalformedClaims(f"JupyterHub listed a server that cannot be read: {error}") from None
    return Running(instance=instance, ready=fields.get("ready") is True and pending is None, pending=pending)


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise MalformedClaims("JupyterHub's answer does not have the form that is known.")
    return value


def _name(model: object) -> str:
    """The name of a user, which is one for us as well."""
    name = _text(model)
    if not _is_name(name):
        raise MalformedClaims("JupyterHub's answer has a name that cannot be written into a certificate.")
    return name


def _text(model: object) -> str:
    name = _mapping(model).get("name")
    if not isinstance(name, str) or not name:
        raise MalformedClaims("JupyterHub's answer has no name.")
    return name


def _is_name(user: str) -> bool:
    """A user's name becomes a key id, and OpenSSH reads no certificate with a NUL in there."""
    return "\0" not in user and _server(user, "") is not None


def _server(owner: str, name: object) -> Server | None:
    """None: our grammar has no name for it."""
    if not isinstance(name, str):
        raise MalformedClaims("JupyterHub listed a server without a name.")
    try:
        return Server(owner, name)
    except MalformedName:
        return None


def _scopes(model: object) -> frozenset[str]:
    scopes = _mapping(model).get("scopes")
    if not isinstance(scopes, list):
        raise MalformedClaims("JupyterHub's answer has no scopes.")
    return frozenset(scope for scope in scopes if isinstance(scope, str))
