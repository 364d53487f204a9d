"""Bets on which variant an event came from: who is worse, at every look.

Under "no difference" an event (an error, a slow answer) comes from the candidate with
the known chance rho that a unit had to be given to it, whatever the error rate did
meanwhile. The gambler bets that it comes more often:

    q = rho e^d / (rho e^d + 1 - rho)              for a grid of log rate ratios d
    gain = x_b ln(q / p0) + x_a ln((1 - q) / (1 - p0))

p0 is rho when nothing is tolerated, and the chance of an event under the tolerated
ratio 1 + m otherwise. Exact, not asymptotic, for any predictable rho: ramps, trends in
the baseline, strata with different shares (Lindon and Malek 2022; Grünwald, Henzi and
Lardy 2024). Claiming the opposite, that the ratio lies *below* 1 + m, is the same bet
with a grid on the other side; that is the non-inferiority test.

Count an event once per randomised unit. Use the rho of the decision, however late the
event arrives. With more than two variants compare pairwise: `pair_propensity`.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from router.analysis.mixture import RESTART, Mixture, grow, log_mean, start_mixture

# Events of the candidate, events of the baseline, rho. One stratum in one tick.
Events = tuple[int, int, float]
Claim = Literal["worse", "no worse"]

RATIO_FIRST, RATIO_LAST, RATIOS = 1.1, 8.0, 24  # what "worse" may look like
BETTER_FIRST, BETTER_LAST, BETTERS = 3.0, 0.98, 32  # from 1/3 to nearly the margin


@dataclass(frozen=True, slots=True)
class LabelBet:
    """A gambler on labels, with what was counted.

    `worse_by` is the relative margin m. `excess` adds x_b / rho - (1 + m) x_a /
    (1 - rho): above zero when the candidate has more events than allowed, and a guard
    against evidence that points the wrong way (first events per unit run out sooner in
    the variant that has more of them).
    """

    worse_by: float
    claim: Claim
    mixture: Mixture
    events_candidate: int = 0
    events_baseline: int = 0
    excess: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The gambler as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "LabelBet":
        """The gambler that `as_dict` wrote."""
        return cls(**{**stored, "mixture": Mixture.from_dict(stored["mixture"])})


def start_label_bet(
    worse_by: float = 0.0, claim: Claim = "worse", restart: float = RESTART
) -> LabelBet:
    """A gambler who has seen nothing yet. One for a whole rollout, never one a step."""
    grid = log_ratios(worse_by, claim)
    return LabelBet(worse_by, claim, start_mixture(len(grid), restart))


def step_label_bet(bet: LabelBet, *strata: Events) -> LabelBet:
    """The gambler after one tick, which may have brought events in several strata."""
    grid = log_ratios(bet.worse_by, bet.claim)
    gains = [0.0] * len(grid)
    excess = bet.excess
    for candidate, baseline, rho in strata:
        assert candidate >= 0 <= baseline
        if not 0 < rho < 1:
            continue  # nobody to compare with: nothing random, nothing to bet on
        more = event_gains((candidate, baseline, rho), grid, bet.worse_by)
        gains = [was + gain for was, gain in zip(gains, more, strict=True)]
        excess += candidate / rho - (1 + bet.worse_by) * baseline / (1 - rho)
    return replace(
        bet,
        mixture=grow(bet.mixture, gains),
        events_candidate=bet.events_candidate + sum(x_b for x_b, _, _ in strata),
        events_baseline=bet.events_baseline + sum(x_a for _, x_a, _ in strata),
        excess=excess,
    )


def replay(ticks: Iterable[Events], bet: LabelBet | None = None) -> LabelBet:
    """The gambler after many ticks of one stratum each."""
    bet = bet or start_label_bet()
    for tick in ticks:
        bet = step_label_bet(bet, tick)
    return bet


def log_e_events(
    strata: Iterable[Events], grid: tuple[float, ...], worse_by: float = 0.0
) -> float:
    """ln E of the plain mixture: a pure function of counters, in any order."""
    gains = [0.0] * len(grid)
    for stratum in strata:
        more = event_gains(stratum, grid, worse_by)
        gains = [was + gain for was, gain in zip(gains, more, strict=True)]
    return log_mean(gains)


def event_gains(
    events: Events, grid: tuple[float, ...], worse_by: float
) -> tuple[float, ...]:
    """What each log rate ratio of the grid gained (ln) from one stratum."""
    candidate, baseline, rho = events
    null = shifted(rho, math.log1p(worse_by))
    gains = []
    for delta in grid:
        chance = shifted(rho, delta)
        gains.append(
            candidate * math.log(chance / null)
            + baseline * math.log((1 - chance) / (1 - null))
        )
    return tuple(gains)


def shifted(rho: float, log_ratio: float) -> float:
    """The chance that an event is the candidate's when its rate is that much higher."""
    odds = rho * math.exp(log_ratio)
    return odds / (odds + 1 - rho)


@lru_cache(maxsize=64)
def log_ratios(worse_by: float, claim: Claim) -> tuple[float, ...]:
    """The grid: log rate ratios on the claimed side of the margin."""
    assert worse_by > -1
    margin = math.log1p(worse_by)
    if claim == "worse":
        return spaced(
            margin + math.log(RATIO_FIRST), margin + math.log(RATIO_LAST), RATIOS
        )
    assert worse_by > 0, "equality cannot be proved: non-inferiority needs a margin"
    return spaced(-math.log(BETTER_FIRST), BETTER_LAST * margin, BETTERS)


def spaced(first: float, last: float, count: int) -> tuple[float, ...]:
    """That many numbers from first to last, equally far apart."""
    return tuple(first + (last - first) * i / (count - 1) for i in range(count))


def pair_propensity(candidate: float, baseline: float) -> float:
    """rho between two of several variants: the chance of one, given one of the two."""
    return candidate / (candidate + baseline)


def add_events(replicas: Iterable[Events]) -> Events:
    """The events of several routers in one tick of one stratum."""
    found = list(replicas)
    assert len({rho for _, _, rho in found}) == 1, "different propensities do not add"
    return sum(b for b, _, _ in found), sum(a for _, a, _ in found), found[0][2]
