"""Harm in one slice: claimed by e-BH, and only in the direction of harm."""

import math
from dataclasses import replace

import pytest

from router.analysis.labelbet import LabelBet, replay, start_label_bet
from router.analysis.slices import judge_slices

QUIET = replay([(3, 27, 0.1)] * 20)
HURT = replay([(12, 27, 0.1)] * 20)


def wealthy(log_e: float, excess: float = 1.0) -> LabelBet:
    start = start_label_bet()
    grown = (log_e,) * len(start.mixture.grown)
    mixture = replace(start.mixture, grown=grown, log_shared=log_e)
    return replace(start, mixture=mixture, excess=excess)


def test_a_slice_that_is_hurt_is_named_with_its_counts() -> None:
    bets = {"young": QUIET, "old": HURT, "new-york": QUIET}
    verdict = judge_slices(bets, 0.01)
    assert verdict.verdict == "fail"
    assert "worse in old, of 3 slices; in old 240 events" in verdict.reason
    assert verdict.numbers["hurt"] == "old"


def test_slices_without_harm_wait() -> None:
    verdict = judge_slices({"young": QUIET, "old": QUIET}, 0.01)
    assert verdict.verdict == "inconclusive"
    assert judge_slices({}, 0.01).verdict == "inconclusive"


def test_one_of_four_slices_needs_four_times_the_bar() -> None:
    bar = math.log(4 / 0.05)
    for log_e, answer in ((bar + 1e-9, "fail"), (bar - 1e-9, "inconclusive")):
        bets = {name: wealthy(-1.0) for name in "abc"} | {"d": wealthy(log_e)}
        assert judge_slices(bets, 0.05).verdict == answer


@pytest.mark.parametrize(("excess", "answer"), [(1e-9, "fail"), (0.0, "inconclusive")])
def test_evidence_that_points_the_other_way_is_no_harm(
    excess: float, answer: str
) -> None:
    assert judge_slices({"a": wealthy(9.0, excess)}, 0.05).verdict == answer


def test_a_peak_of_the_past_is_not_claimed() -> None:
    past = wealthy(0.0)
    past = replace(past, mixture=replace(past.mixture, log_peak=20.0))
    assert judge_slices({"a": past}, 0.05).verdict == "inconclusive"
