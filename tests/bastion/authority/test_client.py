"""The door to the api over real HTTP: bounds, time-outs, errors told apart, and a secret that never shows."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from bastion.authority import Authority, AuthorityRefused, AuthorityUnavailable, Issued, Pace, Secret, UnsafeAuthority
from bastion.authority.client import MAX_ANSWER_BYTES
from ca.names import Instance, Server
from tests.bastion.authority.states import TRUST, state
from tests.support.clock import Clock
from tests.support.internal_api import SECRET, InternalApi, internal_api
from tests.support.pods import LIMIT, free_port, key

GPU = Instance(Server("alice", "gpu"), 1763)
HOP, HOST = "/internal/hop-certificates", "/internal/host-certificates"
FAST = Pace(wait=LIMIT, first=0.001, most=0.002, apart=0.001)


@pytest.fixture
async def api() -> AsyncIterator[InternalApi]:
    async with internal_api(state()) as api:
        yield api


@pytest.fixture
async def authority(api: InternalApi) -> AsyncIterator[Authority]:
    authority = Authority(api.url, Secret(SECRET), clock=Clock(50.0), timeout=LIMIT)
    yield authority
    await authority.aclose()


async def test_the_state_is_read_and_stamped_with_our_clock(api: InternalApi, authority: Authority) -> None:
    read = await authority.state("", 0)
    assert (read.answered_at, read.hub_heard_at, read.trust) == (50.0, 49.5, TRUST)
    assert api.requests == [("GET", "/internal/state?version=&wait=0", None)]
    assert authority.reachable


async def test_a_hop_certificate_is_asked_for_with_the_user_s_certificate(
    api: InternalApi, authority: Authority
) -> None:
    api.answers[HOP] = (200, {"certificate": "line", "valid_before": 99})
    assert await authority.hop_certificate(GPU, key(1), certificate="cert", raw_key=None, peer="192.0.2.1") == Issued(
        "line", 99
    )
    question = {"login": "alice+gpu", "instance": "1763", "public_key": key(1).line}
    assert api.requests == [("POST", HOP, {**question, "certificate": "cert", "raw_key": None, "peer": "192.0.2.1"})]


async def test_a_hop_certificate_rests_on_exactly_one_proof(authority: Authority) -> None:
    for certificate, raw_key in ((None, None), ("cert", "SHA256:x")):
        with pytest.raises(ValueError, match="exactly one"):
            await authority.hop_certificate(GPU, key(1), certificate=certificate, raw_key=raw_key, peer=None)


async def test_a_host_certificate_is_asked_for_by_key_alone(api: InternalApi, authority: Authority) -> None:
    api.answers[HOST] = (201, {"certificate": "line", "valid_before": 99})
    assert await authority.host_certificate(key(1)) == Issued("line", 99)
    assert api.requests == [("POST", HOST, {"public_key": key(1).line})]


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "server_stopped"), (409, "server_not_running"), (401, "unknown_credential"), (400, "bad_key")],
)
async def test_a_no_comes_with_its_code_and_sentence(
    api: InternalApi, authority: Authority, status: int, code: str
) -> None:
    api.answers[HOST] = (status, {"error": code, "error_description": "Your server stopped."})
    with pytest.raises(AuthorityRefused) as caught:
        await authority.host_certificate(key(1))
    assert (caught.value.code, caught.value.sentence) == (code, "Your server stopped.")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, {"error": "revoked", "error_description": "line\nbreak\x1b[2J"}),
        (403, {"error": "revoked", "error_description": "a" * 501}),
        (403, {"error": "no_reason_of_ours", "error_description": "no"}),
        (403, {"error": ["revoked"], "error_description": "no"}),
        (403, {"error": 7}),
        (403, "no"),
        (401, {"error": "invalid_token", "error_description": "no"}),
        (400, {"error": "invalid_request", "error_description": "no"}),
        (302, {}),
        (500, {"error": "oops", "error_description": "no"}),
        (503, {"error": "hub_unavailable", "error_description": "no"}),
        (503, {"error": "revoked", "error_description": "no"}),
        (200, []),
        (200, {}),
        (200, {"certificate": 1, "valid_before": 2}),
        (200, {"certificate": "line", "valid_before": "2"}),
        (200, {"certificate": "line", "valid_before": True}),
        (200, {"certificate": "a" * MAX_ANSWER_BYTES, "valid_before": 2}),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_anything_else_is_an_outage_with_a_sentence_that_tells_nothing(
    api: InternalApi, authority: Authority, status: int, body: object
) -> None:
    api.answers[HOST] = (status, body)
    with pytest.raises(AuthorityUnavailable) as caught:
        await authority.host_certificate(key(1))
    assert "Try again later" in caught.value.sentence


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot json!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"[" * 50000,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.2/\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=lambda raw: repr(raw[:40]),
)
async def test_an_answer_that_is_not_ours_is_an_outage(api: InternalApi, authority: Authority, raw: bytes) -> None:
    api.raw = raw
    asked = asyncio.ensure_future(authority.state("", 0))
    if not raw:
        await api.was_asked(1)
        await api.stop()
    with pytest.raises(AuthorityUnavailable):
        await asked


async def test_an_api_that_is_not_there_is_an_outage() -> None:
    authority = Authority(f"http://127.0.0.1:{free_port()}", Secret(SECRET))
    with pytest.raises(AuthorityUnavailable, match="reached"):
        await authority.state("", 0)
    assert authority.reachable is False
    await authority.aclose()


async def test_an_api_that_hangs_is_an_outage_after_the_time_out(api: InternalApi) -> None:
    api.hold = asyncio.Event()
    authority = Authority(api.url, Secret(SECRET), timeout=0.05)
    with pytest.raises(AuthorityUnavailable, match="did not answer"):
        await authority.host_certificate(key(1))
    await authority.aclose()


async def test_no_proxy_of_the_environment_hears_the_secret(api: InternalApi, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    authority = Authority(api.url, Secret(SECRET))
    assert (await authority.state("", 0)).version == "1"
    await authority.aclose()


async def test_a_wrong_secret_is_an_outage_and_is_nowhere_to_be_seen(
    api: InternalApi, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = "another-secret-that-is-long-enough-too"
    authority = Authority(api.url, Secret(wrong))
    with caplog.at_level(logging.DEBUG), pytest.raises(AuthorityUnavailable) as caught:
        await authority.state("", 0)
    assert "secret" in caught.value.detail
    everything = [caplog.text, repr(caught.value), str(caught.value), caught.value.sentence, repr(vars(authority))]
    assert not any(wrong in text for text in everything)
    await authority.aclose()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "https://api.example.org"]
)
async def test_the_secret_may_travel_encrypted_or_inside_this_machine(url: str) -> None:
    await Authority(url, Secret(SECRET)).aclose()


@pytest.mark.parametrize(
    "url",
    ["http://api.example.org", "http://10.0.0.1", "http://localhost.example.org", "ftp://127.0.0.1", "127.0.0.1:1", ""],
)
def test_the_secret_does_not_travel_in_the_clear(url: str) -> None:
    with pytest.raises(UnsafeAuthority):
        Authority(url, Secret(SECRET))


async def test_plain_http_inside_a_cluster_has_to_be_allowed() -> None:
    await Authority("http://api.hub.svc:8001", Secret(SECRET), allow_plain_http=True).aclose()


def test_an_address_with_a_password_in_it_is_refused() -> None:
    with pytest.raises(UnsafeAuthority, match="password"):
        Authority("https://user:word@api.example.org", Secret(SECRET))


class TestFeed:
    async def test_each_change_arrives_when_it_happens(self, api: InternalApi, authority: Authority) -> None:
        feed = authority.feed(FAST)
        async with asyncio.timeout(LIMIT):
            assert (await anext(feed)).version == "1"
            coming = asyncio.ensure_future(anext(feed))
            await api.was_asked(2)
            assert not coming.done()
            api.change(version="2", enrolled=[])
            assert (await coming).enrolled == ()
        assert api.requests[1][1] == f"/internal/state?version=1&wait={LIMIT:g}"
        await feed.aclose()

    async def test_the_highest_mark_that_was_ever_told_is_told_back(
        self, api: InternalApi, authority: Authority
    ) -> None:
        api.change(mark=7)
        feed = authority.feed(FAST, mark=5)
        async with asyncio.timeout(LIMIT):
            assert (await anext(feed)).word.mark == 7
            coming = asyncio.ensure_future(anext(feed))
            await api.was_asked(2)
            api.change(version="2", mark=6)
            await coming
            coming = asyncio.ensure_future(anext(feed))
            await api.was_asked(3)
        coming.cancel()
        assert [one[1].partition("&mark=")[2] for one in api.requests] == ["5", "7", "7"]

    async def test_an_unchanged_answer_is_given_too_since_it_says_how_fresh_it_is(
        self, api: InternalApi, authority: Authority
    ) -> None:
        feed = authority.feed(FAST)
        async with asyncio.timeout(LIMIT):
            await anext(feed)
            coming = asyncio.ensure_future(anext(feed))
            await api.was_asked(2)
            api.change(heard_seconds_ago=20.0)
            assert (await coming).heard_seconds_ago == 20.0
        await feed.aclose()

    async def test_an_outage_is_waited_out_and_logged_once(
        self, api: InternalApi, authority: Authority, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "bastion")
        feed = authority.feed(FAST)
        async with asyncio.timeout(LIMIT):
            await anext(feed)
            coming = asyncio.ensure_future(anext(feed))
            await api.was_asked(2)
            await api.stop()
            while authority.reachable:
                await asyncio.sleep(0)
            api.state["version"] = "2"
            await api.start()
            assert (await coming).version == "2"
        assert caplog.text.count("state is unavailable") == 1
        assert caplog.text.count("available again") == 1
        await feed.aclose()

    async def test_a_state_that_cannot_be_read_is_an_outage_until_it_can(
        self, api: InternalApi, authority: Authority
    ) -> None:
        api.state["revocations"]["serials"] = [7]
        feed = authority.feed(FAST)
        coming = asyncio.ensure_future(anext(feed))
        await api.was_asked(3)
        assert not coming.done()
        api.state["revocations"]["serials"] = ["7"]
        async with asyncio.timeout(LIMIT):
            assert (await coming).version == "1"
        await feed.aclose()


def test_the_pause_after_failures_grows_to_its_bound_and_never_past_it() -> None:
    pace = Pace(first=1, most=8)
    for failures, longest in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (10_000, 8)):
        assert all(longest / 2 <= pace.pause(failures) <= longest for _ in range(20))
