"""Why: an audit line is only worth something if nobody's name can break it or write a second one."""

from __future__ import annotations

import dataclasses
import io
import json
import threading
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca import audit
from ca.audit import AuditLog, Event, LoggedIn, SessionClosed, line

EVENTS = sorted(
    (kind for kind in vars(audit).values() if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event),
    key=lambda kind: kind.__name__,
)
nasty = st.text(max_size=20) | st.sampled_from(
    ["a\nb", '"}\n{"audit":"logged_in"}', "\u2028", "\ud800", "\0", "\x1b[2J"]
)
_values: dict[object, st.SearchStrategy[object]] = {
    str: nasty,
    int: st.integers(),
    bool: st.booleans(),
    float: st.floats(),
    tuple[str, ...]: st.lists(nasty, max_size=3).map(tuple),
    str | None: st.none() | nasty,
}


def values(kind: type[Event]) -> st.SearchStrategy[Event]:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{one.name: _values[hints[one.name]] for one in dataclasses.fields(kind)})


def no_constant(text: str) -> object:
    raise AssertionError(f"{text} is not JSON")


@given(st.one_of([values(kind) for kind in EVENTS]), st.floats(0, 4e9))
def test_every_event_is_one_line_of_json_whatever_its_strings_hold(event: Event, at: float) -> None:
    text = line(event, at)
    assert text.isascii()
    assert text.isprintable()
    shown = json.loads(text, parse_constant=no_constant)
    assert shown.pop("audit") == event.name
    assert shown.pop("at").endswith("Z")
    for name, value in shown.items():
        held = getattr(event, name)
        assert value == (list(held) if isinstance(held, tuple) else held)
    absent = {one.name for one in dataclasses.fields(event)} - set(shown)
    assert all(getattr(event, name) is None or isinstance(getattr(event, name), float) for name in absent)


def test_every_event_has_a_name_of_its_own_and_a_reason_to_be() -> None:
    assert len({kind.name for kind in EVENTS}) == len(EVENTS) > 10
    assert all(kind.__doc__ for kind in EVENTS)


def test_no_event_has_a_field_for_a_secret() -> None:
    for kind in EVENTS:
        names = {one.name for one in dataclasses.fields(kind)}
        assert not names & {"token", "secret", "password", "key", "private_key", "cookie", "code"}


def test_a_line_as_the_documentation_shows_it() -> None:
    event = LoggedIn(user="ünï", admin=False, peer="127.0.0.1")
    assert line(event, 1_763_000_000.5) == (
        '{"audit":"logged_in","at":"2025-11-13T02:13:20.500Z","peer":"127.0.0.1","user":"\\u00fcn\\u00ef","admin":false}'
    )


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_cannot_say_is_left_out(seconds: float) -> None:
    event = SessionClosed(session="1", identity="alice", why="client", seconds=seconds, bytes_in=1, bytes_out=2)
    shown = json.loads(line(event, 0), parse_constant=no_constant)
    assert "seconds" not in shown
    assert shown["bytes_out"] == 2


class Broken(io.StringIO):
    """A stream that fails as a full disk, a closed file or a non-blocking pipe does."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error

    def flush(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BlockingIOError(), ValueError("closed")])
def test_a_stream_that_cannot_be_written_only_counts(error: Exception) -> None:
    stream = Broken(error)
    log = AuditLog(stream)
    log.write(LoggedIn(user="alice", admin=False), 0)
    log.write(LoggedIn(user="alice", admin=False), 0)
    assert log.lost == 2
    stream.error = None
    log.write(LoggedIn(user="bob", admin=False), 0)
    assert log.lost == 2
    assert stream.getvalue().endswith('"bob","admin":false}\n')


def test_a_real_full_device_only_counts() -> None:
    with Path("/dev/full").open("wb", buffering=0) as device:
        log = AuditLog(io.TextIOWrapper(device, write_through=True))
        log.write(LoggedIn(user="alice", admin=False), 0)
        assert log.lost == 1


def test_lines_of_many_threads_stay_whole() -> None:
    stream = io.StringIO()
    log = AuditLog(stream)

    def write() -> None:
        for _ in range(200):
            log.write(LoggedIn(user="a" * 50, admin=True), 0)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 800
    assert {json.loads(one)["user"] for one in lines} == {"a" * 50}
