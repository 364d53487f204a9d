"""Absolute limits are judged by intervals, never by point estimates."""

import math
from dataclasses import replace

import pytest

from router.analysis.betabinomial import rate_bounds
from router.analysis.ceiling import (
    Ceiling,
    QuantileCeiling,
    judge_ceiling,
    judge_quantile,
)
from router.analysis.quantile import Histogram, exceeding

ONE_PERCENT = Ceiling(limit=0.01, units_min=500)


@pytest.mark.parametrize(
    ("events", "units", "answer"),
    [
        (0, 0, "inconclusive"),
        (0, 499, "inconclusive"),
        (0, 1000, "pass"),
        (9, 1000, "inconclusive"),  # below the limit, but not surely
        (12, 1000, "inconclusive"),  # above it, but not surely
        (40, 1000, "fail"),
        (20, 100, "fail"),  # surely above, however few units
    ],
)
def test_a_rate_is_judged_by_its_interval(events: int, units: int, answer: str) -> None:
    assert judge_ceiling(events, units, ONE_PERCENT, 0.05).verdict == answer


def test_a_rate_fails_only_when_its_lower_bound_is_above_the_limit() -> None:
    lower, upper = rate_bounds(40, 1000, 0.05)
    at = judge_ceiling(40, 1000, replace(ONE_PERCENT, limit=lower), 0.05)
    assert at.verdict == "inconclusive"
    above = replace(ONE_PERCENT, limit=math.nextafter(lower, 0))
    assert judge_ceiling(40, 1000, above, 0.05).verdict == "fail"
    passing = judge_ceiling(40, 1000, replace(ONE_PERCENT, limit=upper), 0.05)
    assert passing.verdict == "pass"
    short = replace(ONE_PERCENT, limit=math.nextafter(upper, 0))
    assert judge_ceiling(40, 1000, short, 0.05).verdict == "inconclusive"


def test_a_rate_passes_exactly_at_its_minimum_of_units() -> None:
    for units_min, answer in ((1000, "pass"), (1001, "inconclusive")):
        ceiling = replace(ONE_PERCENT, units_min=units_min)
        assert judge_ceiling(0, 1000, ceiling, 0.05).verdict == answer


@pytest.mark.parametrize(("events", "units"), [(6, 5), (-1, 5)])
def test_counts_that_contradict_each_other_are_an_error(
    events: int, units: int
) -> None:
    assert judge_ceiling(events, units, ONE_PERCENT, 0.05).verdict == "error"


@pytest.mark.parametrize(("limit", "units_min"), [(0.0, 1), (1.0, 1), (0.5, 0)])
def test_a_ceiling_that_says_nothing_cannot_be_written(
    limit: float, units_min: int
) -> None:
    with pytest.raises(AssertionError):
        Ceiling(limit, units_min)


EDGES = (10.0, 20.0, 40.0, 80.0)
P99 = QuantileCeiling(quantile=0.99, limit=40.0, units_min=500)


@pytest.mark.parametrize(
    ("counts", "answer"),
    [
        ((0, 0, 0, 0, 0), "inconclusive"),
        ((900, 60, 40, 0, 0), "pass"),
        ((300, 60, 40, 0, 0), "inconclusive"),  # too few units
        ((900, 60, 31, 9, 0), "inconclusive"),
        ((900, 40, 10, 40, 10), "fail"),
    ],
)
def test_a_quantile_is_judged_by_the_share_beyond_its_limit(
    counts: tuple[int, ...], answer: str
) -> None:
    assert judge_quantile(Histogram(EDGES, counts), P99, 0.05).verdict == answer


def test_a_limit_inside_a_bucket_gives_neither_side_the_benefit() -> None:
    inside = replace(P99, limit=30.0)
    in_its_bucket = Histogram(EDGES, (900, 40, 60, 0, 0))
    assert exceeding(in_its_bucket, 30.0) == (0, 60)
    assert judge_quantile(in_its_bucket, inside, 0.05).verdict == "inconclusive"
    beyond = Histogram(EDGES, (900, 40, 0, 60, 0))
    assert judge_quantile(beyond, inside, 0.05).verdict == "fail"
    before = Histogram(EDGES, (900, 100, 0, 0, 0))
    assert judge_quantile(before, inside, 0.05).verdict == "pass"


def test_a_quantile_passes_and_fails_exactly_at_its_bounds() -> None:
    # Bounds above one half, because there 1 - (1 - bound) is the bound to the last bit.
    histogram = Histogram(EDGES, (100, 100, 100, 700, 0))
    lower, upper = rate_bounds(700, 1000, 0.05)
    assert 0.5 < lower < 0.7 < upper
    cases = [
        (lower, "inconclusive"), (math.nextafter(lower, 0), "fail"),
        (upper, "pass"), (math.nextafter(upper, 0), "inconclusive"),
    ]  # fmt: skip
    for share, answer in cases:
        ceiling = replace(P99, quantile=1 - share)
        assert judge_quantile(histogram, ceiling, 0.05).verdict == answer
    for units_min, answer in ((1000, "pass"), (1001, "inconclusive")):
        ceiling = QuantileCeiling(1 - 0.9, 40.0, units_min)
        assert judge_quantile(histogram, ceiling, 0.05).verdict == answer


def test_a_quantiles_verdict_shows_its_own_bounds() -> None:
    verdict = judge_quantile(Histogram(EDGES, (900, 60, 40, 0, 0)), P99, 0.05)
    assert verdict.numbers["lower"] == 20.0
    assert verdict.numbers["upper"] == 40.0
    assert "latency p99" in verdict.reason


@pytest.mark.parametrize(("quantile", "units_min"), [(0.0, 1), (1.0, 1), (0.5, 0)])
def test_a_quantile_ceiling_that_says_nothing_cannot_be_written(
    quantile: float, units_min: int
) -> None:
    with pytest.raises(AssertionError):
        QuantileCeiling(quantile, 1.0, units_min)
