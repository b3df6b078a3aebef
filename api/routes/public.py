"""Every router of the public port for people and their programs, so that none is served and not tested."""

from collections.abc import Sequence

from fastapi import APIRouter

from api.routes import browser, certificates, own, revocations, servers, sessions

ROUTERS: Sequence[APIRouter] = (
    browser.router,
    own.router,
    certificates.router,
    revocations.router,
    servers.router,
    sessions.router,
)
