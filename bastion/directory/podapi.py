"""What a cluster says of its pods, and how it may fail: the words between the directory and its door to Kubernetes.

KubeError(BastionError)     the API cannot be used now: try again after a pause
└── HistoryGone             it does not remember as far back as was asked: list anew
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ca.errors import BastionError


class KubeError(BastionError):
    """The Kubernetes API did not give what was asked for."""


class HistoryGone(KubeError):
    """The resource version, or the continuation of a list, is too old (status 410)."""


class Kind(StrEnum):
    """What an event says of its object. A bookmark only tells how far the stream has come."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch. `version` is where the stream can be taken up after it."""

    kind: Kind
    pod: dict[str, object]
    version: str


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list. `version` belongs to the whole list, and is where a watch takes up after it."""

    pods: list[dict[str, object]]
    version: str
    more: str


class PodApi(Protocol):
    """Lists and watches pods. `namespace` None means all; `selector` is a label selector as kubectl writes it."""

    async def page(self, namespace: str | None, selector: str, more: str = "") -> Page:
        """The first page of the pods, or the one that `more` of the last one names. Raises `KubeError`;
        `HistoryGone` when `more` is too old."""
        ...

    def events(self, namespace: str | None, selector: str, version: str, seconds: int) -> AsyncGenerator[Event, None]:
        """What happened after `version`, as it happens, for `seconds`; then the iteration ends in peace.

        Raises `KubeError` for any other end, `HistoryGone` when `version` is too old.
        """
        ...
