"""Who asks, how often, and how versions behave: what the simulated engine plays.

Frozen values, and the distributions they stand for. Rates are per second, times in
milliseconds, and everything that varies varies for all versions alike, because that is
what a comparison has to survive: a day with its busy hours, a trend in errors, a
machine that gets slower.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# The engine's histograms: bucket i ends at 2**(i / 32) seconds.
FIRST, LAST = -640, 224
EDGES_PER_OCTAVE = 32
BUCKET_COUNT = LAST - FIRST + 1
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one version answers. Latency is log-normal around its median."""

    error_rate: float = 0.0
    invalid_rate: float = 0.0
    latency_ms: float = 5.0
    latency_spread: float = 0.35
    score: float = 0.5
    score_spread: float = 0.1
    disagreement: float = 0.0
    """Share of shadow pairs that differ, beyond `Demand.noise`."""

    def __post_init__(self) -> None:
        assert 0 <= self.error_rate <= 1
        assert 0 <= self.invalid_rate <= 1
        assert self.latency_ms > 0
        assert self.latency_spread > 0


@dataclass(frozen=True, slots=True)
class Group:
    """A share of the requests that carry the same attributes.

    Versions in `behaviours` behave differently for them.
    """

    attributes: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    behaviours: Mapping[int, Behaviour] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Demand:
    """The traffic of one model.

    With `units` requests come from so many units, each of one group; without, each
    request is a unit of its own. `zipf` makes some units ask far more often: the n-th
    in proportion to n ** -zipf.
    """

    model: str
    behaviours: Mapping[int, Behaviour]
    rate: float = 20.0
    units: int = 0
    zipf: float = 0.0
    groups: tuple[Group, ...] = (Group(),)
    swing: float = 0.0
    """How far the rate goes up and down within `period_s`, as a part of itself."""
    period_s: float = DAY_S
    error_trend_per_h: float = 0.0
    """What every error rate gains an hour, as a part of itself."""
    latency_trend_per_h: float = 0.0
    noise: float = 0.0
    """Share of shadow pairs in which stable differs from itself."""
    has_fallback: bool = True

    def __post_init__(self) -> None:
        assert self.rate > 0
        assert abs(self.swing) <= 1
        assert math.isclose(sum(group.share for group in self.groups), 1.0)

    def rate_at(self, at_s: float) -> float:
        """Requests a second, at a time since the beginning."""
        turn = math.sin(2 * math.pi * at_s / self.period_s)
        return self.rate * (1 + self.swing * turn)

    def error_factor(self, at_s: float) -> float:
        """What error rates are multiplied by."""
        return max(0.0, 1 + self.error_trend_per_h * at_s / 3600)

    def latency_factor(self, at_s: float) -> float:
        """What latencies are multiplied by."""
        return max(1e-3, 1 + self.latency_trend_per_h * at_s / 3600)

    def behaviour_of(self, version: int, group: int) -> Behaviour:
        """How a version answers a group; one that nothing is known of is faultless."""
        known = self.behaviours.get(version, Behaviour())
        return self.groups[group].behaviours.get(version, known)

    def popularity(self) -> Floats:
        """How often each unit asks, cumulated: the last is 1."""
        weights = np.arange(1, self.units + 1, dtype=np.float64) ** -self.zipf
        return np.asarray(np.cumsum(weights / weights.sum()))


def latency_chances(behaviour: Behaviour, factor: float) -> Floats:
    """The chance of each bucket of the engine's histogram."""
    steps = round(math.log2(factor) * EDGES_PER_OCTAVE * 8) / 8
    return _chances(behaviour.latency_ms, behaviour.latency_spread, steps)


@lru_cache(maxsize=1024)
def _chances(latency_ms: float, spread: float, steps: float) -> Floats:
    middle = math.log(latency_ms / 1e3) + steps * math.log(2) / EDGES_PER_OCTAVE
    edges = np.arange(FIRST, LAST) * (math.log(2) / EDGES_PER_OCTAVE)
    below = [
        0.5 * math.erfc(-(edge - middle) / (spread * math.sqrt(2))) for edge in edges
    ]
    made = np.diff(np.asarray([0.0, *below, 1.0]))
    return np.asarray(made / made.sum())
