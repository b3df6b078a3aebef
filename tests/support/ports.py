"""Why: the api's ports without sockets, so that a test chooses the address that a request comes from.

The roster does nothing by itself here: a test beats it (`services.roster.ask_hub()`), so that nothing is timed.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import httpx
from starlette.types import ASGIApp

from api.app import create_app, create_internal_app, create_pods_app
from api.compose import internal_secret, open_services
from api.services import Services
from api.settings import read_settings
from tests.support.clock import Clock
from tests.support.hub import Hub

NOBODY = "http://127.0.0.1:9/hub/api"
"""An address where no JupyterHub answers (the discard port)."""


def new_key(algorithm: str = "ssh-ed25519", **options: Any) -> str:
    """The public line of a key made just now."""
    return asyncssh.generate_private_key(algorithm, **options).export_public_key().decode().strip()


@dataclass
class Ports:
    """The ports of one api. `clock` stands still unless a test moves it."""

    services: Services
    clock: Clock
    audit: io.StringIO
    secret: str
    _public: ASGIApp
    _internal: ASGIApp
    _pods: ASGIApp

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The audit lines so far, oldest first."""
        lines = [json.loads(line) for line in self.audit.getvalue().splitlines()]
        return [line for line in lines if name in (None, line["audit"])]

    async def public(
        self, method: str, path: str, token: str | None = None, *, peer: str = "127.0.0.1", **options: Any
    ) -> httpx.Response:
        """One request to the public port, sent from `peer`."""
        return await self._ask(self._public, method, path, token, peer, options)

    async def pods(
        self, method: str, path: str, token: str | None = None, *, peer: str = "127.0.0.1", **options: Any
    ) -> httpx.Response:
        """One request to the pods' own port, sent from `peer`."""
        return await self._ask(self._pods, method, path, token, peer, options)

    async def internal(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request to the internal port, with the secret unless `secret` says otherwise."""
        secret = options.pop("secret", self.secret)
        return await self._ask(self._internal, method, path, secret, "127.0.0.1", options)

    async def enrol(self, token: str, *, peer: str = "127.0.0.1", **changes: Any) -> httpx.Response:
        """An enrolment as a pod sends it; `changes` replace fields."""
        body = {"host_key": new_key(), "ssh_port": 40222, "key_port": 40080, "unix_user": "jovyan", **changes}
        headers = {"Content-Type": "application/json"}
        return await self.public("POST", "/enrolments", token, peer=peer, headers=headers, content=json.dumps(body))

    async def listed(self) -> list[str]:
        """The login names that the bastion is told."""
        state = (await self.internal("GET", "/internal/state")).json()
        return [one["login"] for one in state["enrolled"]]

    async def _ask(
        self, app: ASGIApp, method: str, path: str, token: str | None, peer: str, options: dict[str, Any]
    ) -> httpx.Response:
        headers = {**options.pop("headers", {}), **({} if token is None else {"Authorization": f"Bearer {token}"})}
        transport = httpx.ASGITransport(app, client=(peer, 50_000), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return await client.request(method, path, headers=headers, **options)


@asynccontextmanager
async def open_ports(hub: Hub | None, state: Path, **changes: str) -> AsyncIterator[Ports]:
    """An api with its state in `state`; `changes` are settings without our prefix. Without a hub nobody answers."""
    values = {
        "STATE_DIRECTORY": str(state),
        "HUB_TOKEN": "nobody" if hub is None else hub.service_token,
        "HUB_API_URL": NOBODY if hub is None else hub.api_url,
        "HUB_TIMEOUT": "60",
        **changes,
    }
    settings = read_settings({f"SSH_API_{name}": value for name, value in values.items()})
    clock, audit = Clock(float(int(time.time()))), io.StringIO()
    secret = internal_secret(settings)
    async with open_services(settings, audit, clock) as services:
        await services.store.open(services.now_ms())
        yield Ports(
            services,
            clock,
            audit,
            secret.decode(),
            create_app(services),
            create_internal_app(services, secret),
            create_pods_app(services),
        )
