"""Why: the api's tests talk to the whole service over HTTP, on the address that the hub knows it by."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn

from api.app import create_app
from api.compose import open_services
from api.front import Front, open_front
from api.routes.public import ROUTERS
from api.services import Services
from api.settings import read_settings
from tests.support.clock import Clock
from tests.support.hub import Hub, no_tls


class _Server(uvicorn.Server):
    """Signals stay with the test run."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class Service:
    """The running api. `clock` stands still unless a test moves it."""

    hub: Hub
    url: str
    services: Services
    front: Front
    clock: Clock
    audit: io.StringIO

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The audit lines so far, oldest first."""
        lines = [json.loads(line) for line in self.audit.getvalue().splitlines()]
        return [line for line in lines if name in (None, line["audit"])]

    def client(self, **options: Any) -> httpx.AsyncClient:
        """A client whose relative URLs are this service's; nobody is logged in."""
        options = {"base_url": self.url, "timeout": 60.0, **options}
        return httpx.AsyncClient(verify=no_tls(), trust_env=False, **options)

    async def request(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx.Response:
        """One request, with a JupyterHub token where one is given."""
        headers = {**options.pop("headers", {}), **({} if token is None else {"Authorization": f"token {token}"})}
        async with self.client() as client:
            return await client.request(method, path, headers=headers, **options)

    async def enrol(self, owner: str, name: str = "", host_key: str = "") -> dict[str, Any]:
        """Enrol a running server as its pod does, so that it counts as having SSH."""
        body = {"host_key": host_key, "ssh_port": 40222, "key_port": 8080, "unix_user": "jovyan"}
        token = await self.hub.server_token(owner, name)
        answer = await self.request("POST", "/enrolments", token, json=body)
        answer.raise_for_status()
        enrolled: dict[str, Any] = answer.json()
        return enrolled


@asynccontextmanager
async def running_service(hub: Hub, state: Path, **changes: str) -> AsyncIterator[Service]:
    """The public port on `hub.public_url`, with its state in `state`; `changes` are settings without our prefix."""
    values = {
        "PUBLIC_URL": hub.public_url,
        "SERVICE_NAME": hub.service,
        "STATE_DIRECTORY": str(state),
        "HUB_URL": hub.url,
        "HUB_API_URL": hub.api_url,
        "HUB_TOKEN": hub.service_token,
        "HUB_TIMEOUT": "60",
        **changes,
    }
    settings = read_settings({f"SSH_API_{name}": value for name, value in values.items()})
    clock, audit = Clock(float(int(time.time()))), io.StringIO()
    async with (
        open_services(settings, audit, clock) as services,
        httpx.AsyncClient(verify=no_tls(), trust_env=False, timeout=60.0) as http,
    ):
        await services.store.open(services.now_ms())
        front = open_front(settings, http, services.store, clock)
        app = create_app(services, front, ROUTERS)
        address = urlsplit(hub.public_url)
        server = _Server(uvicorn.Config(app, lifespan="off", log_config=None, proxy_headers=False))
        with socket.create_server(("127.0.0.1", address.port or 80)) as listening:
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                yield Service(hub, hub.public_url, services, front, clock, audit)
            finally:
                server.should_exit = True
                await serving


def refused(answer: httpx.Response, status: int, error: str, *more: str) -> str:
    """The sentence of a refusal, after its status and code were as they should be. `more`: what else it says."""
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error", "error_description", *more}
    assert told["error"] == error
    return str(told["error_description"])
