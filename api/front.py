"""The parts that only browsers need, put together once beside `api.services`."""

from dataclasses import dataclass
from typing import Annotated

import httpx
from fastapi import Depends, Request

from api.commands import Door
from api.guesses import Guesses
from api.oauth import Login, OAuthClient
from api.pages import Pages
from api.services import Clock
from api.session import Cookies, Sessions, cookie_key
from api.settings import Settings
from api.store import Store


@dataclass(frozen=True, slots=True)
class Front:
    """Login, sessions and pages of the running service."""

    pages: Pages
    door: Door
    login: Login
    sessions: Sessions
    guesses: Guesses


def open_front(settings: Settings, http: httpx.AsyncClient, store: Store, clock: Clock) -> Front:
    """The front of a service with these settings. Raises `KeyFileError` for a cookie key that cannot be used.

    `http` asks JupyterHub's token endpoint; its owner closes it. `store` knows which sessions are over.
    """
    cookies = Cookies(cookie_key(settings.state_directory / "cookie-key"), settings.public_url)
    client = OAuthClient(
        authorize_url=f"{settings.hub.url}/hub/api/oauth2/authorize",
        token_url=f"{settings.hub.api_url}/oauth2/token",
        client_id=settings.oauth_client_id,
        client_secret=settings.hub.secret,
        redirect_uri=f"{settings.public_url}/oauth_callback",
    )
    return Front(
        pages=Pages(settings.public_url, settings.hub.url),
        door=Door(
            host=settings.bastion.hosts[0],
            port=settings.bastion.port,
            zone=settings.zone,
            jump_login=settings.bastion.jump_login,
        ),
        login=Login(client, cookies, http, clock),
        sessions=Sessions(cookies, clock, store.has_logged_out),
        guesses=Guesses(clock),
    )


def front_of(request: Request) -> Front:
    """The front of the app that answers `request`."""
    front = request.app.state.front
    if not isinstance(front, Front):
        raise TypeError("the app was made without its front")
    return front


FrontDoor = Annotated[Front, Depends(front_of)]
