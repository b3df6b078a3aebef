"""Why: every verdict about a token rests on this hub being set up as `deploy/hub` says, on both releases."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.hub import Hub


async def test_a_server_has_a_token_that_names_it(hub: Hub) -> None:
    await hub.start_server("alice", "gpu")
    model = (await hub.request("GET", "/user", token=await hub.server_token("alice", "gpu"))).json()
    assert model["name"] == "alice"
    assert "access:servers!server=alice/gpu" in model["scopes"]


async def test_a_minted_token_holds_just_the_scopes_that_were_asked_for(hub: Hub) -> None:
    token = await hub.token("alice", ["access:services!service=ssh"])
    model = (await hub.request("GET", "/user", token=token)).json()
    assert [scope for scope in model["scopes"] if not scope.startswith("read:users")] == ["access:services!service=ssh"]


async def test_the_service_reads_who_runs_what_since_when_groups_and_shares(hub: Hub) -> None:
    started = (await hub.start_server("alice", "gpu"))["started"]
    await hub.set_groups("alice", ["physics"])
    await hub.share("alice", "gpu", "bob")
    users = (await hub.request("GET", "/users?state=active", token=hub.service_token)).json()
    assert [(user["name"], user["groups"]) for user in users] == [("alice", ["physics"])]
    assert users[0]["servers"]["gpu"]["started"] == started
    (share,) = (await hub.request("GET", "/users/bob/shared", token=hub.service_token)).json()["items"]
    assert share["scopes"] == ["access:servers!server=alice/gpu", "custom:ssh:connect!server=alice/gpu"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/users/carl"),
        ("DELETE", "/users/alice"),
        ("GET", "/users/alice/tokens"),
        ("POST", "/users/alice/tokens"),
        ("PATCH", "/users/alice"),
        ("GET", "/proxy"),
    ],
)
async def test_the_service_may_do_nothing_else(hub: Hub, method: str, path: str) -> None:
    await hub.start_server("alice", "gpu")
    assert (await hub.request(method, path, token=hub.service_token)).status_code in {403, 404}
    model = (await hub.request("GET", "/users/alice", token=hub.service_token)).json()
    assert "state" not in model["servers"]["gpu"]
    assert "auth_state" not in model


async def test_an_owner_shares_ssh_and_takes_it_back(hub: Hub) -> None:
    await hub.start_server("alice", "gpu")
    owner = await hub.token("alice")
    scopes = ["custom:ssh:connect!server=alice/gpu"]
    code = await hub.request("POST", "/share-codes/alice/gpu", token=owner, json={"scopes": scopes})
    async with await hub.login("bob") as browser:
        page = await browser.get(f"{hub.url}{code.json()['accept_url']}")
        xsrf = re.findall(r'name="_xsrf"[^>]*value="([^"]+)"', page.text)[0]
        await browser.post(str(page.url), data={"_xsrf": xsrf, "code": code.json()["code"]}, follow_redirects=False)
    shares = (await hub.request("GET", "/users/bob/shared", token=hub.service_token)).json()["items"]
    assert [share["scopes"] for share in shares] == [scopes]
    taken_back = await hub.request("PATCH", "/shares/alice/gpu", token=owner, json={"user": "bob"})
    assert taken_back.status_code == 200
    assert (await hub.request("GET", "/users/bob/shared", token=hub.service_token)).json()["items"] == []


async def test_logging_in_through_oauth_gives_the_api_the_servers_and_the_shares(hub: Hub) -> None:
    await hub.start_server("alice", "gpu")
    await hub.share("alice", "gpu", "bob")
    asked = {
        "client_id": hub.client_id,
        "redirect_uri": f"{hub.public_url}/oauth_callback",
        "response_type": "code",
        "state": "opaque",
        "scope": "read:servers!user read:users:groups!user read:users:shares!user",
    }
    for user in ("alice", "bob"):
        browser = await hub.login(user)
        async with browser:
            url = f"{hub.hub_url}/api/oauth2/authorize?{urlencode(asked)}"
            redirect = await browser.get(url, follow_redirects=False)
        assert redirect.status_code == 302
        code = redirect.headers["Location"].partition("code=")[2].partition("&")[0]
        answer = await hub.request(
            "POST",
            "/oauth2/token",
            token="",
            data={
                "grant_type": "authorization_code",
                "code": code,
                "client_id": hub.client_id,
                "client_secret": hub.service_token,
                "redirect_uri": asked["redirect_uri"],
            },
        )
        token = answer.json()["access_token"]
        model = (await hub.request("GET", "/user", token=token)).json()
        assert list(model["servers"]) == (["gpu"] if user == "alice" else [])
        shares = (await hub.request("GET", f"/users/{user}/shared", token=token)).json()["items"]
        assert [share["server"]["name"] for share in shares] == ([] if user == "alice" else ["gpu"])


async def test_a_browser_without_a_session_is_led_through_the_login_form(hub: Hub) -> None:
    async with await hub.login("admin") as browser:
        page = await browser.get("/hub/home")
    assert page.url.path == "/hub/home"
    assert "admin" in page.text


async def test_a_wrong_password_is_refused(hub: Hub) -> None:
    async with await hub.login("alice", "not the password") as browser:
        assert (await browser.get("/hub/home")).url.path == "/hub/login"


async def test_a_restarted_hub_keeps_the_servers_and_their_instance(own_hub: Hub) -> None:
    before = await own_hub.start_server("alice")
    own_hub.restart()
    assert (await own_hub.server("alice") or {})["started"] == before["started"]
    own_hub.kill()
    own_hub.start()
    after = await own_hub.server("alice") or {}
    assert (after["started"], after["ready"]) == (before["started"], True)
    await own_hub.stop_server("alice")
    assert (await own_hub.start_server("alice"))["started"] > before["started"]


async def test_stopping_the_hub_ends_its_servers_though_it_was_killed(own_hub: Hub) -> None:
    await own_hub.start_server("alice")
    pid = await own_hub.server_pid("alice")
    own_hub.kill()
    os.kill(pid, 0)
    own_hub.stop()
    assert not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


async def test_no_secret_is_in_the_arguments_of_any_process(own_hub: Hub) -> None:
    await own_hub.start_server("alice")
    secrets = [own_hub.service_token, own_hub.admin_token, own_hub.password, await own_hub.server_token("alice")]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        assert not [secret for secret in secrets if re.search(secret, arguments)]
