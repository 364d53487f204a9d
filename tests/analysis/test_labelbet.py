"""Bets on labels: golden values, exact validity, and what must not matter."""

import json
import math
from typing import Any

import pytest
from expectation import mean_of
from hypothesis import given, settings
from hypothesis import strategies as st

from router.analysis.labelbet import (
    LabelBet,
    add_events,
    log_e_events,
    log_ratios,
    pair_propensity,
    replay,
    shifted,
    spaced,
    start_label_bet,
    step_label_bet,
)
from router.analysis.mixture import log_sum

RHOS = (0.05, 0.11, 0.3, 0.5, 0.73, 0.02, 0.4, 0.25, 0.9)
WORSE = log_ratios(0.0, "worse")
TICKS = [(0, 50, 0.05), (12, 40, 0.10), (30, 45, 0.25)]

events = st.tuples(
    st.integers(0, 40), st.integers(0, 200), st.sampled_from([0.01, 0.05, 0.1, 0.5])
)


@pytest.mark.parametrize(
    ("ticks", "log_e"),
    [
        ([(3, 20, 0.05)], 0.714581299),
        ([(3, 20, 0.05), (8, 30, 0.10)], 2.201648817),
        (TICKS[:1], -2.08269921),
        (TICKS[:2], 0.054700386),
        (TICKS, 3.568798295),
    ],
)
def test_the_plain_mixture_has_its_golden_values(
    ticks: list[tuple[int, int, float]], log_e: float
) -> None:
    assert replay(ticks).mixture.log_plain == pytest.approx(log_e, rel=1e-6)
    assert log_e_events(ticks, WORSE) == pytest.approx(log_e, rel=1e-6)


@pytest.mark.parametrize(
    ("ticks", "log_e"), [(1, -0.575725584), (2, 0.047222447), (3, 2.929874281)]
)
def test_the_fixed_share_mixture_has_its_golden_values(
    ticks: int, log_e: float
) -> None:
    found = replay(TICKS[:ticks]).mixture.log_shared
    assert found == pytest.approx(log_e, rel=1e-6)


def test_the_non_inferiority_mixture_has_its_golden_value() -> None:
    grid = spaced(-math.log(3), 0.98 * math.log(1.25), 32)
    assert log_ratios(0.25, "no worse") == pytest.approx(grid)
    bet = replay([(60, 600, 0.1)], start_label_bet(0.25, "no worse"))
    assert bet.mixture.log_plain == pytest.approx(1.830345992, rel=1e-6)


def labels(rhos: tuple[float, ...], log_ratio: float = 0.0) -> list[Any]:
    """One event a tick: the candidate's with the chance that a rate ratio gives."""
    chances = [(shifted(rho, log_ratio), rho) for rho in rhos]
    return [[(p, (1, 0, rho)), (1 - p, (0, 1, rho))] for p, rho in chances]


STATISTICS = [
    pytest.param(lambda bet: bet.mixture.log_plain, id="plain"),
    pytest.param(lambda bet: bet.mixture.log_shared, id="fixed share"),
    pytest.param(lambda bet: bet.mixture.log_e, id="average"),
]


@pytest.mark.parametrize("log_e", STATISTICS)
@pytest.mark.parametrize(
    ("margin", "claim"), [(0.0, "worse"), (0.3, "worse"), (0.3, "no worse")]
)
def test_the_mean_over_all_labels_is_one(margin: float, claim: Any, log_e: Any) -> None:
    start = start_label_bet(margin, claim)
    branches = labels(RHOS[:7], math.log1p(margin))
    mean = mean_of(start, branches, step_label_bet, log_e)
    assert mean == pytest.approx(1, rel=1e-12)


def test_the_mean_is_below_one_where_the_null_allows_less_than_equality() -> None:
    def log_e(bet: LabelBet) -> float:
        return bet.mixture.log_e

    better = labels(RHOS[:6], math.log(0.7))
    assert mean_of(start_label_bet(), better, step_label_bet, log_e) < 0.95
    tolerated = labels(RHOS[:6], math.log(1.2))
    assert mean_of(start_label_bet(0.3), tolerated, step_label_bet, log_e) < 0.99
    worse = labels(RHOS[:6], math.log(1.5))
    against = start_label_bet(0.3, "no worse")
    assert mean_of(against, worse, step_label_bet, log_e) < 0.99


@settings(max_examples=30, deadline=None)
@given(st.lists(events, min_size=1, max_size=6), st.data())
def test_splitting_ticks_and_their_order_do_not_matter_to_the_plain_mixture(
    ticks: list[tuple[int, int, float]], data: st.DataObject
) -> None:
    split = []
    for x_b, x_a, rho in ticks:
        part_b = data.draw(st.integers(0, x_b))
        part_a = data.draw(st.integers(0, x_a))
        split += [(part_b, part_a, rho), (x_b - part_b, x_a - part_a, rho)]
    split = data.draw(st.permutations(split))
    whole, parts = replay(ticks).mixture, replay(split).mixture
    assert parts.log_plain == pytest.approx(whole.log_plain, rel=1e-9, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(events, min_size=1, max_size=4), st.randoms())
