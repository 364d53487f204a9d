"""What rollouts become in a plan: overrides, holdouts, a rule for every wave, shadows.

In a wave's map the buckets of candidates and of the baseline slice are theirs. Buckets
that a rival holds are left to it (CONTINUE). The rest is stable's, unless another
rollout may match the same request: then they are left too, whoever comes first, so that
no scope's share of stable changes because another one moves. Such a scope is compared
with its baseline slice alone.

A slice is the same rule once more for fewer requests, before it: it has counters of its
own and decides nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from router.config.model import Force
from router.config.rollout import Holdout
from router.plan.claim import BASELINE, BucketMap, order_of
from router.plan.layers import can_meet_any, held_out, rivals_of
from router.plan.plan import (
    BASELINE_ORDINAL,
    BUCKET_COUNT,
    CONTINUE,
    Condition,
    Not,
    Op,
    Reason,
    Rule,
    Shadow,
    Test,
    Variant,
)
from router.plan.rollout import Phase, ScopeState, ShadowStep, Spec
from router.plan.scopes import Conditions, both, has_arrived, wave_conditions

SERVES = frozenset(
    {
        Phase.RAMPING, Phase.HOLDING, Phase.AWAITING_APPROVAL, Phase.BAKING,
        Phase.PROMOTED,
    }
)  # fmt: skip

Scopes = tuple[tuple[Spec, ScopeState], ...]
Places = Mapping[tuple[int, int], int]  # (version, ordinal) -> position of the variant


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything beside a scope that its rules depend on."""

    scopes: Scopes  # of all models, in the order of the file
    holdouts: tuple[Holdout, ...]
    audiences: Conditions
    places: Places  # of the model being compiled


def is_serving(spec: Spec, state: ScopeState) -> bool:
    """Whether a scope gives its candidates traffic."""
    is_out = state.is_off or state.is_retired or has_arrived(spec)
    return bool(state.maps) and state.phase in SERVES and not is_out


def needs_baseline(model: str, scopes: Scopes) -> bool:
    """Whether some map of the model has a baseline slice."""
    return any(
        BASELINE in dict(buckets.claims)
        for spec, state in scopes
        if spec.model == model and is_serving(spec, state)
        for buckets in state.maps
    )


# -- overrides and holdouts ------------------------------------------------------------


def forced_rules(force: Force, variants: tuple[Variant, ...]) -> Iterator[Rule]:
    """A rule for each variant that a caller may ask for by version or name."""
    for position, variant in enumerate(variants):
        if variant.ordinal == BASELINE_ORDINAL:
            continue
        words = dict.fromkeys((str(variant.version).encode(), variant.name.encode()))
        yield Rule(
            name=f"force:{variant.name}",
            condition=Test(force.header.lower(), Op.IN, tuple(words)),
            salt="",
            buckets=None,
            variant=position,
            reason=Reason.OVERRIDE,
        )


def override_rules(spec: Spec, state: ScopeState, setting: Setting) -> Iterator[Rule]:
    """Units that never get a candidate, and units that always get the first one.

    The second only while the scope gives its candidates traffic: nobody comes before
    the shadow, and after a rollback nobody is left behind.
    """
    if state.is_retired or has_arrived(spec):
        return
    stable = setting.places[spec.stable, 0]
    if spec.deny:
        yield _override(spec, "deny", spec.deny, stable)
    candidate = setting.places.get((spec.candidates[0], 0), stable)
    if spec.allow and is_serving(spec, state):
        yield _override(spec, "allow", spec.allow, candidate)


def _override(spec: Spec, kind: str, units: tuple[str, ...], variant: int) -> Rule:
    channel = None
    if spec.channel is not None:
        channel = Test(spec.channel_key, Op.IN, (spec.channel.encode(),))
    listed = Test("unit", Op.IN, tuple(u.encode() for u in units), on_unit=True)
    return Rule(
        name=f"{spec.scope}!{kind}",
        condition=both(channel, listed),
        salt="",
        buckets=None,
        variant=variant,
        reason=Reason.OVERRIDE,
    )


def holdout_rules(model: str, stable: int, setting: Setting) -> Iterator[Rule]:
    """Units that are kept out of all routes and rollouts of the model."""
    for holdout in setting.holdouts:
        if holdout.models and model not in holdout.models:
            continue
        salt = holdout.salt or holdout.name
        buckets = bytearray([CONTINUE]) * BUCKET_COUNT
        for bucket in order_of(salt)[: holdout.percent]:
            buckets[bucket] = stable
        yield Rule(
            name=f"holdout:{holdout.name}",
            condition=None,
            salt=salt,
            buckets=bytes(buckets),
            variant=stable,
            reason=Reason.HOLDOUT,
        )


