"""Rollouts of one layer and who of them holds which bucket.

Two scopes are *rivals* when one request may match both: they never share a bucket of
their layer, so that each gets exactly the share it asks for and a unit is in one of
them only. Scopes whose audiences provably exclude each other share buckets freely.

A unit's sets nest: waves and channels of one rollout claim in one order, and where a
candidate already holds buckets in an earlier wave or another channel, those come first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from router.config.rollout import Holdout
from router.errors import ClaimError
from router.plan.claim import BASELINE, BucketMap, claim_scope, order_of
from router.plan.overlap import can_meet
from router.plan.plan import BUCKET_COUNT, Condition
from router.plan.rollout import ScopeState, Spec, WeightStep
from router.plan.scopes import Conditions, has_arrived, wave_conditions

Others = Sequence[tuple[Spec, ScopeState]]


@dataclass(frozen=True, slots=True)
class Rival:
    """A scope that may match the same requests, and the buckets it holds there."""

    spec: Spec
    held: frozenset[int]


def next_maps(
    spec: Spec,
    state: ScopeState,
    weights_bp: Mapping[int, int],
    others: Others,
    holdouts: tuple[Holdout, ...],
    audiences: Conditions,
) -> tuple[BucketMap, ...]:
    """The maps of a scope when the wave it is in goes to these weights.

    Earlier waves keep theirs; one that has none (everything was given back, and now
    goes on) is at its last weight. ClaimError says who holds what is missing.
    """
    conditions = wave_conditions(spec, audiences)
    maps: list[BucketMap] = []
    for wave in range(state.wave + 1):
        is_current = wave == state.wave
        if wave < len(state.maps) and not is_current:
            maps.append(state.maps[wave])
            continue
        claims = _Claims(
            spec,
            weights_bp if is_current else final_weights(spec),
            state.maps[wave] if wave < len(state.maps) else None,
            tuple(rivals_of(spec, conditions[wave], others, audiences)),
            held_out(spec, holdouts),
        )
        maps.append(_claim(claims, (*reversed(maps), *_siblings(spec, others))))
    return tuple(maps)


def rivals_of(
    spec: Spec, condition: Condition | None, others: Others, audiences: Conditions
) -> Iterator[Rival]:
    """Scopes of the same layer that may match a request which matches `condition`."""
    for other, state in others:
        if other.scope == spec.scope or other.layer_salt != spec.layer_salt:
            continue
        if has_arrived(other):
            continue
        waves = wave_conditions(other, audiences)
        meets = [can_meet(condition, wave) for wave in waves]
        if any(meets):
            yield Rival(other, _held(state, meets))


def can_meet_any(
    condition: Condition | None, others: Sequence[Spec], audiences: Conditions
) -> bool:
    """Whether a request that matches may match one of these scopes as well."""
    return any(
        can_meet(condition, wave)
        for other in others
        for wave in wave_conditions(other, audiences)
    )


def final_weights(spec: Spec) -> dict[int, int]:
    """The weights that every wave ends with."""
    ladder = [step for step in spec.steps if isinstance(step, WeightStep)]
    return dict(ladder[-1].weights_bp) if ladder else {}


def widest_bp(spec: Spec) -> int:
    """The largest share, of all candidates together, that the steps ask for."""
    ladder = [step for step in spec.steps if isinstance(step, WeightStep)]
    return max((sum(bp for _, bp in step.weights_bp) for step in ladder), default=0)


def held_out(spec: Spec, holdouts: tuple[Holdout, ...]) -> frozenset[int]:
    """Buckets of the scope's layer that a holdout of the same salt keeps.

    Others are drawn by a salt of their own and take no bucket of the layer.
    """
    return frozenset(
        bucket
        for holdout in holdouts
        if (holdout.salt or holdout.name) == spec.layer_salt
        and (not holdout.models or spec.model in holdout.models)
        for bucket in order_of(spec.layer_salt)[: holdout.percent]
    )


@dataclass(frozen=True, slots=True)
class _Claims:
    """What one wave of a scope wants, has, and may not have."""

    spec: Spec
    weights_bp: Mapping[int, int]
    previous: BucketMap | None
    rivals: tuple[Rival, ...]
    held_out: frozenset[int]

    @property
    def blocked(self) -> frozenset[int]:
        return self.held_out.union(*(rival.held for rival in self.rivals))


def _claim(claims: _Claims, siblings: tuple[BucketMap, ...]) -> BucketMap:
    spec, blocked = claims.spec, claims.blocked
    wanted = sum(claims.weights_bp.values())
    free = BUCKET_COUNT - len(blocked)
    if wanted > free:
        raise _in_the_way(claims, wanted, free)
    return claim_scope(
        _with_siblings(claims.previous, siblings),
        order_of(spec.claim_salt),
        claims.weights_bp,
        _baseline_bp(claims, wanted),
        blocked,
        spec.stable,
    )


def _baseline_bp(claims: _Claims, wanted: int) -> int:
    """As many stable buckets as the largest candidate holds, if there are as many.

    What rivals have yet to grow into is left free: a slice that is only there to be
    measured must not keep a candidate from its share.
    """
    if not claims.spec.has_baseline:
        return 0
    reserved: dict[str, int] = {}  # rivals that claim in one order share their buckets
    for rival in claims.rivals:
        salt = rival.spec.claim_salt
        need = max(len(rival.held), widest_bp(rival.spec))
        reserved[salt] = max(need, reserved.get(salt, 0))
    room = BUCKET_COUNT - wanted - sum(reserved.values()) - len(claims.held_out)
    return max(0, min(max(claims.weights_bp.values(), default=0), room))


def _in_the_way(claims: _Claims, wanted: int, free: int) -> ClaimError:
    holders = [
        f"{rival.spec.scope} holds {len(rival.held) / 100:g} %"
        for rival in claims.rivals
        if rival.held
    ]
    if claims.held_out:
        holders.append(f"holdouts keep {len(claims.held_out) / 100:g} %")
    return ClaimError(
        f"{claims.spec.scope} cannot have {wanted / 100:g} % of layer"
        f" '{claims.spec.layer_salt}': {free / 100:g} % are free,"
        f" {', '.join(holders) or 'nobody holds the rest'}",
        tuple(rival.spec.scope for rival in claims.rivals if rival.held),
    )


def _held(state: ScopeState, meets: Sequence[bool]) -> frozenset[int]:
    return frozenset(
        bucket
        for wave, buckets in enumerate(state.maps)
        if wave < len(meets) and meets[wave]
        for _, claimed in buckets.claims
        for bucket in claimed
    )


def _siblings(spec: Spec, others: Others) -> tuple[BucketMap, ...]:
    """The maps of the rollout's other scopes, those that hold most first."""
    maps = [
        buckets
        for other, state in others
        if other.rollout == spec.rollout
        and other.scope != spec.scope
        and (other.layer_salt, other.claim_salt) == (spec.layer_salt, spec.claim_salt)
        for buckets in state.maps
    ]
    return tuple(sorted(maps, key=_size, reverse=True))


def _size(buckets: BucketMap) -> int:
    return sum(len(claimed) for v, claimed in buckets.claims if v != BASELINE)


def _with_siblings(
    previous: BucketMap | None, siblings: tuple[BucketMap, ...]
) -> BucketMap | None:
    """What a scope holds, and after it what its candidates hold in its siblings.

    Claiming keeps the first of what is held, so a candidate grows into the buckets that
    it has elsewhere before any other, and a bucket that another candidate has there is
    the last one it takes.
    """
    if not siblings:
        return previous
    held = {version: list(b) for version, b in (previous.claims if previous else ())}
    owner = {b: v for v, claimed in held.items() if v != BASELINE for b in claimed}
    for sibling in siblings:
        for version, claimed in sibling.claims:
            if version == BASELINE:
                continue
            for bucket in claimed:
                if owner.setdefault(bucket, version) == version:
                    held.setdefault(version, []).append(bucket)
    unique = {version: tuple(dict.fromkeys(b)) for version, b in held.items()}
    rest = previous.rest if previous else None
    return BucketMap(rest, tuple(sorted(unique.items())))
