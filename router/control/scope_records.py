"""A scope's stored state, as JSON and back.

A `scope_moved` record carries the whole new state with the event that led to it and the
evidence it was based on, so that one record answers "why": nothing has to be replayed
to read it. Buckets are stored as in `state.py`.
"""

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from router.plan.claim import BucketMap
from router.plan.rollout import Phase, ScopeState
from router.store.log import Record

SCOPE_MOVED = "scope_moved"


def record_of(
    state: ScopeState,
    before: ScopeState,
    event: str,
    actor: str,
    reason: str,
    evidence: Sequence[Mapping[str, Any]] = (),
) -> Record:
    """The record of a move; `evidence` are the judged criteria as JSON values."""
    payload = {
        "event": event,
        "from": str(before.phase),
        "to": str(state.phase),
        "state": dump_scope(state),
        "evidence": list(evidence),
    }
    return Record(SCOPE_MOVED, state.scope, json.dumps(payload), actor, reason)


def dump_scope(state: ScopeState) -> dict[str, Any]:
    """The state as JSON values."""
    return {
        "rollout": state.rollout,
        "model": state.model,
        "spec_digest": state.spec_digest,
        "phase": str(state.phase),
        "is_begun": state.is_begun,
        "attempt": state.attempt,
        "wave": state.wave,
        "step": state.step,
        "revision": state.revision,
        "maps": [dump_map(buckets) for buckets in state.maps],
        "is_paused": state.is_paused,
        "is_off": state.is_off,
        "hold_reason": state.hold_reason,
        "is_approved": state.is_approved,
        "elapsed_s": state.elapsed_s,
        "age_s": state.age_s,
        "is_retired": state.is_retired,
        "weights_bp": {str(v): bp for v, bp in sorted(state.weights_bp.items())},
        "units_at_step": state.units_at_step,
        "requests_at_step": state.requests_at_step,
    }


def load_scope(scope: str, stored: Mapping[str, Any]) -> ScopeState:
    """The state that was dumped; ValueError, KeyError, TypeError: it is not one."""
    return ScopeState(
        scope=scope,
        rollout=str(stored["rollout"]),
        model=str(stored["model"]),
        spec_digest=str(stored["spec_digest"]),
        phase=Phase(stored["phase"]),
        is_begun=bool(stored["is_begun"]),
        attempt=int(stored["attempt"]),
        wave=int(stored["wave"]),
        step=int(stored["step"]),
        revision=int(stored["revision"]),
        maps=tuple(load_map(one) for one in stored["maps"]),
        is_paused=bool(stored["is_paused"]),
        is_off=bool(stored["is_off"]),
        hold_reason=str(stored["hold_reason"]),
        is_approved=bool(stored["is_approved"]),
        elapsed_s=float(stored["elapsed_s"]),
        age_s=float(stored["age_s"]),
        is_retired=bool(stored["is_retired"]),
        weights_bp={int(v): int(bp) for v, bp in stored["weights_bp"].items()},
        units_at_step=int(stored["units_at_step"]),
        requests_at_step=int(stored.get("requests_at_step", 0)),
    )


def dump_map(buckets: BucketMap) -> dict[str, Any]:
    """A bucket map as JSON values."""
    claims = {
        str(version): base64.b64encode(
            struct.pack(f"<{len(claimed)}H", *claimed)
        ).decode()
        for version, claimed in buckets.claims
    }
    return {"rest": buckets.rest, "claims": claims}


def load_map(stored: Mapping[str, Any]) -> BucketMap:
    """The bucket map that was dumped."""
    claims = []
    for version, text in stored["claims"].items():
        packed = base64.b64decode(text, validate=True)
        claims.append((int(version), struct.unpack(f"<{len(packed) // 2}H", packed)))
    rest = stored["rest"]
    return BucketMap(None if rest is None else int(rest), tuple(sorted(claims)))
