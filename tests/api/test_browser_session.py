"""Why: a cookie is the browser's word; these tests forge it, replay it and take it from another site."""

import stat
from pathlib import Path

import pytest
from itsdangerous import URLSafeSerializer
from starlette.responses import Response

from api.session import LIFETIME, Cookies, Session, Sessions, cookie_key, judge_origin, origin_of
from ca.errors import KeyFileError

HTTPS = "https://ssh.example.org"
HTTP = "http://127.0.0.1:9080"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def set_cookies(response: Response) -> dict[str, str]:
    """Name and value of each cookie that the response sets."""
    lines = [value.decode() for name, value in response.raw_headers if name == b"set-cookie"]
    return {line.partition("=")[0]: line.partition("=")[2].partition(";")[0] for line in lines}


def begun(sessions: Sessions, user: str = "alice", admin: bool = False) -> tuple[Session, dict[str, str]]:
    response = Response()
    session = sessions.begin(response, user, admin)
    return session, set_cookies(response)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(Cookies(b"k" * 32, HTTPS), clock)


def test_a_session_is_read_back(sessions: Sessions) -> None:
    session, cookies = begun(sessions, "Bob.Smith@example.org", True)
    assert sessions.read(cookies) == session


def test_over_https_the_cookie_belongs_to_this_host_alone(sessions: Sessions) -> None:
    response = Response()
    sessions.begin(response, "alice", False)
    line = response.headers["set-cookie"]
    assert line.startswith("__Host-bastion-session=")
    for word in ("HttpOnly", "Secure", "Path=/", "SameSite=lax", f"Max-Age={LIFETIME}"):
        assert word in line
    assert "Domain" not in line


def test_over_plain_http_on_loopback_the_cookie_is_not_secure() -> None:
    response = Response()
    Sessions(Cookies(b"k" * 32, HTTP), Clock()).begin(response, "alice", False)
    line = response.headers["set-cookie"]
    assert line.startswith("bastion-session=")
    assert "Secure" not in line
    assert "HttpOnly" in line


def test_a_session_ends_after_its_lifetime(sessions: Sessions, clock: Clock) -> None:
    _session, cookies = begun(sessions)
    clock.now += LIFETIME - 1
    assert sessions.read(cookies) is not None
    clock.now += 1
    assert sessions.read(cookies) is None


def test_a_session_from_the_future_does_not_count(sessions: Sessions, clock: Clock) -> None:
    _session, cookies = begun(sessions)
    clock.now -= 3600
    assert sessions.read(cookies) is None


def test_a_copied_cookie_dies_with_the_log_out(sessions: Sessions) -> None:
    session, cookies = begun(sessions)
    sessions.end(Response(), session)
    assert sessions.read(cookies) is None


def test_every_login_gets_a_new_session_and_form_token(sessions: Sessions) -> None:
    one, _ = begun(sessions)
    two, _ = begun(sessions)
    assert one.id != two.id
    assert one.form_token != two.form_token


def test_a_cookie_signed_with_another_key_is_no_session(sessions: Sessions, clock: Clock) -> None:
    _session, cookies = begun(Sessions(Cookies(b"x" * 32, HTTPS), clock))
    assert sessions.read(cookies) is None


@pytest.mark.parametrize("text", ["", "x", "null", "e30.x", "..", "a" * 5000, "\udcff", "é.é", ".eJw.x"])
def test_a_cookie_that_is_nonsense_is_no_session(sessions: Sessions, text: str) -> None:
    assert sessions.read({"__Host-bastion-session": text}) is None


def test_a_changed_cookie_is_no_session(sessions: Sessions) -> None:
    _session, cookies = begun(sessions)
    (name, value) = next(iter(cookies.items()))
    for at in range(0, len(value), 7):
        other = "A" if value[at] != "A" else "B"
        assert sessions.read({name: value[:at] + other + value[at + 1 :]}) is None


def test_a_cookie_signed_for_another_purpose_is_no_session(sessions: Sessions) -> None:
    cookies = Cookies(b"k" * 32, HTTPS)
    response = Response()
    value = {"id": "i", "user": "admin", "admin": True, "form_token": "t", "at": 1_800_000_000}
    cookies.write(response, "login", value, 60)
    (signed,) = set_cookies(response).values()
    assert sessions.read({"__Host-bastion-session": signed}) is None


@pytest.mark.parametrize(
    "value",
    [
        [],
        "alice",
        {"user": "alice"},
        {"id": "i", "user": "", "admin": False, "form_token": "t", "at": 1_800_000_000},
        {"id": "i", "user": "a", "admin": 1, "form_token": "t", "at": 1_800_000_000},
        {"id": "i", "user": "a", "admin": False, "form_token": "t", "at": "1800000000"},
        {"id": "i", "user": "a", "admin": False, "form_token": "t", "at": 1_800_000_000, "more": 1},
    ],
)
def test_what_an_older_version_signed_is_no_session_unless_it_is_whole(sessions: Sessions, value: object) -> None:
    response = Response()
    Cookies(b"k" * 32, HTTPS).write(response, "session", value, 60)
    assert sessions.read(set_cookies(response)) is None


def test_the_signature_is_not_one_that_any_holder_of_the_key_text_makes_by_default() -> None:
    signed = URLSafeSerializer(b"k" * 32).dumps({"user": "admin"})
    assert Cookies(b"k" * 32, HTTPS).read({"__Host-bastion-session": signed}, "session") is None


def test_the_form_token_does_not_print(sessions: Sessions) -> None:
    session, _ = begun(sessions)
    assert session.form_token not in repr(session)
    assert session.id not in repr(session)


@pytest.mark.parametrize("token", ["", "x", "ü", "\udcff", "a" * 10_000])
def test_a_form_without_the_sessions_own_token_is_refused(sessions: Sessions, token: str) -> None:
    session, _ = begun(sessions)
    refusal = sessions.judge_form(session, token, {})
    assert refusal is not None
    assert "Reload the page" in refusal.sentence


def test_a_form_token_of_another_session_is_refused(sessions: Sessions) -> None:
    mine, _ = begun(sessions)
    other, _ = begun(sessions, "bob")
    assert sessions.judge_form(mine, other.form_token, {}) is not None
    assert sessions.judge_form(mine, mine.form_token, {}) is None


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({}, True),
        ({"origin": HTTPS}, True),
        ({"origin": HTTPS, "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://ssh.example.org"}, False),
        ({"origin": "https://ssh.example.org:8443"}, False),
        ({"origin": "https://ssh.example.org.evil.example"}, False),
        ({"origin": "https://hub.example.org"}, False),
        ({"origin": HTTPS, "sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
    ],
)
def test_only_our_own_pages_may_send_forms(headers: dict[str, str], accepted: bool) -> None:
    assert (judge_origin(headers, HTTPS) is None) is accepted


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://ssh.example.org/", "https://ssh.example.org"),
        ("https://SSH.example.org:443/x", "https://ssh.example.org"),
        ("http://127.0.0.1:9080", "http://127.0.0.1:9080"),
        ("http://[::1]:80/a", "http://[::1]"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_the_cookie_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "cookie-key"
    key = cookie_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert cookie_key(path) == key
    assert len(key) == 32


def test_a_cookie_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "cookie-key"
    cookie_key(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        cookie_key(path)


@pytest.mark.parametrize("text", ["", "zz", "ab" * 31, "é" * 64])
def test_a_damaged_cookie_key_is_not_used(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cookie-key"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(KeyFileError):
        cookie_key(path)


def test_a_cookie_key_cannot_be_made_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be made"):
        cookie_key(tmp_path / "absent" / "cookie-key")
