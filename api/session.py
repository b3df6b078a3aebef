"""Who sits at the browser, remembered without trusting the browser.

A session is a signed cookie: user name, whether JupyterHub called that user an admin at login, a secret for
forms, and when the login was. JupyterHub's access token is not in it and is kept nowhere: the cookie says
only *who* logged in. What that person may do is asked from JupyterHub, with the service's own token, at every
page view and for every certificate, so a user who was deleted or renamed gets nothing from an old cookie. Nor does
the old cookie count for somebody who was given the same name since: it says when JupyterHub made the user.

What a cookie cannot know: logging out of JupyterHub ends JupyterHub's own tokens but not this session, which
lives until its own log-out and at most `LIFETIME`. Signed-out sessions are remembered by this process until
they would have ended by themselves, so that a copied cookie dies with the log-out; a restart forgets that
list and leaves the lifetime as the bound.

Forms carry a token bound to the session, and the browser's word on where a request comes from (`Origin`,
`Sec-Fetch-Site`) is checked as well: https://owasp.org/www-community/attacks/csrf.
"""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from itsdangerous import BadData, URLSafeSerializer
from starlette.responses import Response

from ca.errors import KeyFileError, Reason, Refusal

LIFETIME = 12 * 3600
"""Seconds from login until the session ends, whatever happens."""

_KEY_BYTES = 32
_MAX_COOKIE = 3800
"""Browsers drop cookies beyond 4096 bytes, name and attributes included."""
_MAX_ENDED = 100_000

_ELSEWHERE = Refusal(
    Reason.NOT_PERMITTED,
    "This request was sent from another site, so nothing was done. Open this page directly and try again.",
)
_STALE_FORM = Refusal(
    Reason.NOT_PERMITTED,
    "This form is no longer valid, so nothing was done. Reload the page and send it again.",
)

Clock = Callable[[], float]
"""Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that completed our OAuth login. `form_token` goes into every form; `at` is the login time.

    `made` is JupyterHub's `created` of the user, as it stood at login; "" where JupyterHub does not tell us.
    """

    id: str
    user: str
    admin: bool
    form_token: str
    at: int
    made: str = ""

    @property
    def ends_at(self) -> int:
        """When the session ends by itself, in seconds since the epoch. No certificate outlives it."""
        return self.at + LIFETIME

    def __repr__(self) -> str:
        return f"Session(user={self.user!r}, admin={self.admin})"


def cookie_key(path: Path) -> bytes:
    """The key that signs cookies, made at first start with mode 0600.

    Raises `KeyFileError` when the file cannot be used or others may read it. Removing the file logs
    everybody out.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    except OSError as error:
        raise KeyFileError(f"The cookie key {path} cannot be made: {error.strerror}.") from None
    key = secrets.token_bytes(_KEY_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.hex().encode("ascii") + b"\n")
    return key


def _read_key(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        raise KeyFileError(f"The cookie key {path} cannot be read.") from None
    if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077:
        raise KeyFileError(f"The cookie key {path} can be read by others. Make it private: chmod 600 {path}")
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise KeyFileError(f"The cookie key {path} is damaged. Remove it; everybody then logs in again.")
    return key


def origin_of(url: str) -> str:
    """Scheme, host and port of `url` as browsers write them in `Origin`, without the scheme's own port."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    ordinary = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, ordinary) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


