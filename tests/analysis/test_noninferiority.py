"""Proof that a candidate is not much worse: golden events, both sides of the bar."""

import math
from dataclasses import replace

import pytest

from router.analysis.guardrail import Units
from router.analysis.labelbet import LabelBet, replay, start_label_bet
from router.analysis.noninferiority import events_needed, judge_noninferior, margin_for

START = start_label_bet(0.5, "no worse")
ENOUGH = Units(10_000, 90_000)


def with_peak(log_peak: float) -> LabelBet:
    return replace(START, mixture=replace(START.mixture, log_peak=log_peak))


def test_equal_rates_are_shown_to_be_less_than_the_margin_apart() -> None:
    few, many = replay([(5, 45, 0.1)] * 3, START), replay([(5, 45, 0.1)] * 12, START)
    assert judge_noninferior(few, ENOUGH, 0.05).verdict == "inconclusive"
    verdict = judge_noninferior(many, ENOUGH, 0.05)
    assert verdict.verdict == "pass"
    assert "shown to be less than 50 % worse" in verdict.reason


def test_a_candidate_beyond_the_margin_never_passes() -> None:
    worse = replay([(9, 45, 0.1)] * 40, START)
    assert judge_noninferior(worse, ENOUGH, 0.05).verdict == "inconclusive"


def test_the_bar_is_met_exactly() -> None:
    bar = math.log(20)
    below = math.nextafter(bar, 0)
    assert judge_noninferior(with_peak(bar), ENOUGH, 0.05).verdict == "pass"
    assert judge_noninferior(with_peak(below), ENOUGH, 0.05).verdict == "inconclusive"


@pytest.mark.parametrize("units", [Units(1, 2), Units(2, 1)])
def test_more_events_than_units_is_a_contradiction(units: Units) -> None:
    bet = replay([(2, 2, 0.5)], START)
    assert judge_noninferior(bet, units, 0.05).verdict == "error"
    assert judge_noninferior(bet, Units(2, 2), 0.05).verdict == "inconclusive"


def test_a_gambler_on_harm_is_not_taken_for_one_on_equality() -> None:
    with pytest.raises(AssertionError):
        judge_noninferior(start_label_bet(0.5), ENOUGH, 0.05)


@pytest.mark.parametrize(
    ("share", "margin"),
    [(0.0, 3.0), (0.01, 3.0), (0.02, 1.0), (0.05, 1.0), (0.25, 0.5), (0.26, 0.25),
     (1.0, 0.25)],
)  # fmt: skip
def test_margins_shrink_as_the_share_grows(share: float, margin: float) -> None:
    assert margin_for(share) == margin


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_a_part_of_one(share: float) -> None:
    with pytest.raises(AssertionError):
        margin_for(share)


@pytest.mark.parametrize(
    ("rho", "worse_by", "median"),
    [(0.1, 0.25, 1340), (0.1, 0.5, 360), (0.1, 1.0, 104), (0.5, 0.25, 620),
     (0.5, 0.5, 140), (0.05, 1.0, 190)],
)  # fmt: skip
def test_planning_is_within_the_known_factor_of_simulated_medians(
    rho: float, worse_by: float, median: int
) -> None:
    assert 0.8 <= median / events_needed(rho, worse_by, 0.05) <= 1.6
