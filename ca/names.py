"""One grammar for the names that travel: login names, principals and host names.

A JupyterHub user name may hold anything; `ssh_config` breaks on `%`, host certificates on capitals, and
principals on commas, blanks and wildcards. So `quote` writes every UTF-8 byte outside `a-z0-9._-` as `=`
and two lower-case hex digits, and every parser accepts only what the formatter writes:

    login name   quote(owner)[+quote(name)]            alice, alice+gpu, =42ob=40example.org
    principal    quote(owner)/quote(name):instance     alice/:1763…, alice/gpu:1763…
    host name    login name . zone                     alice+gpu.hub

A `-` at the beginning is quoted too: ssh takes no login or host name that begins like one of its options.

No raw string naming a server travels past this module.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ca.errors import MalformedName

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._-")
_ALL_PLAIN = re.compile(r"(?:[a-z0-9._][a-z0-9._-]*)?")
_QUOTED = re.compile(r"(?:[a-z0-9._-]|=[0-9a-f]{2})+")
_INSTANCE = re.compile(r"[1-9][0-9]{0,18}")
_ZONE = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_STARTED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MAX_NAME_LENGTH = 255
"""JupyterHub stores user and server names in 255 characters; longer ones are refused."""
_MAX_TYPED = 2 * MAX_NAME_LENGTH + 1
_MAX_SPLITS = 8


def quote(text: str) -> str:
    """Write `text` with only `a-z0-9._-` and `=xx`. Raises `MalformedName` for text that is not Unicode."""
    if _ALL_PLAIN.fullmatch(text):
        return text
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedName("The name holds characters that are not valid Unicode.") from None
    quoted = "".join(chr(byte) if byte in _PLAIN else f"={byte:02x}" for byte in raw)
    return f"=2d{quoted[1:]}" if quoted.startswith("-") else quoted


def unquote(text: str) -> str:
    """The text that `quote` wrote. Raises `MalformedName` for anything that `quote` would not have written."""
    if _ALL_PLAIN.fullmatch(text):
        return text
    if not _QUOTED.fullmatch(text):
        raise MalformedName("The name is not quoted as jupyterhub-bastion quotes names.")
    raw = re.sub(rb"=([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), text.encode("ascii"))
    try:
        plain = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedName("The quoted name is not valid UTF-8.") from None
    if quote(plain) != text:
        raise MalformedName("The name quotes characters that need no quoting.")
    return plain


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """A JupyterHub server. `name == ""` is the default server of `owner`."""

    owner: str
    name: str = ""

    def __post_init__(self) -> None:
        if not self.owner:
            raise MalformedName("A server needs an owner.")
        for text in (self.owner, self.name):
            if len(text) > MAX_NAME_LENGTH:
                raise MalformedName(f"Names longer than {MAX_NAME_LENGTH} characters are not accepted.")
            quote(text)

    @property
    def login(self) -> str:
        """The login name: what stands before `@` in `ssh alice+gpu@ssh.example.org`."""
        return f"{quote(self.owner)}+{quote(self.name)}" if self.name else quote(self.owner)

    def host_name(self, zone: str) -> str:
        """The name under which host certificates and jump targets know this server: `alice+gpu.hub`."""
        return f"{self.login}.{zone}"

    def __str__(self) -> str:
        """For people: `alice/gpu`, or `alice` for the default server; control characters never pass."""
        label = f"{self.owner}/{self.name}" if self.name else self.owner
        return label if label.isprintable() else self.login


@dataclass(frozen=True, slots=True, order=True)
class Instance:
    """One run of a server. `id` is JupyterHub's `started` of that run, in microseconds since the epoch."""

    server: Server
    id: int

    def __post_init__(self) -> None:
        if not 0 < self.id < 1 << 63:
            raise MalformedName("An instance id is a positive number of microseconds.")

    @property
    def principal(self) -> str:
        """The certificate principal for exactly this run: `alice/gpu:1763…`. It always has the `/`."""
        return f"{quote(self.server.owner)}/{quote(self.server.name)}:{self.id}"

    def __str__(self) -> str:
        return f"{self.server}:{self.id}"


def parse_login(text: str) -> Server:
    """The server of a login name in our own spelling. Raises `MalformedName`."""
    owner, plus, name = text.partition("+")
    if plus and not name:
        raise MalformedName("A login name that ends in `+` names no server.")
    return Server(unquote(owner), unquote(name))


def login_candidates(typed: str) -> tuple[Server, ...]:
    """Every server that someone typing `typed` may mean, our own spelling first, without repetition.

    People type `Bob@example.org` or `alice+gpu` as they know it from the web page. Which candidate it is
    gets decided by whoever knows the running servers: exactly one must match.
    """
    found: list[Server] = []
    try:
        found.append(parse_login(typed))
    except MalformedName:
        pass
    if len(typed) > _MAX_TYPED:
        return tuple(found)
    pluses = [at for at, char in enumerate(typed[:-1]) if char == "+"][:_MAX_SPLITS]
    for owner, name in [(typed, ""), *((typed[:at], typed[at + 1 :]) for at in pluses)]:
        try:
            found.append(Server(owner, name))
        except MalformedName:
            continue
    return tuple(dict.fromkeys(found))


def parse_principal(text: str) -> Instance:
    """The instance that a principal names. Raises `MalformedName` for anything but our exact form."""
    owner, slash, rest = text.partition("/")
    name, colon, number = rest.partition(":")
    if not slash or not colon or not _INSTANCE.fullmatch(number):
        raise MalformedName("The principal does not have the form owner/name:instance.")
    return Instance(Server(unquote(owner), unquote(name)), int(number))


def parse_host_name(text: str, zone: str) -> Server:
    """The server of a host name inside `zone`. Raises `MalformedName` outside it."""
    suffix = f".{zone}"
    if not text.endswith(suffix):
        raise MalformedName(f"The host name does not end in {suffix}.")
    return parse_login(text[: -len(suffix)])


def check_zone(zone: str, *own_hosts: str) -> str:
    """Return `zone` if it is a lower-case domain that holds none of `own_hosts`. Raises `MalformedName`.

    A zone that contains the bastion's or the api's own name would let a server's name shadow theirs.
    """
    if not _ZONE.fullmatch(zone):
        raise MalformedName(f"The zone {zone!r} is not a lower-case domain name.")
    for host in own_hosts:
        if f".{host.lower().rstrip('.')}".endswith(f".{zone}"):
            raise MalformedName(f"The zone {zone!r} contains our own host {host!r}: choose another zone.")
    return zone


def instance_id(started: str) -> int:
    """JupyterHub's `started` (ISO 8601, UTC) in microseconds since the epoch, exactly. Raises `MalformedName`."""
    # Python alone reads more: dates without a time, text after a NUL, digits beyond microseconds, which it drops.
    if not _STARTED.fullmatch(started):
        raise MalformedName("JupyterHub's start time cannot be read.")
    try:
        moment = datetime.fromisoformat(started)
    except ValueError:
        raise MalformedName("JupyterHub's start time cannot be read.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)
