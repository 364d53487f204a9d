"""Judges slices: does the candidate hurt a subgroup, although the whole looks well?

One gambler a slice, and e-BH over all of them: the share of false claims stays below
alpha whatever the slices have in common, at any look, and with no harm anywhere the
chance of a single claim, ever, is at most alpha. The wealth of the moment counts and
not its peak: peaks of different moments do not add up to a bet anybody could have made.
"""

import math
from collections.abc import Mapping

from router.analysis.alpha import e_bh
from router.analysis.guardrail import Bet
from router.analysis.verdict import Number, Verdict, times


def judge_slices(
    bets: Mapping[str, Bet], alpha: float, name: str = "error rate"
) -> Verdict:
    """Say in which slices the candidate is worse than the baseline, if in any.

    Fails or waits: that no slice is hurt is nothing that silence could prove, and the
    guardrail over all of them is what passes a step.
    """
    log_es = {label: bet.mixture.log_e for label, bet in bets.items()}
    numbers: dict[str, Number] = {"slices": len(bets), "alpha": alpha}
    numbers |= {f"{label}_log_e": log_e for label, log_e in log_es.items()}
    hurt = [label for label in e_bh(log_es, alpha) if bets[label].excess > 0]
    if hurt:
        first = bets[hurt[0]]
        reason = (
            f"{name}: worse in {', '.join(hurt)}, of {len(bets)} slices; in {hurt[0]} "
            f"{first.events_candidate:g} events of the candidate and "
            f"{first.events_baseline:g} of the baseline, odds of "
            f"{times(log_es[hurt[0]])}."
        )
        return Verdict("fail", reason, numbers | {"hurt": ", ".join(hurt)})
    strongest = max(log_es.values(), default=-math.inf)
    reason = (
        f"{name}: no slice of {len(bets)} is shown to be hurt, the strongest odds are "
        f"{times(strongest)}."
    )
    return Verdict("inconclusive", reason, numbers)
