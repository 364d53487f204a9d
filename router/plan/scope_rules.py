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

from router._fasthash import claim_order
from router.config.model import Force
from router.config.rollout import Holdout
from router.plan.claim import BASELINE, BucketMap
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
