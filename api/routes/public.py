"""Every router of the public port for people and their programs, so that none is served and not tested."""

from collections.abc import Sequence

from fastapi import APIRouter

from api.routes import about, activate, browser, certificates, device, own, renew, revocations, servers, sessions

ROUTERS: Sequence[APIRouter] = (
    about.router,
    activate.router,
    browser.router,
    own.router,
    certificates.router,
    device.router,
    renew.router,
    revocations.router,
    servers.router,
    sessions.router,
)
