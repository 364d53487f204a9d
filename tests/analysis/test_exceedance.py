"""Latency against the baseline's: thresholds on edges, and evidence at any quantile."""

import math
from dataclasses import replace

import pytest

from router.analysis.exceedance import judge_exceedance, thresholds
from router.analysis.guardrail import Units
from router.analysis.labelbet import LabelBet, replay, start_label_bet
from router.analysis.quantile import Histogram, latency_edges

EDGES = (10.0, 11.0, 12.0, 13.0, 14.0)
BASELINE = Histogram(EDGES, (900, 90, 9, 1, 0, 0))
ENOUGH = Units(2_000, 2_000)
QUIET = replay([(0, 0, 0.5)])


def at(log_e: float, log_peak: float, excess: float = 1.0) -> LabelBet:
    """A gambler with that wealth."""
    grown = (log_e,) * len(QUIET.mixture.grown)
    mixture = replace(
        QUIET.mixture, grown=grown, log_shared=log_e, log_peak=max(log_peak, log_e)
    )
    return replace(QUIET, mixture=mixture, excess=excess)


@pytest.mark.parametrize(
    ("quantile", "worse_by", "found"),
    [
        (0.9, 0.0, (10.0, 10.0)),
        (0.9, 0.1, (10.0, 11.0)),
        (0.9, 0.11, (10.0, 12.0)),  # in the candidate's favour
        (0.99, 0.0, (11.0, 11.0)),
        (0.999, 0.0, (12.0, 12.0)),
        (0.99, 0.28, None),  # beyond the last edge nothing can be counted
    ],
)
def test_thresholds_are_edges_and_the_margin_is_the_candidates(
    quantile: float, worse_by: float, found: tuple[float, float] | None
) -> None:
    assert thresholds(BASELINE, quantile, worse_by) == found


def test_the_engines_edges_survive_a_margin_of_nothing() -> None:
    edges = latency_edges()
    for edge in (100, 333, 640, 800):
        counts = [0] * (len(edges) + 1)
        counts[edge] = 10
        found = thresholds(Histogram(edges, counts), 0.99)
        assert found == (edges[edge], edges[edge])


def test_without_a_baseline_there_is_no_threshold() -> None:
    assert thresholds(Histogram(EDGES, (0,) * 6), 0.99) is None
    assert thresholds(Histogram(EDGES, (0, 0, 0, 0, 0, 9)), 0.99) is None


def test_no_threshold_yet_is_inconclusive() -> None:
    assert judge_exceedance({}, ENOUGH, 0.01, 100).verdict == "inconclusive"


def test_a_slower_candidate_fails_and_the_quantile_is_named() -> None:
    bets = {"p90": replay([(10, 10, 0.5)] * 9), "p99": replay([(8, 2, 0.5)] * 9)}
    verdict = judge_exceedance(bets, Units(300, 300), 0.01, 1_000)
    assert verdict.verdict == "fail"
    assert "slower than the baseline at p99" in verdict.reason
    assert "72 of 300 units of the candidate and 18 of 300" in verdict.reason
    assert verdict.numbers["p99_events_candidate"] == 72


def test_average_wealth_fails_exactly_at_its_bar() -> None:
    bar = math.log(100)
    for log_e, answer in ((bar + 1e-9, "fail"), (bar - 1e-9, "pass")):
        bets = {name: at(log_e, 0.0) for name in ("p90", "p99")}
        assert judge_exceedance(bets, ENOUGH, 0.01, 100).verdict == answer


def test_one_gambler_alone_fails_at_as_many_times_the_bar_as_there_are() -> None:
    bar = math.log(300)
    for log_peak, answer in ((bar + 1e-9, "fail"), (bar - 1e-9, "pass")):
        bets = {"p90": at(0.0, 0.0), "p99": at(0.0, log_peak), "p99.9": at(0.0, 0.0)}
        assert judge_exceedance(bets, ENOUGH, 0.01, 100).verdict == answer


def test_evidence_that_points_the_other_way_does_not_fail() -> None:
    for excess, answer in ((1e-9, "fail"), (0.0, "pass")):
        bets = {"p90": at(9.0, 9.0, excess), "p99": at(-1.0, 0.0)}
        assert judge_exceedance(bets, ENOUGH, 0.01, 100).verdict == answer


def test_the_direction_is_that_of_the_leading_quantile() -> None:
    # Together over the bar, alone neither: what leads says which way it points.
    for excess, answer in ((1e-9, "fail"), (0.0, "pass")):
        bets = {"p90": at(5.0, 0.0, excess), "p99": at(4.9, 0.0, 1.0)}
        assert judge_exceedance(bets, ENOUGH, 0.01, 100).verdict == answer


def test_latency_passes_exactly_at_its_minimum_of_units() -> None:
    for units, answer in ((99, "inconclusive"), (100, "pass")):
        verdict = judge_exceedance({"p99": QUIET}, Units(units, 900), 0.01, 100)
        assert verdict.verdict == answer
    with pytest.raises(AssertionError):
        judge_exceedance({"p99": QUIET}, ENOUGH, 0.01, 0)


@pytest.mark.parametrize("units", [Units(1, 9), Units(9, 1)])
def test_more_exceedances_than_units_is_a_contradiction(units: Units) -> None:
    bets = {"p90": start_label_bet(), "p99": replay([(2, 2, 0.5)])}
    assert judge_exceedance(bets, units, 0.01, 5).verdict == "error"
    assert judge_exceedance(bets, Units(2, 2), 0.01, 1).verdict == "pass"
