"""What `router simulate` answers: how a rollout goes, how soon harm would be seen.

Two answers, from two methods. The *course* is the real controller on imagined traffic,
once for each run. The *odds* play only the test of the error rate, thousands of times,
so that rare things (a healthy candidate that is thrown out) have a number too.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from router.analysis import detect
from router.clock import SystemClock
from router.config.config import Config
from router.control.gates import alpha_of, name_of, tests_of
from router.errors import ConfigError, Problem
from router.lab.demand import Behaviour, Demand, Group
from router.lab.simulate import TICK_MAX_S, Ended, Simulation
from router.models.repository import list_models
from router.plan.compile import unbegun
from router.plan.condition import compile_audiences
from router.plan.forecast import Load, ScopeForecast, forecast
from router.plan.plan import All, AnyOf, Condition, Op, Test
from router.plan.rollout import Phase, Spec, WeightStep
from router.plan.scopes import specs_of, wave_conditions

TICKS_A_RUN = 200  # about so many looks at a rollout that goes as planned
TICK_MIN_S = 0.25
PATIENCE, PATIENCE_MIN_S = 3.0, 900.0  # times the planned time, or so long
ODDS_RUNS, ODDS_TICKS = 1_000, 400
RUNS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Question:
    """What is imagined: rates of errors per request, latency as a median.

    Nothing said of the candidate: it is like stable. `effect` is how many times more
    errors the odds are asked for.
    """

    rollout: str | None = None
    rate: float = 20.0
    units: int = 0
    error_rate: float = 0.005
    candidate_error_rate: float | None = None
    latency_ms: float = 5.0
    candidate_latency_ms: float | None = None
    candidate_invalid_rate: float = 0.0
    effect: float = 2.0
    runs: int = 1
    seed: int = 0

    @property
    def stable(self) -> Behaviour:
        """How stable behaves."""
        return Behaviour(self.error_rate, latency_ms=self.latency_ms)

    @property
    def candidate(self) -> Behaviour:
        """How candidates behave."""
        errors, latency_ms = self.candidate_error_rate, self.candidate_latency_ms
        return Behaviour(
            self.error_rate if errors is None else errors,
            self.candidate_invalid_rate,
            self.latency_ms if latency_ms is None else latency_ms,
        )


@dataclass(frozen=True, slots=True)
class Odds:
    """Of the test of the error rate alone, over the steps that give a share."""

    effect: float
    detected: float
    """The chance that so bad a candidate is found out while the rollout lasts."""
    detected_after_s: float | None
    """Half are found out by then; none when mostly they are not."""
    false_abort: float
    """The chance that a candidate as good as stable is thrown out."""


@dataclass(frozen=True, slots=True)
class Course:
    """How one scope went: the first run in full, the others counted."""

    plan: ScopeForecast
    first: Ended
    outcomes: Mapping[str, int]
    took_s_median: float
    odds: Odds | None
    notes: tuple[str, ...]


def play(config: Config, question: Question) -> tuple[Course, ...]:
    """Play the configuration's rollouts; ConfigError when there is none such."""
    config = _narrowed(config, question.rollout)
    listed = list_models(config)
    specs = specs_of(config, listed)
    scopes = tuple((spec, unbegun(spec)) for spec in specs)
    plans = forecast(config, scopes, SystemClock().now(), Load())
    planned_s = max(plan.total_s for plan in plans)
    tick_s = min(max(planned_s / TICKS_A_RUN, TICK_MIN_S), TICK_MAX_S)
    patience_s = max(PATIENCE * planned_s, PATIENCE_MIN_S)
    demands = demands_of(config, specs, question)
    runs = [
        Simulation(config, listed, demands, question.seed + run, tick_s).run(patience_s)
        for run in range(question.runs)
    ]
    return tuple(
        _course(spec, plan, [run[at] for run in runs], question)
        for at, (spec, plan) in enumerate(zip(specs, plans, strict=True))
    )


def demands_of(
    config: Config, specs: Sequence[Spec], question: Question
) -> tuple[Demand, ...]:
    """The traffic of every model that has a rollout: in equal parts from each audience
    and channel that some rollout asks for, and from nobody in particular."""
    audiences = compile_audiences(config.audiences)
    demands = []
    for model in dict.fromkeys(spec.model for spec in specs):
        mine = [spec for spec in specs if spec.model == model]
        behaviours = {spec.stable: question.stable for spec in mine}
        behaviours |= {v: question.candidate for spec in mine for v in spec.candidates}
        asked = [
            condition for spec in mine for condition in wave_conditions(spec, audiences)
        ]
        who = [example_of(condition) for condition in asked if condition is not None]
        attributes = [{}, *(one for one in who if one)]
        groups = tuple(Group(one, 1 / len(attributes)) for one in attributes)
        demands.append(
            Demand(model, behaviours, question.rate, question.units, groups=groups)
        )
    return tuple(demands)


