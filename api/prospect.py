"""What a login that waits would earn in somebody's hands: the same question for the page and for the certificate."""

from dataclasses import replace

from api import desk, issue
from api.logins import Kind, Login
from api.records import BrowserLogin
from api.services import Services
from ca.claims import Claims, TokenKind, TokenOwner
from ca.errors import Refusal
from ca.names import MAX_NAME_LENGTH, Server
from ca.policy import CertificateRequest, Grant, decide


async def decided(
    services: Services, login: Login, user: str, rests_on: BrowserLogin, peer: str | None
) -> Grant | Refusal:
    """What the decision would be at this moment. Nothing is given, recorded or audited. Raises `HubUnavailable`."""
    wish = await asked(services, login, user, rests_on, peer)
    return wish if isinstance(wish, Refusal) else decide(*wish, services.rules, services.now(), random_bits=0)


async def asked(
    services: Services, login: Login, user: str, rests_on: BrowserLogin, peer: str | None
) -> tuple[CertificateRequest, Claims] | Refusal:
    """What there is to decide: the wish in the hands of `user`, and what JupyterHub says now."""
    owner = TokenOwner(user, TokenKind.BROWSER)
    claims = await issue.claims_for(services, owner, until=rests_on.ends_at, made=rests_on.made)
    if isinstance(claims, Refusal):
        return claims
    meant = _meant(login.wanted.server, claims)
    if isinstance(meant, Refusal):
        return meant
    held = login.wanted.kind is Kind.INTERACTIVE
    alone = CertificateRequest(login.wanted.key, meant, login.wanted.lifetime, peer, held)
    # What it names besides has to run all the same: a login that is to start a server is not over before that.
    refused = isinstance(decide(alone, claims, services.rules, services.now(), random_bits=0), Refusal)
    if held or login.wanted.only or refused:
        return alone, claims
    return replace(alone, servers=None), claims


def _meant(typed: str | None, claims: Claims) -> tuple[Server, ...] | Refusal | None:
    """The server that was typed; also one's own by its bare name, where that can mean nothing else that runs."""
    chosen = desk.chosen_servers(typed, claims)
    running = {one.server for one in claims.running}
    if not typed or len(typed) > MAX_NAME_LENGTH or (isinstance(chosen, tuple) and set(chosen) <= running):
        return chosen
    own = Server(claims.user, typed)
    return (own,) if own in running else chosen
