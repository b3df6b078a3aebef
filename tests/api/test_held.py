"""Why: whoever knows the id of a login gets its certificate, so these few routes must give it once, to the bastion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api import logins
from api.records import BrowserLogin
from ca.keys import parse_public_key
from tests.support.ports import Ports, new_key, open_ports

PEER = "192.0.2.7"


async def begin(ports: Ports, **changes: Any) -> dict[str, Any]:
    body = {"public_key": new_key(), "server": "alice", "peer": PEER, **changes}
    answer = await ports.internal("POST", "/internal/logins", json=body)
    assert answer.status_code == 200, answer.text
    begun: dict[str, Any] = answer.json()
    return begun


async def decided(ports: Ports, *ids: str) -> list[str]:
    answer = await ports.internal("POST", "/internal/logins/decided", json={"ids": list(ids)})
    found: list[str] = answer.json()["decided"]
    return found


async def fetch(ports: Ports, login_id: str) -> tuple[int, dict[str, Any]]:
    answer = await ports.internal("POST", "/internal/logins/certificate", json={"id": login_id})
    return answer.status_code, answer.json()


async def give_up(ports: Ports, login_id: str) -> int:
    return (await ports.internal("POST", "/internal/logins/give-up", json={"id": login_id})).status_code


async def approve(ports: Ports, begun: dict[str, Any], user: str = "alice") -> bool:
    store, now = ports.services.store, ports.services.now_ms()
    login = await logins.by_code(store, begun["user_code"])
    assert login is not None
    return await logins.approve(store, login, user, BrowserLogin(now // 1000, now // 1000 + 3600, ""), now)


async def test_only_the_bastion_may_ask(lone: Ports) -> None:
    for path in ("", "/decided", "/certificate", "/give-up"):
        answer = await lone.internal("POST", f"/internal/logins{path}", secret="wrong", json={})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
        assert (await lone.public("POST", f"/internal/logins{path}", lone.secret)).status_code == 404


async def test_a_login_is_begun_for_the_clients_address_and_waits_until_it_is_decided(lone: Ports) -> None:
    begun = await begin(lone)
    page = f"{lone.services.settings.public_url}/activate"
    assert begun["verification_uri"] == page
    assert begun["verification_uri_complete"] == f"{page}?code={begun['user_code']}"
    assert begun["expires_in"] == 600
    login = await logins.by_code(lone.services.store, begun["user_code"])
    assert login is not None
    assert (login.wanted.kind, login.wanted.address, login.wanted.server) == ("interactive", PEER, "alice")
    (event,) = lone.events("device_login_begun")
    assert (event["peer"], event["kind"]) == (PEER, "interactive")
    assert await decided(lone, begun["id"]) == []
    assert await fetch(lone, begun["id"]) == (200, {"certificate": None, "message": None})
    assert await approve(lone, begun)
    assert await decided(lone, begun["id"], "unknown-to-everybody") == [begun["id"], "unknown-to-everybody"]


async def test_one_that_nobody_waits_for_cannot_be_approved_nor_fetched(lone: Ports) -> None:
    begun, approved = await begin(lone), await begin(lone)
    assert await approve(lone, approved)
    for one in (begun, approved):
        assert [await give_up(lone, one["id"]) for _ in range(2)] == [200, 200]
        assert not await approve(lone, one)
        status, body = await fetch(lone, one["id"])
        assert (status, body["error"]) == (400, "access_denied")
    assert await give_up(lone, "unknown-to-everybody") == 200


async def test_a_login_of_a_client_that_polls_is_not_the_bastions(lone: Ports) -> None:
    """Its id is that client's secret, and nothing that a bastion may ask about."""
    services = lone.services
    new = logins.NewLogin(logins.Kind.DEVICE, parse_public_key(new_key()), PEER)
    polling = await logins.begin(services.store, new, services.now_ms())
    assert isinstance(polling, logins.Begun)
    assert await decided(lone, polling.device_code) == [polling.device_code]
    assert (await fetch(lone, polling.device_code))[1]["error"] == "invalid_grant"
    await give_up(lone, polling.device_code)
    login = await logins.by_code(services.store, polling.user_code)
    assert login is not None
    assert login.state == "pending"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"public_key": "ssh-ed25519 nonsense", "server": "alice"},
        {"public_key": new_key(), "peer": 7},
        {"public_key": new_key(), "more": True},
        {"public_key": new_key(), "server": "x" * 2000},
    ],
)
async def test_what_is_no_request_is_refused(lone: Ports, body: dict[str, Any]) -> None:
    assert (await lone.internal("POST", "/internal/logins", json=body)).status_code == 400


@pytest.mark.parametrize("server", [None, ""])
async def test_a_login_for_every_server_is_begun_only_where_jump_logins_may_be(
    lone: Ports, tmp_path: Path, server: str | None
) -> None:
    body = {"public_key": new_key(), "server": server, "peer": PEER}
    answer = await lone.internal("POST", "/internal/logins", json=body)
    assert (answer.status_code, answer.json()["error"]) == (403, "not_permitted")
    assert [line["reason"] for line in lone.events("device_login_refused")] == ["not_permitted"]
    async with open_ports(None, tmp_path / "jump", LOGINS_INTERACTIVE_JUMP="true") as ports:
        assert (await ports.internal("POST", "/internal/logins", json=body)).status_code == 200


async def test_an_address_that_is_none_is_unknown(lone: Ports) -> None:
    begun = await begin(lone, peer="somewhere")
    login = await logins.by_code(lone.services.store, begun["user_code"])
    assert login is not None
    assert login.wanted.address is None


@pytest.mark.parametrize("off", ["LOGINS_DEVICE", "LOGINS_INTERACTIVE"])
async def test_it_can_be_switched_off_and_the_bastion_hears_of_it(lone: Ports, tmp_path: Path, off: str) -> None:
    assert (await lone.internal("GET", "/internal/state")).json()["interactive"] is True
    async with open_ports(None, tmp_path / "off", **{off: "false"}) as ports:
        assert (await ports.internal("GET", "/internal/state")).json()["interactive"] is False
        for path, body in (("", {"public_key": new_key()}), ("/certificate", {"id": "x"})):
            answer = await ports.internal("POST", f"/internal/logins{path}", json=body)
            assert (answer.status_code, answer.json()["error"]) == (403, "not_permitted")
