"""Why: a number without its spread says nothing on a machine that others use too. Pure: numbers in, values out."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of `of` rounds, and between what they lay."""

    median: float
    least: float
    most: float
    of: int


def spread(values: Sequence[float]) -> Spread:
    """The median and the extremes. Raises `ValueError` for none."""
    if not values:
        raise ValueError("there is no spread of nothing")
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The spread of the rounds' ratios: each round of ours by the round of theirs that ran next to it."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed. Raises `ValueError` for none."""
    if not values:
        raise ValueError("there is no percentile of nothing")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure must reach: at least, or at most, `bound`. `unit` is empty for a ratio."""

    bound: float
    at_least: bool
    unit: str = ""

    def met(self, value: float) -> bool:
        """Whether `value` reaches it."""
        return value >= self.bound if self.at_least else value <= self.bound


def at_least(bound: float, unit: str = "") -> Goal:
    """A goal from below."""
    return Goal(bound, True, unit)


def at_most(bound: float, unit: str = "") -> Goal:
    """A goal from above."""
    return Goal(bound, False, unit)


def short(value: float) -> str:
    """Three significant digits, without an exponent, thousands apart."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
