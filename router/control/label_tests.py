"""From labels to verdicts: which test each feedback metric gets. Pure.

A candidate is failed by everything that is known (`early`), whatever its age: bad news
need not wait. It is passed by mature cohorts alone. Fail and pass use tests of their
own, but only the first can end anything, so each criterion spends its alpha once.

| metric | compared with stable | as a limit |
|---|---|---|
| accuracy, recall, conversion | bets on bad outcomes, margin in points | rate bounds |
| log_loss, brier, mae, rmse, reward, named ones | effect with its interval | mean |
| bias | effect, moved either way | mean |
| precision, calibration_error | the two intervals apart | interval |

Precision is a rate among those whom the variant itself selected, so its units are not
randomised alike; only the intervals of both are compared.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from router.analysis.aipw import (
    ALPHA_TUNED,
    UNITS_EXPECTED,
    UNITS_MIN,
    Effect,
    EffectState,
    effect_bounds,
    effect_radius,
    tuning,
)
from router.analysis.betabinomial import rate_bounds
from router.analysis.guardrail import is_beaten
from router.analysis.verdict import Number, Verdict, percent, times
from router.config.steps import Amount, Criterion
from router.control.labelled import (
    Counted,
    Measured,
    Tick,
    bet_on_margin,
    bet_on_negatives,
    effect_of,
    missed,
    moments_of,
    share_of_outcomes,
    squared_errors,
    total_of,
    unconverted,
    wrong,
)
from router.feedback.sums import BINS, Sum, Sums

BINARY: Mapping[str, Counted] = {
    "accuracy": wrong, "recall": missed, "conversion": unconverted,
}  # fmt: skip
LOSSES: Mapping[str, Measured] = {
    "log_loss": moments_of(Sum.LABELS, Sum.LOG_LOSS, Sum.LOG_LOSS_SQUARES),
    "brier": moments_of(Sum.LABELS, Sum.BRIER, Sum.BRIER_SQUARES),
    "mae": moments_of(Sum.LABELS, Sum.ERROR_ABSOLUTE, Sum.ERROR_SQUARES),
    "rmse": squared_errors,
    "bias": moments_of(Sum.LABELS, Sum.ERROR, Sum.ERROR_SQUARES),
}
VALUES: Measured = moments_of(Sum.VALUES, Sum.VALUE, Sum.VALUE_SQUARES)
BOUNDED = ("precision", "calibration_error")
MARGIN_SAFE = 0.49  # a wider margin than half is no margin for a rate


@dataclass(frozen=True, slots=True)
class Labels:
    """The ticks of one candidate: of every label, and of mature cohorts."""

    early: tuple[Tick, ...]
    mature: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A criterion about a candidate, with what it may spend."""

    criterion: Criterion
    name: str
    alpha: float


def metric_of(metric: str) -> str:
    """The feedback metric that a criterion's metric is computed from."""
    is_of_labels = metric in LOSSES or metric in BOUNDED or metric in (
        "accuracy", "recall"
    )  # fmt: skip
    return "label" if is_of_labels else metric


def judge_labels(
    criterion: Criterion, name: str, labels: Labels, alpha: float
) -> Verdict:
    """What labels say about one criterion and one candidate."""
    asked = _Asked(criterion, name, alpha)
    units, of = _units(criterion.metric, labels.mature), "mature labelled units"
    early = _units(criterion.metric, labels.early)
    numbers: dict[str, Number] = {"units": units, "units_early": early, "alpha": alpha}
    if not early:
        return Verdict("inconclusive", f"{name}: no label yet.", numbers)
    failed = _judge(asked, labels.early)
    if failed.verdict == "fail" and early >= criterion.min_samples:
        return failed
    if units < criterion.min_samples:
        reason = f"{name}: {units} {of}, {criterion.min_samples} are wanted."
        return Verdict("inconclusive", reason, numbers)
    passed = _judge(asked, labels.mature)
    if passed.verdict == "fail":
        # Newer labels speak against it: neither may win by being looked at alone.
        reason = f"{name}: mature labels look worse than all: {passed.reason}"
        return Verdict("inconclusive", reason, passed.numbers)
    return passed


def _units(metric: str, ticks: tuple[Tick, ...]) -> int:
    candidate, _ = total_of(ticks)
    if metric in BINARY:
        return BINARY[metric](candidate)[0]
    if metric == "precision":
        return int(candidate[Sum.TRUE_POSITIVE] + candidate[Sum.FALSE_POSITIVE])
    return int(candidate[Sum.LABELS if metric_of(metric) == "label" else Sum.VALUES])


def _judge(asked: _Asked, ticks: tuple[Tick, ...]) -> Verdict:
    criterion = asked.criterion
    verdicts = []
    if criterion.worse_by is not None:
        verdicts.append(_judge_compared(asked, criterion.worse_by, ticks))
    if criterion.min is not None or criterion.max is not None:
        verdicts.append(_judge_limits(asked, ticks))
    order = ("fail", "error", "inconclusive", "pass")
    return min(verdicts, key=lambda one: order.index(one.verdict))


