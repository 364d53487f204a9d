"""Bounds on a rate: golden values and exact validity."""

import math

import pytest

from router.analysis.betabinomial import log_e_rate, rate_bounds


@pytest.mark.parametrize(
    ("events", "units", "lower", "upper"),
    [
        (0, 100, 0.0, 0.057029),
        (0, 1000, 0.0, 0.006998),
        (0, 10000, 0.0, 0.000817),
        (5, 1000, 0.000539, 0.018004),
        (50, 10000, 0.002701, 0.008328),
        (700, 1000, 0.645438, 0.751017),
    ],
)
def test_bounds_have_their_golden_values(
    events: int, units: int, lower: float, upper: float
) -> None:
    found = rate_bounds(events, units, 0.05)
    # Printed to six decimals.
    assert found == pytest.approx((lower, upper), abs=5.1e-7)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.9])
def test_the_mean_over_all_outcomes_is_one(rate: float) -> None:
    mean = math.fsum(
        math.comb(12, k)
        * rate**k
        * (1 - rate) ** (12 - k)
        * math.exp(log_e_rate(k, 12, rate))
        for k in range(13)
    )
    assert mean == pytest.approx(1, rel=1e-12)


def test_without_data_every_rate_is_possible() -> None:
    assert rate_bounds(0, 0, 0.05) == (0.0, 1.0)


@pytest.mark.parametrize(("events", "units"), [(0, 7), (3, 9), (9, 9), (2.5, 9)])
def test_bounds_mirror_when_events_and_misses_swap(events: float, units: int) -> None:
    lower, upper = rate_bounds(events, units, 0.05)
    other_lower, other_upper = rate_bounds(units - events, units, 0.05)
    assert (lower, upper) == pytest.approx((1 - other_upper, 1 - other_lower))
    assert lower <= events / units <= upper


def test_bounds_are_where_the_evidence_reaches_the_bar() -> None:
    lower, upper = rate_bounds(5, 1000, 0.01)
    for bound in (lower, upper):
        assert log_e_rate(5, 1000, bound) == pytest.approx(math.log(100), rel=1e-9)


def test_a_smaller_alpha_is_more_careful() -> None:
    careful, bold = rate_bounds(5, 1000, 0.01), rate_bounds(5, 1000, 0.05)
    assert careful[0] < bold[0]
    assert careful[1] > bold[1]


def test_the_rule_of_thumb_for_no_events_holds() -> None:
    for units in (1_000, 100_000):
        rule = (math.log(20) + 0.5 * math.log(units) + 0.57) / units
        assert rate_bounds(0, units, 0.05)[1] == pytest.approx(rule, rel=0.01)


@pytest.mark.parametrize(
    ("events", "units", "alpha"),
    [(2, 1, 0.05), (-1, 5, 0.05), (1, 2, 0.0), (1, 2, 1.0)],
)
def test_what_cannot_be_is_refused(events: int, units: int, alpha: float) -> None:
    with pytest.raises(AssertionError):
        rate_bounds(events, units, alpha)
