"""Judges a guardrail: may the candidate keep its traffic, compared with the baseline?

It fails when the gambler against it reached 1 / alpha, at whatever look. It passes
without proof of equality: enough units, no such evidence, and an upper bound of the
candidate's own rate below a ceiling, so that two variants which never fail do pass. In
between the answer is inconclusive. The time to soak is the controller's.
"""

import math
from dataclasses import dataclass

from router.analysis.betabinomial import rate_bounds
from router.analysis.binary import OutcomeBet
from router.analysis.labelbet import LabelBet
from router.analysis.margin import MarginBet
from router.analysis.verdict import Number, Verdict, percent, times

Bet = LabelBet | OutcomeBet | MarginBet


@dataclass(frozen=True, slots=True)
class Units:
    """How many randomised units each variant has served in this rollout."""

    candidate: int
    baseline: int


@dataclass(frozen=True, slots=True)
class Soak:
    """What leaves a step without proof of equality.

    `units_min` of the candidate, and its rate's upper bound at `alpha` not above
    `ceiling`. With no event at all the bound is about (3 + ln(n) / 2 + 0.6) / n at
    5 %: 0.7 % after 1,000 units.
    """

    units_min: int
    ceiling: float
    alpha: float = 0.05

    def __post_init__(self) -> None:
        assert self.units_min > 0, "no data is never enough"
        assert 0 < self.ceiling <= 1


def judge_error_rate(
    bet: Bet, units: Units, alpha: float, soak: Soak, name: str = "error rate"
) -> Verdict:
    """Say whether events happen too often in the candidate.

    Safe at every look: `alpha` is this guardrail's part of the rollout's whole, and the
    gambler lives as long as the rollout. For any events counted once per unit: errors,
    invalid outputs, fallbacks, answers beyond an SLO.
    """
    numbers = _numbers(bet, units, alpha)
    if _contradicts(bet, units):
        return Verdict("error", _said(f"{name}: more events than units", bet, units),
                       numbers)  # fmt: skip
    if is_beaten(bet, alpha):
        odds = f"odds of {times(bet.mixture.log_peak)} (the bar is {1 / alpha:.4g})"
        said = _said(f"{name}: worse than the baseline{_margin(bet)}", bet, units)
        return Verdict("fail", f"{said[:-1]}, {odds}.", numbers)
    if units.candidate < soak.units_min:
        wanted = f"{name}: too few units, {soak.units_min} are wanted"
        return Verdict("inconclusive", _said(wanted, bet, units), numbers)
    lower, upper = rate_bounds(bet.events_candidate, units.candidate, soak.alpha)
    numbers |= {"lower": lower, "upper": upper, "ceiling": soak.ceiling}
    bound = f"at most {percent(upper)}, the ceiling is {percent(soak.ceiling)}"
    if upper > soak.ceiling:
        reason = _said(f"{name}: not yet shown to be low enough, {bound}", bet, units)
        return Verdict("inconclusive", reason, numbers)
    reason = _said(f"{name}: no sign of harm and {bound}", bet, units)
    return Verdict("pass", reason, numbers)


def judge_binary(
    bet: OutcomeBet | MarginBet, units: Units, alpha: float, soak: Soak, name: str
) -> Verdict:
    """Say whether bad outcomes (no conversion, a wrong answer) became too frequent.

    The same rule as for errors; the units are those whose outcome is known.
    """
    return judge_error_rate(bet, units, alpha, soak, name)


def is_beaten(bet: Bet, alpha: float) -> bool:
    """Whether the null is refused, and in the direction that means harm."""
    return bet.mixture.log_peak >= math.log(1 / alpha) and bet.excess > 0


def _contradicts(bet: Bet, units: Units) -> bool:
    return (
        bet.events_candidate > units.candidate or bet.events_baseline > units.baseline
    )


def _numbers(bet: Bet, units: Units, alpha: float) -> dict[str, Number]:
    return {
        "events_candidate": bet.events_candidate,
        "events_baseline": bet.events_baseline,
        "units_candidate": units.candidate,
        "units_baseline": units.baseline,
        "log_e": bet.mixture.log_e,
        "log_e_peak": bet.mixture.log_peak,
        "alpha": alpha,
        "excess": bet.excess,
    }


def _margin(bet: Bet) -> str:
    match bet:
        case LabelBet(worse_by=margin) if margin:
            return f" by more than {percent(margin)} of it"
        case MarginBet(worse_by=margin) if margin:
            return f" by more than {100 * margin:.3g} percentage points"
    return ""


def _said(claim: str, bet: Bet, units: Units) -> str:
    return (
        f"{claim}: {bet.events_candidate:g} in {units.candidate} units of the "
        f"candidate, {bet.events_baseline:g} in {units.baseline} of the baseline."
    )
