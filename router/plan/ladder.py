"""From the steps of a file to the steps of a scope.

A ramp becomes one weight step for every increment, one number becomes a weight for each
candidate, and a strategy says what its file leaves out. What makes no sense was refused
before (`config/check_rollouts.py`); here every configuration that passed has a meaning.
"""

from router.config.rollout import Rollout
from router.config.steps import Amount, Ramp, Weights
from router.config.steps import Step as WrittenStep
from router.plan.rollout import (
    ApprovalStep,
    BakeStep,
    PreflightStep,
    ShadowStep,
    Step,
    WeightStep,
)

WeightsBp = tuple[tuple[int, int], ...]

FULL_BP = 10_000
SHADOW_SOAK_S = 86_400.0  # a day, so that every hour's traffic was seen once
SHADOW_SAMPLES = 1000
BLUE_GREEN_BAKE_S = 3600.0


def compile_steps(
    rollout: Rollout, written: tuple[WrittenStep, ...], candidates: tuple[int, ...]
) -> tuple[Step, ...]:
    """The steps of a rollout's scopes; `written` are its own or its policy's."""
    steps: list[Step] = []
    last_bp = 0
    for step in written:
        if step.ramp is not None:
            for bp in increments(step.ramp, last_bp):
                steps.append(_increment(step.ramp, bp, candidates))
            last_bp = step.ramp.to
        elif step.weight is not None:
            weights = spread(step.weight.to, candidates)
            weight = step.weight
            steps.append(
                WeightStep(weights, weight.for_ or 0.0, weight.min_units, weight.gates)
            )
            last_bp = max(bp for _, bp in weights)
        else:
            steps.append(_plain(step))
    if rollout.strategy == "ab":
        return _experiment(rollout, steps, candidates)
    return tuple(steps) or _default(rollout.strategy, candidates)


def spread(weights: Weights, candidates: tuple[int, ...]) -> WeightsBp:
    """A weight for every candidate: the same for each, or by version, else none."""
    if isinstance(weights, int):
        return tuple((version, weights) for version in candidates)
    return tuple((version, weights.get(version, 0)) for version in candidates)


def increments(ramp: Ramp, last_bp: int) -> tuple[int, ...]:
    """The weights of a ramp; the last increment is smaller when it has to be."""
    first = last_bp + ramp.increment if ramp.from_ is None else ramp.from_
    if first >= ramp.to:
        return (ramp.to,)
    return (*range(first, ramp.to, ramp.increment), ramp.to)


def _increment(ramp: Ramp, bp: int, candidates: tuple[int, ...]) -> WeightStep:
    weights = spread(bp, candidates)
    return WeightStep(weights, ramp.every, ramp.min_units, ramp.gates)


def _plain(step: WrittenStep) -> Step:
    """Any step that is neither a weight nor a ramp."""
    if step.preflight is not None:
        written = step.preflight
        return PreflightStep(
            written.replay,
            written.max_disagreement,
            written.tolerance,
            _relative(written.latency_worse_by),
            written.attestation,
        )
    if step.shadow is not None:
        shadow = step.shadow
        return ShadowStep(
            shadow.percent, shadow.by == "bucket", shadow.min_samples, shadow.for_,
            shadow.gates,
        )  # fmt: skip
    if step.approval is not None:
        approval = step.approval
        return ApprovalStep(
            approval.group, approval.timeout, approval.on_timeout == "rollback"
        )
    assert step.bake is not None
    return BakeStep(step.bake.for_, step.bake.min_units, step.bake.gates)


def _relative(amount: Amount | None) -> float | None:
    return None if amount is None else amount.value / 100


def _experiment(
    rollout: Rollout, steps: list[Step], candidates: tuple[int, ...]
) -> tuple[Step, ...]:
    """What comes before, the split until it is decided, what comes after."""
    weights = spread(rollout.split or 0, candidates)
    middle = WeightStep(weights, 0.0, 0, (), is_open_ended=True)
    after = [step for step in steps if isinstance(step, BakeStep)]
    before = [step for step in steps if not isinstance(step, BakeStep)]
    return (*before, middle, *after)


def _default(strategy: str, candidates: tuple[int, ...]) -> tuple[Step, ...]:
    """The steps of a strategy whose file has none."""
    if strategy == "shadow":
        return (ShadowStep(FULL_BP, True, SHADOW_SAMPLES, SHADOW_SOAK_S, ()),)
    assert strategy == "blue_green", f"a {strategy} without steps was refused"
    return (
        ApprovalStep(None, None, False),
        WeightStep(spread(FULL_BP, candidates), 0.0, 0, ()),
        BakeStep(BLUE_GREEN_BAKE_S, 0, ()),
    )
