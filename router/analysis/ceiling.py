"""Judges an absolute limit: the rate itself, by its interval and never by its estimate.

A limit on a quantile is the same question: the p99 is at most y when at most 1 % are
slower than y.
"""

from dataclasses import dataclass

from router.analysis.betabinomial import rate_bounds
from router.analysis.quantile import Histogram, exceeding, quantile_bounds
from router.analysis.verdict import Verdict, percent


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A rate that must not be exceeded, and how many units an answer needs."""

    limit: float
    units_min: int

    def __post_init__(self) -> None:
        assert 0 < self.limit < 1
        assert self.units_min > 0, "no data is never enough"


@dataclass(frozen=True, slots=True)
class QuantileCeiling:
    """A quantile (0.99) that must not exceed a limit, in the histogram's unit."""

    quantile: float
    limit: float
    units_min: int

    def __post_init__(self) -> None:
        assert 0 < self.quantile < 1
        assert self.units_min > 0, "no data is never enough"


def judge_ceiling(
    events: int, units: int, ceiling: Ceiling, alpha: float, name: str = "error rate"
) -> Verdict:
    """Say whether a rate is surely above its limit, surely not, or not known yet.

    Fails as soon as the whole interval is above, passes when it is wholly at or below
    and enough units were seen. The rate must be the same for all of them: give the
    units of one step, not of a ramp.
    """
    if not 0 <= events <= units:
        reason = f"{name}: {events} events in {units} units contradict each other."
        return Verdict("error", reason, {"events": events, "units": units})
    lower, upper = rate_bounds(events, units, alpha)
    numbers = {"events": events, "units": units, "lower": lower, "upper": upper,
               "limit": ceiling.limit, "alpha": alpha}  # fmt: skip
    said = (
        f"{name}: {events} in {units} units, so between {percent(lower)} and "
        f"{percent(upper)}; the limit is {percent(ceiling.limit)}"
    )
    if lower > ceiling.limit:
        return Verdict("fail", f"{said}.", numbers)
    if units < ceiling.units_min:
        reason = f"{said}, and {ceiling.units_min} units are wanted."
        return Verdict("inconclusive", reason, numbers)
    if upper > ceiling.limit:
        return Verdict("inconclusive", f"{said}: not known yet.", numbers)
    return Verdict("pass", f"{said}.", numbers)


def judge_quantile(
    histogram: Histogram, ceiling: QuantileCeiling, alpha: float, name: str = "latency"
) -> Verdict:
    """Say whether a quantile is surely above its limit, surely not, or not known yet.

    What lies in the limit's own bucket may be on either side: it is counted as fast
    where the answer could be `fail` and as slow where it could be `pass`.
    """
    units, share = histogram.total, 1 - ceiling.quantile
    surely, possibly = exceeding(histogram, ceiling.limit)
    lower, _ = rate_bounds(surely, units, alpha)
    _, upper = rate_bounds(possibly, units, alpha)
    low, high = quantile_bounds(histogram, ceiling.quantile, alpha)
    label = f"p{100 * ceiling.quantile:g}"
    numbers = {"units": units, "slower": possibly, "lower": low, "upper": high,
               "limit": ceiling.limit, "alpha": alpha, "share_lower": lower,
               "share_upper": upper}  # fmt: skip
    said = (
        f"{name} {label}: between {percent(lower)} and {percent(upper)} of {units} "
        f"units are above {ceiling.limit:g}, and {percent(share)} may be"
    )
    if lower > share:
        return Verdict("fail", f"{said}.", numbers)
    if units < ceiling.units_min:
        reason = f"{said}; {ceiling.units_min} units are wanted."
        return Verdict("inconclusive", reason, numbers)
    if upper > share:
        return Verdict("inconclusive", f"{said}: not known yet.", numbers)
    return Verdict("pass", f"{said}.", numbers)
