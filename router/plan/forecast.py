"""What a rollout will do and how long it will take at least, before it does it.

Times are the shortest possible: every gate passes at once, nobody lets an approval
wait. Growth waits for its windows, so a step may end later than its soak.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from router.config.config import Config
from router.config.steps import Criterion
from router.plan.condition import compile_audiences
from router.plan.layers import can_meet_any
from router.plan.overlap import can_meet, is_possible
from router.plan.plan import Plan, Reason, Test
from router.plan.program import tests_of
from router.plan.rollout import (
    ApprovalStep,
    BakeStep,
    PreflightStep,
    ScopeState,
    ShadowStep,
    Spec,
    Step,
    WeightStep,
)
from router.plan.scope_rules import Scopes
from router.plan.scopes import (
    USUAL_GUARDRAILS,
    Conditions,
    has_arrived,
    wave_conditions,
)
from router.plan.windows import next_open

# Above this part of the executors' time queues grow long before they are full.
BUSY_MAX = 0.8
_NO_ROUTE = (Reason.OVERRIDE, Reason.HOLDOUT)


@dataclass(frozen=True, slots=True)
class StepForecast:
    """One step: what it is, and how long after the begin it is over at the earliest."""

    wave: str
    text: str
    lasts_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class ScopeForecast:
    """A scope: where it stands, shares asked for and held now, its steps, its notes."""

    scope: str
    phase: str
    requested_bp: Mapping[int, int]
    effective_bp: Mapping[int, int]
    steps: tuple[StepForecast, ...]
    total_s: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What is known of the machine: run times in seconds by (model, version)."""

    executors: int = 0
    run_s: Mapping[tuple[str, int], float] | None = None


def forecast(
    config: Config, scopes: Scopes, now_s: float, load: Load
) -> tuple[ScopeForecast, ...]:
    """Every scope of a configuration. `now_s` is only needed for windows."""
    rates = {rollout.name: rollout.expected_rate for rollout in config.rollouts}
    audiences = compile_audiences(config.audiences)
    return tuple(
        _forecast(
            spec, state, now_s, rates[spec.rollout],
            (
                *_capacity_notes(spec, rates[spec.rollout], load),
                *_notes(spec, scopes, audiences),
            ),
        )
        for spec, state in scopes
    )  # fmt: skip


def plan_notes(plan: Plan) -> Iterator[str]:
    """Rules that can never match, and routes of which the second sees only what the
    first one leaves."""
    for model in plan.models:
        for rule in model.rules:
            if not is_possible(rule.condition):
                yield f"{model.name}: rule '{rule.name}' can never match"
        asking = [rule for rule in model.rules if rule.condition and not rule.scope]
        routes = [rule for rule in asking if rule.reason not in _NO_ROUTE]
        for at, rule in enumerate(routes):
            for earlier in routes[:at]:
                if can_meet(earlier.condition, rule.condition):
                    yield (
                        f"{model.name}: '{earlier.name}' and '{rule.name}' may match"
                        f" the same request; '{earlier.name}' answers it"
                    )


def _forecast(
    spec: Spec,
    state: ScopeState,
    now_s: float,
    rate: float | None,
    notes: tuple[str, ...],
) -> ScopeForecast:
    steps: list[StepForecast] = []
    at_s = next_open(spec.windows, now_s) if spec.windows else now_s
    for wave, step in _course(spec):
        lasts = _shortest_s(step, rate)
        over = at_s + lasts
        if spec.windows and not isinstance(step, BakeStep):
            over = next_open(spec.windows, over)
        steps.append(StepForecast(wave, _words(step), lasts, over - now_s))
        at_s = over
    held = state.maps[-1].claims if state.maps else ()
    return ScopeForecast(
        scope=spec.scope,
        phase=str(state.phase),
        requested_bp=dict(state.weights_bp),
        effective_bp={version: len(buckets) for version, buckets in held if version},
        steps=tuple(steps),
        total_s=at_s - now_s,
        notes=notes,
    )


def _course(spec: Spec) -> Iterator[tuple[str, Step]]:
    """The steps in the order they are taken: what comes before the first weight once,
    the weights for every wave, baking at the end."""
    first = next(
        (i for i, step in enumerate(spec.steps) if isinstance(step, WeightStep)),
        len(spec.steps),
    )
    for step in spec.steps[:first]:
        yield "", step
    for wave in spec.waves:
        for step in spec.steps[first:]:
            if not isinstance(step, BakeStep):
                name = wave or ("everyone" if len(spec.waves) > 1 else "")
                yield name, step
    for step in spec.steps[first:]:
        if isinstance(step, BakeStep):
            yield "", step


