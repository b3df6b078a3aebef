"""The arithmetic of the benchmark: medians with their spread, ratios by round, percentiles, goals."""

import pytest

from bench.figures import Spread, at_least, at_most, percentile, ratios, short, spread


def test_a_spread_is_the_median_between_the_extremes() -> None:
    assert spread([5.0, 1.0, 9.0, 2.0, 3.0]) == Spread(median=3.0, least=1.0, most=9.0, of=5)


def test_ratios_are_taken_within_a_round() -> None:
    assert ratios([10.0, 40.0, 90.0], [10.0, 20.0, 30.0]) == Spread(median=2.0, least=1.0, most=3.0, of=3)


def test_rounds_that_do_not_match_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0, 2.0], [1.0])


def test_nothing_has_neither_spread_nor_percentile() -> None:
    with pytest.raises(ValueError, match="nothing"):
        spread([])
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)])
def test_a_percentile_is_a_value_that_was_seen(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == expected


def test_a_goal_is_met_at_its_bound() -> None:
    assert at_least(1.6).met(1.6)
    assert not at_least(1.6).met(1.59)
    assert at_most(100, "ms").met(100)
    assert not at_most(100, "ms").met(100.1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.01234, "0.0123"), (1.6, "1.60"), (23.456, "23.5"), (1234.5, "1,234"), (0.9999, "1.000")],
)
def test_figures_have_three_digits(value: float, shown: str) -> None:
    assert short(value) == shown
