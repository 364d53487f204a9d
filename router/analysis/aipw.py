"""How large is the effect? An estimate and an interval that survive ramps and looks.

Every unit becomes one number whose mean is the candidate's outcome minus the
baseline's, whoever served it (inverse propensity weighting with a regression, "AIPW"):

    phi = g_b - g_a + (Y - g_b) / rho         for a unit of the candidate
    phi = g_b - g_a - (Y - g_a) / (1 - rho)   for one of the baseline

g_b and g_a are guesses made *before* the outcome: earlier ticks' means, moved along a
covariate that the variant cannot touch (the unit's value before, stable's score). A
good guess narrows the interval, which is what CUPED does at a fixed share; a bad one
never biases it. With S and V the sums of phi and of its square, and h fixed before the
data, the interval is the design-based asymptotic confidence sequence

    S / t -+ sqrt((V h + 1) / h ln((V h + 1) / alpha^2)) / t

(Ham et al. 2023; Waudby-Smith et al. 2024). Asymptotic: not before some hundred units,
and one phi for each randomised unit or cluster, never one for each request of a sticky
unit. The estimate is of the average effect over the units seen, so trends and ramps do
not bend it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from router.analysis.verdict import Number, Verdict

UNITS_MIN = 500  # below this the interval's coverage is not to be trusted
UNITS_EXPECTED = 10_000  # where the interval is narrowest; it holds anywhere
TRAINING_UNITS = 50  # enough for a variance within some 20 %, which is all tuning needs
ALPHA_TUNED = 0.05  # any alpha is valid with any precision; this one is most asked for


@dataclass(frozen=True, slots=True)
class Effect:
    """What was added up: number of units, sums of phi and of its square."""

    units: int = 0
    total: float = 0.0
    squares: float = 0.0

    @property
    def estimate(self) -> float:
        """The candidate's mean minus the baseline's; NaN before the first unit."""
        return self.total / self.units if self.units else math.nan

    def __add__(self, other: "Effect") -> "Effect":
        return Effect(
            self.units + other.units,
            self.total + other.total,
            self.squares + other.squares,
        )

    def as_dict(self) -> dict[str, Any]:
        """The sums as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Effect":
        """The sums that `as_dict` wrote."""
        return cls(**stored)


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over one variant's units: outcome y, covariate x, squares and product."""

    units: int = 0
    y: float = 0.0
    yy: float = 0.0
    x: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.units + other.units,
            self.y + other.y,
            self.yy + other.yy,
            self.x + other.x,
            self.xx + other.xx,
            self.xy + other.xy,
        )


@dataclass(frozen=True, slots=True)
class Guess:
    """A straight line that predicts outcomes from the covariate."""

    level: float = 0.0
    slope: float = 0.0

    def at(self, x: float) -> float:
        """The outcome predicted for a unit with this covariate."""
        return self.level + self.slope * x


def moments(outcomes: Sequence[float], covariates: Sequence[float] = ()) -> Moments:
    """The sums of one variant's units; without covariates they count as zero."""
    x = list(covariates) or [0.0] * len(outcomes)
    return Moments(
        len(outcomes),
        math.fsum(outcomes),
        math.fsum(y * y for y in outcomes),
        math.fsum(x),
        math.fsum(value * value for value in x),
        math.fsum(y * value for y, value in zip(outcomes, x, strict=True)),
    )


def guess(seen: Moments) -> Guess:
    """The least-squares line through what was seen so far; flat without a spread."""
    if seen.units == 0:
        return Guess()
    spread = seen.xx - seen.x * seen.x / seen.units
    # Rounding leaves a spread of 1e-16 of the squares where the covariate is constant.
    if spread <= 1e-12 * seen.xx or seen.units < 3:
        return Guess(seen.y / seen.units)
    slope = (seen.xy - seen.x * seen.y / seen.units) / spread
    return Guess((seen.y - slope * seen.x) / seen.units, slope)


def phi(
    outcome: float, is_candidate: bool, rho: float, guess_b: float, guess_a: float
) -> float:
    """One unit's contribution, from guesses made before its outcome was known."""
    assert 0 < rho < 1
    if is_candidate:
        return guess_b - guess_a + (outcome - guess_b) / rho
    return guess_b - guess_a - (outcome - guess_a) / (1 - rho)


def add_phis(effect: Effect, phis: Sequence[float]) -> Effect:
    """The sums after more units (or clusters, each with the sum over its requests)."""
    squares = math.fsum(value * value for value in phis)
    return effect + Effect(len(phis), math.fsum(phis), squares)


