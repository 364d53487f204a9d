"""When did a rate change? An e-detector with a promised time between false alarms.

At every outcome the sum of all gamblers that could have started so far is kept
(e-Shiryaev-Roberts): M = (M + 1) L, with L the likelihood ratio of a higher rate to the
usual one, averaged over several higher rates. Without a change the mean number of
outcomes until M reaches A is at least A (Shin, Ramdas and Rinaldo 2024). It is not a
test with an error rate: it is an alarm budget, "at most one in A".
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from router.analysis.labelbet import spaced
from router.analysis.mixture import log_mean, log_sum

RATIO_FIRST, RATIO_LAST, RATIOS = 1.2, 6.0, 8


@dataclass(frozen=True, slots=True)
class Detector:
    """Gamblers against one usual rate: ln M of each alternative, outcomes so far."""

    usual: float
    logs: tuple[float, ...] = (-math.inf,) * RATIOS
    outcomes: int = 0

    def __post_init__(self) -> None:
        assert 0 < self.usual < 1

    @property
    def log_m(self) -> float:
        """ln M, to be compared with ln A."""
        return log_mean(self.logs)

    def as_dict(self) -> dict[str, Any]:
        """The detector as JSON can hold it: no infinity before the first outcome."""
        return asdict(self) | {"logs": list(self.logs) if self.outcomes else []}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Detector":
        """The detector that `as_dict` wrote."""
        fresh = cls(stored["usual"])
        if not stored["outcomes"]:
            return fresh
        return replace(fresh, logs=tuple(stored["logs"]), outcomes=stored["outcomes"])


def watch(detector: Detector, outcomes: Iterable[bool]) -> Detector:
    """The detector after more outcomes, in order; true is bad."""
    rates = [_raised(detector.usual, ratio) for ratio in _ratios()]
    bad = [math.log(rate / detector.usual) for rate in rates]
    good = [math.log((1 - rate) / (1 - detector.usual)) for rate in rates]
    logs, count = detector.logs, detector.outcomes
    for is_bad in outcomes:
        gains = bad if is_bad else good
        logs = tuple(
            log_sum((was, 0.0)) + gain for was, gain in zip(logs, gains, strict=True)
        )
        count += 1
    return replace(detector, logs=logs, outcomes=count)


def has_changed(detector: Detector, outcomes_between_alarms: float) -> bool:
    """Whether to raise the alarm that comes at most once in so many outcomes."""
    return detector.log_m >= math.log(outcomes_between_alarms)


def _ratios() -> tuple[float, ...]:
    grid = spaced(math.log(RATIO_FIRST), math.log(RATIO_LAST), RATIOS)
    return tuple(math.exp(log_ratio) for log_ratio in grid)


def _raised(rate: float, ratio: float) -> float:
    """A rate with its odds that many times higher, so that it stays below one."""
    return rate * ratio / (1 - rate + rate * ratio)
