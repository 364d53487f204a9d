"""Judges latency against the baseline's: how often is it beyond a quantile of theirs?

At each tick the thresholds are the baseline's p90, p99 and p99.9 of the *previous*
tick, on a bucket edge, so that the bet is fixed before the data and exceedances are
counted exactly. Each quantile has its gambler (`labelbet` on first exceedances per
unit; for independent requests `binary` may be used), and the wealth is averaged:
evidence that some quantile is worse. Exact while the latency of everybody drifts.

p50 is absent on purpose: nearly every unit exceeds it within a few requests. Compare
only with the baseline slice, which is queued and batched like the candidate.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping

from router.analysis.binary import OutcomeBet
from router.analysis.guardrail import Units, is_beaten
from router.analysis.labelbet import LabelBet
from router.analysis.mixture import log_mean
from router.analysis.quantile import Histogram, quantile_edge
from router.analysis.verdict import Number, Verdict, times

QUANTILES = (0.9, 0.99, 0.999)


def thresholds(
    baseline: Histogram, quantile: float, worse_by: float = 0.0
) -> tuple[float, float] | None:
    """The next tick's thresholds, of the baseline and of the candidate.

    The candidate's is higher by the relative margin, and rounded up to an edge, which
    is in its favour by less than one bucket. None while the baseline has no such
    quantile: then nothing is bet.
    """
    assert worse_by >= 0
    edge = quantile_edge(baseline, quantile)
    if edge is None:
        return None
    ours = baseline.edges[edge]
    # An edge times (1 + 0) is the edge itself; products carry a last digit of noise.
    theirs = bisect_left(baseline.edges, ours * (1 + worse_by) * (1 - 1e-12))
    if theirs == len(baseline.edges):
        return None
    return ours, baseline.edges[theirs]


def judge_exceedance(
    bets: Mapping[str, LabelBet | OutcomeBet],
    units: Units,
    alpha: float,
    units_min: int,
    name: str = "latency",
) -> Verdict:
    """Say whether the candidate is slower at some of these quantiles.

    Fails when the average wealth reaches 1 / alpha, or when one gambler alone once had
    as many times that as there are gamblers. Passes after enough units without such
    evidence; pair it with a ceiling on the quantile itself, because variants that
    share a machine slow each other down.
    """
    assert units_min > 0, "no data is never enough"
    if not bets:
        reason = f"{name}: no threshold yet, the baseline has not been measured."
        return Verdict("inconclusive", reason)
    if any(
        bet.events_candidate > units.candidate or bet.events_baseline > units.baseline
        for bet in bets.values()
    ):
        reason = f"{name}: more units exceeded a threshold than there are units."
        return Verdict("error", reason, _numbers(bets, units))
    log_e = log_mean([bet.mixture.log_e for bet in bets.values()])
    worst = max(bets, key=lambda label: bets[label].mixture.log_peak)
    beaten = [label for label, bet in bets.items() if is_beaten(bet, alpha / len(bets))]
    leads = max(bets, key=lambda label: bets[label].mixture.log_e)
    is_slower = log_e >= math.log(1 / alpha) and bets[leads].excess > 0
    numbers = _numbers(bets, units) | {"log_e": log_e, "alpha": alpha}
    said = _said(bets[worst], worst, units)
    if beaten or is_slower:
        found = beaten[0] if beaten else leads
        odds = max(log_e, bets[found].mixture.log_peak - math.log(len(bets)))
        reason = (
            f"{name}: slower than the baseline at {found}, odds of {times(odds)} "
            f"(the bar is {1 / alpha:.4g}): {_said(bets[found], found, units)}."
        )
        return Verdict("fail", reason, numbers)
    if units.candidate < units_min:
        reason = f"{name}: too few units, {units_min} are wanted: {said}."
        return Verdict("inconclusive", reason, numbers)
    reason = f"{name}: no sign of being slower: {said}."
    return Verdict("pass", reason, numbers)


def _numbers(
    bets: Mapping[str, LabelBet | OutcomeBet], units: Units
) -> dict[str, Number]:
    numbers: dict[str, Number] = {
        "units_candidate": units.candidate,
        "units_baseline": units.baseline,
    }
    for label, bet in bets.items():
        numbers[f"{label}_events_candidate"] = bet.events_candidate
        numbers[f"{label}_events_baseline"] = bet.events_baseline
        numbers[f"{label}_log_e"] = bet.mixture.log_e
        numbers[f"{label}_log_e_peak"] = bet.mixture.log_peak
    return numbers


def _said(bet: LabelBet | OutcomeBet, label: str, units: Units) -> str:
    return (
        f"{bet.events_candidate} of {units.candidate} units of the candidate and "
        f"{bet.events_baseline} of {units.baseline} of the baseline exceeded the "
        f"baseline's {label}"
    )
