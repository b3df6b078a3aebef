"""Why: somebody who installs nothing does all of this with a browser and ssh; so does this test, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest
from playwright.async_api import Browser, Page, expect

from tests.support.chromium import log_in, new_context
from tests.support.hub import LIMIT, Hub, no_tls
from tests.support.system import Person, System

pytestmark = pytest.mark.timeout(600)
SECONDS = LIMIT * 1000 / 3


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """Somebody's browser. Whatever the page's own scripts or its policy complain about fails the test."""
    context = await new_context(browser)
    opened = await context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    yield opened
    await context.close()
    assert complaints == []


async def test_from_a_stopped_server_to_a_shell_and_to_its_end_with_nothing_but_a_browser_and_ssh(
    system: System, hub: Hub, page: Page, tmp_path: Path
) -> None:
    alice = Person.make(system, "alice", tmp_path / "laptop")
    servers = page.get_by_role("region", name="Your servers")

    # log in, and start a server
    await log_in(page, hub, system.url, "alice")
    await expect(servers.get_by_text("stopped", exact=True)).to_be_visible()
    await page.get_by_role("button", name="Start alice").click()
    await expect(servers.get_by_text("running, SSH enabled")).to_be_visible(timeout=SECONDS)
    command = await servers.locator("code").first.inner_text()
    assert command == f"ssh -p {system.port} alice@127.0.0.1"

    # a certificate for the key in a file
    await page.get_by_label("or the file itself").set_input_files(str(alice.folder / "id.pub"))
    await expect(page.get_by_label("Your public key")).to_have_value(alice.public_key)
    async with page.expect_download() as waiting:
        await page.get_by_role("button", name="Download it as a file").click()
    download = await waiting.value
    assert download.suggested_filename == "id_ed25519-cert.pub"
    await download.save_as(alice.certificate_file)

    # ssh with it
    await system.listed("alice")
    assert alice.ssh("alice", "echo $JUPYTERHUB_USER").stdout == b"alice\n"
    with alice.session("alice@127.0.0.1", "cat") as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(b"still there\n")
        assert await anyio.to_thread.run_sync(session.stdout.readline) == b"still there\n"

        # it is seen on the page
        live = page.get_by_role("region", name="Live SSH sessions")
        async with asyncio.timeout(LIMIT / 3):
            while not await live.get_by_role("button").count():
                await page.reload()
        assert "with a certificate" in await live.inner_text()

        # revoke it, and the session ends
        await page.get_by_role("button", name="Revoke the certificate for alice").click()
        await expect(page.get_by_text("The certificate was revoked")).to_be_visible()
        assert await anyio.to_thread.run_sync(session.wait) == 255
        assert session.stderr is not None
        assert b"revoked" in session.stderr.read()
    assert alice.ssh("alice", "true").returncode == 255

    # stop the server
    await page.get_by_role("link", name="Stop alice").click()
    await page.get_by_role("button", name="Stop alice").click()
    await expect(servers.get_by_text("stopped", exact=True)).to_be_visible(timeout=SECONDS)
    assert await hub.server("alice") is None


async def test_a_terminal_is_let_in_by_the_browser_and_its_session_is_ended_there(
    system: System, hub: Hub, page: Page, tmp_path: Path
) -> None:
    alice = Person.make(system, "alice", tmp_path / "laptop")
    await system.start_server("alice")
    async with httpx.AsyncClient(verify=no_tls(), trust_env=False, base_url=system.url, timeout=LIMIT) as terminal:
        wanted = {"public_key": alice.public_key, "host_name": "laptop"}
        begun = (await terminal.post("/device", data=wanted)).json()

        # the link leads through the login to the page that shows who asks
        await page.goto(begun["verification_uri_complete"])
        await page.get_by_label("Username").fill("alice")
        await page.get_by_label("Password").fill(hub.password)
        await page.get_by_role("button", name="Sign in").click()
        asks = page.get_by_role("region", name="Who asks")
        await expect(asks).to_contain_text("laptop")
        await expect(asks).to_contain_text("127.0.0.1")
        await expect(asks).to_contain_text("SHA256:")
        await page.get_by_role("button", name="Approve").click()
        await expect(page.get_by_role("heading", name="Approved")).to_be_visible()
        given = await terminal.post("/device/token", data={"device_code": begun["device_code"]})
        assert given.status_code == 200, given.text
        alice.certificate_file.write_text(given.json()["certificate"] + "\n")

    with alice.session("alice@127.0.0.1", "cat") as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(b"still there\n")
        assert await anyio.to_thread.run_sync(session.stdout.readline) == b"still there\n"
        await page.goto(system.url)
        end = page.get_by_role("button", name="End the session in alice")
        async with asyncio.timeout(LIMIT / 3):
            while not await end.count():
                await page.reload()
        await end.click()
        await expect(page.get_by_text("The session was ended.")).to_be_visible()
        assert await anyio.to_thread.run_sync(session.wait) == 255
    assert alice.ssh("alice", "true").returncode == 0


async def test_what_was_copied_is_said_to_those_who_do_not_see_the_button(system: System, hub: Hub, page: Page) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await log_in(page, hub, system.url, "alice")
    await page.get_by_role("button", name="Copy the lines for hubssh", exact=True).click()
    await expect(page.get_by_role("status").filter(has_text="Copied the lines for hubssh")).to_be_attached()
    assert "hubssh login" in await page.evaluate("navigator.clipboard.readText()")


async def test_a_start_can_be_followed_live_and_says_why_it_failed(system: System, hub: Hub, page: Page) -> None:
    for name, options in (("slow", {"slow": 3}), ("full", {"slow": 3, "refuse": "No GPU is free."})):
        await hub.request("POST", f"/users/alice/servers/{name}", json=options)
        await hub.stop_server("alice", name)
    await log_in(page, hub, system.url, "alice")
    await page.get_by_role("button", name="Start alice/full").click()
    await expect(page.locator("progress")).to_be_visible()
    await expect(page.get_by_text("No GPU is free.")).to_be_visible(timeout=SECONDS)
    await expect(page.locator("progress")).to_be_hidden()
    await page.get_by_role("link", name="Reload").click()
    await expect(page.get_by_role("button", name="Start alice/full")).to_be_visible()
    await page.get_by_role("button", name="Start alice/slow").click()
    await expect(page.get_by_text("The server runs.")).to_be_visible(timeout=SECONDS)
    await expect(page.get_by_text("running, SSH enabled")).to_be_visible()


async def test_without_scripts_a_start_is_followed_by_a_page_that_loads_itself_again(
    system: System, hub: Hub, plain_browser: Browser
) -> None:
    await hub.request("POST", "/users/alice/servers/slow", json={"slow": 3})
    await hub.stop_server("alice", "slow")
    context = await new_context(plain_browser)
    page = await context.new_page()
    await log_in(page, hub, system.url, "alice")
    await page.get_by_role("button", name="Start alice/slow").click()
    said = page.locator(".going noscript p")  # Playwright's search for text passes over <noscript>
    await expect(said).to_have_text("This page loads itself again every three seconds.")
    await expect(page.get_by_text("running, SSH enabled")).to_be_visible(timeout=SECONDS)
    await context.close()


async def test_a_key_is_dropped_on_the_form_and_a_private_one_stays_where_it_is(
    system: System, hub: Hub, page: Page, tmp_path: Path
) -> None:
    alice = Person.make(system, "alice", tmp_path / "laptop")
    await log_in(page, hub, system.url, "alice")

    async def drop(name: str, text: str) -> None:
        transfer = await page.evaluate_handle(
            """([name, text]) => {
                const carried = new DataTransfer();
                carried.items.add(new File([text], name));
                return carried;
            }""",
            [name, text],
        )
        await page.locator("[data-drop]").dispatch_event("drop", {"dataTransfer": transfer})

    key = page.get_by_label("Your public key")
    await drop("id", (alice.folder / "id").read_text())
    await expect(page.get_by_text("That is a private key. It stays on your computer")).to_be_visible()
    await expect(key).to_have_value("")
    await drop("photo.jpg", "\0" * 100)
    await expect(page.get_by_text("That is no public key")).to_be_visible()
    await drop("id.pub", alice.public_key + "\n")
    await expect(page.get_by_text("The key of id.pub stands above")).to_be_visible()
    await expect(key).to_have_value(alice.public_key)
