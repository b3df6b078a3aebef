"""Why: a bound that nobody can find, see reached or trust the documentation of is found out about in an outage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bastion.metrics import BOUNDS, Tally
from bastion.settings import LimitSettings, LoginSettings, ProxySettings, Settings

PAGE = Path("docs/limits.md").read_text()
ROWS = {
    cells[0].strip(" `"): [cell.strip() for cell in cells[1:]]
    for line in PAGE.splitlines()
    if line.startswith("| `")
    for cells in [re.split(r"(?<!\\)\|", line.strip("|"))]
}
UNITS = {"": 1, " s": 1, " h": 3600, " MiB": 1 << 20, " GiB": 1 << 30}
DOCUMENTED = {
    **{f"limits_{name}": field.default for name, field in LimitSettings.model_fields.items()},
    **{f"login_{name}": LoginSettings.model_fields[name].default for name in ("grace", "attempts", "probes")},
    "login_interactive_seconds": LoginSettings.model_fields["interactive_seconds"].default,
    "proxy_timeout": ProxySettings.model_fields["timeout"].default,
    **{name: Settings.model_fields[name].default for name in ("workers", "restart_grace", "shutdown_grace")},
}
NOT_COUNTED = {
    "limits_unauthenticated_rate": "(counted as `…_start`)",
    "limits_keepalive": "(counted as `…_count`)",
    "limits_rekey_bytes": "",
    "limits_rekey_seconds": "",
    "proxy_timeout": 'connections_refused_total{reason="proxy_timeout"}',
    "workers": "workers{",
    "restart_grace": "graceful_restarts_total",
    "shutdown_grace": "",
}
"""What tells of those that no `limit_reached_total` counts."""


@pytest.mark.parametrize("setting", DOCUMENTED)
def test_every_limit_is_on_the_page_with_its_default(setting: str) -> None:
    said = re.fullmatch(r"([\d.]+)( \w+)?", ROWS[setting][0])
    assert said, ROWS[setting][0]
    assert float(said[1]) * UNITS[said[2] or ""] == DOCUMENTED[setting]


@pytest.mark.parametrize("setting", DOCUMENTED)
def test_every_limit_has_a_metric_that_is_there_before_it_is_reached(setting: str) -> None:
    if setting in NOT_COUNTED:
        assert NOT_COUNTED[setting] in ROWS[setting][-1]
        assert setting not in BOUNDS
    else:
        assert Tally().limits[setting] == 0
        assert setting in Tally().limits


def test_nothing_is_counted_that_is_no_setting() -> None:
    assert set(BOUNDS) <= set(DOCUMENTED)
    tally = Tally()
    for name in ("window", "channels", "login_seconds", "interactive", "interactive_seconds", "unauthenticated_full"):
        tally.reached(name)
    assert set(tally.limits) == set(BOUNDS)
