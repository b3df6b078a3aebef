"""Why: lines that are copied have to work for whoever copies them, and not everybody may go the same way."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import pytest

from tests.support.browser import Person
from tests.support.hub import Hub
from tests.support.ports import new_key
from tests.support.service import Service, running_service

RULES = '{"guests": {"deny": ["remote-forward"]}}'


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(hub, tmp_path / "state", CERTIFICATES_GROUPS=RULES) as running:
        yield running


async def home(service: Service, user: str) -> str:
    """The page, as text."""
    async with Person(service) as person:
        return unescape(re.sub(r"<[^>]+>", "", (await person.log_in(user)).text))


async def test_whoever_may_jump_gets_lines_that_lead_end_to_end(hub: Hub, service: Service) -> None:
    await hub.start_server("alice", "gpu")
    page = await home(service, "alice")
    lines = ["Host alice.hub alice+gpu.hub *.hub", "Port 22", "User jovyan", "ProxyJump jupyterhub-bastion"]
    assert "\n    ".join(lines) in page
    assert "/ssh_config?key=id_hub&server=alice&server=alice%2Bgpu'" in page


async def test_whoever_may_not_jump_gets_lines_that_lead_through_the_bastion(hub: Hub, service: Service) -> None:
    """A group denies what the pod's owner could restore, so jump mode is closed to its members alone."""
    await hub.start_server("alice", "gpu")
    await service.enrol("alice", "gpu", new_key())
    await hub.set_groups("alice", ["guests"])
    try:
        page = await home(service, "alice")
    finally:
        await hub.set_groups("alice", [])
    assert "ProxyJump" not in page
    assert "ssh -J" not in page
    assert "Host alice+gpu.hub\n    User alice+gpu\n" in page
    assert re.search(r"Host \*\.hub\n    HostName \S+\n    Port \d+\n", page)
    assert "/ssh_config?key=id_hub&server=alice&server=alice%2Bgpu&mode=direct'" in page


async def test_servers_that_run_as_another_account_are_entered_as_that(hub: Hub, service: Service) -> None:
    await hub.start_server("alice")
    token = await hub.server_token("alice")
    body = {"host_key": new_key(), "ssh_port": 40222, "key_port": 8080, "unix_user": "alice"}
    (await service.request("POST", "/enrolments", token, json=body)).raise_for_status()
    page = await home(service, "alice")
    assert "Host alice.hub *.hub\n    Port 22\n    User alice\n    ProxyJump" in page
    assert "server=alice&user=alice'" in page
