"""Why: the way in with nothing installed, whole: ssh, JupyterHub's form, our page, and the connection that waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from tests.clients.openssh import SUITES, Missing, OpenSSH
from tests.support.browser import form
from tests.support.hub import LIMIT
from tests.support.processes import die_with_parent
from tests.support.system import Person, System

PAGE = re.compile(rb"\n    (http\S+/activate\?code=([A-Z]{4}-[A-Z]{4}))\r?\n")


@dataclass
class Waiting:
    """An ssh that waits, and what it has shown."""

    process: asyncio.subprocess.Process
    page: str
    code: str

    async def ends(self) -> tuple[int, bytes, bytes]:
        async with asyncio.timeout(LIMIT):
            output, errors = await self.process.communicate(b"")
        return self.process.returncode or 0, output, errors


@asynccontextmanager
async def waiting(system: System, login: str, *command: str, ssh: str = "ssh") -> AsyncIterator[Waiting]:
    """`ssh LOGIN@bastion` by somebody who has no key at all, as far as the address that it shows."""
    options = (
        "PubkeyAuthentication=no",
        "IdentityAgent=none",
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={system.known_hosts}",
        "GlobalKnownHostsFile=/dev/null",
        f"Port={system.port}",
    )
    process = await asyncio.create_subprocess_exec(
        ssh,
        *("-F", "none"),
        *(word for option in options for word in ("-o", option)),
        f"{login}@127.0.0.1",
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(system.folder), "LANG": "C.UTF-8"},
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(LIMIT):
            shown = await process.stderr.readuntil(b"sent you.")
        found = PAGE.search(shown)
        assert found, shown
        yield Waiting(process, found[1].decode(), found[2].decode())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def decide(system: System, client: httpx.AsyncClient, user: str, ssh: Waiting, then: str) -> httpx.Response:
    """Open the address that ssh showed, log in where asked to, and press a button."""
    page = await system.hub.log_in_here(client, ssh.page, user)
    assert str(page.url) == ssh.page, page.text
    found = form(page, "/activate")
    parts = urlsplit(system.url)
    headers = {"Origin": f"{parts.scheme}://{parts.netloc}", "Sec-Fetch-Site": "same-origin"}
    return await client.post(found.action, data={**found.fields, "then": then}, headers=headers)


async def approve(system: System, user: str, ssh: Waiting) -> httpx.Response:
    async with system.hub.browser() as client:
        return await decide(system, client, user, ssh, "approve")


@pytest.fixture(scope="module")
def alice(system: System) -> Person:
    """Alice, whose server runs."""
    anyio.run(system.start_server, "alice")
    return system.person("alice")


@pytest.mark.parametrize("suite", ["own", *SUITES])
async def test_nothing_but_ssh_and_a_browser(system: System, alice: Person, suite: str) -> None:
    try:
        program = OpenSSH.of(suite).program("ssh")
    except Missing as reason:
        pytest.skip(str(reason))
    before = {name: len(system.audit(part, name)) for part, name in (("bastion", "session_opened"),)}
    async with waiting(system, "alice", "echo in; cat", ssh=program) as ssh:
        answer = await approve(system, "alice", ssh)
        assert "Approved" in answer.text
        process = ssh.process
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(LIMIT):
            assert await process.stdout.readline() == b"in\n"
        rows = system.command("sessions", "--json")
        assert '"identity": "alice"' in rows.stdout
        assert (await ssh.ends())[:2] == (0, b"")
    opened = system.audit("bastion", "session_opened")[before["session_opened"] :]
    assert [(line["identity"], line["how"], line["mode"]) for line in opened] == [("alice", "interactive", "direct")]
    issued = next(line for line in system.audit("api", "certificate_issued") if line["serial"] == opened[0]["serial"])
    assert (issued["user"], issued["how"], issued["peer"]) == ("alice", "interactive", "127.0.0.1")
    assert issued["fingerprint"] == opened[0]["fingerprint"]
    assert [name.partition(":")[0] for name in issued["principals"]] == ["alice/"]


async def test_the_page_says_where_the_connection_is_and_warns(system: System, alice: Person) -> None:
    async with waiting(system, "alice", "true") as ssh, system.hub.browser() as client:
        page = await system.hub.log_in_here(client, ssh.page, "alice")
        for words in ("Let this SSH connection in?", "127.0.0.1", "If somebody sent you this link", ssh.code):
            assert words in page.text
        answer = await decide(system, client, "alice", ssh, "deny")
        assert answer.status_code == 200
        status, _, errors = await ssh.ends()
    assert status == 255
    assert b"This login was denied in the browser." in errors
    refused = system.audit("bastion", "connection_refused")[-1]
    assert (refused["reason"], refused["how"], refused["login"]) == ("access_denied", "interactive", "alice")


async def test_bob_cannot_give_what_is_alices(system: System, alice: Person) -> None:
    """The page tells bob already that there is nothing to approve; the connection goes on waiting."""
    async with waiting(system, "alice", "true") as ssh:
        async with system.hub.browser() as client:
            page = await system.hub.log_in_here(client, ssh.page, "bob")
            assert "It cannot be approved" in page.text
        status = await asyncio.wait_for(asyncio.shield(_approved_by_force(system, ssh, "bob")), LIMIT)
        assert status == 200
        assert ssh.process.returncode is None
        assert "Approved" in (await approve(system, "alice", ssh)).text
        assert (await ssh.ends())[0] == 0


async def _approved_by_force(system: System, ssh: Waiting, user: str) -> int:
    """The form sent although the page did not offer the button."""
    async with system.hub.browser() as client:
        return (await decide(system, client, user, ssh, "approve")).status_code


async def test_a_code_lets_one_connection_in(system: System, alice: Person) -> None:
    async with waiting(system, "alice", "true") as one, waiting(system, "alice", "true") as other:
        assert one.code != other.code
        assert "Approved" in (await approve(system, "alice", one)).text
        assert (await one.ends())[0] == 0
        assert other.process.returncode is None
        again = await _again(system, one)
        assert "decided already" in again


async def _again(system: System, ssh: Waiting) -> str:
    async with system.hub.browser() as client:
        page = await system.hub.log_in_here(client, ssh.page, "alice")
        return page.text


async def test_who_hangs_up_cannot_be_let_in(system: System, alice: Person) -> None:
    async with waiting(system, "alice", "true") as ssh:
        ssh.process.kill()
        await ssh.process.wait()
        async with asyncio.timeout(LIMIT / 2):
            while "decided already" not in await _again(system, ssh):
                continue  # each look is a whole login of a browser
    refused = system.audit("bastion", "connection_refused")[-1]
    assert (refused["reason"], refused["how"]) == ("abandoned", "interactive")


async def test_revoking_its_certificate_cuts_the_session(system: System, alice: Person) -> None:
    async with waiting(system, "alice", "echo in; cat") as ssh:
        await approve(system, "alice", ssh)
        assert ssh.process.stdout is not None
        async with asyncio.timeout(LIMIT):
            assert await ssh.process.stdout.readline() == b"in\n"
        serial = system.audit("bastion", "session_opened")[-1]["serial"]
        async with system.hub.browser() as client:
            token = await system.hub.token("alice", ["access:services!service=ssh"])
            gone = await client.delete(
                f"{system.url}/certificates/{serial}", headers={"Authorization": f"token {token}"}
            )
            assert gone.status_code == 204
        async with asyncio.timeout(LIMIT):
            _, errors = await ssh.process.communicate()
        assert b"revoked" in errors


async def test_a_stopped_server_is_said_on_the_page(system: System) -> None:
    async with waiting(system, "carol", "true") as ssh, system.hub.browser() as client:
        page = await system.hub.log_in_here(client, ssh.page, "carol")
        assert "It cannot be approved" in page.text


async def test_where_the_site_lets_people_start_servers_approving_starts_it(own_system: System) -> None:
    system = own_system
    system.api.end()
    system.api.environment = {**system.api.environment, "SSH_API_SERVERS_START": "true"}
    system.start_api()
    async with waiting(system, "carol", "echo in") as ssh:
        async with system.hub.browser() as client:
            page = await system.hub.log_in_here(client, ssh.page, "carol")
            assert "Would start and enter" in page.text
            await decide(system, client, "carol", ssh, "approve")
        assert (await ssh.ends())[:2] == (0, b"in\n")
    assert not system.audit("bastion", "connection_refused")


def test_clients_in_batch_mode_fail_at_once(system: System) -> None:
    stranger = system.person("stranger")
    done = stranger.ssh("alice", "true")
    assert done.returncode == 255
    assert b"Permission denied (publickey,keyboard-interactive)." in done.stderr


def test_ssh_keyscan_and_ssh_audit_need_no_login(system: System) -> None:
    """Reading host keys begins no login: nothing waits afterwards."""
    before = len(system.audit("api", "device_login_begun"))
    subprocess.run(["ssh-keyscan", "-p", str(system.port), "127.0.0.1"], capture_output=True, timeout=60, check=True)
    assert len(system.audit("api", "device_login_begun")) == before


def test_nothing_of_it_is_in_a_log(system: System) -> None:
    """The id of a login is what its certificate is handed out for."""
    for name in ("api.log", "bastion.log", "bastion.audit", "api.audit"):
        text = (Path(system.folder) / name).read_text(errors="replace")
        assert "device_code" not in text
        assert not re.search(r'"id":\s*"[A-Za-z0-9_-]{43}"', text)
