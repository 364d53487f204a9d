"""How long until a regression is seen, and how often is a healthy candidate aborted?

Answered by playing the rollout many times with a seeded generator: Poisson events at
the given rates, the very gamblers of `mixture` and `labelbet`, here in columns so that
thousands of rollouts take seconds. A forecast for `simulate` and for planning; it
assumes independent units, one event kind and the traffic it is told.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.analysis.labelbet import log_ratios, shifted
from router.analysis.mixture import RESTART

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a rollout: the candidate's share, for so many ticks."""

    share: float
    ticks: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a forecast assumes: steps, units a tick, and the baseline's event rates."""

    steps: tuple[Step, ...]
    units_per_tick: float
    rate_first: float
    rate_last: float | None = None  # where a straight trend ends; no trend without it

    @property
    def shares(self) -> Floats:
        """The candidate's share in each tick."""
        return np.repeat(
            [step.share for step in self.steps], [step.ticks for step in self.steps]
        )

    @property
    def rates(self) -> Floats:
        """The baseline's event rate in each tick."""
        last = self.rate_first if self.rate_last is None else self.rate_last
        return np.linspace(self.rate_first, last, sum(s.ticks for s in self.steps))


@dataclass(frozen=True, slots=True)
class Forecast:
    """How often the alarm came, and after how much; infinite where mostly never.

    `standard_error` is that of `detected`.
    """

    runs: int
    detected: float
    standard_error: float
    ticks_median: float
    units_median: float
    units_p90: float


@dataclass(frozen=True, slots=True)
class Paths:
    """ln E at every tick of every run: rows are runs, columns ticks."""

    plain: Floats
    shared: Floats

    @property
    def average(self) -> Floats:
        """ln E of the gate's statistic."""
        return np.asarray(np.logaddexp(self.plain, self.shared) - math.log(2))


def forecast(
    traffic: Traffic, rate_ratio: float, alpha: float, runs: int = 500, seed: int = 0
) -> Forecast:
    """When a candidate with that many times the event rate is found out.

    With a ratio of one it is the chance of a false abort.
    """
    assert rate_ratio >= 0
    assert 0 < alpha < 1
    assert runs > 0
    random = np.random.default_rng(seed)
    shares, size = traffic.shares, (runs, len(traffic.shares))
    events = traffic.units_per_tick * traffic.rates
    theirs = random.poisson(shares * events * rate_ratio, size)
    ours = random.poisson((1 - shares) * events, size)
    paths = log_e_paths(theirs[..., None], ours[..., None], shares[:, None])
    first = first_alarm(paths.average, alpha)
    units = np.cumsum(shares * traffic.units_per_tick)
    seen = first < len(shares)
    asked = np.where(seen, units[np.minimum(first, len(shares) - 1)], np.inf)
    share = float(seen.mean())
    return Forecast(
        runs=runs,
        detected=share,
        standard_error=math.sqrt(share * (1 - share) / runs),
        ticks_median=_quantile(np.where(seen, first + 1.0, np.inf), 0.5),
        units_median=_quantile(asked, 0.5),
        units_p90=_quantile(asked, 0.9),
    )


def log_e_paths(
    candidate: Counts,
    baseline: Counts,
    rhos: Floats,
    worse_by: float = 0.0,
    restart: float = RESTART,
) -> Paths:
    """ln E of many runs at once. Counts are (run, tick, stratum), rhos (tick, stratum).

    The same numbers as stepping one gambler a run; the tests compare them.
    """
    runs, ticks, _ = candidate.shape
    grid = log_ratios(worse_by, "worse")
    opening = np.log([0.5, *[0.5 / len(grid)] * len(grid)])
    grown, shares = np.zeros((runs, len(grid))), np.tile(opening, (runs, 1))
    log_shared = np.zeros(runs)
    plain, shared = np.zeros((runs, ticks)), np.zeros((runs, ticks))
    for t in range(ticks):
        up, down = _gains(rhos[t], grid, worse_by)
        gains = candidate[:, t] @ up + baseline[:, t] @ down
        grown += gains
        plain[:, t] = np.logaddexp.reduce(grown, axis=1) - math.log(len(grid))
        shares[:, 1:] += gains
        total = np.logaddexp.reduce(shares, axis=1)
        log_shared = log_shared + total
        shared[:, t] = log_shared
        kept = shares - total[:, None] + math.log1p(-restart)
        shares = np.logaddexp(kept, opening + math.log(restart))
    return Paths(plain, shared)


def first_alarm(log_e: Floats, alpha: float) -> Counts:
    """The first tick (0-based) of each run at the bar; the number of ticks if none."""
    over = log_e >= math.log(1 / alpha)
    first = np.where(over.any(axis=1), over.argmax(axis=1), log_e.shape[1])
    return np.asarray(first, np.int64)


def _gains(
    rhos: Sequence[float] | Floats, grid: Sequence[float], worse_by: float
) -> tuple[Floats, Floats]:
    """ln gain of an event of the candidate and of the baseline: (stratum, grid)."""
    up, down = np.zeros((2, len(rhos), len(grid)))
    for i, rho in enumerate(rhos):
        if not 0 < rho < 1:
            continue  # nobody to compare with
        null = shifted(rho, math.log1p(worse_by))
        chances = np.asarray([shifted(rho, delta) for delta in grid])
        up[i], down[i] = np.log(chances / null), np.log((1 - chances) / (1 - null))
    return up, down


def _quantile(values: Floats, quantile: float) -> float:
    """The smallest value that so many of all do not exceed; infinity counts."""
    ordered = np.sort(values)
    return float(ordered[max(0, math.ceil(quantile * len(values)) - 1)])
