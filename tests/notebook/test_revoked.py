"""Why: jump mode is judged by the pod's own sshd as well, and an sshd without its list lets nobody in at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.enrolment_api import Canned
from tests.support.notebook import Notebook


def certificate_of(key: Path) -> Path:
    return key.with_name(f"{key.name}-cert.pub")


def taken(notebook: Notebook) -> None:
    """Wait until a list that was asked for from now on is in place: the next look begins after that."""
    asked = len(notebook.api.asked)
    notebook.api.wait_for("GET", "/krl", 1 + sum(one.path == "/krl" for one in notebook.api.asked[:asked]))
    looked_again(notebook)


def looked_again(notebook: Notebook) -> None:
    asked = sum(one.path == "/enrolments/epoch" for one in list(notebook.api.asked))
    notebook.api.wait_for("GET", "/enrolments/epoch", asked + 2)


@pytest.fixture
def two(notebook: Notebook) -> tuple[Path, Path]:
    return notebook.certificate("mine"), notebook.certificate("other")


def test_a_certificate_that_was_revoked_before_the_start_gets_in_at_no_time(
    notebook_anywhere: Notebook,
) -> None:
    notebook = notebook_anywhere
    mine, other, raw = notebook.certificate("mine"), notebook.certificate("other"), notebook.raw_key()
    notebook.api.revoke(certificate_of(mine))
    notebook.start()
    notebook.ready()
    assert notebook.ssh(mine, "echo in").returncode == 255
    assert notebook.ssh(other, "echo in").stdout == b"in\n"
    assert notebook.ssh(raw, "echo in").stdout == b"in\n"


def test_what_is_revoked_while_the_server_runs_is_refused_from_the_next_look_on(
    notebook: Notebook, two: tuple[Path, Path]
) -> None:
    notebook.api.revoke(certificate_of(notebook.certificate("nobody")))
    notebook.start()
    notebook.ready()
    mine, other = two
    assert [notebook.ssh(key, "echo in").stdout for key in two] == [b"in\n", b"in\n"]
    notebook.api.revoke(certificate_of(mine))
    taken(notebook)
    assert notebook.ssh(mine, "echo in").returncode == 255
    assert notebook.ssh(other, "echo in").stdout == b"in\n"
    asked = sum(one.path == "/krl" for one in notebook.api.asked)
    looked_again(notebook)
    assert sum(one.path == "/krl" for one in notebook.api.asked) == asked  # not fetched without news


def test_an_api_without_such_lists_keeps_nobody_out(notebook: Notebook, two: tuple[Path, Path]) -> None:
    notebook.start()
    notebook.ready()
    assert notebook.ssh(two[0], "echo in").stdout == b"in\n"
    assert "revoked" not in notebook.log


@pytest.mark.parametrize(
    "answer",
    [
        Canned(200, b"<html>Please log in to the network.</html>"),
        Canned(200, b""),
        Canned(200, b"SSHKRL\n\0" + bytes(20)),
        Canned(200, b"x" * (17 << 20)),
        Canned.refusal(503, "store_unavailable"),
    ],
)
def test_a_list_that_cannot_be_had_or_read_keeps_nobody_out_and_a_good_one_is_taken_later(
    notebook: Notebook, two: tuple[Path, Path], answer: Canned
) -> None:
    mine, other = two
    notebook.api.revoke(certificate_of(mine))
    notebook.api.krl_answer = answer
    notebook.start()
    notebook.ready()
    assert [notebook.ssh(key, "echo in").stdout for key in two] == [b"in\n", b"in\n"]
    notebook.wait_for_line(r"revoked certificates cannot be read|Which certificates are revoked could not be asked")
    notebook.api.krl_answer = None
    taken(notebook)
    assert notebook.ssh(mine, "echo in").returncode == 255
    assert notebook.ssh(other, "echo in").stdout == b"in\n"


def test_a_damaged_list_does_not_replace_the_last_good_one(notebook: Notebook, two: tuple[Path, Path]) -> None:
    mine, other = two
    notebook.api.revoke(certificate_of(mine))
    notebook.start()
    notebook.ready()
    assert notebook.api.krl is not None
    notebook.api.krl = notebook.api.krl[:-3]
    notebook.wait_for_line("cannot be read by this OpenSSH, so the last one stays")
    assert notebook.ssh(mine, "echo in").returncode == 255
    assert notebook.ssh(other, "echo in").stdout == b"in\n"
    looked_again(notebook)
    assert sum("last one stays" in line for line in notebook.log.splitlines()) == 1


def test_an_api_that_goes_away_leaves_the_last_list(notebook: Notebook, two: tuple[Path, Path]) -> None:
    mine, other = two
    notebook.api.revoke(certificate_of(mine))
    notebook.start()
    notebook.ready()
    notebook.api.stop()
    assert notebook.ssh(mine, "echo in").returncode == 255
    assert notebook.ssh(other, "echo in").stdout == b"in\n"
