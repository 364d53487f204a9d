"""The observed split against the plan: golden values, exact validity, both sides."""

import json
import math
from dataclasses import replace

import pytest
from expectation import mean_of

from router.analysis.srm import (
    STRATA_OPEN_MAX,
    Split,
    SplitBet,
    chi_square_statistic,
    judge_srm,
    log_e_split,
    step_split_bet,
)

EVEN = (0.5, 0.5)


def split(
    counts: tuple[int, ...],
    planned: tuple[float, ...] = EVEN,
    stratum: str = "everyone/1",
) -> Split:
    return Split(stratum, planned, counts)


@pytest.mark.parametrize(
    ("counts", "planned", "concentration", "log_e", "p_value"),
    [
        ((500, 600), EVEN, 1e4, 0.398315, 0.671451),
        ((500, 600), EVEN, 100, 2.930244, 0.053384),
        ((100, 900), EVEN, 1e4, 29.071603, 2.3679e-13),
        ((50000, 51000), EVEN, 1e4, 3.301111, 0.0368422),
        ((40, 129, 233), (0.1, 0.4, 0.5), 100, 3.027101, 0.0484559),
        ((148, 62), (0.8, 0.2), 100, 3.088294, 0.0455796),
    ],
)
def test_splits_have_their_golden_values(
    counts: tuple[int, ...],
    planned: tuple[float, ...],
    concentration: float,
    log_e: float,
    p_value: float,
) -> None:
    found = log_e_split(split(counts, planned), concentration)
    # Printed to six decimals; p-values to six digits, 2.3679e-13 to five.
    assert found == pytest.approx(log_e, abs=6e-7)
    assert math.exp(-found) == pytest.approx(p_value, rel=2.2e-5)


@pytest.mark.parametrize(
    ("counts", "planned", "statistic"),
    [
        ((500, 600), EVEN, 9.090909),
        ((50000, 51000), EVEN, 9.90099),
        ((500, 600, 0), (0.5, 0.5, 0.0), 9.090909),
    ],
)
def test_pearsons_statistic_has_its_golden_values(
    counts: tuple[int, ...], planned: tuple[float, ...], statistic: float
) -> None:
    found = chi_square_statistic(counts, planned)
    assert found == pytest.approx(statistic, rel=1e-6)


def test_the_mean_over_all_assignments_is_one_across_strata() -> None:
    plans = [("1", (0.2, 0.3, 0.5))] * 3 + [("2", (0.6, 0.1, 0.3))] * 3
    branches = [
        [
            (share, Split(name, plan, tuple(int(i == j) for j in range(3))))
            for i, share in enumerate(plan)
        ]
        for name, plan in plans
    ]
    start = SplitBet(concentration=5.0)
    mean = mean_of(start, branches, step_split_bet, lambda bet: bet.log_e)
    assert mean == pytest.approx(1, rel=1e-12)


def test_a_ramp_is_judged_stratum_by_stratum() -> None:
    # 1 % and then 50 %: pooled the counts fit neither plan, and that is no mismatch.
    bet = step_split_bet(
        SplitBet(),
        split((100, 9900), (0.01, 0.99), "everyone/1"),
        split((5000, 5000), EVEN, "everyone/2"),
    )
    assert judge_srm(bet, 0.001).verdict == "pass"
    assert bet.log_e == pytest.approx(sum(log_e_split(one) for one in bet.open))


def test_ticks_of_one_stratum_add_up() -> None:
    once = step_split_bet(SplitBet(), split((500, 600)))
    twice = step_split_bet(
        step_split_bet(SplitBet(), split((200, 300))), split((300, 300))
    )
    assert twice.log_e == once.log_e
    with pytest.raises(AssertionError):
        step_split_bet(once, split((1, 1), (0.4, 0.6)))


def test_a_mismatch_fails_exactly_at_its_bar() -> None:
    bar = math.log(1000)
    calm = step_split_bet(SplitBet(), split((500, 500)))
    at, below = replace(calm, log_peak=bar), math.nextafter(bar, 0)
    assert judge_srm(at, 0.001).verdict == "fail"
    assert judge_srm(replace(calm, log_peak=below), 0.001).verdict == "pass"


def test_a_mismatch_is_told_with_its_counts() -> None:
    bet = step_split_bet(SplitBet(), split((100, 900)))
    verdict = judge_srm(bet, 0.001, where="label join")
    assert verdict.verdict == "fail"
    assert "planned 0.5 : 0.5, counted 100 : 900" in verdict.reason
    assert verdict.numbers["p_value"] == pytest.approx(2.3679e-13, rel=2e-5)


def test_no_data_is_inconclusive() -> None:
    verdict = judge_srm(SplitBet(), 0.001)
    assert verdict.verdict == "inconclusive"
    assert "nothing was counted" in verdict.reason


def test_a_split_passes_exactly_at_its_minimum_of_units() -> None:
    bet = step_split_bet(SplitBet(), split((50, 50)))
    assert judge_srm(bet, 0.001, units_min=100).verdict == "pass"
    assert judge_srm(bet, 0.001, units_min=101).verdict == "inconclusive"


def test_a_variant_without_a_share_that_served_is_a_mismatch_at_once() -> None:
    bet = step_split_bet(SplitBet(), split((500, 499, 1), (0.5, 0.5, 0.0)))
    verdict = judge_srm(bet, 0.001)
    assert verdict.verdict == "fail"
    assert verdict.numbers["log_e"] == "unbounded"
    none = step_split_bet(SplitBet(), split((500, 500, 0), (0.5, 0.5, 0.0)))
    assert judge_srm(none, 0.001).verdict == "pass"


def test_old_strata_are_closed_and_keep_their_evidence() -> None:
    bet = SplitBet()
    strata = [split((60, 40), EVEN, f"everyone/{i}") for i in range(STRATA_OPEN_MAX)]
    for one in strata:
        bet = step_split_bet(bet, one)
    assert (len(bet.open), bet.closed) == (STRATA_OPEN_MAX, 0)
    # The stratum used longest ago goes, not the one that was opened first.
    bet = step_split_bet(bet, split((0, 0), EVEN, "everyone/0"))
    before = bet.log_e
    bet = step_split_bet(bet, split((0, 0), EVEN, "everyone/new"))
    assert (len(bet.open), bet.closed) == (STRATA_OPEN_MAX, 1)
    assert bet.open[-2].stratum == "everyone/0"
    assert bet.log_closed == pytest.approx(log_e_split(strata[1]))
    assert bet.log_e == pytest.approx(before)


def test_a_gambler_continues_from_where_it_was_stored() -> None:
    bet = step_split_bet(SplitBet(), split((500, 600)), split((9, 1), stratum="2"))
    assert SplitBet.from_dict(json.loads(json.dumps(bet.as_dict()))) == bet


@pytest.mark.parametrize("planned", [(0.5, 0.4), (1.2, -0.2)])
def test_a_plan_adds_up_to_one(planned: tuple[float, float]) -> None:
    with pytest.raises(AssertionError):
        split((1, 1), planned)
    with pytest.raises(AssertionError):
        split((1, 1, 1), EVEN)