def _judge_compared(asked: _Asked, margin: Amount, ticks: tuple[Tick, ...]) -> Verdict:
    metric, is_relative = asked.criterion.metric, margin.unit == "%"
    if metric in BOUNDED:
        return _judge_apart(asked, margin, ticks)
    counted = BINARY.get(metric)
    if counted is not None and not is_relative and asked.criterion.test == "worse":
        return _judge_bad(asked, counted, min(MARGIN_SAFE, share(margin)), ticks)
    sign = 1.0 if counted is not None or metric in LOSSES else -1.0
    measured = share_of_outcomes(counted) if counted else LOSSES.get(metric, VALUES)
    state = effect_of(ticks, measured)
    allowed = _allowed(metric, margin, state)
    return _judge_effect(asked, state, sign, allowed)


def _allowed(metric: str, margin: Amount, state: EffectState) -> float:
    """The margin in the unit of the effect."""
    seen = state.baseline
    usual = seen.y / seen.units if seen.units else 0.0
    if metric in BINARY and margin.unit == "%":
        return share(margin) * (1 - usual)  # of the accuracy, not of what it lacks
    if metric == "rmse":
        root = math.sqrt(max(0.0, usual))
        added = share(margin) * root if margin.unit == "%" else margin.value
        return (root + added) ** 2 - usual
    return share(margin) * abs(usual) if margin.unit == "%" else share(margin)


def _judge_bad(
    asked: _Asked, counted: Counted, worse_by: float, ticks: tuple[Tick, ...]
) -> Verdict:
    """Bad outcomes: fail by a bet, pass without one that its own rate looks well."""
    bet = bet_on_margin(ticks, counted, worse_by)
    bets = [bet]
    if asked.criterion.metric == "accuracy" and not worse_by:
        bets.append(bet_on_negatives(ticks))  # type: ignore[arg-type]
    candidate, stable = total_of(ticks)
    (n_b, x_b), (n_a, x_a) = counted(candidate), counted(stable)
    alpha = asked.alpha / len(bets)
    strongest = max(bets, key=lambda one: one.mixture.log_e)
    numbers: dict[str, Number] = {
        "units_candidate": n_b, "events_candidate": x_b, "units_baseline": n_a,
        "events_baseline": x_a, "log_e": strongest.mixture.log_e,
        "log_e_peak": strongest.mixture.log_peak, "excess": bet.excess,
        "worse_by": worse_by, "alpha": asked.alpha,
    }  # fmt: skip
    said = (
        f"{asked.name}: {x_b} of {n_b} units were bad with the candidate, {x_a} of"
        f" {n_a} with stable"
    )
    if any(is_beaten(one, alpha) for one in bets):
        odds = (
            f"odds of {times(strongest.mixture.log_peak)} (the bar is {1 / alpha:.4g})"
        )
        reason = f"{said}: worse by more than {percent(worse_by)}, {odds}."
        return Verdict("fail", reason, numbers)
    if not n_a:
        return Verdict("inconclusive", f"{said}: nothing to compare with.", numbers)
    if bet.excess > 0 and worse_by:
        reason = f"{said}: beyond its margin, not yet shown to be."
        return Verdict("inconclusive", reason, numbers)
    return Verdict("pass", f"{said}: not shown to be worse.", numbers)


def _judge_effect(
    asked: _Asked, state: EffectState, sign: float, allowed: float
) -> Verdict:
    """The interval of a difference; `sign` is +1 where more is worse."""
    effect, metric = state.effect, asked.criterion.metric
    lower, upper = effect_bounds(effect, asked.alpha, state.precision)
    numbers = effect_numbers(state, asked.alpha) | {"worse_by": allowed}
    name = asked.name if metric != "rmse" else f"{asked.name} (mean squared error)"
    if effect.units < UNITS_MIN:
        reason = f"{name}: {effect.units} units after training, {UNITS_MIN} are wanted."
        return Verdict("inconclusive", reason, numbers)
    said = (
        f"{name}: the candidate differs by {effect.estimate:.4g}, between {lower:.4g}"
        f" and {upper:.4g}, from {effect.units} units; it may be {allowed:.4g} worse"
    )
    worst, best = (lower, upper) if sign > 0 else (-upper, -lower)
    estimate = sign * effect.estimate
    if metric == "bias":  # to either side is worse
        worst = max(lower, -upper)
        best, estimate = max(upper, -lower), abs(effect.estimate)
    if worst > allowed:
        return Verdict("fail", f"{said}.", numbers)
    if best < allowed or (asked.criterion.test == "worse" and estimate <= allowed):
        return Verdict("pass", f"{said}.", numbers)
    return Verdict("inconclusive", f"{said}: not known yet.", numbers)


def effect_numbers(state: EffectState, alpha: float) -> dict[str, Number]:
    """An effect as verdicts and reports tell it."""
    effect, seen_b, seen_a = state.effect, state.candidate, state.baseline
    lower, upper = effect_bounds(effect, alpha, state.precision)
    return {
        "units": effect.units, "estimate": effect.estimate, "lower": lower,
        "upper": upper, "alpha": alpha,
        "mean_candidate": seen_b.y / seen_b.units if seen_b.units else math.nan,
        "mean_stable": seen_a.y / seen_a.units if seen_a.units else math.nan,
    }  # fmt: skip


