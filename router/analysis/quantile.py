"""Quantiles of a histogram, with bounds that hold at every look.

The distance of an empirical quantile's rank from the true one is bounded by a
beta-binomial mixture (Howard and Ramdas 2022). With too few values the upper bound does
not exist, and infinity is the answer, not a guess. Assumes values independent and from
one distribution: one step, one block of time, never a whole ramp. Buckets add at most
one bucket's width, because the bounds are bucket edges on the cautious side.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from router.analysis.betabinomial import log_beta

UNITS_EXPECTED = 10_000  # where the bounds are narrowest; they are valid anywhere
BISECTIONS = 200
FLATTEST = 1e-3  # the mixture's parameter stays above this part of p (1 - p)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values up to and including each edge, the last one for all above.

    `counts[i]` is for (edges[i - 1], edges[i]], so there is one count more than edges.
    """

    edges: Sequence[float]
    counts: Sequence[int]

    def __post_init__(self) -> None:
        assert len(self.counts) == len(self.edges) + 1
        assert all(count >= 0 for count in self.counts)

    @property
    def total(self) -> int:
        """How many values there are."""
        return sum(self.counts)


def latency_edges(first: int = -640, last: int = 223) -> tuple[float, ...]:
    """The engine's edges in seconds: 2**(i/32), Prometheus's native schema 5.

    The engine clamps what is slower than its last edge, 224, into that edge's bucket,
    so here that bucket has no upper edge.
    """
    return tuple(2.0 ** (i / 32) for i in range(first, last + 1))


def quantile_bounds(
    histogram: Histogram, quantile: float, alpha: float
) -> tuple[float, float]:
    """Lower and upper bound of a quantile, as bucket edges.

    The lower bound is 0 and the upper infinite while there is not enough data.
    """
    assert 0 < quantile < 1
    units = histogram.total
    if units == 0:
        return 0.0, math.inf
    below, above = rank_radii(quantile, units, alpha)
    first = math.floor(units * (quantile - below)) + 1
    last = math.ceil(units * (quantile + above))
    lower = _bucket(histogram, first) - 1 if first >= 1 else -1
    upper = _bucket(histogram, last) if last <= units else len(histogram.edges)
    return (
        histogram.edges[lower] if lower >= 0 else 0.0,
        histogram.edges[upper] if upper < len(histogram.edges) else math.inf,
    )


def quantile_edge(histogram: Histogram, quantile: float) -> int | None:
    """The index of the edge that the quantile does not exceed; None without one."""
    if histogram.total == 0:
        return None
    edge = _bucket(histogram, max(1, math.ceil(quantile * histogram.total)))
    return edge if edge < len(histogram.edges) else None


def exceeding(histogram: Histogram, threshold: float) -> tuple[int, int]:
    """How many values surely exceed the threshold, and how many possibly do."""
    edge = bisect_left(histogram.edges, threshold)
    surely = sum(histogram.counts[edge + 1 :])
    if edge < len(histogram.edges) and histogram.edges[edge] == threshold:
        return surely, surely
    return surely, surely + histogram.counts[edge]


def rank_radii(quantile: float, units: int, alpha: float) -> tuple[float, float]:
    """How far below and above its place a quantile's rank may be, as parts of one."""
    return (
        _radius(1 - quantile, units, alpha),
        _radius(quantile, units, alpha),
    )


def _bucket(histogram: Histogram, rank: int) -> int:
    return bisect_left(list(accumulate(histogram.counts)), rank)


def _radius(g: float, units: int, alpha: float) -> float:
    """The rank's distance at which the mixture's evidence reaches the bar."""
    h = 1 - g
    variance, bar = g * h * units, math.log(1 / alpha)
    tuned = g * h * UNITS_EXPECTED / (2 * bar + math.log1p(2 * bar))
    prior = max(tuned - g * h, FLATTEST * g * h)
    normal = log_beta(prior / g, prior / h)

    def log_e(distance: float) -> float:
        return (
            log_beta((prior + variance - g * distance) / g,
                     (prior + variance + h * distance) / h)
            - normal
            - (variance + h * distance) / h * math.log(g)
            - (variance - g * distance) / g * math.log(h)
        )  # fmt: skip

    inside, outside = 0.0, variance / g
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        if log_e(middle) < bar:
            inside = middle
        else:
            outside = middle
    return outside / units
