"""Judges a shadow: every sampled request has both answers, so pairs are compared.

*Disagreement*: how often the answers differ, by a confidence sequence against a limit.
*Excess*: the same model asked twice may differ too (batching, threads), so a few
requests go to stable twice, and the bet is whether a difference came from the
candidate's comparison or from that noise floor. *Labelled pairs*: once the truth is
known only the discordant requests tell, and under "equally good" each is a fair coin:

    ln E = ln B(1/2 + k, 1/2 + n - k) - ln B(1/2, 1/2) + n ln 2

k of n discordant ones won by the candidate. Requests must have been sampled before they
were served, not by latency or outcome. A shadow says nothing about latency.
"""

import math
from dataclasses import dataclass

from router.analysis.betabinomial import JEFFREYS, log_beta, rate_bounds
from router.analysis.binary import OutcomeBet
from router.analysis.margin import MarginBet
from router.analysis.verdict import Number, Verdict, percent, times


@dataclass(frozen=True, slots=True)
class Pairs:
    """How many pairs were compared and how many of them differed."""

    compared: int
    differing: int


@dataclass(frozen=True, slots=True)
class Discordant:
    """Labelled pairs in which exactly one answer was right."""

    candidate_right: int
    stable_right: int

    @property
    def total(self) -> int:
        """How many pairs tell anything."""
        return self.candidate_right + self.stable_right


def judge_disagreement(
    pairs: Pairs, limit: float, alpha: float, pairs_min: int
) -> Verdict:
    """Say whether the candidate's answers differ more often than allowed."""
    assert pairs_min > 0, "no data is never enough"
    if not 0 <= pairs.differing <= pairs.compared:
        reason = f"{pairs.differing} differences in {pairs.compared} pairs."
        return Verdict("error", reason, {"compared": pairs.compared})
    lower, upper = rate_bounds(pairs.differing, pairs.compared, alpha)
    numbers: dict[str, Number] = {
        "compared": pairs.compared,
        "differing": pairs.differing,
        "lower": lower,
        "upper": upper,
        "limit": limit,
        "alpha": alpha,
    }
    said = (
        f"{pairs.differing} of {pairs.compared} answers differ, between "
        f"{percent(lower)} and {percent(upper)}; {percent(limit)} are allowed"
    )
    if lower > limit:
        return Verdict("fail", f"{said}.", numbers)
    if pairs.compared < pairs_min:
        reason = f"{said}, and {pairs_min} pairs are wanted."
        return Verdict("inconclusive", reason, numbers)
    if upper > limit:
        return Verdict("inconclusive", f"{said}: not known yet.", numbers)
    return Verdict("pass", f"{said}.", numbers)


def judge_excess(
    bet: OutcomeBet | MarginBet, shadow: Pairs, noise: Pairs, alpha: float
) -> Verdict:
    """Say whether the candidate differs from stable more than stable from itself.

    The bet's candidate is the shadow comparisons, its baseline the noise floor's, and
    rho the chance that a comparison was one of the shadow's. Fails or waits: that two
    models agree within noise is not something a pass could mean.
    """
    numbers: dict[str, Number] = {
        "compared": shadow.compared,
        "differing": shadow.differing,
        "noise_compared": noise.compared,
        "noise_differing": noise.differing,
        "log_e": bet.mixture.log_e,
        "log_e_peak": bet.mixture.log_peak,
        "alpha": alpha,
    }
    said = (
        f"{shadow.differing} of {shadow.compared} answers differ from stable's, and "
        f"{noise.differing} of {noise.compared} of stable's from its own, odds of "
        f"{times(bet.mixture.log_peak)} (the bar is {1 / alpha:.4g})"
    )
    if bet.mixture.log_peak >= math.log(1 / alpha) and bet.excess > 0:
        return Verdict("fail", f"More than noise: {said}.", numbers)
    return Verdict("inconclusive", f"Not told apart from noise: {said}.", numbers)


def log_e_discordant(found: Discordant) -> float:
    """ln E against "of the pairs that tell, each variant wins half"."""
    return (
        log_beta(JEFFREYS + found.candidate_right, JEFFREYS + found.stable_right)
        - log_beta(JEFFREYS, JEFFREYS)
        + found.total * math.log(2)
    )


def judge_labelled_pairs(found: Discordant, alpha: float) -> Verdict:
    """Say whether the candidate is right less often (fail) or more often (pass)."""
    log_e = log_e_discordant(found)
    numbers: dict[str, Number] = {
        "candidate_right": found.candidate_right,
        "stable_right": found.stable_right,
        "log_e": log_e,
        "alpha": alpha,
    }
    said = (
        f"of {found.total} requests on which only one was right, the candidate was "
        f"right on {found.candidate_right}, odds of {times(log_e)} (the bar is "
        f"{1 / alpha:.4g})"
    )
    if log_e < math.log(1 / alpha):
        return Verdict("inconclusive", f"Not told apart: {said}.", numbers)
    if found.candidate_right < found.stable_right:
        return Verdict("fail", f"Less accurate: {said}.", numbers)
    return Verdict("pass", f"More accurate: {said}.", numbers)
