"""Why: every page is looked at in the same state, by the tests of how pages look and by `make screenshots`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
from playwright.async_api import Page

from tests.support.chromium import log_in
from tests.support.hub import LIMIT, no_tls
from tests.support.system import Person, System

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHLMNFRKb0ysWqFgFgdfNGtMA3u4DyKsfsYBzRBEGsXN alice@laptop"
NAMES = ("welcome", "home", "certificate", "stop", "activate", "approve", "activated", "error", "logged-out")


@dataclass
class Stage:
    """Alice with servers in every state, a certificate and a live session, and what bob shares with her."""

    system: System
    alice: Person

    async def asked(self) -> str:
        """The code of a login that waits for approval."""
        async with httpx.AsyncClient(
            verify=no_tls(), trust_env=False, base_url=self.system.url, timeout=LIMIT
        ) as client:
            answer = await client.post("/device", data={"public_key": KEY, "host_name": "laptop"})
            return str(answer.json()["user_code"])


@asynccontextmanager
async def staged(system: System, folder: Path) -> AsyncIterator[Stage]:
    """Set the stage; the session is ended with the block, the servers are left to the hub."""
    hub = system.hub
    await hub.make_users()
    await system.start_server("alice")
    await hub.start_server("alice", "gpu", ssh=True)
    await hub.stop_server("alice", "gpu")
    await hub.start_server("alice", "plain", ssh=False)
    await system.start_server("bob", "data")
    await hub.share("bob", "data", "alice")
    alice = Person.make(system, "alice", folder / "laptop")
    await alice.certificate(server="alice")
    with alice.session("alice@127.0.0.1", "cat") as session, contextlib.ExitStack():
        if session.stdin is None or session.stdout is None:
            raise ValueError("the session has no pipes")
        session.stdin.write(b"there\n")
        await anyio.to_thread.run_sync(session.stdout.readline)
        await hub.start_server("alice", "large", wait=False, ssh=True, slow=LIMIT)
        yield Stage(system, alice)


async def scenes(stage: Stage, page: Page) -> AsyncIterator[str]:
    """Bring `page` before each page of the service in turn, and say its name."""
    system = stage.system
    await page.goto(system.url)
    yield "welcome"
    await log_in(page, system.hub, system.url, "alice")
    with anyio.fail_after(LIMIT / 3):
        while not await page.get_by_role("button", name="End the session").count():
            await page.reload()
    await page.get_by_text("Spawning server").wait_for()
    yield "home"
    await page.get_by_label("Your public key").fill(KEY)
    await page.get_by_label("Only alice", exact=True).check()
    await page.get_by_role("button", name="Get the certificate").click()
    await page.get_by_role("heading", name="Your certificate").wait_for()
    yield "certificate"
    await page.goto(f"{system.url}/servers/alice/stop")
    yield "stop"
    await page.goto(f"{system.url}/activate")
    yield "activate"
    await page.goto(f"{system.url}/activate?code={await stage.asked()}")
    yield "approve"
    await page.get_by_role("button", name="Approve").click()
    await page.get_by_role("heading", name="Approved").wait_for()
    yield "activated"
    await page.goto(f"{system.url}/servers/nobody/stop")
    yield "error"
    await page.goto(system.url)
    await page.get_by_role("button", name="Revoke").first.click()  # the newest, so that the stage is as before
    await page.get_by_text("The certificate was revoked").wait_for()
    await page.get_by_role("button", name="Log out").click()
    yield "logged-out"
