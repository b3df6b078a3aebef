"""Why: the chart's tests need helm, and say so where there is none."""

from __future__ import annotations

import pytest

from tests.chart.rendering import why_not


@pytest.fixture(scope="session", autouse=True)
def helm_is_here() -> None:
    if reason := why_not(["helm"]):
        pytest.skip(reason)