def test_replicas_merge_in_any_order_within_a_tick(
    strata: list[tuple[int, int, float]], order: Any
) -> None:
    shuffled = list(strata)
    order.shuffle(shuffled)
    one = step_label_bet(start_label_bet(), *strata)
    other = step_label_bet(start_label_bet(), *shuffled)
    assert one.mixture.log_e == pytest.approx(other.mixture.log_e, rel=1e-9, abs=1e-9)
    assert one.events_candidate == other.events_candidate
    assert one.events_baseline == other.events_baseline


@settings(max_examples=30, deadline=None)
@given(st.lists(events, min_size=1, max_size=5))
def test_swapping_the_variants_swaps_the_sign_of_the_bets(
    ticks: list[tuple[int, int, float]],
) -> None:
    swapped = [(x_a, x_b, 1 - rho) for x_b, x_a, rho in ticks]
    opposite = tuple(-delta for delta in WORSE)
    assert log_e_events(swapped, opposite) == pytest.approx(
        log_e_events(ticks, WORSE), rel=1e-9, abs=1e-9
    )


def test_counts_of_replicas_add_up() -> None:
    assert add_events([(1, 2, 0.1), (3, 4, 0.1)]) == (4, 6, 0.1)
    with pytest.raises(AssertionError):
        add_events([(1, 2, 0.1), (3, 4, 0.2)])


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_a_stratum_without_a_choice_brings_no_evidence(rho: float) -> None:
    bet = step_label_bet(start_label_bet(), (5, 7, rho))
    assert bet.mixture.log_plain == 0
    assert bet.mixture.log_e == pytest.approx(0, abs=1e-12)
    assert bet.excess == 0
    assert (bet.events_candidate, bet.events_baseline) == (5, 7)


def test_a_tick_without_events_costs_nothing() -> None:
    bet = step_label_bet(start_label_bet(), (0, 0, 0.3))
    assert bet.mixture.log_e == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("wrong", [(-1, 0, 0.5), (0, -1, 0.5)])
def test_negative_counts_are_refused(wrong: tuple[int, int, float]) -> None:
    with pytest.raises(AssertionError):
        step_label_bet(start_label_bet(), wrong)


def test_excess_says_in_which_direction_the_evidence_points() -> None:
    assert step_label_bet(start_label_bet(), (2, 8, 0.2)).excess == pytest.approx(0)
    assert step_label_bet(start_label_bet(), (3, 8, 0.2)).excess > 0
    assert step_label_bet(start_label_bet(), (1, 8, 0.2)).excess < 0
    # Half more is tolerated: 3 for 8 is exactly that at one in five.
    assert step_label_bet(start_label_bet(0.5), (3, 8, 0.2)).excess == pytest.approx(0)


def test_the_peak_remembers_evidence_that_later_weakened() -> None:
    strong = step_label_bet(start_label_bet(), (9, 1, 0.3))
    weak = step_label_bet(strong, (0, 60, 0.3))
    assert weak.mixture.log_e < strong.mixture.log_e
    assert weak.mixture.log_peak == strong.mixture.log_e == strong.mixture.log_peak


def test_a_late_fault_is_seen_sooner_by_the_fixed_share() -> None:
    healthy, faulty = [(10, 90, 0.1)] * 100, [(20, 90, 0.1)] * 6
    found = replay(healthy + faulty).mixture
    assert found.log_shared > found.log_plain + 3


def test_wealth_beyond_what_a_double_holds_is_kept() -> None:
    found = replay([(5_000, 100, 0.1)] * 3).mixture
    assert found.log_e > 800
    assert found.log_e == pytest.approx(
        log_sum((found.log_plain, found.log_shared)) - math.log(2)
    )


def test_a_gambler_continues_from_where_it_was_stored() -> None:
    stored = json.loads(json.dumps(replay(TICKS[:2]).as_dict()))
    revived = LabelBet.from_dict(stored)
    assert revived == replay(TICKS[:2])
    assert step_label_bet(revived, TICKS[2]) == replay(TICKS)


def test_a_grid_lies_wholly_on_the_claimed_side() -> None:
    assert min(log_ratios(0.25, "worse")) > math.log(1.25)
    assert max(log_ratios(0.25, "no worse")) < math.log(1.25)
    with pytest.raises(AssertionError):
        log_ratios(0.0, "no worse")
    with pytest.raises(AssertionError):
        log_ratios(-1.0, "worse")


def test_two_of_three_variants_are_compared_at_their_own_odds() -> None:
    assert pair_propensity(0.1, 0.3) == pytest.approx(0.25)


def test_a_gambler_needs_alternatives_and_a_restart_between_none_and_always() -> None:
    for restart in (0.0, 1.0):
        with pytest.raises(AssertionError):
            start_label_bet(restart=restart)
    assert log_sum([-math.inf, -math.inf]) == -math.inf
