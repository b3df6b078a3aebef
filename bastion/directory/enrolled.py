"""The directory of the embedded default: the servers that enrolled with the api, whatever spawns them.

The api checks its list against JupyterHub about once a second and hands it out by a long poll; whoever reads
that poll calls `apply` with each answer. While the api or JupyterHub is silent the list stays as it is and
`heard_at` ages: unknown is not stopped, but nobody new gets in on a list that is too old.

A pod may be gone before the api knows it. So when a connection to a pod breaks, `lost` looks: only a refused
TCP connection counts as stopped, since a time-out may as well be the network's fault. The pod stays hidden
until the api gives a new list, or still repeats the old one after JupyterHub must have noticed a crash; an api
that is away says neither, and the pod stays hidden as long.
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from bastion.directory.lookup import LookUp
from bastion.directory.table import Change, Pod
from ca.errors import Malformed, MalformedKey
from ca.keys import HOST_ALGORITHMS, PublicKey, parse_public_key
from ca.names import Instance, parse_login

HIDE_SECONDS = 35.0
"""How long a pod that refuses connections stays hidden against an unchanged list. JupyterHub's default poll
notices a crash within 30 s, after which the list has changed if the pod is really gone."""

REMEMBER_SECONDS = 90.0
"""How long pods may take to enrol again after the api lost its database. They look every 15 s by default."""

PROBE_SECONDS = 3.0
PROBE_PAUSE = 0.3

_FIELDS = frozenset({"login", "instance", "address", "ssh_port", "key_port", "unix_user", "host_key"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The pods of one answer, and how many entries could not be read."""

    pods: tuple[Pod, ...]
    dropped: int


def read_enrolled(raw: object) -> Enrolled:
    """Read `enrolled` of the api's state. An entry that is not exactly as documented is dropped; so are both of
    two entries for one instance, since nothing says which is right."""
    if not isinstance(raw, list):
        return Enrolled((), 1)
    read = [_read_pod(entry) for entry in raw]
    pods: dict[Instance, Pod] = {}
    twice: set[Instance] = set()
    for pod in read:
        if pod is not None and pods.setdefault(pod.instance, pod) is not pod:
            twice.add(pod.instance)
    kept = tuple(pod for pod in pods.values() if pod.instance not in twice)
    return Enrolled(kept, len(read) - len(kept))


def _read_pod(raw: object) -> Pod | None:
    if not isinstance(raw, dict) or not raw.keys() >= _FIELDS:
        return None
    login, instance, address, user = raw["login"], raw["instance"], raw["address"], raw["unix_user"]
    if not (isinstance(login, str) and isinstance(instance, str) and isinstance(address, str)):
        return None
    if not (user is None or (isinstance(user, str) and 0 < len(user) <= 64 and user.isprintable())):
        return None
    if not (_is_port(raw["ssh_port"]) and _is_port(raw["key_port"]) and isinstance(raw["host_key"], str)):
        return None
    if not (instance.isascii() and instance.isdigit() and len(instance) <= 19):
        return None
    try:
        return Pod(
            instance=Instance(parse_login(login), int(instance)),
            address=str(ipaddress.ip_address(address)),
            ssh_port=raw["ssh_port"],
            key_port=raw["key_port"],
            unix_user=user,
            host_key=_host_key(raw["host_key"]),
        )
    except (Malformed, ValueError):
        return None


def _is_port(raw: object) -> bool:
    return isinstance(raw, int) and not isinstance(raw, bool) and 0 < raw < 1 << 16


@lru_cache(maxsize=16384)
def _host_key(line: str) -> PublicKey:
    """Lists repeat the same keys; reading one costs more than all the rest of its entry."""
    if len(line) > 4096:
        raise MalformedKey("The host key is too long.")
    return parse_public_key(line, algorithms=HOST_ALGORITHMS)


async def refuses(pod: Pod) -> bool:
    """Whether the pod's SSH port refuses TCP connections, now and a moment later: nothing listens there.

    Silence is not refusal; nor is one refusal, since an sshd that reads a new host certificate is away for an instant.
    """
    if not await _refuses_now(pod):
        return False
    await asyncio.sleep(PROBE_PAUSE)
    return await _refuses_now(pod)


