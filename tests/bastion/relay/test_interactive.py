"""Why: keyboard-interactive must succeed by the front's word and by nothing else that a client can send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import String, UInt32
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastion.relay.limits import RelayLimits
from ca.errors import Reason, Refusal
from tests.bastion.relay.doors import Door, Front, Way
from tests.bastion.relay.test_authentication import key_file
from tests.clients.openssh import SUITES, Missing, OpenSSH
from tests.support.sshd import Sshd

REQUEST, RESPONSE = 50, 61
NO_KEY = ("-o", "PubkeyAuthentication=no", "-o", "BatchMode=no", "-o", "LogLevel=INFO")


class Browser:
    """Somebody decides when the test says so."""

    def __init__(self, outcome: bytes | Refusal) -> None:
        self.outcome = outcome
        self.asked = asyncio.Event()
        self.decide = asyncio.Event()
        self.cancelled = 0

    async def __call__(self) -> bytes | Refusal:
        self.asked.set()
        try:
            await self.decide.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.outcome


def approving(door: Door) -> Browser:
    """A browser that has approved already."""
    browser = Browser(door.sshd.user_key.public_data)
    browser.decide.set()
    door.browser = browser
    return browser


class Raw(asyncssh.SSHClientConnection):
    """A client that sends what it is told during the login, and keeps what it hears."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.begun = asyncio.Event()
        self.heard: asyncio.Queue[int] = asyncio.Queue()

    def try_next_auth(self, *, next_method: bool = False) -> None:
        del next_method
        self.begun.set()

    def _hear(self, kind: int, _number: int, packet: Any) -> None:
        packet.get_remaining_payload()
        self.heard.put_nowait(kind)

    def ask(self, login: str = "alice", method: str = "keyboard-interactive", rest: bytes | None = None) -> None:
        """Request a login."""
        more = String("") + String("") if rest is None else rest
        self.send_packet(REQUEST, String(login), String("ssh-connection"), String(method), more)

    def answer(self, *responses: str) -> None:
        """Answer, whether or not something was asked."""
        self.send_packet(RESPONSE, UInt32(len(responses)), *(String(one) for one in responses))

    async def hears(self) -> int:
        """The next message of the login, or 0 for the end of the connection."""
        hearing = asyncio.ensure_future(self.heard.get())
        ending = asyncio.ensure_future(self.wait_closed())
        async with asyncio.timeout(20):
            await asyncio.wait({hearing, ending}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if hearing.done():
            return hearing.result()
        hearing.cancel()
        return 0

    _packet_handlers = {  # noqa: RUF012 - asyncssh's own shape
        **asyncssh.SSHClientConnection._packet_handlers,
        51: _hear,
        52: _hear,
    }


class _Auth:
    """What stands for a method in asyncssh's client while a test speaks itself."""

    def __init__(self, conn: Raw) -> None:
        self.conn = conn

    def process_packet(self, kind: int, number: int, packet: Any) -> bool:
        self.conn._hear(kind, number, packet)
        return True

    def log_received_packet(self, *_: object) -> None:
        pass

    def cancel(self) -> None:
        pass


@asynccontextmanager
async def raw(door: Door) -> AsyncIterator[Raw]:
    loop = asyncio.get_running_loop()
    options = asyncssh.SSHClientConnectionOptions(
        username="alice", client_keys=None, known_hosts=None, config=None, agent_path=None, host="127.0.0.1"
    )
    options.waiter = loop.create_future()
    options.waiter.add_done_callback(lambda waiter: waiter.cancelled() or waiter.exception())
    _, conn = await loop.create_connection(lambda: Raw(loop, options, wait="auth"), "127.0.0.1", door.port)
    try:
        async with asyncio.timeout(20):
            await conn.begun.wait()
        conn._auth = _Auth(conn)  # type: ignore[assignment]
        yield conn
    finally:
        conn.abort()
        await conn.wait_closed()


def openssh(suite: str) -> str:
    try:
        return OpenSSH.of(suite).program("ssh")
    except Missing as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("suite", ["own", *SUITES])
async def test_ssh_shows_the_text_before_it_waits_and_needs_no_answer(door: Door, suite: str) -> None:
    browser = Browser(door.sshd.user_key.public_data)
    door.browser = browser
    ssh = await asyncio.create_subprocess_exec(
        openssh(suite),
        *NO_KEY,
        *Way.through(door).options,
        "127.0.0.1",
        "echo in",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert ssh.stderr is not None
    async with asyncio.timeout(30):
        shown = await ssh.stderr.readuntil(b"approve.")
        assert b"\nOpen https://ssh.example.org/activate?code=BCDF-GHJK and approve." in b"\n" + shown
        await browser.asked.wait()
        browser.decide.set()
        output, _ = await ssh.communicate()
    assert (ssh.returncode, output) == (0, b"in\n")
    assert door.fronts[0].inside == [("alice", door.sshd.user_key.public_data)]


async def test_the_grace_time_of_logins_is_not_that_of_people(sshd: Sshd, tmp_path: Path) -> None:
    browser = Browser(sshd.user_key.public_data)
    quick = Door(sshd, tmp_path, limits=RelayLimits(login_seconds=0.5), browser=browser)
    async with quick.serving() as door, raw(door) as conn:
        conn.ask()
        assert await conn.hears() == 60
        conn.answer()
        async with raw(door) as silent:
            assert await silent.hears() == 0  # its grace time is over
        browser.decide.set()
        assert await conn.hears() == 52


async def test_news_are_shown_on_the_way_and_each_is_answered_once(door: Door) -> None:
    news: list[str | bytes] = ["Your server starts.\n", "Its SSH comes.\n", door.sshd.user_key.public_data]

    async def browser() -> bytes | str | Refusal:
        return news.pop(0)

    door.browser = browser
    answer = await Way.through(door).run(*NO_KEY, "--", "echo in")
    assert (answer.status, answer.out) == (0, b"in\n")
    assert (
        answer.err.index(b"approve.") < answer.err.index(b"Your server starts.") < answer.err.index(b"Its SSH comes.")
    )
    assert door.fronts[0].invitations == ["alice"]
    assert door.fronts[0].awaited == ["alice"] * 3


async def test_a_key_that_is_not_known_comes_first_and_changes_nothing(door: Door, tmp_path: Path) -> None:
    approving(door)
    path, _ = key_file(tmp_path, "stranger")
    answer = await replace(Way.through(door), identity=path).run("-o", "BatchMode=no", "--", "echo in")
    assert (answer.status, answer.out) == (0, b"in\n")
    assert len(door.fronts[0].offered) == 1


async def test_a_refusal_is_told_and_ends_the_connection_after_one_try(door: Door) -> None:
    browser = Browser(Refusal(Reason.ACCESS_DENIED, "Somebody denied this login."))
    browser.decide.set()
    door.browser = browser
    answer = await Way.through(door).run(*NO_KEY, "--", "true")
    assert answer.status == 255
    assert b"Somebody denied this login." in answer.err
    assert door.fronts[0].invitations == ["alice"]
    assert len(door.fronts) == 1
    assert not door.fronts[0].inside


async def test_clients_in_batch_mode_and_doors_without_browsers_go_on_without_it(door: Door) -> None:
    answer = await Way.through(door).run("-o", "PubkeyAuthentication=no", "-o", "LogLevel=INFO", "--", "true")
    assert b"Permission denied (publickey)." in answer.err
    approving(door)
    answer = await Way.through(door).run("-o", "PubkeyAuthentication=no", "-o", "LogLevel=INFO", "--", "true")
    assert b"Permission denied (publickey,keyboard-interactive)." in answer.err
    assert not any(front.invitations for front in door.fronts)


Trick = Callable[[Raw, Browser], Awaitable[None]]


async def with_something_to_say(conn: Raw, _: Browser) -> None:
    conn.answer("yes")


async def twice(conn: Raw, browser: Browser) -> None:
    conn.answer()
    await browser.asked.wait()
    conn.answer()


async def another_request(conn: Raw, _: Browser) -> None:
    conn.ask()


async def another_login(conn: Raw, _: Browser) -> None:
    conn.ask("bob")


async def another_method(conn: Raw, _: Browser) -> None:
    conn.ask(method="none", rest=b"")


async def a_key(conn: Raw, _: Browser) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519").public_data
    conn.ask(method="publickey", rest=b"\0" + String("ssh-ed25519") + String(key))


async def another_request_after_the_answer(conn: Raw, browser: Browser) -> None:
    conn.answer()
    await browser.asked.wait()
    conn.ask()


async def not_utf8(conn: Raw, _: Browser) -> None:
    conn.send_packet(RESPONSE, UInt32(1), String(b"\xff"))


async def a_wrong_count(conn: Raw, _: Browser) -> None:
    conn.send_packet(RESPONSE, UInt32(3), String(""))


@pytest.mark.parametrize(
    "trick",
    [
        with_something_to_say,
        twice,
        another_request,
        another_login,
        another_method,
        a_key,
        another_request_after_the_answer,
        not_utf8,
        a_wrong_count,
    ],
)
async def test_whoever_was_invited_waits_or_goes(door: Door, trick: Trick) -> None:
    """Nothing else is begun, nobody is let in, and nothing is asked of the browser twice."""
    browser = Browser(door.sshd.user_key.public_data)
    door.browser = browser
    async with raw(door) as conn:
        conn.ask()
        assert await conn.hears() == 60
        await trick(conn, browser)
        assert await conn.hears() == 0
    front = await over(door)
    assert front.invitations == ["alice"]
    assert len(front.awaited) <= 1
    assert not front.inside
    assert browser.cancelled == len(front.awaited)


async def test_an_answer_before_the_question_ends_the_connection(door: Door) -> None:
    approving(door)
    async with raw(door) as conn:
        conn.answer()
        assert await conn.hears() == 0
    door.before_invite = asyncio.Event().wait  # there is no text yet
    async with raw(door) as conn:
        conn.ask()
        conn.answer()
        assert await conn.hears() == 0
    for _ in range(2):
        assert not (await over(door)).inside


async def test_two_answers_in_one_breath_are_one(door: Door) -> None:
    browser = approving(door)
    async with raw(door) as conn:
        conn.ask()
        assert await conn.hears() == 60
        conn.answer()
        conn.answer()
        assert await conn.hears() == 52
    assert (await over(door)).awaited == ["alice"]
    assert not browser.cancelled


async def test_a_front_that_invites_nobody_is_asked_once_for_each_request_up_to_the_bound(door: Door) -> None:
    async with raw(door) as conn:
        for _ in range(3):
            conn.ask()
            assert await conn.hears() == 51
    assert not (await over(door)).invitations


async def over(door: Door) -> Front:
    async with asyncio.timeout(20):
        return await door.ended.get()


# -- any order of what a client can send


Step = Callable[[Raw], None]

STEPS: dict[str, Step] = {
    "ask": lambda conn: conn.ask(),
    "ask for bob": lambda conn: conn.ask("bob"),
    "none": lambda conn: conn.ask(method="none", rest=b""),
    "password": lambda conn: conn.ask(method="password", rest=b"\0" + String("secret")),
    "key": lambda conn: conn.ask(method="publickey", rest=b"\0" + String("ssh-ed25519") + String(SOME_KEY)),
    "answer": lambda conn: conn.answer(),
    "say something": lambda conn: conn.answer("yes"),
    "half an answer": lambda conn: conn.send_packet(RESPONSE, UInt32(1)),
    "service": lambda conn: conn.send_packet(5, String("ssh-userauth")),
}
REPLIED = {"ask", "ask for bob", "none", "password", "key"}
"""What a client is answered, or sent away for."""

SOME_KEY = asyncssh.generate_private_key("ssh-ed25519").public_data


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=8), approved=st.booleans())
async def test_nobody_is_in_but_by_the_fronts_word(door: Door, steps: list[str], approved: bool) -> None:
    """Whoever is in was invited and is in under that name; and where nobody approves, nobody is."""
    browser = Browser(door.sshd.user_key.public_data)
    if approved:
        browser.decide.set()
    door.browser = browser
    async with raw(door) as conn:
        for step in steps:
            STEPS[step](conn)
            if step in REPLIED and not await conn.hears():
                break
        conn.send_packet(5, String("no service of ours"))  # its end, whether it waits or is in
        while await conn.hears():
            pass
    front = await over(door)
    assert len(front.invitations) <= 1
    assert len(front.awaited) <= 1
    assert [login for login, _ in front.inside] in ([], front.invitations if approved else [])
