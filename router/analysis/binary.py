"""Bets on the variant from good and bad outcomes alike: conversion, accuracy.

Where an outcome is not rare, the good ones say something too. With p the baseline's
rate as guessed from earlier ticks, and q the rate that an alternative claims:

    q0 = rho q + (1 - rho) p
    gain = x_b ln(q / q0) + (n_b - x_b) ln((1 - q) / (1 - q0))
         + x_a ln(p / q0) + (n_a - x_a) ln((1 - p) / (1 - q0))

The mean of the factor given the outcome is one, so a bad guess of p costs power and
never validity. Count what is *bad* (a wrong answer, no conversion). No margin here:
with one, use `labelbet` (relative) or `margin` (absolute).
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from router.analysis.labelbet import RATIO_FIRST, RATIO_LAST, RATIOS, spaced
from router.analysis.mixture import RESTART, Mixture, grow, start_mixture

# Candidate's units and its bad outcomes, baseline's units and its bad outcomes, rho.
Outcomes = tuple[int, int, int, int, float]

MEMORY = 0.9  # a tick's weight in the guess of the baseline's rate falls by a tenth
# Before the first tick the bets are on bad outcomes alone, which is this guess's limit.
RATE_UNKNOWN = 1e-6


@dataclass(frozen=True, slots=True)
class OutcomeBet:
    """A gambler on outcomes: `bad` of `seen` is the baseline's recent rate."""

    mixture: Mixture
    bad: float = 0.0
    seen: float = 0.0
    events_candidate: int = 0
    events_baseline: int = 0
    excess: float = 0.0

    @property
    def rate(self) -> float:
        """The guess of the baseline's rate, from earlier ticks only."""
        if self.seen == 0:
            return RATE_UNKNOWN
        return (self.bad + 0.5) / (self.seen + 1)

    def as_dict(self) -> dict[str, Any]:
        """The gambler as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "OutcomeBet":
        """The gambler that `as_dict` wrote."""
        return cls(**{**stored, "mixture": Mixture.from_dict(stored["mixture"])})


def start_outcome_bet(restart: float = RESTART) -> OutcomeBet:
    """A gambler who has seen nothing yet."""
    return OutcomeBet(start_mixture(RATIOS, restart))


def step_outcome_bet(bet: OutcomeBet, *strata: Outcomes) -> OutcomeBet:
    """The gambler after one tick, which may have brought outcomes in several strata."""
    gains = [0.0] * RATIOS
    excess = bet.excess
    for outcomes in strata:
        _, x_b, _, x_a, rho = outcomes
        if not 0 < rho < 1:
            continue  # nobody to compare with
        more = outcome_gains(outcomes, bet.rate)
        gains = [was + gain for was, gain in zip(gains, more, strict=True)]
        excess += x_b / rho - x_a / (1 - rho)
    bad = sum(x_a for _, _, _, x_a, _ in strata)
    return replace(
        bet,
        mixture=grow(bet.mixture, gains),
        bad=MEMORY * bet.bad + bad,
        seen=MEMORY * bet.seen + sum(n_a for _, _, n_a, _, _ in strata),
        events_candidate=bet.events_candidate + sum(x_b for _, x_b, _, _, _ in strata),
        events_baseline=bet.events_baseline + bad,
        excess=excess,
    )


def replay_outcomes(
    ticks: Iterable[Outcomes], bet: OutcomeBet | None = None
) -> OutcomeBet:
    """The gambler after many ticks of one stratum each."""
    bet = bet or start_outcome_bet()
    for tick in ticks:
        bet = step_outcome_bet(bet, tick)
    return bet


def outcome_gains(outcomes: Outcomes, rate: float) -> tuple[float, ...]:
    """What each log odds ratio of the grid gained (ln) from one stratum."""
    n_b, x_b, n_a, x_a, rho = outcomes
    assert 0 <= x_b <= n_b
    assert 0 <= x_a <= n_a
    assert 0 < rate < 1
    gains = []
    for ratio in _ratios():
        claimed = rate * ratio / (1 - rate + rate * ratio)
        mixed = rho * claimed + (1 - rho) * rate
        gains.append(
            x_b * math.log(claimed / mixed)
            + (n_b - x_b) * (math.log1p(-claimed) - math.log1p(-mixed))
            + x_a * math.log(rate / mixed)
            + (n_a - x_a) * (math.log1p(-rate) - math.log1p(-mixed))
        )
    return tuple(gains)


@lru_cache(maxsize=1)
def _ratios() -> tuple[float, ...]:
    grid = spaced(math.log(RATIO_FIRST), math.log(RATIO_LAST), RATIOS)
    return tuple(math.exp(delta) for delta in grid)
