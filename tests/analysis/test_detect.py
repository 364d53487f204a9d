"""Forecasts: the columns are the gamblers, and a forecast repeats itself."""

import math

import numpy as np
import pytest

from router.analysis.detect import (
    Step,
    Traffic,
    first_alarm,
    forecast,
    log_e_paths,
)
from router.analysis.labelbet import start_label_bet, step_label_bet

RAMP = Traffic((Step(0.05, 10), Step(0.5, 10)), 400, 0.01)


def test_the_columns_are_the_very_gamblers() -> None:
    random = np.random.default_rng(3)
    rhos = np.array([[0.05, 0.3], [0.1, 0.3], [0.5, 1.0], [0.0, 0.9]])
    theirs = random.integers(0, 9, (5, 4, 2))
    ours = random.integers(0, 30, (5, 4, 2))
    for margin in (0.0, 0.2):
        paths = log_e_paths(theirs, ours, rhos, margin, restart=0.01)
        for run in range(5):
            bet = start_label_bet(margin, restart=0.01)
            for t in range(4):
                strata = [
                    (int(theirs[run, t, s]), int(ours[run, t, s]), float(rhos[t, s]))
                    for s in range(2)
                ]
                bet = step_label_bet(bet, *strata)
                found = (
                    paths.plain[run, t], paths.shared[run, t], paths.average[run, t]
                )  # fmt: skip
                mixture = bet.mixture
                expected = (mixture.log_plain, mixture.log_shared, mixture.log_e)
                assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_run_alarms_at_its_first_tick_at_the_bar() -> None:
    bar = math.log(20)
    paths = np.array([[0.0, bar, 9.0], [0.0, math.nextafter(bar, 0), 0.0]])
    assert first_alarm(paths, 0.05).tolist() == [1, 3]


def test_a_worse_candidate_is_found_sooner() -> None:
    double, fourfold = (forecast(RAMP, r, 0.05, runs=60) for r in (2.0, 4.0))
    assert fourfold.units_median < double.units_median <= double.units_p90
    assert fourfold.ticks_median < double.ticks_median
    assert fourfold.detected == 1.0
    assert fourfold.standard_error == 0.0


def test_a_healthy_candidate_is_seldom_aborted() -> None:
    healthy = forecast(RAMP, 1.0, 0.05, runs=100)
    # 5 % promised; 3 standard errors at 100 runs are 6.5 %.
    assert healthy.detected <= 0.05 + 0.065
    assert healthy.units_median == math.inf
    assert healthy.ticks_median == math.inf


def test_a_forecast_repeats_itself() -> None:
    assert forecast(RAMP, 2.0, 0.05, runs=20) == forecast(RAMP, 2.0, 0.05, runs=20)
    assert forecast(RAMP, 2.0, 0.05, runs=20, seed=1) != forecast(
        RAMP, 2.0, 0.05, runs=20, seed=2
    )


def test_traffic_says_shares_and_rates_tick_by_tick() -> None:
    traffic = Traffic((Step(0.1, 2), Step(0.5, 1)), 100, 0.01, 0.03)
    assert traffic.shares == pytest.approx([0.1, 0.1, 0.5])
    assert traffic.rates == pytest.approx([0.01, 0.02, 0.03])
    assert RAMP.rates == pytest.approx([0.01] * 20)


def test_units_are_those_of_the_candidate_until_the_alarm() -> None:
    found = forecast(Traffic((Step(0.5, 4),), 100_000, 0.01), 4.0, 0.05, runs=9)
    assert (found.ticks_median, found.units_median) == (1.0, 50_000)


@pytest.mark.parametrize(
    ("ratio", "alpha", "runs"), [(-1.0, 0.05, 9), (1.0, 0.0, 9), (1.0, 1.0, 9),
                                 (1.0, 0.05, 0)]
)  # fmt: skip
def test_what_cannot_be_forecast_is_refused(
    ratio: float, alpha: float, runs: int
) -> None:
    with pytest.raises(AssertionError):
        forecast(RAMP, ratio, alpha, runs)
