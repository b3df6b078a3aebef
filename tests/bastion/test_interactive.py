"""Why: somebody with nothing but a browser gets in through the connection that waits, and through nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from ca.keys import parse_public_key
from ca.limits import ALL, Capability, usable
from ca.names import Instance, Server
from tests.bastion.relay.doors_pty import on_terminal
from tests.support.held_logins import Held, HeldLogins
from tests.support.processes import die_with_parent
from tests.support.site import ALICE, LIMIT, Client, Site, site

LOUD = "127.0.0.2"
ELSEWHERE = "127.0.0.3"
BOBS = Instance(Server("bob"), 1763000000000001)
WAITING = "interactive_waiting"


def result(name: str) -> str:
    return f'interactive_logins_total{{result="{name}"}}'


@dataclass
class Place:
    """A bastion, and somebody who decides its logins."""

    site: Site
    browser: HeldLogins

    async def ssh(self, *command: str, login: str = "alice", source: str = "127.0.0.1", more: Any = ()) -> Client:
        """`ssh` by somebody who has no key at all, without a terminal."""
        return Client(
            await asyncio.create_subprocess_exec(
                *self.words(*command, login=login, source=source, more=more),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.site.folder), "LANG": "C.UTF-8"},
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        )

    def words(
        self, *command: str, login: str = "alice", source: str = "127.0.0.1", more: Any = ("PubkeyAuthentication=no",)
    ) -> list[str]:
        options = (
            *(more or ("PubkeyAuthentication=no",)),
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            f"Port={self.site.port}",
            f"BindAddress={source}",
        )
        chosen = [word for option in options for word in ("-o", option)]
        return ["ssh", "-F", "none", *chosen, f"{login}@127.0.0.1", *command]

    async def begun(self, number: int = 0) -> Held:
        """The login with this number, once it was begun."""
        await self.site.until("a login to begin", self.browser.has_begun(number + 1))
        return self.browser.begun[number]

    async def refused(self, reason: str) -> dict[str, Any]:
        """The one line about somebody who was to log in with a browser."""
        lines = [line for line in self.site.audit("connection_refused") if line.get("how") == "interactive"]
        assert [line["reason"] for line in lines] == [reason], lines
        return lines[0]


@asynccontextmanager
async def place(folder: Path, **settings: str) -> AsyncIterator[Place]:
    async with site(folder, METRICS_PORT="0", SHUTDOWN_GRACE="0", **settings) as made:
        browser = HeldLogins(made.api, made.signer)
        await made.start(*(("--workers", settings["WORKERS"]) if "WORKERS" in settings else ()))
        yield Place(made, browser)


async def test_an_address_and_a_code_and_the_connection_that_waited_is_in(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("echo in; echo $SSH_TTY")
        held = await here.begun()
        assert (held.server, held.peer) == ("alice", "127.0.0.1")
        assert client.process.stderr is not None
        async with asyncio.timeout(LIMIT):
            shown = (await client.process.stderr.readuntil(b"sent you.")).decode()
        assert "jupyterhub-bastion: to log in as alice, open this address in a browser:" in shown
        assert f"    https://ssh.example.org/activate?code={held.code}" in shown
        assert f"approve the code {held.code} there" in shown
        assert "It waits 10 minutes" in shown
        assert await here.site.metric(WAITING) == 1
        assert await here.site.metric("connections_waiting") == 0
        here.browser.approve(held, "alice", ALICE)
        status, output, _ = await client.ends()
        assert (status, output.split()) == (0, [b"in"])
        (line,) = here.site.audit("session_opened")
        assert (line["identity"], line["login"], line["how"], line["mode"]) == (
            "alice",
            "alice",
            "interactive",
            "direct",
        )
        assert line["fingerprint"] == held.key.fingerprint
        assert line["capabilities"] == sorted(ALL)
        assert not here.site.audit("connection_refused")
        (hop,) = [body for _, path, body in here.site.api.requests if path == "/internal/hop-certificates"]
        assert hop["certificate"].split()[1] in here.browser.begun[0].answer[1]["certificate"]  # type: ignore[index]
        assert hop["peer"] == "127.0.0.1"
        assert (held.fetched, here.browser.given_up) == (1, [])
        assert await here.site.metric(WAITING) == 0
        assert await here.site.metric(result("entered")) == 1
        assert await here.site.metric('logins_total{how="interactive",reason="",result="accepted"}') == 1


async def test_on_a_terminal_there_is_nothing_to_press(tmp_path: Path) -> None:
    async with place(tmp_path) as here, on_terminal(here.words("-tt", "echo in")) as (terminal, process):
        held = await here.begun()
        await terminal.until(b"sent you.", LIMIT)
        here.browser.approve(held, "alice", ALICE)
        await terminal.until(b"\nin\r\n", LIMIT)
        async with asyncio.timeout(LIMIT):
            assert await process.wait() == 0


async def test_a_denial_is_told_and_the_next_try_gets_another_code(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("true")
        here.browser.deny(await here.begun())
        status, _, errors = await client.ends()
        assert status == 255
        assert b"This login was denied in the browser." in errors
        line = await here.refused("access_denied")
        assert (line["login"], line.get("identity"), line.get("fingerprint")) == ("alice", None, None)
        assert await here.site.metric(result("access_denied")) == 1
        assert len(here.browser.begun) == 1  # ssh would go on to ask three times
        client = await here.ssh("echo in")
        held = await here.begun(1)
        assert held.code != here.browser.begun[0].code
        assert held.key != here.browser.begun[0].key
        here.browser.approve(held, "alice", ALICE)
        assert (await client.ends())[:2] == (0, b"in\n")


async def test_a_key_that_nobody_knows_is_no_hindrance_and_leaves_no_line_of_its_own(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        stranger = here.site.key("stranger", certified=False)
        client = await here.ssh("echo in", more=[f"IdentityFile={stranger}"])
        here.browser.approve(await here.begun(), "alice", ALICE)
        assert (await client.ends())[:2] == (0, b"in\n")
        assert not here.site.audit("connection_refused")


async def test_whoever_proves_a_certificate_that_opens_nothing_is_told_and_does_not_hang(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        key = here.site.key("alice")
        public = parse_public_key(asyncssh.read_private_key(key).export_public_key())
        before = Instance(ALICE.server, ALICE.id - 1)
        key.with_name("alice-cert.pub").write_text(here.browser.line(public, "alice", before) + "\n")
        client = await here.ssh("true", more=[f"IdentityFile={key}"])
        status, _, errors = await client.ends()
        assert status == 255
        assert b"was restarted since your certificate was made" in errors
        assert b"Permission denied (publickey)." in errors
        assert not here.browser.begun
        (line,) = here.site.audit("connection_refused")
        assert line["reason"] == "server_restarted"


async def test_a_new_certificate_for_a_server_that_does_not_come_up_is_told_so_after_a_moment(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        key = here.site.key("alice")
        here.site.api.change(version="later", enrolled=[])
        await here.site.until_metric("servers", lambda value: value == 0)
        status, _, errors = await (await here.ssh("true", more=[f"IdentityFile={key}"])).ends()
        assert status == 255
        assert b"is not running with SSH" in errors
        assert [line["reason"] for line in here.site.audit("connection_refused")] == ["server_stopped"]


async def test_nobody_who_decides_in_time(tmp_path: Path) -> None:
    async with place(tmp_path, LOGIN_INTERACTIVE_SECONDS="1") as here:
        status, _, errors = await (await here.ssh("true")).ends()
        assert status == 255
        assert b"This login was not approved in time. Type your ssh command again for a new code." in errors
        await here.refused("expired_token")
        await here.site.until("the login to be given up", lambda: len(here.browser.given_up) == 1)
        assert await here.site.metric(WAITING) == 0
        assert await here.site.metric('limit_reached_total{limit="login_interactive_seconds"}') == 1
        assert await here.site.metric(result("expired_token")) == 1


async def test_the_grace_time_for_logins_does_not_end_it(tmp_path: Path) -> None:
    async with place(tmp_path, LOGIN_GRACE="1") as here:
        client = await here.ssh("echo in")
        held = await here.begun()
        _, silent = await asyncio.open_connection("127.0.0.1", here.site.port)
        await here.site.until_metric('logins_abandoned_total{reason="grace"}', lambda value: value == 1)
        silent.close()
        here.browser.approve(held, "alice", ALICE)
        assert (await client.ends())[:2] == (0, b"in\n")


async def test_a_client_that_vanishes_frees_everything_at_once(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("true")
        held = await here.begun()
        await here.site.until_metric(WAITING, lambda value: value == 1)
        client.process.kill()
        await here.site.until_metric(WAITING, lambda value: value == 0)
        await here.site.until("the login to be given up", lambda: here.browser.given_up == [held.id])
        await here.site.until_metric("connections", lambda value: value == 0)
        await here.refused("abandoned")
        assert await here.site.metric(result("left")) == 1
        await client.process.wait()


async def test_a_client_that_vanishes_while_its_login_is_begun_leaves_none(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        hold = here.site.api.hold = asyncio.Event()
        client = await here.ssh("true")
        path = "/internal/logins"
        await here.site.until("the api to be asked", lambda: any(one[1] == path for one in here.site.api.requests))
        client.process.kill()
        await here.site.until_metric("connections", lambda value: value == 0)
        here.site.api.hold = None
        hold.set()
        await here.site.until("the login to be given up", lambda: len(here.browser.given_up) == 1)
        assert await here.site.metric(WAITING) == 0
        await client.process.wait()


async def test_the_end_of_the_bastion_gives_up_the_logins_that_wait_and_tells_whoever_waits(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("true")
        held = await here.begun()
        await here.site.until_metric(WAITING, lambda value: value == 1)
        assert await here.site.end() == 0
        status, _, errors = await client.ends()
        assert status == 255
        assert b"The bastion is shutting down. Type your ssh command again in a minute for a new code." in errors
        assert here.browser.given_up == [held.id]
        await here.refused("unavailable")


async def test_a_login_that_is_being_begun_when_the_bastion_ends_is_given_up(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        hold = here.site.api.hold = asyncio.Event()
        client = await here.ssh("true")
        path = "/internal/logins"
        await here.site.until("the api to be asked", lambda: any(one[1] == path for one in here.site.api.requests))
        ending = asyncio.create_task(here.site.end())
        await here.site.logged("shutting down")
        here.site.api.hold = None
        hold.set()
        assert await ending == 0
        assert here.browser.given_up == [one.id for one in here.browser.begun]
        assert (await client.ends())[0] == 255


async def test_bob_who_approves_alices_login_gives_what_is_bobs(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("true")
        here.browser.approve(await here.begun(), "bob", BOBS)
        status, _, errors = await client.ends()
        assert status == 255
        assert b"Your certificate does not open that login. It opens: bob." in errors
        line = await here.refused("not_named")
        assert (line["identity"], line["login"]) == ("bob", "alice")
        assert not here.site.audit("session_opened")


async def test_the_apis_refusal_after_the_approval_is_told(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("true")
        sentence = "Your server alice is not running: start it in JupyterHub."
        here.browser.refuse(await here.begun(), "server_not_running", sentence, 409)
        status, _, errors = await client.ends()
        assert status == 255
        assert sentence.encode() in errors
        await here.refused("server_not_running")


@pytest.mark.parametrize(("bound", "enters"), [("127.0.0.1/32", True), ("192.0.2.0/24", False)])
async def test_a_certificate_that_is_bound_to_an_address_counts_from_there(
    tmp_path: Path, bound: str, enters: bool
) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("echo in")
        here.browser.approve(await here.begun(), "alice", ALICE, source_address=bound)
        status, _, errors = await client.ends()
        assert (status == 0) == enters
        if not enters:
            assert b"bound to another network address" in errors
            await here.refused("source_address")


async def test_restrictions_hold_after_the_second_step(tmp_path: Path) -> None:
    """OpenSSH's own options of a certificate would be forgotten by asyncssh with each request for a login."""
    async with place(tmp_path) as here:
        fewer = ALL - {Capability.EXEC, Capability.REMOTE_FORWARD, Capability.AGENT}
        client = await here.ssh("echo in")
        here.browser.approve(await here.begun(), "alice", ALICE, capabilities=fewer)
        status, output, errors = await client.ends()
        assert (status, output) == (255, b"")
        assert b"exec is not permitted to you here" in errors
        (line,) = here.site.audit("session_opened")
        assert line["capabilities"] == sorted(usable(fewer))
        client = await here.ssh(
            "-N", "-R", "0:127.0.0.1:9", more=["PubkeyAuthentication=no", "ExitOnForwardFailure=yes"]
        )
        here.browser.approve(await here.begun(1), "alice", ALICE, capabilities=fewer)
        status, _, errors = await client.ends()
        assert status == 255
        assert b"remote port forwarding failed" in errors
        reasons = {line["reason"] for line in here.site.audit("action_refused")}
        assert reasons == {"not_permitted"}


