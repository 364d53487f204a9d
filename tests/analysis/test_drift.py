"""Distances of distributions: golden values, their noise, and both hurdles."""

import math
from dataclasses import replace

import numpy as np
import pytest

from router.analysis.chisquare import chi_square_quantile, chi_square_tail
from router.analysis.drift import (
    Bins,
    DriftLimits,
    chi_square_two_sample,
    g_test,
    hellinger,
    js_distance_base2,
    js_divergence,
    judge_drift,
    kl_divergence,
    ks_statistic,
    ks_tail,
    psi,
    psi_noise,
    shares,
    total_variation,
    wasserstein,
)

R = np.array([0.10, 0.20, 0.30, 0.40])
C = np.array([0.15, 0.25, 0.25, 0.35])
COUNTS = ((10, 20, 30, 40), (15, 25, 25, 35))


def test_distances_have_their_golden_values() -> None:
    assert psi(R, C) == pytest.approx(0.047223080, rel=1e-6)
    assert js_divergence(R, C) == pytest.approx(0.005880586, rel=1e-6)
    assert math.sqrt(js_divergence(R, C)) == pytest.approx(0.076684978, rel=1e-6)
    assert js_distance_base2(R, C) == pytest.approx(0.092108046, rel=1e-6)
    assert hellinger(R, C) == pytest.approx(0.076757395, rel=1e-6)
    assert total_variation(R, C) == pytest.approx(0.1, rel=1e-6)
    assert kl_divergence(C, R) == pytest.approx(0.024289277, rel=1e-6)
    assert chi_square_two_sample(*COUNTS) == pytest.approx(2.343434, abs=5e-7)
    first, second = [1, 2, 3, 4, 5], [2, 3, 4, 5, 9]
    assert ks_statistic(first, second) == pytest.approx(0.2)
    assert wasserstein(first, second) == pytest.approx(1.6)


def test_two_samples_of_other_sizes_have_the_published_distances() -> None:
    reference, current = (16, 18, 16, 14, 12, 12), (16, 16, 16, 16, 16, 8)
    p, q = np.array(reference) / 88, np.array(current) / 88
    # Published as 0.06812, which is cut off and not rounded.
    assert hellinger(p, q) == pytest.approx(0.06812, abs=1e-5)


@pytest.mark.parametrize(
    ("value", "df", "tail"),
    [
        # Tables: 3.841459 and 6.634897 for one degree, 18.307038 for ten.
        (3.841458820694124, 1, 0.05),
        (6.634896601021213, 1, 0.01),
        (18.307038053275146, 10, 0.05),
        (29.58829844507442, 10, 0.001),
        (9.341817765591957, 10, 0.5),
        (124.34211340400407, 100, 0.05),
        (2.0, 2, math.exp(-1)),
        (0.1, 2, math.exp(-0.05)),
        (0.0, 3, 1.0),
        (-1.0, 3, 1.0),
    ],
)
def test_the_chi_square_tail_is_that_of_the_tables(
    value: float, df: int, tail: float
) -> None:
    assert chi_square_tail(value, df) == pytest.approx(tail, rel=1e-9)


@pytest.mark.parametrize("df", [1, 2, 9, 40, 400])
@pytest.mark.parametrize("tail", [0.999, 0.5, 0.05, 1e-3, 1e-9])
def test_the_quantile_is_where_the_tail_is(df: int, tail: float) -> None:
    assert chi_square_tail(chi_square_quantile(tail, df), df) == pytest.approx(tail)


def test_a_distribution_without_degrees_of_freedom_is_refused() -> None:
    with pytest.raises(AssertionError):
        chi_square_tail(1.0, 0)
    for tail in (0.0, 1.0):
        with pytest.raises(AssertionError):
            chi_square_quantile(tail, 3)


def test_the_noise_of_psi_is_the_known_one() -> None:
    # Ten bins, 500 against 500: 95 % of noise is below 0.0677.
    assert psi_noise(500, 500, 10, 0.05) == pytest.approx(0.0677, abs=5e-5)


def test_an_empty_bin_is_no_infinity() -> None:
    p, q = shares((0, 10)), shares((5, 5))
    assert p == pytest.approx([0.5 / 11, 10.5 / 11])
    assert math.isfinite(psi(p, q))


def test_bins_empty_on_both_sides_tell_nothing() -> None:
    statistic, p_value = g_test((10, 0, 30), (20, 0, 20))
    assert statistic > 0
    assert p_value == pytest.approx(chi_square_tail(statistic, 1))
    assert chi_square_two_sample((10, 0, 30), (20, 0, 20)) == pytest.approx(16 / 3)
    assert g_test((10, 0), (20, 0)) == (0.0, 1.0)
    assert g_test((0, 10), (10, 0))[1] < 1e-5