def _shortest_s(step: Step, rate: float | None) -> float:
    match step:
        case ShadowStep(share_bp=share, min_samples=samples, soak_s=soak):
            return max(soak, _seconds_for(samples, share, rate))
        case WeightStep(weights_bp=weights, min_units=units, soak_s=soak):
            least = min((bp for _, bp in weights if bp), default=0)
            return max(soak, _seconds_for(units, least, rate))
        case BakeStep(soak_s=soak):
            return soak
        case _:
            return 0.0


def _seconds_for(count: int, share_bp: int, rate: float | None) -> float:
    """How long so many requests take; no unit comes before its first request."""
    if not rate or not share_bp:
        return 0.0
    return count / (rate * share_bp / 10_000)


def _words(step: Step) -> str:
    match step:
        case PreflightStep(replay=replay):
            return f"preflight with {replay}"
        case ShadowStep(share_bp=share):
            return (
                f"shadow {share / 100:g} %{_waits(step.min_samples, 'samples', step)}"
            )
        case WeightStep(weights_bp=weights):
            shares = ", ".join(f"{v}: {bp / 100:g} %" for v, bp in weights)
            return f"weight {shares}{_waits(step.min_units, 'units', step)}"
        case ApprovalStep(group=group):
            return f"approval{f' by {group}' if group else ''}"
        case BakeStep():
            return f"bake{_waits(step.min_units, 'units', step)}"


def _waits(count: int, what: str, step: ShadowStep | WeightStep | BakeStep) -> str:
    asked = [f"{count} {what}"] if count else []
    if isinstance(step, WeightStep) and step.is_open_ended:
        asked.append("a decision")
    asked += [_name(gate) for gate in step.gates]
    return f", needs {', '.join(asked)}" if asked else ""


def _name(criterion: Criterion) -> str:
    return criterion.name or criterion.metric


# -- notes -----------------------------------------------------------------------------


def _notes(spec: Spec, scopes: Scopes, audiences: Conditions) -> Iterator[str]:
    if has_arrived(spec):
        yield "its candidate is stable: it does nothing, and can be removed"
        return
    waves = wave_conditions(spec, audiences)
    for other, _ in scopes:
        if other.rollout == spec.rollout or other.model != spec.model:
            continue
        if any(can_meet_any(wave, (other,), audiences) for wave in waves):
            against = "its baseline slice only" if spec.has_baseline else "nothing"
            yield (
                f"may match the same requests as {other.scope}: buckets are shared out,"
                f" and it is compared with {against}"
            )
    for name, wave in zip(spec.waves, waves, strict=True):
        if not is_possible(wave):
            yield f"wave '{name or 'everyone'}' can never match"
        inputs = sorted({key for key in map(_input, tests_of(wave)) if key})
        if inputs:
            named = ", ".join(inputs)
            yield f"not sticky: who takes part depends on each request's {named}"
    if spec.guardrails in (USUAL_GUARDRAILS, USUAL_GUARDRAILS[:1]):
        names = " and ".join(one.metric for one in spec.guardrails)
        yield f"no guardrails are named: the usual ones apply ({names})"
    for step in spec.steps:
        needed = [g for g in getattr(step, "gates", ()) if g.min_samples > _units(step)]
        if _units(step) and needed:
            yield (
                f"{_words(step)}: {_name(needed[0])} needs {needed[0].min_samples}"
                " samples, so the step may hold longer than its own minimum"
            )


def _input(test: Test) -> str:
    return test.key if test.key.startswith("input.") and not test.on_unit else ""


def _units(step: Step) -> int:
    return int(getattr(step, "min_units", 0) or getattr(step, "min_samples", 0))


def _capacity_notes(spec: Spec, rate: float | None, load: Load) -> Iterator[str]:
    if rate is None or not load.executors:
        return
    for version in spec.candidates:
        run_s = (load.run_s or {}).get((spec.model, version))
        if run_s is None:
            yield f"capacity is not known: version {version} has not been run"
            continue
        for step in spec.steps:
            share = _largest(step, version)
            busy = rate * share / 10_000 * run_s
            if busy > BUSY_MAX * load.executors:
                yield (
                    f"capacity: {_words(step)} keeps {busy:.1f} of {load.executors}"
                    f" executors busy ({rate:g} requests/s at {run_s * 1000:g} ms)"
                )


def _largest(step: Step, version: int) -> int:
    match step:
        case ShadowStep(share_bp=share):
            return share
        case WeightStep(weights_bp=weights):
            return dict(weights).get(version, 0)
        case _:
            return 0