class Cookies:
    """Signed cookies of one site: the `__Host-` prefix and `Secure` where it is served over https."""

    def __init__(self, key: bytes, public_url: str) -> None:
        self._key = key
        self.origin = origin_of(public_url)
        self.secure = self.origin.startswith("https://")

    def name(self, purpose: str) -> str:
        """The cookie's name. Browsers accept `__Host-` only with `Secure`, so plain http goes without."""
        return f"__Host-bastion-{purpose}" if self.secure else f"bastion-{purpose}"

    def read(self, cookies: Mapping[str, str], purpose: str) -> Any:
        """What was signed for `purpose`, or None when there is nothing or somebody else wrote it."""
        text = cookies.get(self.name(purpose), "")
        if not text or len(text) > _MAX_COOKIE or not text.isascii():
            return None
        try:
            return self._serializer(purpose).loads(text)
        except (BadData, RecursionError):
            return None

    def write(self, response: Response, purpose: str, value: Any, max_age: int) -> None:
        """Sign `value` for `purpose` and set it on `response` for `max_age` seconds."""
        text = str(self._serializer(purpose).dumps(value))
        response.set_cookie(
            self.name(purpose),
            text,
            max_age=max_age,
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="lax",
        )

    def drop(self, response: Response, purpose: str) -> None:
        """Take the cookie of `purpose` away from the browser."""
        response.delete_cookie(self.name(purpose), path="/", secure=self.secure, httponly=True, samesite="lax")

    def derive(self, purpose: str, text: str) -> bytes:
        """A secret that belongs to `text`, and to nobody without the key (HMAC-SHA-256)."""
        return hmac.digest(self._key, f"{purpose}\0{text}".encode(), "sha256")

    def _serializer(self, purpose: str) -> URLSafeSerializer:
        # The purpose is the salt: a login cookie never reads as a session, whatever it holds.
        return URLSafeSerializer(
            self._key,
            salt=f"jupyterhub-bastion {purpose}",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )


class Sessions:
    """The browser sessions of one site. `is_over` says of a session's id what other processes heard: that it ended."""

    def __init__(self, cookies: Cookies, clock: Clock, is_over: Callable[[str], bool] = lambda _id: False) -> None:
        self._is_over = is_over
        self._cookies = cookies
        self._clock = clock
        self.origin = cookies.origin
        self._ended: dict[str, int] = {}

    def begin(
        self, response: Response, user: str, admin: bool, before: Session | None = None, made: str = ""
    ) -> Session:
        """A new session for `user`, set on `response`. Its id is always new, and the one `before` is over."""
        self._retire(before)
        session = Session(
            id=secrets.token_urlsafe(18),
            user=user,
            admin=admin,
            form_token=secrets.token_urlsafe(24),
            at=int(self._clock()),
            made=made,
        )
        self._cookies.write(response, "session", asdict(session), LIFETIME)
        return session

    def read(self, cookies: Mapping[str, str]) -> Session | None:
        """The session of this browser; None when there is none, it was forged, has ended or is too old."""
        session = _session(self._cookies.read(cookies, "session"))
        if session is None or session.id in self._ended or self._is_over(session.id):
            return None
        age = self._clock() - session.at
        return session if -60 <= age < LIFETIME else None

    def end(self, response: Response, session: Session | None) -> None:
        """Log out: the browser forgets the cookie, and copies of it are refused. Here at once: other processes have to
        be told (`Store.log_out`)."""
        self._cookies.drop(response, "session")
        self._retire(session)

    def _retire(self, session: Session | None) -> None:
        if session is None:
            return
        now = self._clock()
        if len(self._ended) >= _MAX_ENDED:
            self._ended = {key: until for key, until in self._ended.items() if until > now}
        if len(self._ended) >= _MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended[session.id] = session.ends_at

    def judge_form(self, session: Session, token: str, headers: Mapping[str, str]) -> Refusal | None:
        """None when this form came from our own page in this session."""
        if refusal := judge_origin(headers, self.origin):
            return refusal
        if not hmac.compare_digest(token.encode("utf-8", "replace"), session.form_token.encode()):
            return _STALE_FORM
        return None


def judge_origin(headers: Mapping[str, str], origin: str) -> Refusal | None:
    """None when the browser does not say that another site sent this. Browsers send `Origin` with each POST."""
    said = headers.get("origin")
    if said is not None and said != origin:
        return _ELSEWHERE
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return _ELSEWHERE
    return None


def _session(value: Any) -> Session | None:
    """A session from what the cookie held. Only we sign cookies, but older versions of us did too."""
    if not isinstance(value, dict) or set(value) != {"id", "user", "admin", "form_token", "at", "made"}:
        return None
    session = Session(**value)
    texts = (session.id, session.user, session.form_token)
    sound = all(isinstance(text, str) and text for text in texts)
    sound = sound and isinstance(session.admin, bool) and type(session.at) is int and isinstance(session.made, str)
    return session if sound else None