@pytest.mark.parametrize(
    ("scaled", "tail"),
    # Kolmogorov's distribution: critical values 1.2238 (10 %), 1.3581 (5 %), 1.6276.
    [(1.22384787, 0.10), (1.35809864, 0.05), (1.62762361, 0.01), (0.1, 1.0)],
)
def test_the_kolmogorov_tail_is_that_of_the_tables(scaled: float, tail: float) -> None:
    statistic = scaled / math.sqrt(1000 * 4000 / 5000)
    assert ks_tail(statistic, 1000, 4000) == pytest.approx(tail, rel=1e-4)


def test_the_kolmogorov_tail_has_no_step_where_the_series_begins() -> None:
    below, above = (ks_tail(x / math.sqrt(500), 1000, 1000) for x in (0.1999, 0.2001))
    assert below == pytest.approx(above, abs=1e-9)


LIMITS = DriftLimits(psi=0.1, rate=0.05, units_min=200)
STILL = Bins((250, 250, 250, 250), (250, 250, 250, 250))
MOVED = Bins((250, 250, 250, 250), (400, 300, 200, 100))


def test_a_moved_feature_is_told_from_one_that_stayed() -> None:
    verdicts = judge_drift({"age": MOVED, "amount": STILL})
    assert verdicts["age"].verdict == "fail"
    assert verdicts["amount"].verdict == "pass"
    assert "it moved" in verdicts["age"].reason


def test_noise_of_a_small_window_is_no_drift() -> None:
    # PSI 0.13 is "drift" by the rule of thumb; 40 of noise's thousandth are above it.
    noisy = Bins((50, 50, 50, 50), (33, 64, 45, 58))
    limits = replace(LIMITS, psi=0.01)
    verdict = judge_drift({"age": noisy}, limits)["age"]
    assert verdict.numbers["psi"] > 0.01
    assert verdict.numbers["psi"] < verdict.numbers["psi_noise"]
    assert verdict.verdict == "pass"


def test_a_trifle_of_a_large_window_is_no_drift() -> None:
    trifle = Bins((250_000,) * 4, (255_000, 250_000, 250_000, 245_000))
    verdict = judge_drift({"age": trifle})["age"]
    assert verdict.numbers["p_adjusted"] < 1e-9
    assert verdict.verdict == "pass"


def test_drift_is_judged_exactly_at_its_hurdles() -> None:
    numbers = judge_drift({"age": MOVED}, LIMITS)["age"].numbers
    found = float(numbers["psi"])
    p_value = float(numbers["p_adjusted"])
    cases = [
        (replace(LIMITS, psi=found), "fail"),
        (replace(LIMITS, psi=math.nextafter(found, 1)), "pass"),
        (replace(LIMITS, rate=p_value), "fail"),
        (replace(LIMITS, rate=math.nextafter(p_value, 0)), "pass"),
        (replace(LIMITS, units_min=1000), "fail"),
        (replace(LIMITS, units_min=1001), "inconclusive"),
    ]
    for limits, answer in cases:
        assert judge_drift({"age": MOVED}, limits)["age"].verdict == answer


def test_either_side_may_be_too_small() -> None:
    small = (100, 50, 30, 19)
    for bins in (Bins(small, (300,) * 4), Bins((300,) * 4, small)):
        assert judge_drift({"age": bins}, LIMITS)["age"].verdict == "inconclusive"
    with pytest.raises(AssertionError):
        judge_drift({"age": STILL}, replace(LIMITS, units_min=0))


def test_many_features_at_once_must_each_be_clearer() -> None:
    weak = Bins((60, 60, 60, 60), (80, 64, 52, 44))
    alone = judge_drift({"a": weak}, replace(LIMITS, psi=0.0))["a"]
    crowd = {"a": weak} | {f"f{i}": STILL for i in range(30)}
    among = judge_drift(crowd, replace(LIMITS, psi=0.0))["a"]
    assert among.numbers["p_adjusted"] > 5 * float(alone.numbers["p_adjusted"])


def test_bins_of_both_sides_are_the_same_and_at_least_two() -> None:
    for wrong in (((1,), (1,)), ((1, 2), (1, 2, 3)), ((1, -1), (1, 2))):
        with pytest.raises(AssertionError):
            Bins(*wrong)
    assert Bins((0, 2), (1, 0)).current == (1, 0)
