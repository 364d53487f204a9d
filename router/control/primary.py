"""Is a candidate of an experiment better? The verdict on its primary metric. Pure.

The effect is the average over the units seen, with an interval that holds at every
look, so an experiment may be decided as soon as it is. Only mature cohorts count: an
experiment compares equally old labels. `pass` says that a candidate is shown to be
better, and of several better ones only that with the highest lower bound passes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from router.analysis.aipw import UNITS_MIN, EffectState, effect_bounds
from router.analysis.verdict import Number, Verdict
from router.config.rollout import Primary
from router.control.label_tests import (
    BINARY,
    BOUNDED,
    LOSSES,
    VALUES,
    effect_numbers,
    share,
)
from router.control.labelled import (
    Measured,
    Tick,
    effect_of,
    share_of_outcomes,
    values_with_before,
)

UNMEASURED = (
    "it is no randomised outcome of a unit, so an experiment cannot be about it"
)
NO_STABLE_SCORE = (
    " Stable's score is not known for units that the candidate served: estimated"
    " without a covariate."
)


@dataclass(frozen=True, slots=True)
class Measure:
    """How the primary metric is read from sums; `sign` is -1 for what it lacks."""

    measured: Measured
    sign: float


def measure_of(primary: Primary) -> Measure | None:
    """How to read a primary metric; None when labels do not measure it."""
    metric = primary.metric
    if metric in BOUNDED:
        return None
    if metric in BINARY:
        return Measure(share_of_outcomes(BINARY[metric]), -1.0)
    if metric in LOSSES:
        return Measure(LOSSES[metric], 1.0)
    has_before = primary.covariate == "pre_exposure"
    return Measure(values_with_before if has_before else VALUES, 1.0)


def judge_primary(
    primary: Primary, ticks: Mapping[int, Sequence[Tick]], alpha: float
) -> dict[int, Verdict]:
    """The verdict on each candidate, each with an equal part of alpha."""
    measure = measure_of(primary)
    if measure is None:
        reason = f"{primary.metric}: {UNMEASURED}."
        return {version: Verdict("error", reason) for version in ticks}
    each = alpha / max(1, len(ticks))
    found = {
        version: _judge(primary, measure, effect_of(mine, measure.measured), each)
        for version, mine in ticks.items()
    }
    return _best_alone(found)


def _judge(
    primary: Primary, measure: Measure, state: EffectState, alpha: float
) -> Verdict:
    # In the direction that people read: accuracy rather than the share of mistakes.
    effect, sign = state.effect, measure.sign
    low, high = effect_bounds(effect, alpha, state.precision)
    lower, upper = (low, high) if sign > 0 else (-high, -low)
    numbers: dict[str, Number] = effect_numbers(state, alpha) | {
        "lower": lower, "upper": upper, "estimate": sign * effect.estimate,
    }  # fmt: skip
    if sign < 0:
        for name in ("mean_candidate", "mean_stable"):
            numbers[name] = 1 - float(numbers[name])
    if primary.min_effect is not None:
        numbers["min_effect"] = share(primary.min_effect)
    name = primary.metric
    note = NO_STABLE_SCORE if primary.covariate == "stable_score" else ""
    if effect.units < UNITS_MIN:
        reason = f"{name}: {effect.units} mature units, {UNITS_MIN} are wanted.{note}"
        return Verdict("inconclusive", reason, numbers)
    said = (
        f"{name}: the candidate differs by {sign * effect.estimate:.4g}, between"
        f" {lower:.4g} and {upper:.4g}, from {effect.units} units"
    )
    is_up = primary.direction == "increase"
    if (lower > 0) if is_up else (upper < 0):
        return Verdict("pass", f"{said}: it is better.{note}", numbers)
    if (upper < 0) if is_up else (lower > 0):
        return Verdict("fail", f"{said}: it is worse.{note}", numbers)
    return Verdict("inconclusive", f"{said}: not decided.{note}", numbers)


def _best_alone(found: Mapping[int, Verdict]) -> dict[int, Verdict]:
    """The verdicts, with at most one winner."""
    winners = [v for v, verdict in found.items() if verdict.verdict == "pass"]
    if len(winners) < 2:
        return dict(found)
    best = max(winners, key=lambda v: _strength(found[v]))
    return {
        version: verdict
        if version == best or version not in winners
        else replace(
            verdict, verdict="inconclusive",
            reason=f"{verdict.reason} Version {best} is ahead of it.",
        )
        for version, verdict in found.items()
    }  # fmt: skip


def _strength(verdict: Verdict) -> float:
    """How far the interval is from no effect, to the side that is better."""
    lower, upper = float(verdict.numbers["lower"]), float(verdict.numbers["upper"])
    return lower if lower > 0 else -upper if upper < 0 else -math.inf
