"""What etcd and the API server's registry are to a cluster: objects, one growing version, and a history of changes."""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str, str]
"""Resource ("pods"), namespace, name."""


@dataclass(frozen=True)
class Change:
    """One step of the history. `before` and `after` are never written to again; `line` is `after` as JSON."""

    version: int
    resource: str
    before: Object | None
    after: Object
    deleted: bool

    def seen_by(self, matches: Callable[[Object], bool]) -> tuple[str, Object] | None:
        """The event for a watcher whose selector is `matches`: an object that stops matching is gone for it."""
        was = self.before is not None and matches(self.before)
        now = not self.deleted and matches(self.after)
        if was and not now:
            return "DELETED", self.after
        if now:
            return "MODIFIED" if was else "ADDED", self.after
        return None


class Missing(Exception):
    """404."""


class Exists(Exception):
    """409."""


class Store:
    """The objects. It lives in one event loop; `changed` wakes those who wait for news."""

    def __init__(self) -> None:
        self.version = 1000
        self.compacted = 0
        self.objects: dict[Key, Object] = {}
        self.history: list[Change] = []
        self.snapshots: dict[int, list[Object]] = {}
        self._news = asyncio.Event()

    async def changed(self, seconds: float) -> None:
        """Return at the next change, or after `seconds`."""
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except TimeoutError:
            pass

    def since(self, version: int) -> Iterator[Change]:
        """The changes after `version`."""
        first = len(self.history)
        while first > 0 and self.history[first - 1].version > version:
            first -= 1
        yield from self.history[first:]

    def compact(self) -> None:
        """Forget the history: whoever wants to go on from before must list anew."""
        self.compacted = self.version
        self.history.clear()
        self.snapshots.clear()

    def create(self, key: Key, kind: str, thing: Object) -> Object:
        if key in self.objects:
            raise Exists(key[2])
        made = copy.deepcopy(thing)
        _, namespace, name = key
        made |= {"kind": kind, "apiVersion": made.get("apiVersion", "v1")}
        metadata = made.setdefault("metadata", {})
        metadata |= {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": timestamp()}
        if namespace:
            metadata["namespace"] = namespace
        return self._write(key, made, None)

    def change(self, key: Key, change: Callable[[Object], None]) -> Object:
        """Write what `change` makes of a copy."""
        before = self.get(key)
        after = copy.deepcopy(before)
        change(after)
        return self._write(key, after, before)

    def get(self, key: Key) -> Object:
        try:
            return self.objects[key]
        except KeyError:
            raise Missing(key[2]) from None

    def remove(self, key: Key) -> Object:
        before = self.get(key)
        del self.objects[key]
        return self._note(key[0], copy.deepcopy(before), before, deleted=True)

    def _write(self, key: Key, after: Object, before: Object | None) -> Object:
        self._note(key[0], after, before, deleted=False)
        self.objects[key] = after
        return after

    def _note(self, resource: str, after: Object, before: Object | None, *, deleted: bool) -> Object:
        self.version += 1
        after["metadata"]["resourceVersion"] = str(self.version)
        self.history.append(Change(self.version, resource, before, after, deleted))
        news, self._news = self._news, asyncio.Event()
        news.set()
        return after


def merge(into: Object, patch: Mapping[str, Any]) -> None:
    """RFC 7396."""
    for name, value in patch.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = copy.deepcopy(value)


def timestamp() -> str:
    """Now, as Kubernetes writes it: whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def line(kind: str, thing: Mapping[str, Any]) -> bytes:
    """One line of a watch."""
    return json.dumps({"type": kind, "object": thing}, separators=(",", ":")).encode() + b"\n"
