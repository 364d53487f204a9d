"""Bets on an absolute margin: exact validity, and agreement with the label bets."""

import json
from typing import Any

import pytest
from expectation import mean_of

from router.analysis.labelbet import event_gains, shifted
from router.analysis.margin import (
    EXCESSES,
    MarginBet,
    replay_margin,
    stakes,
    start_margin_bet,
    step_margin_bet,
    step_margin_values,
)

PATH = [(0.05, 0.3), (0.5, 0.6), (0.12, 0.45), (0.8, 0.02)]  # rho, rate


def units(difference: float) -> list[Any]:
    return [
        [
            (rho * (rate + difference), (1, 1, 0, 0, rho)),
            (rho * (1 - rate - difference), (1, 0, 0, 0, rho)),
            ((1 - rho) * rate, (0, 0, 1, 1, rho)),
            ((1 - rho) * (1 - rate), (0, 0, 1, 0, rho)),
        ]
        for rho, rate in PATH
    ]


@pytest.mark.parametrize("margin", [0.0, 0.002, 0.2, 0.39])
@pytest.mark.parametrize("name", ["log_plain", "log_shared", "log_e"])
def test_the_mean_is_one_at_the_margin(margin: float, name: str) -> None:
    mean = mean_of(
        start_margin_bet(margin),
        units(margin),
        step_margin_bet,
        lambda bet: getattr(bet.mixture, name),
    )
    assert mean == pytest.approx(1, rel=1e-12)


def test_the_mean_is_below_one_inside_the_margin() -> None:
    mean = mean_of(
        start_margin_bet(0.2),
        units(0.1),
        step_margin_bet,
        lambda bet: bet.mixture.log_e,
    )
    assert mean < 0.99


def test_the_mean_is_one_for_measured_harm() -> None:
    # Harm 0, 0.4 or 1, with the candidate's mean 0.1 above the baseline's 0.32.
    theirs = [(0.44, 0.0), (0.233333333333333, 0.4), (0.326666666666667, 1.0)]
    ours = [(0.54, 0.0), (0.233333333333333, 0.4), (0.226666666666667, 1.0)]
    branches = [
        [
            *((rho * p, ([harm], [], rho)) for p, harm in theirs),
            *(((1 - rho) * p, ([], [harm], rho)) for p, harm in ours),
        ]
        for rho, _ in PATH[:3]
    ]
    mean = mean_of(
        start_margin_bet(0.1),
        branches,
        step_margin_values,
        lambda bet: bet.mixture.log_e,
    )
    assert mean == pytest.approx(1, rel=1e-9)


def test_without_a_margin_the_bets_are_those_on_labels() -> None:
    rho, ratio = 0.1, 1.02  # the grid's first excess ratio is 2 %
    stake = stakes(rho)[0]
    assert stake == pytest.approx(shifted(rho, 0.0198026273) - rho, rel=1e-6)
    bet = step_margin_bet(start_margin_bet(0.0), (50, 6, 950, 40, rho))
    import math

    alone = event_gains((6, 40, rho), (math.log(ratio),), 0.0)
    assert bet.mixture.grown[0] == pytest.approx(alone[0], rel=1e-9)


def test_counts_and_values_are_the_same_evidence() -> None:
    counted = step_margin_bet(start_margin_bet(0.05), (5, 2, 7, 3, 0.3))
    measured = step_margin_values(
        start_margin_bet(0.05), ([1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0], 0.3)
    )
    assert measured.mixture.grown == pytest.approx(counted.mixture.grown)
    assert measured.excess == pytest.approx(counted.excess)
    assert measured.events_candidate == counted.events_candidate == 2
    assert measured.events_baseline == counted.events_baseline == 3


def test_excess_is_measured_from_the_margin() -> None:
    # 30 of 100 against 10 of 100 at even shares: 0.2 apart, over 200 units.
    tick = (100, 30, 100, 10, 0.5)
    at = step_margin_bet(start_margin_bet(0.2), tick)
    assert at.excess == pytest.approx(0, abs=1e-9)
    assert step_margin_bet(start_margin_bet(0.19), tick).excess > 0
    assert step_margin_bet(start_margin_bet(0.21), tick).excess < 0


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_a_stratum_without_a_choice_brings_no_evidence(rho: float) -> None:
    for bet in (
        step_margin_bet(start_margin_bet(0.1), (5, 4, 7, 1, rho)),
        step_margin_values(start_margin_bet(0.1), ([1, 1, 1, 1, 0], [1, 0], rho)),
    ):
        assert bet.mixture.log_plain == pytest.approx(0, abs=1e-12)
        assert bet.excess == 0
        assert (bet.events_candidate, bet.events_baseline) == (4, 1)


@pytest.mark.parametrize("margin", [-0.001, 0.5])
def test_a_margin_lies_where_no_bet_can_ruin_the_gambler(margin: float) -> None:
    with pytest.raises(AssertionError):
        start_margin_bet(margin)


@pytest.mark.parametrize("rho", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_no_single_unit_can_ruin_the_gambler(rho: float) -> None:
    bet = start_margin_bet(0.499)
    for tick in ((1, 1, 0, 0, rho), (0, 0, 1, 1, rho), (1, 0, 1, 0, rho)):
        bet = step_margin_bet(bet, tick)
    assert len(bet.mixture.grown) == EXCESSES
    assert all(-20 < gain < 20 for gain in bet.mixture.grown)


@pytest.mark.parametrize("wrong", [(1, 2, 5, 1, 0.5), (5, 1, 1, 2, 0.5)])
def test_more_events_than_units_are_refused(wrong: Any) -> None:
    with pytest.raises(AssertionError):
        step_margin_bet(start_margin_bet(0.1), wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_harm_outside_zero_to_one_is_refused(wrong: float) -> None:
    with pytest.raises(AssertionError):
        step_margin_values(start_margin_bet(0.1), ([wrong], [0.5], 0.5))


def test_a_gambler_continues_from_where_it_was_stored() -> None:
    ticks = [(10, 2, 90, 9, 0.1), (50, 9, 50, 5, 0.5)]
    start = start_margin_bet(0.01)
    stored = json.loads(json.dumps(replay_margin(ticks[:1], start).as_dict()))
    revived = MarginBet.from_dict(stored)
    assert replay_margin(ticks[1:], revived) == replay_margin(ticks, start)
