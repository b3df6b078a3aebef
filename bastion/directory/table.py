"""Which servers run and where: the list that decides who gets in, kept without any source of its own.

Every source (the api's list, a Kubernetes watch) feeds the same table. A new list is never swapped in blindly:
it is compared with the old one, so that a server which vanished between two lists ends as loudly as one that
was seen to stop. Rules:

    what the source says                         find()       change
    a pod that was not there                     the pod      Started(pod)
    a pod that is no longer there                None         Stopped(pod, why)
    the same pod with another address or key     the new pod  Moved(old, new): live sessions stay
    another instance of the same server          the new pod  Stopped(old, why), then Started(new)
    two live pods of one server                  Ambiguous    Started of the second; live sessions stay

Nothing here waits, reads a clock or opens a socket. Times are seconds of the bastion's monotonic clock.
"""

from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from ca.keys import PublicKey
from ca.names import Instance, Server, login_candidates

MAX_AGE = 300.0
"""Seconds for which a list stays good when its source has gone silent."""


@dataclass(frozen=True, slots=True)
class Pod:
    """Where one instance runs.

    `address` is an IP address as text. `unix_user` is whom the bastion logs in as; None: only jump mode reaches it.
    `host_key` is the key it enrolled with; None: nobody here knows it, and its certificate must prove it alone.
    `names` are further jump targets, such as `<pod>.<namespace>`. `uid` is the source's own name for this pod: two
    pods that claim one instance are two pods, not one that moved. A pod that is not `ready` keeps its sessions and
    takes no new ones. `created_ms` is set where nothing says which run of its server this pod is: then `instance`
    names this pod alone, and a certificate counts that was issued after the pod was created (see `is_run_of`).
    """

    instance: Instance
    address: str
    ssh_port: int
    key_port: int
    unix_user: str | None
    host_key: PublicKey | None
    names: tuple[str, ...] = ()
    uid: str = ""
    ready: bool = True
    created_ms: int | None = None

    @property
    def server(self) -> Server:
        """The server that this pod runs."""
        return self.instance.server

    def is_run_of(self, instances: Collection[Instance], issued_ms: int) -> bool:
        """Whether a certificate issued at `issued_ms` (milliseconds since the epoch) for `instances` means this pod.

        Exactly its run, where that is known. Else the server's name and time: a certificate names servers that ran
        when it was issued, so one that is younger than the pod meant this pod, and an older one an earlier run.
        """
        if self.created_ms is None:
            return self.instance in instances
        return issued_ms >= self.created_ms and any(one.server == self.server for one in instances)

    @property
    def identity(self) -> tuple[Instance, str]:
        """What makes this pod the same pod, whatever its address is."""
        return self.instance, self.uid


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """More than one pod answers to what was asked for: none of them is offered."""

    pods: tuple[Pod, ...]


Found = Pod | Ambiguous | None


def claiming(found: Found) -> tuple[Pod, ...]:
    """Every pod that claims to run what was asked for. Enough for who is in to stay, not for anybody new."""
    if isinstance(found, Ambiguous):
        return found.pods
    return () if found is None else (found,)


@dataclass(frozen=True, slots=True)
class Started:
    """The pod is ready and may be entered from now on."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class Stopped:
    """The pod is gone; `why` is the sentence for the people whose sessions it ends."""

    pod: Pod
    why: str


@dataclass(frozen=True, slots=True)
class Moved:
    """The same pod is reached in another way, or has another host key, than before."""

    old: Pod
    new: Pod


Change = Started | Stopped | Moved


class Directory(Protocol):
    """What the rest of the bastion knows of a directory, whatever feeds it."""

    def find(self, server: Server) -> Found:
        """The pod that runs `server`."""
        ...

    def find_login(self, typed: str) -> Found:
        """The pod of the server that `typed` means as a login name, whatever else runs."""
        ...

    def by_name(self, name: str) -> Found:
        """The pod with that jump target name (`<pod>.<namespace>`)."""
        ...

    def running(self) -> tuple[Pod, ...]:
        """Every pod that `find` would give."""
        ...

    def ambiguous(self) -> tuple[Ambiguous, ...]:
        """The servers that are refused because two pods claim to run them."""
        ...

    async def lost(self, instance: Instance) -> bool:
        """A connection to this instance broke: see whether it is gone. True: it was, and everybody was told."""
        ...

    def changes(self) -> AsyncIterator[Change]:
        """First a `Started` for each pod that runs now, then every change. Listens from this call on."""
        ...

    @property
    def heard_at(self) -> float | None:
        """When the source was last known to be right, in monotonic seconds. None: never heard yet."""
        ...

    def fresh(self, now: float, max_age: float = MAX_AGE) -> bool:
        """Whether the list is young enough to let anybody new in."""
        ...


def stopped_sentence(server: Server) -> str:
    """What a person reads when her server's stop ends the session."""
    return f"Your server {server} stopped."


