"""Runs the ports and the background work in one process, and ends them in order on SIGTERM."""

import asyncio
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

import httpx
import structlog
import uvicorn
from starlette.types import ASGIApp

from api.app import create_app, create_internal_app, create_pods_app
from api.compose import internal_secret, open_audit, open_services
from api.errors import StoreUnavailable
from api.front import open_front
from api.patience import PatientProtocol
from api.proxysocket import FromProxy, proxy_socket
from api.routes.public import ROUTERS
from api.services import Services
from api.settings import Settings
from api.shares import ShareWatch
from ca.errors import BastionError

log = structlog.get_logger(__name__)

GRACE_SECONDS = 5


class ListenError(BastionError):
    """A port cannot be listened on."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: two of them share one process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `BastionError` with a sentence if it cannot start."""
    secret = internal_secret(settings)
    sockets = {
        "public": _listen(settings.listen.host, settings.listen.port),
        "internal": _listen(settings.internal.host, settings.internal.port),
    }
    if settings.listen.pod_port is not None:
        sockets["pods"] = _listen(settings.listen.host, settings.listen.pod_port)
    with ExitStack() as held:
        if settings.listen.proxy_socket is not None:
            sockets["proxy"] = held.enter_context(proxy_socket(settings.listen.proxy_socket))
        await _serve(settings, secret, sockets)


async def _serve(settings: Settings, secret: bytes, sockets: Mapping[str, socket.socket]) -> None:
    # trust_env off: a proxy variable must not send our client secret elsewhere.
    async with (
        open_services(settings, open_audit(settings)) as services,
        httpx.AsyncClient(timeout=settings.hub.timeout, trust_env=False, follow_redirects=False) as http,
    ):
        with suppress(StoreUnavailable):  # the roster goes on trying, and `/readyz` says so meanwhile
            await services.store.open(services.now_ms())
        front = open_front(settings, http, services.store, services.clock)
        app = create_app(services, front, routers=ROUTERS)
        apps: dict[str, ASGIApp] = {
            "public": app,
            "internal": create_internal_app(services, secret),
            "pods": create_pods_app(services),
            "proxy": FromProxy(app),
        }
        await _run(services, {port: (_server(apps[port]), listening) for port, listening in sockets.items()})


async def _run(services: Services, ports: Mapping[str, tuple[_Server, socket.socket]]) -> None:
    loop = asyncio.get_running_loop()

    def end() -> None:
        log.info("stopping")
        services.roster.close()
        for server, _ in ports.values():
            server.should_exit = True

    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, end)
    for port, (_, listening) in ports.items():
        log.info("listening", port=port, address=_address(listening))
    async with asyncio.TaskGroup() as tasks:
        background = (
            tasks.create_task(services.roster.run()),
            tasks.create_task(services.keys.run(services.roster.publish)),
            tasks.create_task(services.activity.run()),
            tasks.create_task(ShareWatch(services).run()),
        )
        async with asyncio.TaskGroup() as serving:
            for server, listening in ports.values():
                serving.create_task(server.serve(sockets=[listening]))
        for task in background:
            task.cancel()
    log.info("stopped")


def _server(app: ASGIApp) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,  # `api.sender` decides whose word counts
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=30,
            h11_max_incomplete_event_size=1 << 16,
        )
    )


def _address(listening: socket.socket) -> str:
    name = listening.getsockname()
    return name if isinstance(name, str) else f"{name[0]}:{name[1]}"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # `::` is every address, of IPv4 too; `api.sender` knows those by their usual form.
        return socket.create_server((host, port), family=family, backlog=512, dualstack_ipv6=host == "::")
    except OSError as error:
        raise ListenError(f"{host}:{port} cannot be listened on: {error.strerror}.") from None
