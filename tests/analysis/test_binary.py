"""Bets on good and bad outcomes: golden value and exact validity."""

import json
from typing import Any

import pytest
from expectation import mean_of

from router.analysis.binary import (
    OutcomeBet,
    outcome_gains,
    replay_outcomes,
    start_outcome_bet,
    step_outcome_bet,
)
from router.analysis.mixture import log_mean

PATH = [(0.05, 0.3), (0.5, 0.6), (0.12, 0.45), (0.8, 0.02)]  # rho, rate


def test_both_outcomes_have_their_golden_value() -> None:
    gains = outcome_gains((500, 6, 9500, 50, 0.05), 0.005)
    assert log_mean(gains) == pytest.approx(0.784440714, rel=1e-6)


def units(theta_ratio: float = 1.0) -> list[Any]:
    """One unit a tick: variant by rho, outcome by a rate that moves every tick."""
    return [
        [
            (rho * rate * theta_ratio, (1, 1, 0, 0, rho)),
            (rho * (1 - rate * theta_ratio), (1, 0, 0, 0, rho)),
            ((1 - rho) * rate, (0, 0, 1, 1, rho)),
            ((1 - rho) * (1 - rate), (0, 0, 1, 0, rho)),
        ]
        for rho, rate in PATH
    ]


@pytest.mark.parametrize("name", ["log_plain", "log_shared", "log_e"])
def test_the_mean_over_all_labels_and_outcomes_is_one(name: str) -> None:
    mean = mean_of(
        start_outcome_bet(),
        units(),
        step_outcome_bet,
        lambda bet: getattr(bet.mixture, name),
    )
    assert mean == pytest.approx(1, rel=1e-12)


def test_the_mean_is_below_one_when_the_candidate_is_better() -> None:
    mean = mean_of(
        start_outcome_bet(),
        units(0.6),
        step_outcome_bet,
        lambda bet: bet.mixture.log_e,
    )
    assert mean < 0.99


def test_the_baselines_rate_is_guessed_from_earlier_ticks_only() -> None:
    start = start_outcome_bet()
    assert start.rate == 1e-6
    one = step_outcome_bet(start, (10, 5, 99, 9, 0.1))
    assert one.rate == pytest.approx(9.5 / 100)
    two = step_outcome_bet(one, (10, 5, 10, 8, 0.1))
    assert two.rate == pytest.approx((0.9 * 9 + 8 + 0.5) / (0.9 * 99 + 10 + 1))
    # The first tick's bets know nothing of its outcomes: only bad ones move them.
    more_good = step_outcome_bet(start, (60, 5, 99, 9, 0.1))
    assert more_good.mixture.log_plain == pytest.approx(one.mixture.log_plain, abs=1e-3)


def test_good_outcomes_speak_where_bad_ones_are_not_rare() -> None:
    taught = step_outcome_bet(start_outcome_bet(), (100, 50, 900, 450, 0.1))
    worse = step_outcome_bet(taught, (100, 80, 900, 450, 0.1))
    few_good = step_outcome_bet(taught, (80, 80, 900, 450, 0.1))
    assert few_good.mixture.log_plain > worse.mixture.log_plain > 0


def test_rare_outcomes_give_the_bets_on_events_alone() -> None:
    from router.analysis.labelbet import event_gains, log_ratios

    rare = outcome_gains((500, 6, 9500, 50, 0.05), 1e-9)
    alone = event_gains((6, 50, 0.05), log_ratios(0.0, "worse"), 0.0)
    assert rare == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_a_stratum_without_a_choice_brings_no_evidence(rho: float) -> None:
    bet = step_outcome_bet(start_outcome_bet(), (5, 4, 7, 1, rho))
    assert bet.mixture.log_plain == 0
    assert bet.excess == 0
    assert (bet.events_candidate, bet.events_baseline) == (4, 1)


def test_several_strata_of_a_tick_use_one_guess() -> None:
    taught = step_outcome_bet(start_outcome_bet(), (10, 1, 90, 9, 0.1))
    strata = [(10, 3, 90, 9, 0.1), (50, 9, 50, 5, 0.5)]
    both = step_outcome_bet(taught, *strata)
    gains = [outcome_gains(one, taught.rate) for one in strata]
    expected = [
        was + a + b for was, a, b in zip(taught.mixture.grown, *gains, strict=True)
    ]
    assert both.mixture.grown == pytest.approx(expected)
    excess = taught.excess + (3 / 0.1 - 9 / 0.9) + (9 / 0.5 - 5 / 0.5)
    assert both.excess == pytest.approx(excess)


@pytest.mark.parametrize("wrong", [(1, 2, 5, 1, 0.5), (5, 1, 1, 2, 0.5)])
def test_more_bad_outcomes_than_units_are_refused(wrong: Any) -> None:
    with pytest.raises(AssertionError):
        step_outcome_bet(start_outcome_bet(), wrong)


def test_a_gambler_continues_from_where_it_was_stored() -> None:
    ticks = [(10, 2, 90, 9, 0.1), (50, 9, 50, 5, 0.5), (5, 5, 5, 0, 0.5)]
    stored = json.loads(json.dumps(replay_outcomes(ticks[:2]).as_dict()))
    revived = OutcomeBet.from_dict(stored)
    assert replay_outcomes(ticks[2:], revived) == replay_outcomes(ticks)