def restarted_sentence(server: Server) -> str:
    """What a person reads when another run of her server has taken the place of the one she was in."""
    return f"Your server {server} was restarted. Get a new certificate and connect again."


class Table:
    """The pods that run, by server and by name. Not thread-safe: one event loop owns it."""

    def __init__(self) -> None:
        self._pods: dict[tuple[Instance, str], Pod] = {}
        self._by_server: dict[Server, dict[tuple[Instance, str], Pod]] = {}
        self._by_name: dict[str, set[tuple[Instance, str]]] = {}
        self._running: tuple[Pod, ...] | None = ()
        self.heard_at: float | None = None

    def __len__(self) -> int:
        return len(self._pods)

    def fresh(self, now: float, max_age: float = MAX_AGE) -> bool:
        """Whether the source was right at most `max_age` seconds before `now`; never before it was first heard."""
        return self.heard_at is not None and now - self.heard_at <= max_age

    def find(self, server: Server) -> Found:
        """The pod that runs `server`; `Ambiguous` when two claim to."""
        pods = self._by_server.get(server)
        if not pods:
            return None
        if len(pods) > 1:
            return Ambiguous(tuple(pods.values()))
        return next(iter(pods.values()))

    def find_login(self, typed: str) -> Found:
        """The pod of the server that `typed` means: in our own spelling, or exactly as JupyterHub has it.

        Which one that is must not hang on what runs, since whoever is called nearly like another would get that
        one's logins as soon as that one's server stops. So our own spelling means its server alone, and a text that
        could mean several (`Bob+gpu`, a user or a server of Bob's) means none.
        """
        candidates = login_candidates(typed)
        if candidates and (candidates[0].login == typed or len(candidates) == 1):
            return self.find(candidates[0])
        return None

    def by_name(self, name: str) -> Found:
        """The pod with that jump target name, unless its server, or the name, is ambiguous."""
        named = tuple(self._pods[identity] for identity in self._by_name.get(name, ()))
        if len(named) > 1:
            return Ambiguous(named)
        return self.find(named[0].server) if named else None

    def running(self) -> tuple[Pod, ...]:
        """Every pod that `find` would give, in no particular order."""
        if self._running is None:
            self._running = tuple(pod for pods in self._by_server.values() if len(pods) == 1 for pod in pods.values())
        return self._running

    def ambiguous(self) -> tuple[Ambiguous, ...]:
        """The servers that are refused because two pods claim to run them: worth an alert."""
        return tuple(Ambiguous(tuple(pods.values())) for pods in self._by_server.values() if len(pods) > 1)

    def replace(self, pods: Iterable[Pod], heard_at: float | None) -> list[Change]:
        """Take a whole list. What stopped comes before what started."""
        listed = {pod.identity: pod for pod in pods}
        changes: list[Change] = []
        restarted = {pod.server for pod in listed.values()}
        for pod in [pod for identity, pod in self._pods.items() if identity not in listed]:
            why = restarted_sentence if pod.server in restarted else stopped_sentence
            changes += self.remove(pod, why(pod.server))
        for pod in listed.values():
            changes += self.put(pod)
        self.heard_at = heard_at
        return changes

    def put(self, pod: Pod) -> list[Change]:
        """Take one pod: new, moved, or known already."""
        old = self._pods.get(pod.identity)
        if old == pod:
            return []
        if old is not None:
            self._drop(old)
        self._add(pod)
        return [Started(pod) if old is None else Moved(old, pod)]

    def remove(self, pod: Pod, why: str | None = None) -> list[Change]:
        """Take one pod out; nothing happens when it is not there."""
        known = self._pods.get(pod.identity)
        if known is None:
            return []
        self._drop(known)
        return [Stopped(known, stopped_sentence(known.server) if why is None else why)]

    def instance(self, instance: Instance) -> tuple[Pod, ...]:
        """Every pod that claims to be exactly this run."""
        pods = self._by_server.get(instance.server, {})
        return tuple(pod for pod in pods.values() if pod.instance == instance)

    def _add(self, pod: Pod) -> None:
        self._running = None
        self._pods[pod.identity] = pod
        self._by_server.setdefault(pod.server, {})[pod.identity] = pod
        for name in pod.names:
            self._by_name.setdefault(name, set()).add(pod.identity)

    def _drop(self, pod: Pod) -> None:
        self._running = None
        del self._pods[pod.identity]
        siblings = self._by_server[pod.server]
        del siblings[pod.identity]
        for name in pod.names:
            self._by_name[name].discard(pod.identity)
            if not self._by_name[name]:
                del self._by_name[name]
        if not siblings:
            del self._by_server[pod.server]
