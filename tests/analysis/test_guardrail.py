"""Guardrails: each comparison has a case on either side."""

import math
from dataclasses import replace
from typing import Any

import pytest

from router.analysis.binary import replay_outcomes
from router.analysis.guardrail import Soak, Units, judge_binary, judge_error_rate
from router.analysis.labelbet import LabelBet, replay, start_label_bet
from router.analysis.margin import replay_margin, start_margin_bet

SOAK = Soak(units_min=1_000, ceiling=0.02)
ENOUGH = Units(2_000, 18_000)
QUIET = replay([(0, 0, 0.1)])


def with_peak(log_peak: float, bet: LabelBet = QUIET) -> LabelBet:
    return replace(bet, mixture=replace(bet.mixture, log_peak=log_peak), excess=1.0)


def test_two_variants_that_never_fail_pass() -> None:
    verdict = judge_error_rate(QUIET, ENOUGH, 0.01, SOAK)
    assert verdict.verdict == "pass"
    assert "0 in 2000 units of the candidate" in verdict.reason
    assert verdict.numbers["upper"] < 0.02


def test_a_candidate_with_four_times_the_errors_fails() -> None:
    bet = replay([(4, 9, 0.1)] * 5)
    verdict = judge_error_rate(bet, Units(2_000, 18_000), 0.01, SOAK)
    assert verdict.verdict == "fail"
    assert "20 in 2000 units of the candidate, 45 in 18000" in verdict.reason
    assert "the bar is 100" in verdict.reason
    assert verdict.numbers["log_e_peak"] >= math.log(100)


def test_evidence_fails_exactly_at_its_bar() -> None:
    at = with_peak(math.log(100))
    below = with_peak(math.nextafter(math.log(100), 0))
    assert judge_error_rate(at, ENOUGH, 0.01, SOAK).verdict == "fail"
    assert judge_error_rate(below, ENOUGH, 0.01, SOAK).verdict == "pass"


def test_evidence_fails_before_there_are_enough_units_to_pass() -> None:
    early = Units(SOAK.units_min - 1, 9_000)
    assert judge_error_rate(with_peak(9.0), early, 0.01, SOAK).verdict == "fail"


def test_evidence_that_points_the_other_way_does_not_fail() -> None:
    turned = replace(with_peak(9.0), excess=0.0)
    assert judge_error_rate(turned, ENOUGH, 0.01, SOAK).verdict == "pass"
    tiny = replace(with_peak(9.0), excess=1e-9)
    assert judge_error_rate(tiny, ENOUGH, 0.01, SOAK).verdict == "fail"


def test_evidence_once_over_the_bar_cannot_be_waited_out() -> None:
    worse = replay([(4, 1, 0.3)] * 3)
    later = replay([(3, 7, 0.3)] * 9, worse)
    assert later.mixture.log_e < math.log(100) < later.mixture.log_peak
    assert later.excess > 0
    assert judge_error_rate(later, ENOUGH, 0.01, SOAK).verdict == "fail"


def test_no_data_is_inconclusive() -> None:
    verdict = judge_error_rate(start_label_bet(), Units(0, 0), 0.01, SOAK)
    assert verdict.verdict == "inconclusive"
    assert "too few units, 1000 are wanted" in verdict.reason


def test_a_step_passes_exactly_at_its_minimum_of_units() -> None:
    for units, answer in ((999, "inconclusive"), (1_000, "pass")):
        verdict = judge_error_rate(QUIET, Units(units, 9_000), 0.01, SOAK)
        assert verdict.verdict == answer


def test_a_step_passes_only_while_the_bound_is_not_above_the_ceiling() -> None:
    bound = float(judge_error_rate(QUIET, ENOUGH, 0.01, SOAK).numbers["upper"])
    for ceiling, answer in (
        (bound, "pass"),
        (math.nextafter(bound, 0), "inconclusive"),
    ):
        verdict = judge_error_rate(QUIET, ENOUGH, 0.01, replace(SOAK, ceiling=ceiling))
        assert verdict.verdict == answer
    assert "not yet shown to be low enough" in verdict.reason


@pytest.mark.parametrize(
    ("units", "answer"),
    [
        (Units(1, 1), "error"), (Units(2, 1), "error"), (Units(1, 2), "error"),
        (Units(2, 2), "inconclusive"),
    ],
)  # fmt: skip
def test_more_events_than_units_is_a_contradiction(units: Units, answer: str) -> None:
    bet = replay([(2, 2, 0.5)])
    assert judge_error_rate(bet, units, 0.01, SOAK).verdict == answer


@pytest.mark.parametrize(
    ("bet", "said"),
    [
        (replay([(50, 9, 0.3)] * 3), "worse than the baseline: "),
        (replay([(50, 9, 0.3)] * 3, start_label_bet(0.1)), "by more than 10 % of it: "),
        (
            replay_margin([(500, 50, 500, 3, 0.5)] * 3, start_margin_bet(0.002)),
            "by more than 0.2 percentage points: ",
        ),
        (
            replay_margin([(500, 50, 500, 3, 0.5)] * 3, start_margin_bet(0.0)),
            "worse than the baseline: ",
        ),
    ],
)
def test_a_failure_says_what_was_tolerated(bet: Any, said: str) -> None:
    verdict = judge_error_rate(bet, Units(2_000, 2_000), 0.01, SOAK)
    assert verdict.verdict == "fail"
    assert said in verdict.reason


def test_a_margin_holds_back_what_would_fail_without_it() -> None:
    ticks = [(1000, 12, 1000, 6, 0.5)] * 12
    strict = replay_margin(ticks, start_margin_bet(0.0))
    lenient = replay_margin(ticks, start_margin_bet(0.01))
    units = Units(12_000, 12_000)
    assert judge_error_rate(strict, units, 0.01, SOAK).verdict == "fail"
    assert judge_error_rate(lenient, units, 0.01, SOAK).verdict == "pass"


def test_accuracy_is_judged_by_wrong_answers() -> None:
    soak = Soak(units_min=100, ceiling=0.5)
    units = Units(1_000, 9_000)
    worse = replay_outcomes([(100, 45, 900, 270, 0.1)] * 10)
    verdict = judge_binary(worse, units, 0.01, soak, "wrong answers")
    assert verdict.verdict == "fail"
    assert verdict.reason.startswith("wrong answers: worse than the baseline")
    equal = replay_outcomes([(100, 30, 900, 270, 0.1)] * 10)
    assert judge_binary(equal, units, 0.01, soak, "wrong answers").verdict == "pass"


def test_soaking_without_units_or_a_ceiling_cannot_be_written() -> None:
    for wrong in ((0, 0.5), (10, 0.0), (10, 1.1)):
        with pytest.raises(AssertionError):
            Soak(*wrong)
    assert Soak(1, 1.0).units_min == 1