# -- limits and intervals --------------------------------------------------------------


def _judge_limits(asked: _Asked, ticks: tuple[Tick, ...]) -> Verdict:
    criterion = asked.criterion
    candidate, _ = total_of(ticks)
    lower, upper = bounds_of(criterion.metric, candidate, asked.alpha)
    low = -math.inf if criterion.min is None else share(criterion.min)
    high = math.inf if criterion.max is None else share(criterion.max)
    numbers: dict[str, Number] = {
        "lower": lower, "upper": upper, "low": low, "high": high,
        "alpha": asked.alpha,
    }  # fmt: skip
    said = (
        f"{asked.name}: between {lower:.4g} and {upper:.4g}, allowed are {low:.4g} to"
        f" {high:.4g}"
    )
    if upper < low or lower > high:
        return Verdict("fail", f"{said}.", numbers)
    middle = (lower + upper) / 2
    if math.isfinite(middle) and low <= middle <= high:
        return Verdict("pass", f"{said}.", numbers)
    return Verdict("inconclusive", f"{said}: not known yet.", numbers)


def _judge_apart(asked: _Asked, margin: Amount, ticks: tuple[Tick, ...]) -> Verdict:
    """Two intervals, each at half of alpha: worse when they are too far apart."""
    metric = asked.criterion.metric
    candidate, stable = total_of(ticks)
    lower_b, upper_b = bounds_of(metric, candidate, asked.alpha / 2)
    lower_a, upper_a = bounds_of(metric, stable, asked.alpha / 2)
    is_loss = metric == "calibration_error"
    allowed = share(margin)
    if margin.unit == "%":
        allowed *= lower_a if is_loss else upper_a
    fall = lower_b - upper_a if is_loss else lower_a - upper_b
    middle = (lower_b + upper_b - lower_a - upper_a) / 2 * (1 if is_loss else -1)
    numbers: dict[str, Number] = {
        "lower": lower_b, "upper": upper_b, "stable_lower": lower_a,
        "stable_upper": upper_a, "worse_by": allowed, "alpha": asked.alpha,
    }  # fmt: skip
    said = (
        f"{asked.name}: {lower_b:.4g} to {upper_b:.4g}, stable {lower_a:.4g} to"
        f" {upper_a:.4g}; it may be {allowed:.4g} worse"
    )
    if fall > allowed:
        return Verdict("fail", f"{said}.", numbers)
    if math.isfinite(middle) and middle <= allowed:
        return Verdict("pass", f"{said}: not shown to be worse.", numbers)
    return Verdict("inconclusive", f"{said}: not known yet.", numbers)


def bounds_of(metric: str, sums: Sums, alpha: float) -> tuple[float, float]:
    """An interval of a metric of one version that holds at every look."""
    if metric in BINARY:
        units, bad = BINARY[metric](sums)
        return _rate(units - bad, units, alpha)
    if metric == "precision":
        found = sums[Sum.TRUE_POSITIVE]
        return _rate(int(found), int(found + sums[Sum.FALSE_POSITIVE]), alpha)
    if metric == "calibration_error":
        return _calibration(sums, alpha)
    seen = LOSSES.get(metric, VALUES)(sums)
    if seen.units < UNITS_MIN:
        return -math.inf, math.inf
    mean = seen.y / seen.units
    squares = max(0.0, seen.yy - seen.units * mean * mean)
    variance = max(squares / seen.units, 1e-12)
    precision = tuning(ALPHA_TUNED, UNITS_EXPECTED * variance)
    radius = effect_radius(Effect(seen.units, seen.y, squares), alpha, precision)
    lower, upper = mean - radius, mean + radius
    if metric == "rmse":
        return math.sqrt(max(0.0, lower)), math.sqrt(max(0.0, upper))
    return lower, upper


def _rate(good: int, units: int, alpha: float) -> tuple[float, float]:
    return rate_bounds(good, units, alpha) if units else (-math.inf, math.inf)


def _calibration(sums: Sums, alpha: float) -> tuple[float, float]:
    """The calibration error when each bin's rate is anywhere in its interval."""
    if not sums[Sum.LABELS]:
        return -math.inf, math.inf
    least = most = 0.0
    for at in range(BINS):
        count = sums[Sum.BIN_COUNT + at]
        if not count:
            continue
        score = sums[Sum.BIN_SCORE + at] / count
        low, high = rate_bounds(sums[Sum.BIN_LABEL + at], int(count), alpha / BINS)
        least += count * max(0.0, low - score, score - high)
        most += count * max(high - score, score - low)
    return least / sums[Sum.LABELS], most / sums[Sum.LABELS]


def share(amount: Amount) -> float:
    """The number: a per cent or a point is a hundredth."""
    return amount.value / 100 if amount.unit in ("%", "pp") else amount.value
