"""The one door to the api's internal port: state, hop certificates, host certificates.

Every answer is bounded in size and time, read strictly, and every failure of the network or of the other side
comes out as `AuthorityUnavailable` or `AuthorityRefused`. The shared secret goes into one header and nowhere
else; over plain HTTP only to this machine, or where the operator said that the network is trusted.
"""

import asyncio
import ipaddress
import json
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from bastion.authority.errors import AuthorityRefused, AuthorityUnavailable
from bastion.authority.secret import Secret
from bastion.authority.state import AuthorityState, read_state
from ca.errors import BastionError, Reason
from ca.keys import PublicKey
from ca.names import Instance

MAX_STATE_BYTES = 32 << 20
MAX_ANSWER_BYTES = 64 << 10

_REFUSALS = frozenset({400, 401, 403, 409, 429})
_REASONS = frozenset(Reason) - {Reason.INVALID_TOKEN, Reason.UNAVAILABLE}
"""What a definite no looks like: one of our reasons. Anything else means that the two sides do not understand
each other, which is an outage and nothing that the user could mend."""

_log = logging.getLogger(__name__)


class UnsafeAuthority(BastionError):
    """The secret would travel in the clear: the api's address is neither https nor on this machine."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate line as the api gave it, and when it ends (seconds since the epoch)."""

    certificate: str
    valid_before: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How the state is asked for, in seconds.

    `wait`: how long the api may keep a question open. `first`, `most`: the pause after a failure, doubled each
    time up to `most`. `apart`: the least time between two answers that bring nothing new.
    """

    wait: float = 20.0
    first: float = 0.25
    most: float = 10.0
    apart: float = 0.5

    def pause(self, failures: int) -> float:
        """The pause after so many failures in a row, with jitter: half of it is chance."""
        longest: float = min(self.most, self.first * 2.0 ** min(failures - 1, 16))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


class _Bearer(httpx.Auth):
    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._secret.reveal()}"
        yield request


class Authority:
    """A client of the api's internal port. Make it inside the event loop and `aclose` it."""

    def __init__(
        self,
        url: str,
        secret: Secret,
        *,
        timeout: float = 10.0,
        allow_plain_http: bool = False,
        verify: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url`: the internal port's base address. `timeout`: seconds for a whole answer, beyond the wait that a
        long poll asks for. `verify`: a file of CA certificates for https, None for the system's.

        Raises `UnsafeAuthority` for plain http to another machine, unless `allow_plain_http`.
        """
        _check_url(url, allow_plain_http)
        self._timeout = timeout
        self._clock = clock
        self.reachable: bool | None = None
        self._client = httpx.AsyncClient(
            base_url=url,
            auth=_Bearer(secret),
            verify=True if verify is None else httpx.create_ssl_context(verify=verify, trust_env=False),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(None),  # each question has one time-out, over everything: see _ask
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=8),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def state(self, version: str, wait: float, mark: int = 0) -> AuthorityState:
        """The state, at once if it is not `version`, else when it changes or after `wait` seconds. `mark`: the highest
        that was ever answered, by which the api notices that its database was restored from an old copy.

        Raises `AuthorityUnavailable`.
        """
        query = {"version": version, "wait": f"{wait:g}"} | ({"mark": str(mark)} if mark else {})
        body = await self._ask("GET", "/internal/state", MAX_STATE_BYTES, self._timeout + wait, params=query)
        return read_state(body, self._clock())

    async def feed(self, pace: Pace | None = None, mark: int = 0) -> AsyncGenerator[AuthorityState, None]:
        """The state for ever: each answer, the unchanged ones too (they carry how fresh it is). `mark`: the last one
        that an earlier process was told.

        Failures are logged once, waited out and tried again; they never end the iteration.
        """
        pace = Pace() if pace is None else pace
        version, failures = "", 0
        while True:
            asked = self._clock()
            try:
                state = await self.state(version, pace.wait if version else 0, mark)
            except AuthorityUnavailable as error:
                failures += 1
                if failures == 1:
                    _log.warning("the api's state is unavailable: %s", error.detail)
                await asyncio.sleep(pace.pause(failures))
                continue
            if failures:
                _log.info("the api's state is available again")
            failures = 0
            repeated, version = state.version == version, state.version
            mark = max(mark, state.mark)
            yield state
            if repeated and (rest := pace.apart - (self._clock() - asked)) > 0:
                await asyncio.sleep(rest)

    async def hop_certificate(
        self,
        instance: Instance,
        public_key: PublicKey,
        *,
        certificate: str | None,
        raw_key: str | None,
        peer: str | None,
    ) -> Issued:
        """A certificate for the bastion's `public_key` to enter `instance`, on the strength of the user's own
        `certificate` line or, for a raw key, of its fingerprint (exactly one of the two).

        `peer` is the user's address: a certificate that is bound to addresses is refused without it. Raises
        `AuthorityRefused`, `AuthorityUnavailable`.
        """
        if (certificate is None) == (raw_key is None):
            raise ValueError("a hop certificate rests on a certificate or on a raw key: on exactly one")
        question: dict[str, object] = {
            "login": instance.server.login,
            "instance": str(instance.id),
            "public_key": public_key.line,
            "certificate": certificate,
            "raw_key": raw_key,
            "peer": peer,
        }
        return await self._issue("/internal/hop-certificates", question)

    async def host_certificate(self, public_key: PublicKey) -> Issued:
        """A host certificate for the bastion's own host key. Raises as `hop_certificate` does."""
        return await self._issue("/internal/host-certificates", {"public_key": public_key.line})

    async def post(self, path: str, question: Mapping[str, object]) -> dict[str, object]:
        """The object that answers `question`. Raises `AuthorityRefused`, `AuthorityUnavailable`."""
        body = await self._ask("POST", path, MAX_ANSWER_BYTES, self._timeout, content=question)
        if not isinstance(body, dict):
            raise AuthorityUnavailable("the api's answer is not an object")
        return body

    async def _issue(self, path: str, question: dict[str, object]) -> Issued:
        body = await self.post(path, question)
        line, end = body.get("certificate"), body.get("valid_before")
        if not isinstance(line, str) or isinstance(end, bool) or not isinstance(end, int):
            raise AuthorityUnavailable("the api's answer holds no certificate")
        return Issued(line, end)

    async def _ask(
        self,
        method: str,
        path: str,
        max_bytes: int,
        timeout: float,
        *,
        params: Mapping[str, str] | None = None,
        content: Mapping[str, object] | None = None,
    ) -> object:
        try:
            async with (
                asyncio.timeout(timeout),
                self._client.stream(method, path, params=params, json=content) as response,
            ):
                raw = await _read(response, max_bytes)
        except TimeoutError:
            self.reachable = False
            raise AuthorityUnavailable(f"the api did not answer within {timeout:g} s") from None
        except httpx.HTTPError as error:
            self.reachable = False
            raise AuthorityUnavailable(f"the api cannot be reached ({type(error).__name__})") from None
        self.reachable = response.status_code < 500
        return _judge(response.status_code, raw)


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    if "content-encoding" in response.headers:
        raise AuthorityUnavailable("the api's answer is encoded although that was not asked for")
    raw = bytearray()
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > max_bytes:
            raise AuthorityUnavailable(f"the api's answer is longer than {max_bytes} bytes")
    return bytes(raw)


def _judge(status: int, raw: bytes) -> object:
    try:
        body: object = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if status in (200, 201) and body is not None:
        return body
    if isinstance(body, dict) and status in _REFUSALS:
        code, sentence = body.get("error"), body.get("error_description")
        if code == Reason.INVALID_TOKEN:
            raise AuthorityUnavailable("the api does not accept the shared secret")
        if isinstance(code, str) and code in _REASONS and _is_text(sentence, 500):
            raise AuthorityRefused(code, str(sentence))
    raise AuthorityUnavailable(f"the api answered {status} with nothing usable")


def _is_text(raw: object, most: int) -> bool:
    return isinstance(raw, str) and 0 < len(raw) <= most and raw.isprintable()


def _check_url(url: str, allow_plain_http: bool) -> None:
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise UnsafeAuthority("The api's address must not hold a password.")
    if parts.scheme == "https" or (parts.scheme == "http" and allow_plain_http):
        return
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return
    raise UnsafeAuthority(
        "The api's internal address must be https, or http on this machine; plain http elsewhere has to be allowed."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
