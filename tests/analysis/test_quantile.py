"""Quantiles of histograms: golden radii, bounds on edges, exceedances."""

import math

import pytest

from router.analysis.quantile import (
    Histogram,
    exceeding,
    latency_edges,
    quantile_bounds,
    quantile_edge,
    rank_radii,
)

TENTHS = tuple(i / 1000 for i in range(1, 1000))


@pytest.mark.parametrize(
    ("quantile", "units", "above", "below"),
    [
        (0.5, 10**3, 0.060914, 0.060914),
        (0.5, 10**4, 0.015175, 0.015175),
        (0.5, 10**5, 0.005126, 0.005126),
        (0.9, 10**3, 0.035264, 0.037819),
        (0.9, 10**4, 0.008956, 0.009254),
        (0.9, 10**5, 0.003058, 0.003093),
        (0.95, 10**3, 0.025102, 0.027977),
        (0.95, 10**4, 0.006447, 0.006782),
        (0.95, 10**5, 0.002214, 0.002255),
        (0.99, 10**3, 0.0100, 0.013660),
        (0.99, 10**4, 0.002836, 0.003202),
        (0.99, 10**5, 0.000999, 0.001042),
    ],
)
def test_rank_radii_have_their_golden_values(
    quantile: float, units: int, above: float, below: float
) -> None:
    # Printed to six decimals.
    assert rank_radii(quantile, units, 0.05) == pytest.approx((below, above), abs=6e-7)


def spread(units_per_bucket: int) -> Histogram:
    """Values evenly over (0, 1], a thousand buckets wide."""
    return Histogram(TENTHS, [units_per_bucket] * 1000)


def test_bounds_are_edges_around_the_quantile() -> None:
    lower, upper = quantile_bounds(spread(10), 0.9, 0.05)
    # 10,000 values: ranks 0.9 - 0.009254 and 0.9 + 0.008956, out to the next edge.
    assert (lower, upper) == (0.890, 0.909)


def test_a_tail_without_enough_values_has_no_upper_bound() -> None:
    assert quantile_bounds(spread(1), 0.99, 0.05)[1] == math.inf
    assert quantile_bounds(spread(10), 0.99, 0.05)[1] < 1


def test_a_quantile_that_may_be_the_smallest_value_has_no_lower_bound() -> None:
    lower, upper = quantile_bounds(Histogram((1.0, 2.0), (5, 5, 5)), 0.1, 0.05)
    assert lower == 0.0
    assert upper == math.inf


def test_without_values_nothing_is_known() -> None:
    empty = Histogram((1.0,), (0, 0))
    assert quantile_bounds(empty, 0.5, 0.05) == (0.0, math.inf)
    assert quantile_edge(empty, 0.5) is None


def test_values_in_the_open_last_bucket_have_no_upper_edge() -> None:
    high = Histogram((1.0, 2.0), (0, 0, 10_000))
    assert quantile_bounds(high, 0.5, 0.05) == (2.0, math.inf)
    assert quantile_edge(high, 0.5) is None


@pytest.mark.parametrize(
    ("quantile", "edge"), [(0.5, 0), (0.51, 1), (0.8, 1), (0.81, 2), (1.0, 2), (0.0, 0)]
)
def test_a_quantiles_edge_is_the_first_that_holds_its_rank(
    quantile: float, edge: int
) -> None:
    histogram = Histogram((1.0, 2.0, 3.0), (50, 30, 20, 0))
    assert quantile_edge(histogram, quantile) == edge


@pytest.mark.parametrize(
    ("threshold", "surely", "possibly"),
    [(1.0, 7, 7), (1.5, 4, 7), (2.0, 4, 4), (3.0, 0, 4), (0.5, 7, 9)],
)
def test_values_in_the_thresholds_own_bucket_may_be_on_either_side(
    threshold: float, surely: int, possibly: int
) -> None:
    histogram = Histogram((1.0, 2.0), (2, 3, 4))
    assert exceeding(histogram, threshold) == (surely, possibly)


def test_the_engines_edges_are_powers_of_a_thirtysecond() -> None:
    edges = latency_edges()
    assert len(edges) == 864
    assert edges[0] == 2.0**-20
    assert edges[640] == 1.0
    assert edges[672] == 2.0


def test_a_histogram_has_one_count_more_than_edges() -> None:
    with pytest.raises(AssertionError):
        Histogram((1.0, 2.0), (1, 2))
    with pytest.raises(AssertionError):
        Histogram((1.0,), (1, -1))
