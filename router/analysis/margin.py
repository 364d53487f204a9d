"""Bets on an absolute margin: the candidate's rate is more than d above the baseline's.

A unit with harm y in [0, 1] counts as y / rho when it was the candidate's and as
-y / (1 - rho) when it was the baseline's: on average that is the difference of the two,
whatever the baseline does. The gambler's wealth is the product of

    1 + lambda (phi - d)

which cannot grow on average while the difference is at most d (Waudby-Smith and Ramdas
2024). Exact for bounded harm and predictable rho and lambda. The lambdas follow rho and
a grid of rate ratios; with d = 0 they make the very bets of `labelbet`, and small ones
are added because with a margin only the part beyond it pays.

Harm that is not a count of events goes in value by value (`step_margin_values`): a
reward in [0, 1] is harm 1 - reward.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from router.analysis.binary import Outcomes
from router.analysis.labelbet import spaced
from router.analysis.mixture import RESTART, Mixture, grow, start_mixture

# Harm of each unit of the candidate, of the baseline, and rho.
Harms = tuple[Sequence[float], Sequence[float], float]

# Excess rate ratios from 2 % (barely beyond a margin) to sevenfold.
EXCESS_FIRST, EXCESS_LAST, EXCESSES = 0.02, 7.0, 24
MARGIN_MAX = 0.5  # up to here no lambda of the grid can bankrupt the gambler


@dataclass(frozen=True, slots=True)
class MarginBet:
    """A gambler on a difference of rates; `worse_by` is the margin, 0.002 for 0.2 pp.

    `excess` adds phi - d: above zero when the candidate is worse than allowed.
    """

    worse_by: float
    mixture: Mixture
    events_candidate: float = 0
    events_baseline: float = 0
    excess: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The gambler as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "MarginBet":
        """The gambler that `as_dict` wrote."""
        return cls(**{**stored, "mixture": Mixture.from_dict(stored["mixture"])})


def start_margin_bet(worse_by: float, restart: float = RESTART) -> MarginBet:
    """A gambler who has seen nothing yet."""
    assert 0 <= worse_by < MARGIN_MAX
    return MarginBet(worse_by, start_mixture(EXCESSES, restart))


def step_margin_bet(bet: MarginBet, *strata: Outcomes) -> MarginBet:
    """The gambler after one tick of counted events: n_b, x_b, n_a, x_a, rho."""
    for n_b, x_b, n_a, x_a, _ in strata:
        assert 0 <= x_b <= n_b
        assert 0 <= x_a <= n_a
    gains = [0.0] * EXCESSES
    excess = bet.excess
    for n_b, x_b, n_a, x_a, rho in strata:
        if not 0 < rho < 1:
            continue  # nobody to compare with
        quiet = n_b - x_b + n_a - x_a
        for i, stake in enumerate(stakes(rho)):
            gains[i] += (
                x_b * math.log1p(stake * (1 / rho - bet.worse_by))
                + x_a * math.log1p(stake * (-1 / (1 - rho) - bet.worse_by))
                + quiet * math.log1p(-stake * bet.worse_by)
            )
        excess += x_b / rho - x_a / (1 - rho) - (n_b + n_a) * bet.worse_by
    return replace(
        bet,
        mixture=grow(bet.mixture, gains),
        events_candidate=bet.events_candidate + sum(x_b for _, x_b, _, _, _ in strata),
        events_baseline=bet.events_baseline + sum(x_a for _, _, _, x_a, _ in strata),
        excess=excess,
    )


def step_margin_values(bet: MarginBet, *strata: Harms) -> MarginBet:
    """The gambler after one tick of measured harm, each value in [0, 1]."""
    # Here and not above: counted events need no arrays, and a server that only counts
    # starts without them.
    import numpy as np

    gains = np.zeros(EXCESSES)
    excess, candidate, baseline = bet.excess, 0.0, 0.0
    for harm_b, harm_a, rho in strata:
        theirs, ours = np.asarray(harm_b, float), np.asarray(harm_a, float)
        both = np.concatenate([theirs, ours])
        assert np.all((both >= 0) & (both <= 1)), "harm is a number from 0 to 1"
        candidate, baseline = candidate + theirs.sum(), baseline + ours.sum()
        if not 0 < rho < 1:
            continue  # nobody to compare with
        gap = np.concatenate([theirs / rho, -ours / (1 - rho)]) - bet.worse_by
        gains += np.log1p(np.outer(stakes(rho), gap)).sum(axis=1)
        excess += gap.sum()
    return replace(
        bet,
        mixture=grow(bet.mixture, gains.tolist()),
        events_candidate=bet.events_candidate + float(candidate),
        events_baseline=bet.events_baseline + float(baseline),
        excess=float(excess),
    )


def replay_margin(ticks: Iterable[Outcomes], bet: MarginBet) -> MarginBet:
    """The gambler after many ticks of one stratum each."""
    for tick in ticks:
        bet = step_margin_bet(bet, tick)
    return bet


def stakes(rho: float) -> tuple[float, ...]:
    """The lambdas at this propensity: those of `labelbet` for the grid's ratios."""
    return tuple(rho * (1 - rho) * more / (1 + rho * more) for more in _excess_ratios())


@lru_cache(maxsize=1)
def _excess_ratios() -> tuple[float, ...]:
    grid = spaced(math.log(EXCESS_FIRST), math.log(EXCESS_LAST), EXCESSES)
    return tuple(math.exp(log_more) for log_more in grid)
