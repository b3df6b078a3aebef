"""Why: whatever somebody sends to either port is answered with a refusal that the OpenAPI text announces, never a 5xx.

schemathesis makes the requests from that text: sound ones, and ones that break it in a place. The api is a process of
its own beside a real JupyterHub. Which requests are made depends on nothing but that text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

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
from tests.support.hub import Hub, no_tls
from tests.support.ports import new_key
from tests.support.system import ACCESS, System

EXAMPLES = 30
"""Requests of each kind to each address, by one person or another."""

KEY = new_key()

LIMIT = 60.0

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

    async def people() -> dict[str, dict[str, str]]:
        await running_hub.start_server("alice", "gpu")
        own = await running_hub.server_token("alice", "gpu")
        async with httpx.AsyncClient(base_url=system.url, trust_env=False, verify=no_tls()) as client:
            body = {"host_key": KEY, "ssh_port": 40222, "key_port": 40080, "unix_user": "jovyan"}
            answer = await client.post("/enrolments", json=body, headers={"Authorization": f"token {own}"})
            answer.raise_for_status()
        tokens = {
            "a person": await running_hub.token("alice", [ACCESS]),
            "a server": own,
            "a stranger": "0" * 32,
        }
        return {"nobody": {}, **{name: {"Authorization": f"token {token}"} for name, token in tokens.items()}}

    system.start_api()
    try:
        secret = (system.state / "internal-secret").read_text().strip()
        internals = {"a bastion": {"Authorization": f"Bearer {secret}"}, "nobody": {}}
        yield {
            "public": Port(system.url, anyio.run(people)),
            "internal": Port(f"http://127.0.0.1:{system.internal_port}", internals),
        }
    finally:
        system.stop()
        anyio.run(running_hub.clean)
        assert "Traceback" not in system.api.log.read_text()


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
        person=st.sampled_from(sorted(port.people)),
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
        answer = case.call(base_url=port.url, session=port.session, headers=port.people[person], timeout=LIMIT)
        case.validate_response(answer, checks=list(CHECKS))

    ask()
