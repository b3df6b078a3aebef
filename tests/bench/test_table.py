"""What becomes of results: the table says what was missed, and the document keeps its prose."""

import pytest

from bench.figures import Spread, at_least, at_most, spread
from bench.plot import svg
from bench.table import BEGIN, END, Bars, MarkersMissing, Result, Row, markdown, splice

FAST, SLOW = spread([2.0, 3.0, 4.0]), spread([1.0, 1.5, 2.0])


def cells(row: Row) -> list[str]:
    return [cell.strip() for cell in markdown([Result("Part", (row,))]).splitlines()[-1].strip("|").split("|")]


def test_a_row_shows_medians_with_spreads_and_whether_the_goal_is_met() -> None:
    row = Row("copy", "MB/s", FAST, SLOW, Spread(2.0, 1.9, 2.1, 3), at_least(1.6))
    assert cells(row) == [
        "copy",
        "3.00 MB/s (2.00 … 4.00)",
        "1.50 MB/s (1.00 … 2.00)",
        "2.00 (1.90 … 2.10)",
        "≥ 1.60 ×: met",
    ]


def test_a_miss_is_shown() -> None:
    assert cells(Row("copy", "MB/s", SLOW, FAST, Spread(0.5, 0.4, 0.6, 3), at_least(1.6)))[-1] == "≥ 1.60 ×: **missed**"


def test_a_goal_with_a_unit_is_for_the_bastion_s_own_figure() -> None:
    assert Row("echo", "ms", bastion=spread([99.0]), goal=at_most(100, "ms")).met
    assert not Row("echo", "ms", bastion=spread([101.0]), goal=at_most(100, "ms")).met


def test_a_goal_for_always_looks_at_the_worst_round() -> None:
    seen = spread([1.0, 2.0, 1500.0])
    assert Row("stop", "ms", seen, goal=at_most(1000, "ms")).met
    assert Row("stop", "ms", seen, goal=at_most(1000, "ms"), worst=True).met is False


def test_what_was_not_measured_says_why_and_counts_as_neither_met_nor_missed() -> None:
    row = Row("directory", goal=at_most(50, "MB"), why="not measured yet")
    assert row.met is None
    assert cells(row) == ["directory", "not measured yet", "–", "–", "≤ 50.0 MB"]


def test_a_single_measurement_shows_no_spread() -> None:
    assert cells(Row("memory", "kB", spread([58.0])))[1] == "58.0 kB"


def test_the_prose_around_the_markers_is_kept() -> None:
    before, after = "# Performance\n\nby hand\n\n", "\n\nalso by hand\n"
    once = splice(f"{before}{BEGIN}\nold\n{END}{after}", "first")
    twice = splice(once, "second")
    assert twice == f"{before}{BEGIN}\n\nsecond\n\n{END}{after}"


@pytest.mark.parametrize("document", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_document_without_its_markers_is_left_alone(document: str) -> None:
    with pytest.raises(MarkersMissing):
        splice(document, "table")


def test_the_plot_has_a_bar_for_each_figure_and_whiskers_where_there_is_a_spread() -> None:
    drawn = svg([Bars("Copy & paste", "MB/s", (("down", FAST, SLOW), ("up", spread([1.0]), None)))])
    bars = drawn.split("</text>", 2)[2]  # after the legend
    assert bars.count("<rect") == 3
    assert drawn.count("<path") == 2
    assert "Copy &amp; paste" in drawn
