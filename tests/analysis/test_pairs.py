"""Shadow pairs: disagreement, noise floor, and who was right when they disagreed."""

import math
from dataclasses import replace

import pytest
from expectation import mean_of

from router.analysis.betabinomial import rate_bounds
from router.analysis.binary import OutcomeBet, replay_outcomes, start_outcome_bet
from router.analysis.pairs import (
    Discordant,
    Pairs,
    judge_disagreement,
    judge_excess,
    judge_labelled_pairs,
    log_e_discordant,
)


@pytest.mark.parametrize(
    ("pairs", "answer"),
    [
        (Pairs(0, 0), "inconclusive"),
        (Pairs(999, 0), "inconclusive"),
        (Pairs(1000, 0), "pass"),
        (Pairs(1000, 45), "inconclusive"),
        (Pairs(1000, 100), "fail"),
        (Pairs(100, 60), "fail"),
        (Pairs(5, 6), "error"),
        (Pairs(5, -1), "error"),
    ],
)
def test_disagreement_is_judged_by_its_interval(pairs: Pairs, answer: str) -> None:
    assert judge_disagreement(pairs, 0.05, 0.05, 1000).verdict == answer


def test_disagreement_is_compared_with_its_bounds_exactly() -> None:
    pairs = Pairs(2000, 100)
    lower, upper = rate_bounds(100, 2000, 0.05)
    cases = [
        (lower, "inconclusive"), (math.nextafter(lower, 0), "fail"),
        (upper, "pass"), (math.nextafter(upper, 0), "inconclusive"),
    ]  # fmt: skip
    for limit, answer in cases:
        assert judge_disagreement(pairs, limit, 0.05, 2000).verdict == answer
    assert judge_disagreement(pairs, upper, 0.05, 2001).verdict == "inconclusive"
    with pytest.raises(AssertionError):
        judge_disagreement(pairs, upper, 0.05, 0)


def test_a_candidate_that_differs_like_noise_is_not_told_apart() -> None:
    # One comparison in ten is stable against itself.
    bet = replay_outcomes([(900, 18, 100, 2, 0.9)] * 10)
    verdict = judge_excess(bet, Pairs(9000, 180), Pairs(1000, 20), 0.01)
    assert verdict.verdict == "inconclusive"
    assert "20 of 1000 of stable's from its own" in verdict.reason


def test_a_candidate_that_differs_more_than_noise_fails() -> None:
    bet = replay_outcomes([(900, 90, 100, 2, 0.9)] * 10)
    verdict = judge_excess(bet, Pairs(9000, 900), Pairs(1000, 20), 0.01)
    assert verdict.verdict == "fail"


def test_excess_fails_exactly_at_its_bar_and_in_its_direction() -> None:
    def bet(log_peak: float, excess: float) -> OutcomeBet:
        start = start_outcome_bet()
        mixture = replace(start.mixture, log_peak=log_peak)
        return replace(start, mixture=mixture, excess=excess)

    bar = math.log(100)
    cases = [
        (bet(bar, 1e-9), "fail"), (bet(math.nextafter(bar, 0), 1.0), "inconclusive"),
        (bet(bar, 0.0), "inconclusive"),
    ]  # fmt: skip
    for found, answer in cases:
        assert judge_excess(found, Pairs(9, 1), Pairs(9, 1), 0.01).verdict == answer


def test_discordant_pairs_have_their_golden_value() -> None:
    found = log_e_discordant(Discordant(25, 12))
    assert found == pytest.approx(0.294618, abs=5e-7)


def test_the_mean_over_all_fair_coins_is_one() -> None:
    coin = [(0.5, (1, 0)), (0.5, (0, 1))]
    mean = mean_of(
        Discordant(0, 0),
        [coin] * 10,
        lambda was, won: Discordant(
            was.candidate_right + won[0], was.stable_right + won[1]
        ),
        log_e_discordant,
    )
    assert mean == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (Discordant(0, 0), "inconclusive"),
        (Discordant(25, 12), "inconclusive"),
        (Discordant(10, 40), "fail"),
        (Discordant(40, 10), "pass"),
    ],
)
def test_labelled_pairs_say_who_is_right_more_often(
    found: Discordant, answer: str
) -> None:
    assert judge_labelled_pairs(found, 0.05).verdict == answer


def test_labelled_pairs_are_judged_exactly_at_the_bar() -> None:
    found = Discordant(10, 40)
    alpha = math.exp(-log_e_discordant(found))
    assert judge_labelled_pairs(found, alpha * (1 + 1e-9)).verdict == "fail"
    assert judge_labelled_pairs(found, alpha * (1 - 1e-9)).verdict == "inconclusive"
