"""Why: JupyterHub's idle culler goes by what it is told, so that must be true and of no server but those in use."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.errors import HubUnavailable
from api.hub import HubClient
from ca.names import Instance, parse_principal
from tests.support.hub import Hub
from tests.support.ports import Ports, open_ports


async def enrolled(hub: Hub, ports: Ports, user: str = "alice", name: str = "") -> Instance:
    """A server that runs with SSH, as the bastion knows it."""
    await hub.start_server(user, name)
    answer = await ports.enrol(await hub.server_token(user, name))
    assert answer.status_code == 200, answer.text
    await ports.services.roster.ask_hub()
    return parse_principal(answer.json()["principal"])


async def report(ports: Ports, *servers: tuple[str, int, float]) -> int:
    """What a bastion says; how much of it counts. JupyterHub is then told."""
    body = {"servers": [{"login": login, "instance": str(instance), "at": at} for login, instance, at in servers]}
    answer = await ports.internal("POST", "/internal/activity", json=body)
    assert answer.status_code == 200, answer.text
    await ports.services.activity.tell()
    return int(answer.json()["heard"])


async def last_activity(hub: Hub, user: str = "alice", name: str = "") -> float:
    server = await hub.server(user, name)
    assert server is not None
    return datetime.fromisoformat(server["last_activity"].replace("Z", "+00:00")).astimezone(UTC).timestamp()


async def test_jupyterhub_learns_when_a_server_was_used(hub: Hub, ports: Ports) -> None:
    default = await enrolled(hub, ports)
    gpu = await enrolled(hub, ports, name="gpu")
    bobs = await enrolled(hub, ports, "bob")
    ports.clock.advance(500)
    at = ports.clock.now - 2
    before = await last_activity(hub, "bob")
    assert await report(ports, ("alice", default.id, at), ("alice+gpu", gpu.id, at + 1)) == 2
    assert await last_activity(hub) == at
    assert await last_activity(hub, name="gpu") == at + 1
    assert await last_activity(hub, "bob") == before
    assert bobs.server.owner == "bob"


async def test_the_future_is_no_time_to_be_used(hub: Hub, ports: Ports) -> None:
    alice = await enrolled(hub, ports)
    ports.clock.advance(500)
    assert await report(ports, ("alice", alice.id, ports.clock.now + 86400)) == 1
    assert await last_activity(hub) == ports.clock.now


async def test_only_what_is_enrolled_and_runs_is_kept_alive(hub: Hub, ports: Ports) -> None:
    alice = await enrolled(hub, ports)
    await hub.start_server("bob")
    ports.clock.advance(500)
    before = await last_activity(hub), await last_activity(hub, "bob")
    now = ports.clock.now
    bob = await hub.server("bob")
    assert bob is not None
    started = int(datetime.fromisoformat(bob["started"].replace("Z", "+00:00")).timestamp() * 1e6)
    foreign: list[tuple[str, int, float]] = [
        ("alice", alice.id + 1, now),
        ("alice+gpu", alice.id, now),
        ("bob", started, now),
        ("no such login=", 17, now),
        ("alice", alice.id, now - 7200),
    ]
    assert await report(ports, *foreign) == 0
    assert (await last_activity(hub), await last_activity(hub, "bob")) == before


async def test_a_server_that_stopped_does_not_take_the_word_from_its_neighbours_for_long(
    hub: Hub, ports: Ports
) -> None:
    default = await enrolled(hub, ports)
    gpu = await enrolled(hub, ports, name="gpu")
    await hub.stop_server("alice", "gpu")
    ports.clock.advance(500)
    await report(ports, ("alice", default.id, ports.clock.now), ("alice+gpu", gpu.id, ports.clock.now))
    await ports.services.roster.ask_hub()
    ports.clock.advance(60)
    assert await report(ports, ("alice", default.id, ports.clock.now), ("alice+gpu", gpu.id, ports.clock.now)) == 1
    assert await last_activity(hub) == ports.clock.now


async def test_it_can_be_switched_off(hub: Hub, tmp_path: Path) -> None:
    async with open_ports(hub, tmp_path / "state", HUB_ACTIVITY="false") as ports:
        alice = await enrolled(hub, ports)
        ports.clock.advance(500)
        before = await last_activity(hub)
        assert await report(ports, ("alice", alice.id, ports.clock.now)) == 0
        assert await last_activity(hub) == before


async def test_a_hub_that_is_away_or_takes_no_activity_is_nobodys_trouble(own_hub: Hub, tmp_path: Path) -> None:
    await own_hub.make_users()
    async with open_ports(own_hub, tmp_path / "state", HUB_TIMEOUT="5") as ports:
        alice = await enrolled(own_hub, ports)
        ports.clock.advance(500)
        own_hub.halt()
        assert await report(ports, ("alice", alice.id, ports.clock.now)) == 1
        own_hub.start()
        ports.clock.advance(60)
        assert await report(ports, ("alice", alice.id, ports.clock.now)) == 1
        assert await last_activity(own_hub) == ports.clock.now


async def test_a_hub_that_gives_no_scope_for_it_is_told_of_and_what_is_gone_is_not(hub: Hub) -> None:
    async with HubClient(hub.api_url, hub.service_token, timeout=60) as ours:
        await ours.tell_activity("nobody-here", {"": 1.0})
        await ours.tell_activity("alice", {"no-such-server": 1.0})
    async with HubClient(hub.api_url, hub.other_token, timeout=60) as without:
        with pytest.raises(HubUnavailable, match="users:activity"):
            await without.tell_activity("alice", {"": 1.0})


@pytest.mark.parametrize("wrong", [{"at": "now"}, {"at": -1}, {"instance": 17}, {"login": None}, {"more": 1}])
async def test_a_report_that_cannot_be_read_is_refused(lone: Ports, wrong: dict[str, Any]) -> None:
    body = {"servers": [{"login": "alice", "instance": "17", "at": 1.0, **wrong}]}
    assert (await lone.internal("POST", "/internal/activity", json=body)).status_code == 400
