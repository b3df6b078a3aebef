"""Ask one pod for its `authorized_keys`, as if the pod were an enemy.

The pod belongs to its user, and anything may answer on its port. So one hard time-out lies over everything
from the connection to the last parsed line, reading stops at a size, nothing is followed, decompressed, kept
or believed, and long answers are parsed in slices so that nobody else waits for them.
"""

import asyncio
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from bastion.directory.table import Pod
from ca.errors import BastionError
from ca.keys import AuthorizedKey, parse_authorized_keys

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SLICE_LINES = 32
_SLICE_CHARS = 32 << 10


class KeysUnavailable(BastionError):
    """The pod gave no list of keys: it is not there, too slow, too long, or answers something else."""


@dataclass(frozen=True, slots=True)
class PodLimits:
    """What one pod may cost.

    A longer time or answer is no answer; of an answer with more lines or keys the first ones count. Unreadable
    lines count too, since they cost the same time.
    """

    seconds: float = 3.0
    max_bytes: int = 1 << 20
    max_lines: int = 2000
    max_keys: int = 500


class PodKeys:
    """A client of `GET http://<pod>:<key port>/publickey`. Make it inside the event loop and `aclose` it."""

    def __init__(self, networks: tuple[Network, ...], limits: PodLimits | None = None) -> None:
        """`networks` are those that pods have their addresses in: nothing else is dialled."""
        self._networks = networks
        self._limits = PodLimits() if limits is None else limits
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(None),  # one time-out lies over everything: see fetch
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"Accept": "text/plain", "Accept-Encoding": "identity", "Connection": "close"},
        )

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def fetch(self, pod: Pod) -> tuple[AuthorizedKey, ...]:
        """The keys that the pod lists now. Raises `KeysUnavailable`, at the latest after the time-out."""
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await _parse(await self._get(_url(pod, self._networks)), self._limits)
        except TimeoutError:
            raise KeysUnavailable(f"no answer within {self._limits.seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise KeysUnavailable(f"no answer ({type(error).__name__})") from None

    async def _get(self, url: str) -> str:
        async with self._client.stream("GET", url) as response:
            if response.status_code != 200:
                raise KeysUnavailable(f"status {response.status_code}")
            if "content-encoding" in response.headers:
                raise KeysUnavailable("an encoded answer")
            raw = bytearray()
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > self._limits.max_bytes:
                    raise KeysUnavailable(f"more than {self._limits.max_bytes} bytes")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise KeysUnavailable("an answer that is not text") from None


async def _parse(text: str, limits: PodLimits) -> tuple[AuthorizedKey, ...]:
    found: list[AuthorizedKey] = []
    # At newlines only, as sshd and `parse_authorized_keys` do: a form feed in the comment of a restricted key must not
    # make what follows it a key of its own, without the restrictions.
    for lines in _slices(text.split("\n")[: limits.max_lines]):
        found += parse_authorized_keys("\n".join(lines), max_keys=limits.max_keys - len(found))
        if len(found) >= limits.max_keys:
            break
        await asyncio.sleep(0)  # others have their turn, and the time-out its say
    return tuple(found)


def _slices(lines: list[str]) -> Iterator[list[str]]:
    """Groups of lines that are read within a few milliseconds each."""
    group: list[str] = []
    size = 0
    for line in lines:
        group.append(line)
        size += len(line)
        if len(group) >= _SLICE_LINES or size >= _SLICE_CHARS:
            yield group
            group, size = [], 0
    yield group


def _url(pod: Pod, networks: tuple[Network, ...]) -> str:
    try:
        address = ipaddress.ip_address(pod.address)
    except ValueError:
        raise KeysUnavailable("no IP address") from None
    if not any(address in network for network in networks):
        raise KeysUnavailable("an address outside the networks of notebook servers")
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{host}:{pod.key_port}/publickey"