async def _refuses_now(pod: Pod) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(pod.address, pod.ssh_port)
    except ConnectionRefusedError:
        return True
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return False


@dataclass(frozen=True, slots=True)
class _Hidden:
    version: str
    since: float


class EnrolledDirectory(LookUp):
    """A `Directory` fed with the api's answers."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        probe: Callable[[Pod], Awaitable[bool]] = refuses,
        hide_seconds: float = HIDE_SECONDS,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._probe = probe
        self._hide_seconds = hide_seconds
        self._version = ""
        self._listed: dict[tuple[Instance, str], Pod] = {}
        self._hidden: dict[Instance, _Hidden] = {}
        self._probing: dict[Instance, asyncio.Task[bool]] = {}
        self._epoch: str | None = None
        self._remembered: dict[tuple[Instance, str], Pod] = {}
        self._remembered_until = 0.0

    def apply(self, pods: Iterable[Pod], version: str, heard_at: float | None, epoch: str = "") -> list[Change]:
        """Take one answer of the api: its list, the list's version, when the api last heard JupyterHub (in seconds of
        the monotonic clock), and which database it speaks from. Returns the changes, which every consumer gets too.

        An api that was restarted and has not heard JupyterHub yet (None) takes nothing away from what was
        heard before: that goes on ageing.
        """
        self._version = version
        if heard_at is None:
            heard_at = self._table.heard_at
        listed = {pod.identity: pod for pod in pods}
        self._remember_over_a_lost_database(listed, epoch)
        self._listed = listed | self._remembered
        now = self._clock()
        instances = {instance for instance, _ in self._listed}
        self._hidden = {
            instance: hidden
            for instance, hidden in self._hidden.items()
            if instance in instances and hidden.version == version and now - hidden.since < self._hide_seconds
        }
        shown = [pod for pod in self._listed.values() if pod.instance not in self._hidden]
        changes = self._tell(self._table.replace(shown, heard_at))
        if heard_at is not None:
            self.heard.set()
        return changes

    def _remember_over_a_lost_database(self, listed: dict[tuple[Instance, str], Pod], epoch: str) -> None:
        """A new epoch is a new database, in which nobody has enrolled yet: a pod that it does not list is unknown, not
        stopped, until its pod side has had the time to enrol again. Another run of its server ends it at once."""
        if epoch != self._epoch:
            if self._epoch is not None:
                self._remembered = dict(self._listed)
                self._remembered_until = self._clock() + REMEMBER_SECONDS
                _log.warning(
                    "the api speaks from another database: waiting for %d pods to enrol again", len(self._listed)
                )
            self._epoch = epoch
        spoken_for = {pod.server for pod in listed.values()}
        self._remembered = {
            identity: pod
            for identity, pod in self._remembered.items()
            if self._clock() < self._remembered_until and pod.server not in spoken_for
        }

    async def lost(self, instance: Instance) -> bool:
        """A connection to this instance broke: see whether it is gone. True: it was, and everybody was told.

        However many connections break at once, the pod is dialled once.
        """
        if not self._table.instance(instance):
            return False
        task = self._probing.get(instance)
        if task is None:
            task = asyncio.create_task(self._look(instance), name=f"look after {instance.principal}")
            self._probing[instance] = task
            task.add_done_callback(lambda _: self._probing.pop(instance, None))
        return await asyncio.shield(task)

    async def _look(self, instance: Instance) -> bool:
        pods = self._table.instance(instance)
        version = self._version
        for pod in pods:
            if not await self._probe(pod):
                return False
        if self._version != version or self._table.instance(instance) != pods:
            return False  # the list has spoken meanwhile, and knows better
        self._hidden[instance] = _Hidden(version, self._clock())
        _log.info("server %s refuses connections: treated as stopped", instance.principal)
        for pod in pods:
            self._tell(self._table.remove(pod))
        return True
