"""A scope's new state takes effect: buckets claimed, recorded, grown or shrunk.

The last step of every move, whether `decide.py` or a person asked for it. Which of the
two orders of `publication.py` is used follows from the shares alone.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from router.control.publication import Publication, Routing
from router.plan.claim import BASELINE
from router.plan.condition import compile_audiences
from router.plan.layers import next_maps
from router.plan.rollout import Phase, ScopeState, Spec
from router.store.log import Record


def claimed(routing: Routing, spec: Spec, state: ScopeState) -> ScopeState:
    """The state with bucket maps for its weights; ClaimError names what is in the way.

    A scope without weights holds no bucket. The revision changes when the maps do.
    """
    before = routing.state.scopes.get(spec.scope)
    was = before.maps if before is not None else ()
    if not state.weights_bp or state.phase in (Phase.ROLLED_BACK, Phase.FAILED):
        maps: tuple[Any, ...] = ()
    else:
        others = [
            (other, its) for other, its in routing.scopes() if other.scope != spec.scope
        ]
        maps = was
        # Promotion is for all waves, also those that were left behind at a lower share.
        first = 0 if state.phase == Phase.PROMOTED else state.wave
        for wave in range(first, state.wave + 1):
            until = replace(state, maps=maps, wave=wave)
            maps = (
                *next_maps(
                    spec, until, dict(state.weights_bp), others,
                    routing.config.holdouts,
                    compile_audiences(routing.config.audiences),
                ),
                *maps[wave + 1 :],
            )  # fmt: skip
    return replace(state, maps=maps, revision=state.revision + (maps != was))


def share_bp(state: ScopeState) -> int:
    """Basis points that candidates hold, over all waves."""
    if state.is_off or state.is_retired:
        return 0
    return sum(
        len(claims)
        for one in state.maps
        for version, claims in one.claims
        if version != BASELINE
    )


def settle(
    publication: Publication,
    before: Sequence[ScopeState],
    after: Sequence[ScopeState],
    records: Sequence[Record],
    *,
    is_shrinking: bool = False,
) -> Routing:
    """Make the records effective in the order that is safe for these shares."""
    shares = [
        (share_bp(was), share_bp(now)) for was, now in zip(before, after, strict=True)
    ]
    if is_shrinking or (
        any(now < was for was, now in shares) and all(now <= was for was, now in shares)
    ):
        return publication.shrink(records)
    return publication.grow(records)
