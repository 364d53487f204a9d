"""The wealth of a gambler who spreads it over several bets: an e-process.

Under the null no bet grows on average, so wealth multiplied by twenty happens with a
chance of at most one in twenty, however often one looks (Ville's inequality). Every
test of this package is such a gambler; what differs is the bet, and that is all the
other files say.

Two ways to spread. *Plain*: stake each alternative once and wait; wealth is a sum over
alternatives, so the order and the splitting of ticks do not matter. *Fixed share*:
after every tick a small part of the wealth goes back to the starting stakes (half of
it not betting at all), so a fault that begins late is not met by a gambler already
ruined. The gate uses half of each, and an average of e-processes is one.

Wealth is kept as its logarithm: it reaches 1e300 within a day.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

RESTART = 1 / 200  # one expected change in the 200 ticks that a step usually lasts
LOG_HALF = math.log(0.5)


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a gambler owns: the logarithm of every stake's growth.

    `grown` is the growth of each alternative since the start. `shares` are the fixed
    shares, first the one that does not bet, and `log_shared` is what they are shares
    of. `log_peak` is the highest wealth so far: evidence that crossed its bar has
    crossed it, and cannot be waited out.
    """

    grown: tuple[float, ...]
    shares: tuple[float, ...]
    log_shared: float = 0.0
    log_peak: float = 0.0
    restart: float = RESTART

    @property
    def log_plain(self) -> float:
        """ln E of the plain mixture."""
        return log_mean(self.grown)

    @property
    def log_e(self) -> float:
        """ln E of the gate's statistic: the average of both mixtures."""
        return log_sum((LOG_HALF + self.log_plain, LOG_HALF + self.log_shared))

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Mixture":
        """The gambler that `dataclasses.asdict` wrote."""
        lists = {name: tuple(stored[name]) for name in ("grown", "shares")}
        return cls(**{**stored, **lists})


def start_mixture(alternatives: int, restart: float = RESTART) -> Mixture:
    """A gambler with wealth one, spread evenly over the alternatives."""
    assert alternatives > 0
    assert 0 < restart < 1
    return Mixture((0.0,) * alternatives, _opening(alternatives), 0.0, 0.0, restart)


def grow(mixture: Mixture, gains: Sequence[float]) -> Mixture:
    """The gambler after one tick in which each alternative gained that much (ln)."""
    assert len(gains) == len(mixture.grown)
    grown = tuple(was + gain for was, gain in zip(mixture.grown, gains, strict=True))
    held = [
        share + gain for share, gain in zip(mixture.shares, (0.0, *gains), strict=True)
    ]
    total = log_sum(held)
    # The parts of one, moved towards the opening stakes: none is ever below a
    # restart's worth, so nothing is lost by leaving the logarithms for a moment.
    keep, move = 1 - mixture.restart, mixture.restart
    shares = tuple(
        math.log(keep * math.exp(share - total) + move * math.exp(opening))
        for share, opening in zip(held, _opening(len(gains)), strict=True)
    )
    log_shared = mixture.log_shared + total
    after = replace(mixture, grown=grown, shares=shares, log_shared=log_shared)
    return replace(after, log_peak=max(mixture.log_peak, after.log_e))


def log_sum(logs: Iterable[float]) -> float:
    """ln of a sum, from the logarithms of its terms."""
    terms = tuple(logs)
    largest = max(terms)
    if largest == -math.inf:
        return largest
    return largest + math.log(sum([math.exp(term - largest) for term in terms]))


def log_mean(logs: Sequence[float]) -> float:
    """ln of a mean, from the logarithms of its terms."""
    return log_sum(logs) - math.log(len(logs))


@lru_cache(maxsize=16)
def _opening(alternatives: int) -> tuple[float, ...]:
    return (LOG_HALF, *(LOG_HALF - math.log(alternatives),) * alternatives)
