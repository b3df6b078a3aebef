"""The table of the tiers, cell by cell, at its edges."""

import pytest

from bastion.pubkeys.tiers import Ages, Tier, tier

NOW = 10_000.0


@pytest.mark.parametrize(
    ("full_ago", "updated_ago", "expected"),
    [
        (None, None, Tier.REBUILD),
        (900, 900, Tier.REBUILD),
        (900, 0, Tier.REBUILD),
        (901, 119, Tier.REBUILD),
        (899.9, 899.9, Tier.FILL),
        (899.9, 120, Tier.FILL),
        (120, 120, Tier.FILL),
        (899.9, 119.9, Tier.CACHE),
        (0, 0, Tier.CACHE),
    ],
)
def test_each_row(full_ago: float | None, updated_ago: float | None, expected: Tier) -> None:
    full_at = None if full_ago is None else NOW - full_ago
    updated_at = None if updated_ago is None else NOW - updated_ago
    assert tier(NOW, full_at, updated_at, Ages()) is expected


def test_both_ages_are_settings() -> None:
    ages = Ages(full=10, partial=2)
    assert tier(9.0, 0.0, 0.0, ages) is Tier.FILL
    assert tier(10.0, 0.0, 9.0, ages) is Tier.REBUILD
    assert tier(1.0, 0.0, 0.0, ages) is Tier.CACHE