def clustered(parts: Sequence[Effect]) -> Effect:
    """The effect when units of one cluster (bucket group) are not independent.

    The squares are those of the clusters' totals, so requests of one sticky unit count
    together. For the width of a report's interval; a gate wants one phi a unit.
    """
    return Effect(
        sum(part.units for part in parts),
        math.fsum(part.total for part in parts),
        math.fsum(part.total**2 for part in parts),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """A tick's outcomes in one stratum, as sums of each variant."""

    candidate: Moments
    baseline: Moments
    rho: float


@dataclass(frozen=True, slots=True)
class EffectState:
    """An effect being measured tick by tick, with what the guesses are made from.

    Until `precision` is chosen the ticks only train: guesses and precision may not
    know the outcomes that they are used on.
    """

    effect: Effect = Effect()
    candidate: Moments = Moments()
    baseline: Moments = Moments()
    precision: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The state as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "EffectState":
        """The state that `as_dict` wrote."""
        return cls(
            Effect(**stored["effect"]),
            Moments(**stored["candidate"]),
            Moments(**stored["baseline"]),
            stored["precision"],
        )


def step_effect(
    state: EffectState, *strata: Outcome, units_expected: int = UNITS_EXPECTED
) -> EffectState:
    """The state after one tick. Guesses come from earlier ticks only."""
    line_b, line_a = guess(state.candidate), guess(state.baseline)
    if state.candidate.units == 0:
        line_b = line_a  # no effect is the natural guess before the first outcome
    effect = state.effect
    for tick in strata:
        if state.precision and 0 < tick.rho < 1:
            more = _side(tick.candidate, line_b, line_a, 1 / tick.rho)
            less = _side(tick.baseline, line_a, line_b, 1 / (1 - tick.rho))
            effect = effect + more + replace(less, total=-less.total)
    candidate = sum((tick.candidate for tick in strata), state.candidate)
    baseline = sum((tick.baseline for tick in strata), state.baseline)
    rhos = [tick.rho for tick in strata if 0 < tick.rho < 1]
    precision = state.precision
    if precision is None and rhos:
        precision = _precision(candidate + baseline, rhos[-1], units_expected)
    return EffectState(effect, candidate, baseline, precision)


def _precision(seen: Moments, rho: float, units_expected: int) -> float | None:
    """The tuning for the sum of squares to expect, once outcomes are known to vary."""
    if seen.units < TRAINING_UNITS:
        return None
    variance = seen.yy / seen.units - (seen.y / seen.units) ** 2
    if variance <= 1e-12 * seen.yy / seen.units:
        return None
    return tuning(ALPHA_TUNED, units_expected * variance / (rho * (1 - rho)))


def effect_bounds(
    effect: Effect, alpha: float, precision: float | None
) -> tuple[float, float]:
    """The interval that holds at every look; unbounded before there is anything."""
    if effect.units == 0 or precision is None:
        return -math.inf, math.inf
    radius = effect_radius(effect, alpha, precision)
    return effect.estimate - radius, effect.estimate + radius


def tuning(alpha: float, variance_expected: float) -> float:
    """The mixture's precision (eta squared) that is best at that sum of squares."""
    bar = -2 * math.log(alpha)
    return (bar + math.log1p(bar)) / variance_expected


def effect_radius(effect: Effect, alpha: float, precision: float) -> float:
    """Half the interval's width, for one precision chosen before the data."""
    grown = effect.squares * precision + 1
    return math.sqrt(grown / precision * math.log(grown / alpha**2)) / effect.units


def judge_reward(
    state: EffectState,
    worse_by: float,
    alpha: float,
    units_min: int = UNITS_MIN,
    name: str = "reward",
) -> Verdict:
    """Say whether the mean of something good fell by more than `worse_by`.

    Passes when the whole interval is above minus the margin: the fall is shown to be
    smaller, or there is none.
    """
    assert worse_by >= 0
    assert units_min > 0, "no data is never enough"
    effect = state.effect
    lower, upper = effect_bounds(effect, alpha, state.precision)
    numbers: dict[str, Number] = {
        "units": effect.units,
        "estimate": effect.estimate,
        "lower": lower,
        "upper": upper,
        "worse_by": worse_by,
        "alpha": alpha,
    }
    if effect.units < units_min:
        reason = f"{name}: {effect.units} units, {units_min} are wanted."
        return Verdict("inconclusive", reason, numbers)
    said = (
        f"{name}: the candidate differs by {effect.estimate:.4g}, between {lower:.4g} "
        f"and {upper:.4g} from {effect.units} units; it may be {worse_by:g} lower"
    )
    if upper < -worse_by:
        return Verdict("fail", f"{said}.", numbers)
    if lower > -worse_by:
        return Verdict("pass", f"{said}.", numbers)
    return Verdict("inconclusive", f"{said}: not known yet.", numbers)


def _side(seen: Moments, mine: Guess, other: Guess, weight: float) -> Effect:
    """Sums of phi over units of one variant, as if it were the candidate.

    phi = (mine - other)(x) + weight (y - mine(x)) is linear in y and x:
    weight y + level + slope x.
    """
    level = mine.level - other.level - weight * mine.level
    slope = mine.slope - other.slope - weight * mine.slope
    total = weight * seen.y + level * seen.units + slope * seen.x
    squares = (
        weight * weight * seen.yy
        + level * level * seen.units
        + slope * slope * seen.xx
        + 2 * weight * level * seen.y
        + 2 * weight * slope * seen.xy
        + 2 * level * slope * seen.x
    )
    return Effect(seen.units, total, max(0.0, squares))
