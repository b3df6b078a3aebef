"""Why: every page is looked at in the same state, by the tests of how pages look and by `make screenshots`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
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
NAMES = (
    "welcome", "home", "problem", "failed", "certificate", "stop", "activate", "approve-typed", "approve-ssh",
    "approve-anothers", "approve", "activated", "error", "logged-out",
)  # fmt: skip
SETTINGS = {
    "SSH_API_SERVERS_START": "true",
    # Whoever says that they come from elsewhere is believed here. So there is a port for notebook servers alone.
    "SSH_API_LISTEN_TRUSTED_PROXIES": "127.0.0.1",
    "SSH_API_LISTEN_POD_PORT": "0",
}
ELSEWHERE = {"X-Forwarded-For": "203.0.113.9"}


@dataclass
class Stage:
    """Alice with servers in every state, a certificate and live sessions, and what she and bob share."""

    system: System
    alice: Person
    bob: Person

    def _client(self, url: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=no_tls(), trust_env=False, base_url=url, timeout=LIMIT)

    async def asked(self, key: str = KEY, headers: Mapping[str, str] | None = None) -> str:
        """The address of a login that waits for approval."""
        async with self._client(self.system.url) as client:
            data = {"public_key": key, "host_name": "laptop"}
            return _page(await client.post("/device", data=data, headers=headers))

    async def asked_by_ssh(self) -> str:
        """The same of an ssh connection, as the bastion asks for it."""
        secret = (self.system.state / "internal-secret").read_text().strip()
        wanted = {"public_key": self.alice.public_key, "peer": "127.0.0.1", "server": "alice"}
        async with self._client(f"http://127.0.0.1:{self.system.internal_port}") as client:
            headers = {"Authorization": f"Bearer {secret}"}
            return _page(await client.post("/internal/logins", json=wanted, headers=headers))


def _page(answer: httpx.Response) -> str:
    answer.raise_for_status()
    return str(answer.json()["verification_uri_complete"])


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
    await hub.share("alice", "", "bob")
    alice, bob = (Person.make(system, user, folder / f"{user}s-laptop") for user in ("alice", "bob"))
    with contextlib.ExitStack() as sessions:
        for person in (alice, bob):
            await person.certificate(server="alice")
            session = sessions.enter_context(person.session("alice@127.0.0.1", "cat"))
            if session.stdin is None or session.stdout is None:
                raise ValueError("the session has no pipes")
            session.stdin.write(b"there\n")
            await anyio.to_thread.run_sync(session.stdout.readline)
        await hub.start_server("alice", "large", wait=False, ssh=True, slow=LIMIT)
        yield Stage(system, alice, bob)


async def scenes(stage: Stage, page: Page) -> AsyncIterator[str]:
    """Bring `page` before each page of the service in turn, and say its name."""
    system = stage.system
    await page.goto(system.url)
    yield "welcome"
    await log_in(page, system.hub, system.url, "alice")
    with anyio.fail_after(LIMIT / 3):
        while await page.get_by_role("button", name="End the session").count() < 2:
            await page.reload()
    await page.get_by_text("Spawning server").wait_for()
    yield "home"
    await page.get_by_label("Your public key").fill("ssh-ed25519 AAAAC3NzaC1lZDI1")
    await page.get_by_role("button", name="Get the certificate").click()
    await page.get_by_role("heading", name="No certificate was made").wait_for()
    await page.get_by_text("Spawning server").wait_for()
    yield "problem"
    await _fail(system, page)
    yield "failed"
    await page.goto(system.url)
    await page.get_by_label("Your public key").fill(KEY)
    await page.get_by_label("Only alice", exact=True).check()
    await page.get_by_role("button", name="Get the certificate").click()
    await page.get_by_role("heading", name="Your certificate").wait_for()
    yield "certificate"
    await page.goto(f"{system.url}/servers/alice/stop")
    yield "stop"
    await page.goto(f"{system.url}/activate")
    yield "activate"
    await page.goto(await stage.asked(headers=ELSEWHERE))
    yield "approve-typed"
    await page.goto(await stage.asked_by_ssh())
    yield "approve-ssh"
    await page.goto(await stage.asked(stage.bob.public_key))
    yield "approve-anothers"
    await page.goto(await stage.asked())
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


async def _fail(system: System, page: Page) -> None:
    """A start that JupyterHub gives up: it sends the last choices again, and these are its words."""
    chosen = {"enable_ssh": True, "slow": 3, "refuse": "There is no GPU left."}
    await system.hub.request("POST", "/users/alice/servers/gpu", json=chosen)
    await system.hub.stop_server("alice", "gpu")
    await page.goto(system.url)
    await page.get_by_role("button", name="Start alice/gpu").click()
    await page.get_by_text("There is no GPU left.").wait_for()
    await page.reload()
    await page.get_by_role("heading", name="The server did not start").wait_for()
    await page.get_by_text("Spawning server").wait_for()
