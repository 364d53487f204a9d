"""A ratio of paired durations, with an interval that means what it says."""

import random

import pytest

from router.analysis.ratio import PAIRS_MIN, RatioSum


def test_a_constant_factor_is_found_exactly() -> None:
    sums = RatioSum()
    for i in range(1, 101):
        sums.add(i, 1.5 * i)
    found = sums.ratio()
    assert found is not None
    assert found.pairs == 100
    assert (found.low, found.ratio, found.high) == pytest.approx((1.5, 1.5, 1.5))


@pytest.mark.parametrize(
    ("pairs", "is_known"), [(PAIRS_MIN - 1, False), (PAIRS_MIN, True)]
)
def test_too_few_pairs_have_no_ratio(pairs: int, is_known: bool) -> None:
    sums = RatioSum()
    for _ in range(pairs):
        sums.add(1.0, 2.0)
    sums.add(0.0, 1.0)  # a duration nobody measured is no pair
    assert (sums.ratio() is not None) == is_known


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    # 400 intervals of 95 %: misses are binomial with mean 20 and deviation 4.4, so
    # more than 38 or fewer than 4 would be four deviations off.
    draw, misses = random.Random(7), 0
    for _ in range(400):
        sums = RatioSum()
        for _ in range(60):
            base = draw.lognormvariate(0, 1)
            sums.add(base, base * 1.2 * draw.lognormvariate(0, 0.3))
        found = sums.ratio()
        assert found is not None
        misses += not found.low <= 1.2 <= found.high
    assert 4 <= misses <= 38
