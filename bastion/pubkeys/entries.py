"""What the pods said, by pod and by key."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from bastion.directory.table import Pod
from bastion.pubkeys.fetches import Fetched, Identity
from ca.keys import AuthorizedKey


@dataclass(frozen=True, slots=True)
class Entry:
    """What one pod said. `options` are those of the first line for a key, as sshd takes the first; `size` is what
    it counts for, in bytes."""

    pod: Pod
    asked_at: float
    options: dict[bytes, tuple[str, ...]]
    size: int


@dataclass(slots=True)
class Store:
    """Every answer that counts now."""

    entries: dict[Identity, Entry] = field(default_factory=dict)
    listed_by: dict[bytes, set[Identity]] = field(default_factory=dict)
    size: int = 0

    def put(self, entry: Entry) -> None:
        """Take an answer in, in place of the pod's last one."""
        self.drop(entry.pod.identity)
        self.entries[entry.pod.identity] = entry
        self.size += entry.size
        for blob in entry.options:
            self.listed_by.setdefault(blob, set()).add(entry.pod.identity)

    def drop(self, identity: Identity) -> None:
        """Forget what a pod said."""
        entry = self.entries.pop(identity, None)
        if entry is None:
            return
        self.size -= entry.size
        for blob in entry.options:
            self.listed_by[blob].discard(identity)
            if not self.listed_by[blob]:
                del self.listed_by[blob]

    def fits(self, entry: Entry, *, pods: int, size: int) -> bool:
        """Whether `entry` may come in without more than `pods` answers or `size` bytes being there."""
        known = self.entries.get(entry.pod.identity)
        freed, places = (0, 0) if known is None else (known.size, 1)
        return self.size - freed + entry.size <= size and len(self.entries) - places < pods


def entry(fetched: Fetched) -> Entry | None:
    """The entry for an answer; None if the pod gave nothing usable."""
    if fetched.keys is None:
        return None
    options: dict[bytes, tuple[str, ...]] = {}
    for line in fetched.keys:
        options.setdefault(line.key.blob, line.options)
    return Entry(fetched.pod, fetched.asked_at, options, _size(fetched.keys))


def _size(keys: Iterable[AuthorizedKey]) -> int:
    """Bytes that the cache counts for a pod: what it said, and a fair share of overhead."""
    return 500 + sum(300 + len(line.key.blob) + sum(len(option) for option in line.options) for line in keys)
