"""Why: people bring their own ssh; whatever works against a plain sshd must work through the bastion.

One test per row, mode and release; a client that is not installed skips its rows with the reason.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import rows_files, rows_forwards, rows_others, rows_sessions, rows_tools
from tests.clients.openssh import SUITES, Missing, Mode, OpenSSH, Way
from tests.clients.table import Row
from tests.support.system import Person

ROWS = rows_sessions.ROWS + rows_tools.ROWS + rows_forwards.ROWS + rows_files.ROWS + rows_others.ROWS
TABLE = [
    pytest.param(suite, mode, row, id=f"{suite}-{mode.value}-{row.name}")
    for suite in ("own", *SUITES)
    for row in ROWS
    for mode in row.modes
    if suite == "own" or (row.newer and (mode is Mode.DIRECT or row.name.startswith("ssh exec")))
]


@pytest.mark.parametrize(("suite", "mode", "row"), TABLE)
def test_it_works_as_with_a_plain_sshd(alice: Person, suite: str, mode: Mode, row: Row, short: Path) -> None:
    try:
        row.run(Way(alice, mode, OpenSSH.of(suite), short))
    except Missing as reason:
        pytest.skip(str(reason))


def test_the_bastion_wrote_no_error_meanwhile(alice: Person) -> None:
    log = alice.system.bastion.log.read_text(errors="replace")
    assert "Traceback" not in log
    assert '"level": "error"' not in log, log
