"""How much slower the second of a pair is, from many pairs, in constant memory.

The mean of ln(second/first) over pairs, with its normal interval: both of a pair met
the same request, so what requests differ in cancels. A ratio of geometric means, which
one pause of the machine moves little. Pairs must be asked in alternating order.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

PAIRS_MIN = 30  # fewer do not make a mean of logarithms normal


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratio and the ends of its interval."""

    ratio: float
    low: float
    high: float
    pairs: int


class RatioSum:
    """Owner of a running mean and variance of log ratios (Welford)."""

    def __init__(self) -> None:
        self._count, self._mean, self._square = 0, 0.0, 0.0

    def add(self, first_s: float, second_s: float) -> None:
        """Take a pair; one without a duration tells nothing and is left out."""
        if first_s <= 0 or second_s <= 0:
            return
        value = math.log(second_s / first_s)
        self._count += 1
        step = value - self._mean
        self._mean += step / self._count
        self._square += step * (value - self._mean)

    def ratio(self, confidence: float = 0.95) -> Ratio | None:
        """None while there are too few pairs."""
        if self._count < PAIRS_MIN:
            return None
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        half = z * math.sqrt(self._square / (self._count - 1) / self._count)
        low, high = math.exp(self._mean - half), math.exp(self._mean + half)
        return Ratio(math.exp(self._mean), low, high, self._count)
