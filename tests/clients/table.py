"""Why: "whatever works against a plain sshd works here" is a table, and this is what a line of it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.clients.openssh import Mode, Way

Run = Callable[[Way], None]
BOTH = (Mode.DIRECT, Mode.JUMP)


@dataclass(frozen=True)
class Row:
    """A client and a feature: what a person does, and what must come of it."""

    name: str
    run: Run
    modes: tuple[Mode, ...]
    newer: bool
    """Whether it is also run with OpenSSH 10."""


def row(rows: list[Row], name: str, *, jump: bool = False, newer: bool = False) -> Callable[[Run], Run]:
    """Put a function into `rows`. It fails by assertion, or raises `Missing` where its client is not installed."""

    def put(run: Run) -> Run:
        rows.append(Row(name, run, BOTH if jump else (Mode.DIRECT,), newer))
        return run

    return put
