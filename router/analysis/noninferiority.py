"""Judges a step that wants proof: the candidate is at most so much worse.

A gambler bets *against* "the rate is at least 1 + m times the baseline's"; when that
gambler is rich, the claim is refused and the step has passed. It takes many events:
with equal rates and rho = 0.1 about 1,300 for a margin of 25 % and 100 for one of
100 %, so margins are wide while the share is small. Every margin has its own gambler,
and all of them start with the rollout.
"""

import math

from router.analysis.guardrail import Units
from router.analysis.labelbet import LabelBet, shifted
from router.analysis.verdict import Number, Verdict, percent, times

# Up to this share of the candidate, this relative margin: what a test can decide in a
# reasonable time shrinks as the share grows.
MARGINS = ((0.01, 3.0), (0.05, 1.0), (0.25, 0.5), (1.0, 0.25))


def margin_for(share: float) -> float:
    """The relative margin that a step with this share of the candidate can prove."""
    assert 0 <= share <= 1
    return next(margin for upto, margin in MARGINS if share <= upto)


def judge_noninferior(
    bet: LabelBet, units: Units, alpha: float, name: str = "error rate"
) -> Verdict:
    """Say whether the candidate is proved to be at most `worse_by` worse.

    Passes or waits; that it is worse is for the guardrail to say.
    """
    assert bet.claim == "no worse", "this gambler bets that the candidate is worse"
    numbers: dict[str, Number] = {
        "events_candidate": bet.events_candidate,
        "events_baseline": bet.events_baseline,
        "units_candidate": units.candidate,
        "units_baseline": units.baseline,
        "log_e": bet.mixture.log_e,
        "log_e_peak": bet.mixture.log_peak,
        "worse_by": bet.worse_by,
        "alpha": alpha,
    }
    said = (
        f"{bet.events_candidate} in {units.candidate} units of the candidate, "
        f"{bet.events_baseline} in {units.baseline} of the baseline, odds of "
        f"{times(bet.mixture.log_peak)} (the bar is {1 / alpha:.4g})"
    )
    if bet.events_candidate > units.candidate or bet.events_baseline > units.baseline:
        return Verdict("error", f"{name}: more events than units: {said}.", numbers)
    margin = percent(bet.worse_by)
    if bet.mixture.log_peak >= math.log(1 / alpha):
        reason = f"{name}: shown to be less than {margin} worse: {said}."
        return Verdict("pass", reason, numbers)
    reason = f"{name}: not yet shown to be less than {margin} worse: {said}."
    return Verdict("inconclusive", reason, numbers)


def events_needed(rho: float, worse_by: float, alpha: float) -> float:
    """About how many events of both variants a proof takes when the rates are equal.

    ln(1 / alpha) over the information in one event; the median of runs is 0.9 to 1.5
    times that.
    """
    null = shifted(rho, math.log1p(worse_by))
    information = rho * math.log(rho / null) + (1 - rho) * math.log(
        (1 - rho) / (1 - null)
    )
    return math.log(1 / alpha) / information