async def test_a_certificate_for_another_key_lets_nobody_in(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("true")
        held = await here.begun()
        other = parse_public_key(asyncssh.generate_private_key("ssh-ed25519").export_public_key())
        held.answer = (200, {"certificate": here.browser.line(other, "alice", ALICE)})
        assert (await client.ends())[0] == 255
        await here.refused("unavailable")
        assert "for another key" in here.site.last_words


async def test_revoked_between_the_approval_and_the_door(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("true")
        held = await here.begun()
        revocations = {**here.site.api.state["revocations"], "users": {"alice": (1 << 62) >> 20}}
        here.site.api.change(version="revoked", revocations=revocations)
        asked = len(here.site.api.requests)
        await here.site.until("the bastion to ask for more news", lambda: len(here.site.api.requests) > asked)
        here.browser.approve(held, "alice", ALICE)
        status, _, errors = await client.ends()
        assert status == 255
        assert b"Your certificate was revoked." in errors
        await here.refused("revoked")


async def test_a_jump_login_is_for_every_server_and_opens_tunnels(tmp_path: Path) -> None:
    async with place(tmp_path, LOGIN_INTERACTIVE_JUMP="true") as here:
        client = await here.ssh("-W", "alice.hub:22", login="jump")
        held = await here.begun()
        assert held.server is None
        here.browser.approve(held, "alice", ALICE)
        assert client.process.stdout is not None
        async with asyncio.timeout(LIMIT):
            assert (await client.process.stdout.readline()).startswith(b"SSH-2.0-OpenSSH")
        (line,) = here.site.audit("tunnel_opened")
        assert line["identity"] == "alice"
        client.process.kill()
        await client.process.wait()


async def test_a_jump_login_without_a_known_key_is_refused_at_once(tmp_path: Path) -> None:
    """Its server would ask for a key all the same, and scripts with a key that is listed nowhere must end."""
    async with place(tmp_path) as here:
        status, _, errors = await (await here.ssh("-W", "alice.hub:22", login="jump")).ends()
        assert status == 255
        assert b"Permission denied (publickey)." in errors
        assert not here.browser.begun


async def test_a_login_name_that_can_be_nobodys_gets_no_code(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        status, _, errors = await (await here.ssh("true", login="x" * 600)).ends()
        assert status == 255
        assert b"That is not the name of a server." in errors
        assert not here.browser.begun
        await here.refused("bad_name")


@pytest.mark.parametrize("off", ["by the operator", "by the api", "unknown to the api"])
async def test_it_can_be_switched_off(tmp_path: Path, off: str) -> None:
    settings = {"LOGIN_INTERACTIVE": "false"} if off == "by the operator" else {}
    async with site(tmp_path, METRICS_PORT="0", SHUTDOWN_GRACE="0", **settings) as made:
        here = Place(made, HeldLogins(made.api, made.signer))
        if off == "by the api":
            made.api.change(interactive=False)
        elif off == "unknown to the api":
            del made.api.state["interactive"]
        await made.start()
        status, _, errors = await (await here.ssh("true")).ends()
        assert status == 255
        assert b"Permission denied (publickey)." in errors
        assert not here.browser.begun


async def test_switched_off_while_it_runs(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("echo in")
        held = await here.begun()
        asked = len(here.site.api.requests)
        here.site.api.change(interactive=False, version="without-browsers")
        await here.site.until("the bastion to ask for more news", lambda: len(here.site.api.requests) > asked)
        _, _, errors = await (await here.ssh("true")).ends()
        assert b"Permission denied (publickey)." in errors
        here.browser.approve(held, "alice", ALICE)  # the api still gives what it has promised
        assert (await client.ends())[:2] == (0, b"in\n")


@pytest.mark.parametrize(
    ("answer", "reason", "sentence"),
    [
        ((503, {"error": "unavailable", "error_description": "Away."}), "unavailable", b"cannot be reached"),
        ((200, {"id": "short"}), "unavailable", b"cannot be reached"),
        (
            (429, {"error": "too_many", "error_description": "Too many logins wait for a browser."}),
            "too_many",
            b"Too many logins wait for a browser.",
        ),
    ],
)
async def test_an_api_that_begins_no_login(tmp_path: Path, answer: Any, reason: str, sentence: bytes) -> None:
    async with place(tmp_path) as here:
        here.browser.begin_with = answer
        status, _, errors = await (await here.ssh("true")).ends()
        assert status == 255
        assert sentence in errors
        await here.refused(reason)
        assert await here.site.metric(WAITING) == 0


async def test_an_outage_while_somebody_waits_is_waited_out(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("echo in")
        held = await here.begun()
        held.answer = (503, {"error": "unavailable", "error_description": "Away."})
        await here.site.until("two tries", lambda: held.fetched >= 2)
        here.browser.approve(held, "alice", ALICE)
        assert (await client.ends())[:2] == (0, b"in\n")


async def test_how_far_a_server_is_that_starts_is_told_once_each(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        client = await here.ssh("echo in")
        held = await here.begun()
        held.answer = (200, {"certificate": None, "message": "Pulling the image…\x1b[31m\nof carol"})
        await here.site.until("three questions", lambda: held.fetched >= 3)
        here.browser.approve(held, "alice", ALICE)
        status, output, errors = await client.ends()
        assert (status, output) == (0, b"in\n")
        assert errors.count(b"jupyterhub-bastion: Pulling the image? [31m of carol") == 1


async def test_two_workers_hold_logins_of_their_own(tmp_path: Path) -> None:
    async with place(tmp_path, WORKERS="2") as here:
        clients = [await here.ssh(f"echo in {number}") for number in range(4)]
        await here.begun(3)
        for held in here.browser.begun:
            here.browser.approve(held, "alice", ALICE)
        for number, client in enumerate(clients):
            assert (await client.ends())[:2] == (0, b"in %d\n" % number)


# -- many of them


class Patient(asyncssh.SSHClient):
    """Reads what it is told and waits."""

    def kbdint_auth_requested(self) -> str:
        return ""

    def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: Any) -> list[str]:
        del name, instructions, lang
        return ["" for _ in prompts]


async def waits(here: Place, stack: AsyncExitStack, source: str, login: str = "alice") -> asyncio.Task[None]:
    """Somebody who waits for a browser, until the block is over."""

    async def connect() -> None:
        with contextlib.suppress(asyncssh.Error, OSError):
            async with asyncssh.connect(
                "127.0.0.1",
                here.site.port,
                local_addr=(source, 0),
                username=login,
                client_keys=None,
                client_factory=Patient,
                known_hosts=None,
                config=None,
                agent_path=None,
                connect_timeout=None,
                login_timeout=None,
            ):
                pass

    task = asyncio.create_task(connect())

    async def end() -> None:
        task.cancel()
        await asyncio.wait([task])

    stack.push_async_callback(end)
    return task


async def test_a_flood_of_waiting_logins_keeps_nobody_out(tmp_path: Path) -> None:
    """Neither somebody with a certificate, also when only the smallest of lobbies is left, nor somebody without."""
    settings = {"UNAUTHENTICATED_START": "2", "UNAUTHENTICATED_RATE": "100", "UNAUTHENTICATED_FULL": "4"}
    settings |= {"INTERACTIVE": "40", "INTERACTIVE_PER_ADDRESS": "30", "CONNECTIONS": "100"}
    async with (
        place(tmp_path, **{f"LIMITS_{name}": value for name, value in settings.items()}) as here,
        AsyncExitStack() as stack,
    ):
        key = here.site.key("alice")
        for number in range(60):
            await waits(here, stack, f"127.0.1.{number % 2 + 1}")
            await here.begun(number)
        await here.site.until_metric(WAITING, lambda value: value == 40)
        assert await here.site.gets_in(key, source="127.0.1.1")
        assert await here.site.gets_in(key, source=ELSEWHERE)
        assert await here.site.metric('limit_reached_total{limit="limits_interactive"}') > 0
        assert await here.site.metric(result("made_room")) > 0
        client = await here.ssh("echo in", source=ELSEWHERE)
        await here.site.until(
            "the login from elsewhere", lambda: any(one.peer == ELSEWHERE for one in here.browser.begun)
        )
        (held,) = [one for one in here.browser.begun if one.peer == ELSEWHERE]
        here.browser.approve(held, "alice", ALICE)
        assert (await client.ends())[:2] == (0, b"in\n")
        made_room = await here.site.metric(result("made_room"))
        await here.site.until("those to be given up", lambda: len(here.browser.given_up) == made_room)


async def test_who_has_to_make_room_while_the_login_is_begun_is_told_so(tmp_path: Path) -> None:
    async with place(tmp_path, LIMITS_INTERACTIVE="1") as here:
        hold = here.site.api.hold = asyncio.Event()
        first = await here.ssh("true", source=LOUD)
        begins = lambda count: sum(one[1] == "/internal/logins" for one in here.site.api.requests) >= count  # noqa: E731
        await here.site.until("the first to be begun", lambda: begins(1))
        second = await here.ssh("echo in", source=ELSEWHERE)
        await here.site.until("the second to be begun", lambda: begins(2))
        here.site.api.hold = None
        hold.set()
        status, _, errors = await first.ends()
        assert status == 255
        assert b"Too many logins wait for a browser." in errors
        await here.refused("too_many")
        await here.site.until("the first to be given up", lambda: len(here.browser.given_up) == 1)
        (held,) = [one for one in here.browser.begun if one.peer == ELSEWHERE]
        here.browser.approve(held, "alice", ALICE)
        assert (await second.ends())[:2] == (0, b"in\n")


async def test_an_address_begins_so_many_and_is_told_so(tmp_path: Path) -> None:
    async with place(tmp_path, LIMITS_INTERACTIVE_PER_ADDRESS="2") as here, AsyncExitStack() as stack:
        for number in range(2):
            await waits(here, stack, LOUD)
            await here.begun(number)
        status, _, errors = await (await here.ssh("true", source=LOUD)).ends()
        assert status == 255
        assert b"Too many logins from your address were begun in the last minutes." in errors
        await here.refused("too_many")
        assert len(here.browser.begun) == 2
        assert await here.site.metric('limit_reached_total{limit="limits_interactive_per_address"}') == 1
        client = await here.ssh("echo in", source=ELSEWHERE)
        here.browser.approve(await here.begun(2), "alice", ALICE)
        assert (await client.ends())[:2] == (0, b"in\n")


async def test_whoever_got_in_leaves_the_next_at_that_address_a_login(tmp_path: Path) -> None:
    async with place(tmp_path, LIMITS_INTERACTIVE_PER_ADDRESS="2") as here, AsyncExitStack() as stack:
        for number in range(4):
            client = await here.ssh("echo in", source=LOUD)
            here.browser.approve(await here.begun(number), "alice", ALICE)
            assert (await client.ends())[:2] == (0, b"in\n")
        for number in (4, 5):
            await waits(here, stack, LOUD)
            await here.begun(number)
        status, _, errors = await (await here.ssh("true", source=LOUD)).ends()
        assert status == 255
        assert b"Too many logins from your address were begun in the last minutes." in errors


async def test_a_class_of_300_behind_one_nat_logs_in_with_browsers_on_the_defaults_all_at_once(tmp_path: Path) -> None:
    students = 300
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    try:
        async with place(tmp_path) as here, AsyncExitStack() as stack:
            for _ in range(students):
                await waits(here, stack, LOUD)
            await here.begun(students - 1)
            for number, held in enumerate(here.browser.begun):
                here.browser.approve(held, f"student-{number}", ALICE)
            await here.site.until_metric(result("entered"), lambda entered: entered == students)
            seen = await here.site.metrics()
            assert not [name for name, count in seen.items() if count and name.startswith(("limit_", "logins_aban"))]
            assert not here.site.audit("connection_refused")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