# -- waves and slices ------------------------------------------------------------------


def scope_rules(spec: Spec, state: ScopeState, setting: Setting) -> Iterator[Rule]:
    """The rules of a scope: for every wave that has begun, its slices and itself."""
    if not is_serving(spec, state):
        return
    conditions = wave_conditions(spec, setting.audiences)
    left: list[Condition | None] = []  # earlier waves that leave some of theirs
    for wave, claimed in enumerate(state.maps[: len(conditions)]):
        condition = both(conditions[wave], *(Not(c) for c in left if c is not None))
        buckets = _buckets(spec, claimed, conditions[wave], setting)
        name = f"{spec.scope}:{spec.waves[wave] or 'everyone'}"
        rule = Rule(
            name=name if spec.waves != ("",) else spec.scope,
            condition=condition,
            salt=spec.layer_salt,
            buckets=buckets,
            variant=setting.places[spec.stable, 0],
            reason=Reason.SPLIT,
            rollout_revision=state.revision,
            scope=spec.scope,
            attempt=state.attempt,
        )
        for audience in spec.slices:
            yield _slice(rule, audience, setting.audiences[audience])
        yield rule
        if CONTINUE in buckets:
            left.append(conditions[wave])


def _slice(rule: Rule, audience: str, asked: Condition) -> Rule:
    return replace(
        rule, name=f"{rule.name}@{audience}", condition=both(rule.condition, asked)
    )


def _buckets(
    spec: Spec, claimed: BucketMap, condition: Condition | None, setting: Setting
) -> bytes:
    stable = setting.places[spec.stable, 0]
    others = competitors(spec, setting)
    is_shared = can_meet_any(condition, others, setting.audiences)
    buckets = bytearray([CONTINUE if is_shared else stable]) * BUCKET_COUNT
    for version, mine in claimed.claims:
        key = (spec.stable, BASELINE_ORDINAL) if version == BASELINE else (version, 0)
        # A version that is no longer served: its share is stable's.
        variant = setting.places.get(key, stable)
        for bucket in mine:
            buckets[bucket] = variant
    rivals = rivals_of(spec, condition, setting.scopes, setting.audiences)
    taken = held_out(spec, setting.holdouts).union(*(rival.held for rival in rivals))
    own = {bucket for _, mine in claimed.claims for bucket in mine}
    for bucket in taken - own:
        buckets[bucket] = CONTINUE
    return bytes(buckets)


def shadows_of(spec: Spec, state: ScopeState, setting: Setting) -> Iterator[Shadow]:
    """The candidates of a scope that also run what others answer.

    By bucket they take the units that they will later answer first.
    """
    step = spec.steps[state.step] if state.step < len(spec.steps) else None
    if not isinstance(step, ShadowStep) or not _is_shadowing(spec, state):
        return
    buckets = bytearray(BUCKET_COUNT)
    for bucket in order_of(spec.claim_salt)[: step.share_bp]:
        buckets[bucket] = 1
    condition = wave_conditions(spec, setting.audiences)[state.wave]
    is_alone = len(spec.candidates) == 1
    for candidate in spec.candidates:
        if (candidate, 0) not in setting.places:
            continue
        yield Shadow(
            name=spec.scope if is_alone else f"{spec.scope}#{candidate}",
            variant=setting.places[candidate, 0],
            condition=condition,
            salt=spec.layer_salt,
            buckets=bytes(buckets) if step.is_sticky else None,
            sample_bp=BUCKET_COUNT if step.is_sticky else step.share_bp,
        )


def _is_shadowing(spec: Spec, state: ScopeState) -> bool:
    if state.is_off or state.is_retired or has_arrived(spec):
        return False
    has_begun = state.phase == Phase.SHADOWING
    return has_begun or (state.phase == Phase.HOLDING and state.elapsed_s > 0)


def competitors(spec: Spec, setting: Setting) -> tuple[Spec, ...]:
    """Other rollouts of which one may answer the same request, or claim the same
    bucket."""
    return tuple(
        other
        for other, state in setting.scopes
        if other.rollout != spec.rollout
        and not state.is_retired
        and not has_arrived(other)
        and (other.model == spec.model or other.layer_salt == spec.layer_salt)
    )
