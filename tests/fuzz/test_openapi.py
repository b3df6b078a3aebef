"""Why: whatever somebody sends to either port is answered with a refusal that the OpenAPI text announces, never a 5xx.

schemathesis makes the requests from that text: sound ones, and ones that break it in a place. The api is a process of
its own beside a real JupyterHub. Which requests are made depends on nothing but that text.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
import requests
import schemathesis
from fastapi import APIRouter
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.routes import held, internal, operate, pods, reports
from api.routes.public import ROUTERS
from tests.support.holder import Holder
from tests.support.hub import Hub, no_tls
from tests.support.ports import new_key
from tests.support.sshsig import make_key, public_line
from tests.support.system import ACCESS, System

EXAMPLES = 20
"""Requests of each kind to each address, by one person or another."""

KEY = new_key()

LIMIT = 60.0

HOLDER = "a holder"
"""Shows no token, but proves for each request that a certificate's key is his."""

CHECKS: Sequence[CheckFunction] = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


def addresses(*routers: APIRouter) -> list[tuple[str, str]]:
    """Method and path of every route that the OpenAPI text names."""
    routes = [one for router in routers for one in router.routes if isinstance(one, APIRoute) and one.include_in_schema]
    return [(method, one.path) for one in routes for method in sorted(one.methods)]


PUBLIC = addresses(operate.router, pods.router, *ROUTERS)
INTERNAL = addresses(internal.router, held.router, reports.router, internal.metrics_router)


@dataclass
class Port:
    """A port of the running api: its text, and what each person shows."""

    url: str
    people: dict[str, dict[str, str]]
    holder: Holder | None = None
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False
        text = self.session.get(f"{self.url}/openapi.json", timeout=LIMIT).json()
        self.schema: BaseSchema = schemathesis.openapi.from_dict(text)


@pytest.fixture(scope="module")
def ports(running_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Port]]:
    """Both ports of one api. Nobody is slowed down, since that would answer everything alike."""
    limits = {f"SSH_API_LIMITS_{kind}": "0" for kind in ("CERTIFICATES", "ENROLMENTS", "REVOCATIONS")}
    system = System(running_hub, tmp_path_factory.mktemp("fuzzed"), api_settings=limits)

    async def people() -> tuple[dict[str, dict[str, str]], Holder]:
        await running_hub.start_server("alice", "gpu")
        own = await running_hub.server_token("alice", "gpu")
        made = (await running_hub.user("alice"))["created"]
        async with httpx.AsyncClient(base_url=system.url, trust_env=False, verify=no_tls()) as client:
            body = {"host_key": KEY, "ssh_port": 40222, "key_port": 40080, "unix_user": "jovyan"}
            answer = await client.post("/enrolments", json=body, headers={"Authorization": f"token {own}"})
            answer.raise_for_status()
        tokens = {
            "a person": await running_hub.token("alice", [ACCESS]),
            "a server": own,
            "a stranger": "0" * 32,
        }
        holder = holder_of(system, tokens["a person"], made, system.folder)
        return {"nobody": {}, **{name: {"Authorization": f"token {one}"} for name, one in tokens.items()}}, holder

    system.start_api()
    try:
        secret = (system.state / "internal-secret").read_text().strip()
        internals = {"a bastion": {"Authorization": f"Bearer {secret}"}, "nobody": {}}
        yield {
            "public": Port(system.url, *anyio.run(people)),
            "internal": Port(f"http://127.0.0.1:{system.internal_port}", internals),
        }
    finally:
        system.stop()
        anyio.run(running_hub.clean)
        assert "Traceback" not in system.api.log.read_text()


def holder_of(system: System, token: str, made: str, folder: Path) -> Holder:
    """Whoever holds the key of a certificate that can be renewed, as if it rested on a login with a browser."""
    key = make_key(folder)
    answer = requests.post(
        f"{system.url}/certificates",
        json={"public_key": public_line(key)},
        headers={"Authorization": f"token {token}"},
        timeout=LIMIT,
    )
    told = answer.json()
    with contextlib.closing(sqlite3.connect(system.state / "api.sqlite")) as database, database:
        query = "UPDATE certificates SET login_at = ?, user_made = ? WHERE serial = ?"
        assert database.execute(query, (int(time.time()), made, told["serial"])).rowcount == 1
    service: Any = SimpleNamespace(url=system.url, clock=time.time)
    return Holder(service, key, told)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["sound", "broken"])
@pytest.mark.parametrize(("method", "path"), PUBLIC, ids=[" ".join(one) for one in PUBLIC])
def test_the_public_port_answers_as_its_text_says(
    ports: dict[str, Port], method: str, path: str, mode: GenerationMode
) -> None:
    try_out(ports["public"], method, path, mode)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["sound", "broken"])
@pytest.mark.parametrize(("method", "path"), INTERNAL, ids=[" ".join(one) for one in INTERNAL])
def test_the_internal_port_answers_as_its_text_says(
    ports: dict[str, Port], method: str, path: str, mode: GenerationMode
) -> None:
    try_out(ports["internal"], method, path, mode)


def test_the_text_names_every_address_of_the_routers(ports: dict[str, Port]) -> None:
    for port, expected in (("public", PUBLIC), ("internal", INTERNAL)):
        named = ports[port].schema.raw_schema["paths"]
        assert sorted((method.upper(), path) for path, methods in named.items() for method in methods) == sorted(
            expected
        )


def try_out(port: Port, method: str, path: str, mode: GenerationMode) -> None:
    operation = port.schema[path][method]
    if mode is GenerationMode.NEGATIVE and not (re.search("{", path) or operation.body or operation.query):
        pytest.skip("nothing can be wrong with this request")

    @given(
        case=operation.as_strategy(generation_mode=mode),
        person=st.sampled_from([*port.people, *([HOLDER] if port.holder else ())]),
        real=st.booleans(),
    )
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Case, person: str, real: bool) -> None:
        if real and isinstance(case.body, dict):
            # No text makes a key up: without this nothing behind the reading of keys would ever be reached.
            case.body.update({name: KEY for name in ("public_key", "host_key") if name in case.body})
        request = requests.Request(**case.as_transport_kwargs(base_url=port.url, headers=port.people.get(person)))
        prepared = port.session.prepare_request(request)
        if person == HOLDER and port.holder is not None:
            body = prepared.body or b""
            body = body.encode() if isinstance(body, str) else body
            prepared.headers["Authorization"] = port.holder.proof(str(prepared.method), prepared.path_url, body)
        answer = port.session.send(prepared, timeout=LIMIT, allow_redirects=False)
        case.validate_response(answer, checks=list(CHECKS))

    ask()
