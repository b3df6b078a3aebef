"""Who asks, and what JupyterHub says of them at this very moment.

A token or a session says who somebody is; it is never the source of what runs. That is asked from JupyterHub
with the service's own token, for each page view and each certificate, so that a token with few scopes earns
exactly as much as one with many, and a user who is gone earns nothing.
"""

from collections.abc import Iterable

from api.hub import HubClient, Model
from api.session import Session
from ca.claims import (
    Claims,
    Running,
    TokenKind,
    TokenOwner,
    build_claims,
    judge_token,
    running_servers,
    shared_servers,
)
from ca.errors import Reason, Refusal
from ca.names import Server, login_candidates

_MAX_SHARERS = 50
"""Owners whose servers are looked up for one request; each costs one question to JupyterHub."""


class Asker:
    """Looks up askers at JupyterHub. Its methods raise `HubUnavailable`, `TokenRefused` and `MalformedClaims`."""

    def __init__(self, hub: HubClient, service: str, *, admin_ssh: bool) -> None:
        self._hub = hub
        self._service = service
        self._connect_scope = f"custom:{service}:connect"
        self._admin_ssh = admin_ssh

    async def by_token(self, token: str) -> TokenOwner | Refusal:
        """Whose JupyterHub token this is, and for what it counts here."""
        return judge_token(await self._hub.whose_token(token), self._service)

    async def claims(
        self, owner: TokenOwner, *, admin: bool = False, wanted: str | None = None, until: float | None = None
    ) -> Claims | Refusal:
        """What runs that `owner` may ask for. `wanted` is a server as people type it; only admins need it here.

        `admin` must come from our own browser login; whether it still holds is asked again.
        """
        model = await self._hub.user(owner.user)
        if model is None:
            return Refusal(
                Reason.NOT_A_USER, "JupyterHub does not know this user any more. Log out here, and log in again."
            )
        if owner.kind is TokenKind.SERVER:
            return build_claims(owner, model, until=until)
        still_admin = admin and model.get("admin") is True
        administered: Iterable[Running] = ()
        if still_admin and self._admin_ssh and wanted:
            administered = await self._running(frozenset(login_candidates(wanted)))
        shared = shared_servers(await self._hub.shared_with(owner.user), self._connect_scope)
        return build_claims(
            owner,
            model,
            shared=await self._running(shared),
            admin=still_admin,
            administered=administered,
            until=until,
        )

    async def session_claims(
        self, session: Session, wanted: str | None = None, until: float | None = None
    ) -> Claims | Refusal:
        """The same for somebody at a browser."""
        owner = TokenOwner(session.user, TokenKind.BROWSER)
        return await self.claims(owner, admin=session.admin, wanted=wanted, until=until)

    async def is_admin(self, session: Session) -> bool:
        """Whether JupyterHub called this browser's user an admin at login, and still does."""
        if not session.admin:
            return False
        model = await self._hub.user(session.user)
        return model is not None and model.get("admin") is True

    async def _running(self, servers: frozenset[Server]) -> tuple[Running, ...]:
        """Those of `servers` that run. Whoever owns them is asked for by name, each once."""
        found: list[Running] = []
        for owner in sorted({server.owner for server in servers})[:_MAX_SHARERS]:
            model: Model | None = await self._hub.user(owner)
            if model is not None:
                found += [one for one in running_servers(model) if one.server in servers]
        return tuple(found)


def chosen_servers(typed: str | None, claims: Claims) -> tuple[Server, ...] | Refusal | None:
    """The one server that somebody typed, None for all of them. Which spelling is meant is known by what runs."""
    if not typed:
        return None
    candidates = login_candidates(typed)
    running = {one.server for one in claims.running}
    matching = tuple(server for server in candidates if server in running)
    if len(matching) > 1:
        exact = " or ".join(server.login for server in matching)
        return Refusal(Reason.AMBIGUOUS_SERVER, f"That can mean more than one of your servers: write {exact}.")
    if not candidates:
        return Refusal(Reason.BAD_NAME, "That is not the name of a server. Write it like alice or alice+gpu.")
    return matching or candidates[:1]
