"""Why: taking back must wait for no JupyterHub, and an old cookie must not take from whoever has the name now."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.session import Session
from api.sightings import Reported
from ca.sessions import public_name
from tests.support.browser import Person
from tests.support.holder import logged_in
from tests.support.hub import Hub
from tests.support.ports import new_key
from tests.support.service import Service, refused, running_service

ACCESS = "access:services!service=ssh"
PROCESS = "1" * 32


@pytest.fixture
async def away(own_hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    """A service whose hub a test may kill."""
    await own_hub.make_users()
    async with running_service(own_hub, tmp_path / "state", HUB_TIMEOUT="5") as running:
        yield running


async def certificate(service: Service, user: str) -> str:
    """The serial of a new certificate."""
    token = await service.hub.token(user, [ACCESS])
    answer = await service.request("POST", "/certificates", token, json={"public_key": new_key()})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["serial"])


async def enter(service: Service, *users: str) -> list[str]:
    """Everybody is in their own server; the public names of these sessions."""
    told = [
        Reported(f"{at:02x}", one, one, one, "1763000000000000", "17", "direct", "certificate", "192.0.2.7", 1.5, 1, 2)
        for at, one in enumerate(users)
    ]
    await service.services.sightings.hear(PROCESS, told, service.services.now_ms())
    return [public_name(PROCESS, one.id) for one in told]


class Browser(Person):
    """Somebody at our page, who asks as its scripts and its forms do."""

    async def enter(self, user: str) -> Browser:
        await self.log_in(user)
        return self

    async def ask(self, method: str, path: str, **given: Any) -> int:
        session = self.service.front.sessions.read(dict(self.client.cookies.items()))
        assert isinstance(session, Session)
        headers = {"X-Form-Token": session.form_token, "Origin": self.service.front.sessions.origin}
        if path.endswith(("/revoke", "/end")):
            given = {"data": {"form_token": session.form_token}}
        answer = await self.client.request(method, path, headers=headers, follow_redirects=False, **given)
        return answer.status_code


async def test_an_old_cookie_is_nobody_where_the_name_was_given_to_somebody_else(hub: Hub, tmp_path: Path) -> None:
    async with running_service(hub, tmp_path / "state") as service, Browser(service) as old:
        await old.enter("bob")
        await hub.request("DELETE", "/users/bob")
        for made_anew in (False, True):
            if made_anew:
                await hub.start_server("bob")
            serial = await certificate(service, "bob") if made_anew else "17"
            (session,) = await enter(service, "bob")
            for method, path, given in (
                ("GET", "/certificates", {}),
                ("GET", "/sessions", {}),
                ("DELETE", f"/certificates/{serial}", {}),
                ("DELETE", f"/sessions/{session}", {}),
                ("POST", "/revocations", {"json": {"user": "bob"}}),
                ("POST", "/revocations", {"json": {"server": "bob"}}),
                ("POST", "/revocations", {"json": {"serial": serial}}),
                ("POST", f"/certificates/{serial}/revoke", {}),
                ("POST", f"/sessions/{session}/end", {}),
            ):
                assert await old.ask(method, path, **given) == 403, (method, path, given, made_anew)
        assert service.events("revoked") == service.events("session_ended") == []
        assert {line["reason"] for line in service.events("request_refused")} == {"not_a_user"}
        async with Browser(service) as new:
            await new.enter("bob")
            assert await new.ask("DELETE", f"/certificates/{serial}") == 204


async def test_whatever_is_ones_own_is_taken_back_while_jupyterhub_is_away(own_hub: Hub, away: Service) -> None:
    await own_hub.start_server("admin")
    serials = [await certificate(away, "admin") for _ in range(3)]
    sessions = await enter(away, "admin", "admin")
    async with Browser(away) as admin:
        await admin.enter("admin")
        own_hub.kill()
        for method, path, given, status in (
            ("DELETE", f"/certificates/{serials[0]}", {}, 204),
            ("POST", "/revocations", {"json": {"serial": serials[1]}}, 204),
            ("POST", f"/certificates/{serials[2]}/revoke", {}, 303),
            ("POST", "/revocations", {"json": {"server": "admin"}}, 204),
            ("POST", "/revocations", {"json": {"user": "admin"}}, 204),
            ("DELETE", f"/sessions/{sessions[0]}", {}, 204),
            ("POST", f"/sessions/{sessions[1]}/end", {}, 303),
        ):
            assert await admin.ask(method, path, **given) == status, (method, path, given)
    revocations = away.services.store.snapshot.revocations
    assert {str(serial) for serial in revocations.serials} == set(serials)
    assert set(revocations.users) == {"admin"}
    assert len(away.events("session_ended")) == 2


async def test_what_is_anothers_and_what_is_only_read_waits_for_jupyterhub(own_hub: Hub, away: Service) -> None:
    """It is not known whether an administrator still is one, nor whether the cookie is of the one who has the name."""
    await own_hub.start_server("alice")
    serial = await certificate(away, "alice")
    (session,) = await enter(away, "alice")
    anothers = (
        ("DELETE", f"/certificates/{serial}", {}),
        ("DELETE", f"/sessions/{session}", {}),
        ("POST", "/revocations", {"json": {"serial": serial}}),
        ("POST", "/revocations", {"json": {"server": "alice"}}),
        ("POST", "/revocations", {"json": {"user": "alice"}}),
    )
    async with Browser(away) as admin, Browser(away) as bob:
        await admin.enter("admin")
        await bob.enter("bob")
        own_hub.kill()
        for method, path, given in anothers:
            assert await admin.ask(method, path, **given) == 503, (method, path, given)
            assert await bob.ask(method, path, **given) == 403, (method, path, given)
        for path in ("/certificates", "/sessions", "/sessions?everybody=true"):
            assert await admin.ask("GET", path) == 503
    assert away.events("revoked") == away.events("session_ended") == []


async def test_whoever_holds_the_key_gives_up_its_certificates_while_jupyterhub_is_away(
    own_hub: Hub, away: Service, tmp_path: Path
) -> None:
    """So that logging out on a computer works then too."""
    await own_hub.start_server("alice")
    alice = await logged_in(away, "alice", tmp_path)
    laptop = await logged_in(away, "alice", tmp_path)
    (session,) = await enter(away, "alice")
    own_hub.kill()
    assert (await alice.ask("DELETE", f"/sessions/{session}")).status_code == 204
    refused(await alice.ask("DELETE", f"/certificates/{laptop.told['serial']}"), 403, "not_yours")
    refused(await alice.ask("GET", "/certificates"), 503, "hub_unavailable")
    assert (await alice.ask("DELETE", f"/certificates/{alice.told['serial']}")).status_code == 204
    refused(await alice.renew(), 403, "revoked")
    assert [line["serial"] for line in away.events("revoked")] == [alice.told["serial"]]


async def test_the_key_of_somebody_who_is_gone_takes_nothing_from_whoever_has_the_name_now(
    hub: Hub, tmp_path: Path
) -> None:
    async with running_service(hub, tmp_path / "state") as service:
        await hub.start_server("bob")
        old = await logged_in(service, "bob", tmp_path)
        await hub.stop_server("bob")
        await hub.request("DELETE", "/users/bob")
        await hub.start_server("bob")
        (session,) = await enter(service, "bob")
        refused(await old.ask("DELETE", f"/sessions/{session}"), 403, "not_a_user")
        assert service.events("session_ended") == []
