"""Why: SSH is on only for whoever ticked the box on the spawn page, each time anew, and nothing else turns it on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.support.hub import LIMIT, Hub, Release
from tests.support.hub import __file__ as hub_module

RECORDER = Path(hub_module).with_name("recording_pod_side.py")


@pytest.fixture(scope="module")
def recording_hub(hub_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(
        tmp_path_factory.mktemp("hub"),
        hub_release,
        pod_side=RECORDER,
        pod_environment={"SSH_BASTION_LISTEN": "127.0.0.1"},
        existing_form=True,
    )
    try:
        hub.start()
        yield hub
    finally:
        hub.stop()


@pytest.fixture
async def hub(recording_hub: Hub) -> Any:
    await recording_hub.make_users()
    for note in (recording_hub.folder / "home").glob("*/*.json"):
        note.unlink()
    yield recording_hub
    await recording_hub.clean()


def pod_side(hub: Hub, user: str, name: str = "") -> dict[str, Any] | None:
    """What the pod side of a server was started with; None when it was not started."""
    note = hub.folder / "home" / user / f"pod-side-{name}.json"
    return json.loads(note.read_text()) if note.exists() else None


async def submit(hub: Hub, page: httpx.Response, browser: httpx.AsyncClient, name: str = "", **ticked: str) -> None:
    """Send the spawn form as a browser does and wait for the server."""
    xsrf = next(cookie.value for cookie in browser.cookies.jar if cookie.name == "_xsrf")
    action = re.search(r'<form[^>]*id="spawn_form"[^>]*action="([^"]*)"', page.text)
    assert action is not None
    await browser.post(action[1].replace("&amp;", "&"), data={"_xsrf": xsrf, "size": "small", **ticked})
    with anyio.fail_after(LIMIT):
        while not (await hub.server("alice", name) or {}).get("ready"):
            await anyio.sleep(0.05)


@pytest.mark.parametrize("name", ["", "gpu"])
async def test_a_ticked_box_starts_the_pod_side_in_front_of_the_server(hub: Hub, name: str) -> None:
    async with await hub.login("alice") as browser:
        page = await browser.get(f"/hub/spawn/alice/{name}".rstrip("/"))
        assert 'name="enable_ssh"' in page.text
        assert "checked" not in page.text
        await submit(hub, page, browser, name, enable_ssh="on")
    started = pod_side(hub, "alice", name)
    assert started is not None
    assert started["environment"] == {
        "SSH_BASTION_ENABLE": "1",
        "SSH_BASTION_API_URL": hub.public_url,
        "SSH_BASTION_LISTEN": "127.0.0.1",
    }
    assert started["arguments"] == []
    assert "stub_server.py" in started["command"][1]


async def test_an_untouched_box_starts_the_server_alone(hub: Hub) -> None:
    async with await hub.login("alice") as browser:
        await submit(hub, await browser.get("/hub/spawn/alice"), browser)
    assert pod_side(hub, "alice") is None
    assert not [name for name in await hub.server_environment("alice") if name.startswith("SSH_BASTION_")]


async def test_the_form_and_the_hooks_that_were_there_go_on(hub: Hub) -> None:
    async with await hub.login("alice") as browser:
        page = await browser.get("/hub/spawn/alice")
        assert 'name="size"' in page.text
        await submit(hub, page, browser, enable_ssh="on")
    environment = await hub.server_environment("alice")
    assert environment["SIZE_FROM_FORM"] == "small"
    assert environment["HOOK_RAN"] == "yes"
    assert "SSH_BASTION_ENABLE" in environment


async def test_the_next_run_asks_again(hub: Hub) -> None:
    await hub.start_server("alice", ssh=True)
    assert "SSH_BASTION_ENABLE" in await hub.server_environment("alice")
    await hub.stop_server("alice")
    await hub.start_server("alice", ssh=False)
    environment = await hub.server_environment("alice")
    assert "SSH_BASTION_ENABLE" not in environment


@pytest.mark.parametrize("value", ["true", "on", 1, ["on"], {"yes": True}, None])
async def test_only_the_json_value_true_turns_it_on(hub: Hub, value: object) -> None:
    await hub.start_server("alice", ssh=value, SSH_BASTION_ENABLE="1", environment={"SSH_BASTION_ENABLE": "1"})
    assert pod_side(hub, "alice") is None
    assert "SSH_BASTION_ENABLE" not in await hub.server_environment("alice")


async def test_a_link_cannot_tick_the_box(hub: Hub) -> None:
    async with await hub.login("alice") as browser:
        await browser.get("/hub/spawn/alice", params={"enable_ssh": "on", "size": "small"})
    with anyio.fail_after(LIMIT):
        while not (await hub.server("alice") or {}).get("ready"):
            await anyio.sleep(0.05)
    assert "SSH_BASTION_ENABLE" not in await hub.server_environment("alice")