def example_of(condition: Condition) -> dict[str, str]:
    """Attributes of somebody for whom a condition is true; none when that is not easy
    to say."""
    match condition:
        case All(of=members):
            found: dict[str, str] = {}
            for member in members:
                found |= example_of(member)
            return found
        case AnyOf(of=members):
            return example_of(members[0]) if members else {}
        case Test(on_unit=False) as test:
            return _example_of(test)
    return {}


def _example_of(test: Test) -> dict[str, str]:
    texts = (Op.IN, Op.PREFIX, Op.SUFFIX, Op.CONTAINS)
    if test.op in texts and test.operands:
        return {test.key: test.operands[0].decode()}
    if test.op == Op.PRESENT:
        return {test.key: "x"}
    if test.op in (Op.RANGE, Op.BETWEEN):
        inside = [bound for bound in (test.low, test.high) if math.isfinite(bound)]
        middle = sum(inside) / len(inside) if inside else 0.0
        if test.op == Op.BETWEEN and len(inside) == 1:
            middle += 1.0 if math.isfinite(test.low) else -1.0
        return {test.key: f"{middle:g}"}
    if test.op == Op.EQUAL:
        return {test.key: f"{test.low:g}"}
    return {}


def odds_of(spec: Spec, question: Question) -> Odds | None:
    """How often, and how soon, the test of the error rate speaks; None without it."""
    steps = [step for step in spec.steps if isinstance(step, WeightStep)]
    names = {name_of(one) for one, _, _ in tests_of(spec) if one.metric == "error_rate"}
    lasting = [(_share(step), step.soak_s) for step in steps if step.soak_s]
    lasting = [(share, soak_s) for share, soak_s in lasting if 0 < share < 1]
    if not names or not lasting or not question.error_rate:
        return None
    tick_s = max(1.0, sum(soak_s for _, soak_s in lasting) / ODDS_TICKS)
    ladder = tuple(
        detect.Step(share, max(1, round(soak_s / tick_s))) for share, soak_s in lasting
    )
    traffic = detect.Traffic(ladder, question.rate * tick_s, question.error_rate)
    alpha = alpha_of(spec)
    harm = detect.forecast(traffic, question.effect, alpha, ODDS_RUNS, question.seed)
    none = detect.forecast(traffic, 1.0, alpha, ODDS_RUNS, question.seed)
    ticks = harm.ticks_median
    after_s = ticks * tick_s if math.isfinite(ticks) else None
    return Odds(question.effect, harm.detected, after_s, none.detected)


def _share(step: WeightStep) -> float:
    return sum(bp for _, bp in step.weights_bp) / 10_000


def _course(
    spec: Spec, plan: ScopeForecast, ends: Sequence[Ended], question: Question
) -> Course:
    counted = Counter(str(end.phase) for end in ends)
    return Course(
        plan=plan,
        first=ends[0],
        outcomes=dict(counted.most_common()),
        took_s_median=statistics.median(end.took_s for end in ends),
        odds=odds_of(spec, question),
        notes=tuple(_notes(spec)),
    )


def _notes(spec: Spec) -> Iterator[str]:
    kinds = {type(step).__name__ for step in spec.steps}
    if "ApprovalStep" in kinds:
        yield "approvals are given at once"
    if "PreflightStep" in kinds:
        yield "preflights pass at once"
    if spec.strategy == "ab":
        yield "what feedback would say is not played"


def _narrowed(config: Config, rollout: str | None) -> Config:
    named = tuple(r for r in config.rollouts if rollout in (None, r.name))
    if not named:
        wrong = f"no rollout '{rollout}'" if rollout else "there is no rollout"
        known = ", ".join(one.name for one in config.rollouts) or "none"
        raise ConfigError((Problem("", 0, "rollouts", wrong, "", f"known: {known}"),))
    return config.model_copy(update={"rollouts": named})


def has_promoted(courses: Sequence[Course]) -> bool:
    """Whether every scope was promoted in every run."""
    return all(set(course.outcomes) == {Phase.PROMOTED} for course in courses)


def was_ended_early(courses: Sequence[Course]) -> bool:
    """Whether some scope was rolled back, or failed, in some run."""
    ends = {Phase.ROLLED_BACK, Phase.FAILED}
    return any(ends.intersection(course.outcomes) for course in courses)
