"""Why: the page's buttons for servers and sessions are plain forms, which work where scripts do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from api.sightings import Reported
from ca.sessions import public_name
from tests.support.browser import Person, forms
from tests.support.hub import Hub
from tests.support.service import Service, running_service

PROCESS = "p" * 32


@pytest.fixture
async def service(hub: Hub, tmp_path: Path) -> AsyncIterator[Service]:
    async with running_service(hub, tmp_path / "state", SERVERS_START="true") as running:
        yield running


@pytest.fixture
async def person(service: Service) -> AsyncIterator[Person]:
    async with Person(service) as browsing:
        yield browsing


async def chosen(hub: Hub, name: str, **options: object) -> None:
    """A server that starts in this way the next time."""
    await hub.request("POST", f"/users/alice/servers/{name}", json=options)
    await hub.stop_server("alice", name)


async def test_a_server_is_started_followed_by_reloading_and_stopped_after_one_more_question(
    hub: Hub, service: Service, person: Person
) -> None:
    await chosen(hub, "gpu", slow=3)
    page = await person.submit(await person.log_in("alice"), "/servers/alice+gpu/start")
    assert str(page.url) == f"{service.url}/?watch=alice%2Bgpu"
    assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in page.text
    assert 'aria-label="How far alice/gpu is"' in page.text
    async with asyncio.timeout(60):
        while "http-equiv" in page.text:
            await asyncio.sleep(0.1)
            page = await person.client.get(page.url)
    assert "running, SSH enabled" in page.text
    page = await person.client.get("/servers/alice+gpu/stop")
    assert "kernels and its SSH sessions end now" in page.text
    page = await person.submit(page, "/servers/alice+gpu/stop")
    assert "The server stops." in page.text
    server = await hub.server("alice", "gpu")
    assert server is None or server["pending"] == "stop"
    assert [one["action"] for one in service.events("server_asked")] == ["start", "stop"]


async def test_a_start_that_fails_is_told_on_the_page_that_follows_it(hub: Hub, person: Person) -> None:
    await chosen(hub, "gpu", slow=3, refuse="No <GPU> is free.")
    page = await person.submit(await person.log_in("alice"), "/servers/alice+gpu/start")
    async with asyncio.timeout(60):
        while "http-equiv" in page.text:
            await asyncio.sleep(0.1)
            page = await person.client.get(page.url)
    assert "The server did not start" in page.text
    assert "No &lt;GPU&gt; is free." in page.text


async def test_following_what_is_not_ones_own_or_does_not_start_is_just_the_page(hub: Hub, person: Person) -> None:
    await hub.start_server("bob")
    await person.log_in("alice")
    for watch in ("alice", "bob", "=zz", "<b>", "x" * 3000):
        page = await person.client.get("/", params={"watch": watch})
        assert page.status_code == 200
        assert "http-equiv" not in page.text
        assert "<b>" not in page.text


async def test_a_site_that_does_not_start_servers_has_no_such_buttons(
    hub: Hub, tmp_path: Path, service: Service
) -> None:
    await hub.start_server("alice", "gpu")
    services = service.services
    off = services.settings.servers.model_copy(update={"start": False})
    object.__setattr__(services, "settings", services.settings.model_copy(update={"servers": off}))
    async with Person(service) as person:
        page = await person.log_in("alice")
        assert [one for one in forms(page) if "/servers/" in one.action] == []
        assert f'href="{hub.url}/hub/spawn/alice"' in page.text
        assert "/stop" not in page.text


async def test_a_stopped_server_needs_no_stopping(hub: Hub, service: Service, person: Person) -> None:
    await person.log_in("alice")
    assert str((await person.client.get("/servers/alice/stop")).url) == f"{service.url}/"
    answer = await person.client.get("/servers/bob/stop")
    assert answer.status_code == 409
    assert "You have no server of that name" in answer.text


async def test_ones_sessions_are_listed_and_ended(hub: Hub, service: Service, person: Person) -> None:
    mine = Reported(
        id="one", user="alice", identity="alice", login="alice+gpu", instance="1", serial="7", mode="jump",
        how="certificate", peer="192.0.2.7", since=service.clock.now - 3700, received=999, sent=1_450_000,
    )  # fmt: skip
    key = Reported(
        id="two", user=None, identity="key:SHA256:<b>", login="alice", instance="1", serial=None, mode="direct",
        how="key", peer="2001:db8::1", since=service.clock.now, received=0, sent=12_345_678_901,
    )  # fmt: skip
    bobs = Reported(
        id="three", user="bob", identity="bob", login="bob", instance="1", serial="8", mode="direct",
        how="certificate", peer="192.0.2.8", since=service.clock.now, received=0, sent=0,
    )  # fmt: skip
    await service.services.sightings.hear(PROCESS, [mine, key, bobs], service.services.now_ms())
    page = await person.log_in("alice")
    assert "(1 hour 1 minute), 1.4 MB out, 999 bytes in" in page.text
    assert "with a certificate as a jump host" in page.text
    assert "somebody else: key:SHA256:&lt;b&gt;" in page.text
    assert "12 GB out" in page.text
    ends = [one.action for one in forms(page) if one.action.endswith("/end")]
    assert ends == [f"{service.url}/sessions/{public_name(PROCESS, name)}/end" for name in ("one", "two")]
    page = await person.submit(page, f"{public_name(PROCESS, 'one')}/end")
    assert "The session was ended." in page.text
    assert '<span class="quiet">ending</span>' in page.text
    (line,) = service.events("session_ended")
    assert (line["by"], line["session"]) == ("alice", "one")
    token = next(one.fields["form_token"] for one in forms(page))
    foreign = await person.client.post(
        f"/sessions/{public_name(PROCESS, 'three')}/end", data={"form_token": token}, headers={"Origin": service.url}
    )
    assert foreign.status_code == 403
    assert len(service.events("session_ended")) == 1


async def test_a_key_may_be_sent_as_a_file(hub: Hub, service: Service, person: Person) -> None:
    await hub.start_server("alice")
    page = await person.log_in("alice")
    (found,) = [one for one in forms(page) if one.action.endswith("/certificates/form")]
    key = asyncssh.generate_private_key("ssh-ed25519")
    headers = {"Origin": service.url}
    for content, status in (
        (key.export_public_key(), 200),
        (key.export_private_key(), 400),
        (b"", 400),
        (b"\xff\xfe\x00" * 100, 400),
        (b"ssh-ed25519 " + b"A" * 60_000, 400),
    ):
        files = {"key_file": ("id.pub", content, "application/octet-stream")}
        fields = {**found.fields, "public_key": "", "then": "show"}
        answer = await person.client.post(found.action, data=fields, files=files, headers=headers)
        assert answer.status_code == status, content[:40]
        assert "PRIVATE KEY" not in answer.text
    two = [("key_file", ("a", b"a")), ("key_file", ("b", b"b"))]
    answer = await person.client.post(found.action, data=found.fields, files=two, headers=headers)
    assert answer.status_code == 403
    assert len(service.events("certificate_issued")) == 1


async def test_pages_carry_no_script_and_no_style_of_their_own(hub: Hub, service: Service, person: Person) -> None:
    """What the policy would refuse is not there to begin with."""
    await hub.start_server("alice")
    pages = [await person.client.get("/"), await person.log_in("alice")]
    pages += [await person.client.get(path) for path in ("/?watch=alice", "/servers/alice/stop", "/activate", "/x")]
    for page in pages:
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        if page.headers["content-type"].startswith("text/html"):
            assert "unsafe" not in policy
            assert page.headers["X-Frame-Options"] == "DENY"
            for wrong in (" style=", "<style", " onclick=", " onload=", "javascript:", "<script>", "//cdn"):
                assert wrong not in page.text
