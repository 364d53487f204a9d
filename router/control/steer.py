"""From a person's command to a move, and from a move to the next state.

Pure. A command is refused by the transition table or here, with a sentence that tells
why; a move that is legal always has a next state. Bucket maps are claimed afterwards
(`plan/layers.py`), because that needs to know what all other scopes hold.
"""

from dataclasses import replace

from router.control.commands import (
    Approve,
    OnRollout,
    Pause,
    Promote,
    Reject,
    Restart,
    Resume,
    Retry,
    RollBack,
    SetWeight,
)
from router.control.decide import DRIFT, NOBODY, Move, Served, next_place
from router.control.transitions import TABLE, Event, phase_of, target_of
from router.errors import RefusedError
from router.plan.rollout import (
    ApprovalStep,
    Phase,
    ScopeState,
    Spec,
    WeightStep,
)

EVERYTHING = 10_000


def steer(spec: Spec, state: ScopeState, command: OnRollout) -> tuple[ScopeState, Move]:
    """The state a command leads to, without maps, and the move; RefusedError when not.

    Pausing what is paused, approving what is approved and the like change nothing and
    are answered with the state as it is.
    """
    if state.is_retired:
        raise RefusedError(f"{state.scope} is no longer in the configuration")
    said = command.asked.reason
    match command:
        case Pause():
            return _held(spec, replace(state, is_paused=True), said or "paused")
        case Resume():
            return _resumed(spec, state, said or "resumed")
        case Approve() | Reject():
            return _answered(spec, state, command, said)
        case RollBack():
            return _moved(spec, state, Move(Event.ROLL_BACK, said or "rolled back"))
        case Retry():
            return _moved(spec, state, Move(Event.RETRY, said or "retried"))
        case Restart():
            return _moved(spec, state, Move(Event.RESTART, said or "restarted"))
        case SetWeight():
            return _reweighed(spec, state, command, said)
        case Promote():
            return _promoted(spec, state, command, said)


def moved(
    spec: Spec, state: ScopeState, move: Move, served: Served = NOBODY
) -> ScopeState:
    """The state after a move, its bucket maps still the old ones.

    `weights_bp` says what is to be claimed; `served` whom the candidates have served so
    far. RefusedError when the table refuses the event.
    """
    wave, step = move.place or (state.wave, state.step)
    entered = spec.steps[step] if step < len(spec.steps) else None
    phase = target_of(state.phase, move.event, entered)
    if not isinstance(phase, Phase):
        raise RefusedError(f"{state.scope}: {phase}")
    match move.event:
        case Event.HOLD:
            return replace(state, phase=phase, hold_reason=move.reason)
        case Event.RELEASE:
            # One that was held before it began goes back to waiting for its turn.
            back = phase if state.is_begun else Phase.PENDING
            return replace(state, phase=back, hold_reason="")
        case Event.REWEIGH:
            return replace(state, phase=phase)
        case Event.ROLL_BACK | Event.FAIL:
            return replace(
                state, phase=phase, hold_reason=move.reason, is_paused=False,
                weights_bp={}, is_approved=False,
            )  # fmt: skip
        case Event.RETRY | Event.RESTART:
            return ScopeState(
                scope=state.scope, rollout=state.rollout, model=spec.model,
                spec_digest=spec.digest, attempt=state.attempt + 1,
                revision=state.revision, maps=state.maps, is_off=state.is_off,
            )  # fmt: skip
        case Event.COMPLETE:
            weights = _final_weights(spec, state, move.promotes)
            return replace(
                state, phase=phase, weights_bp=weights, hold_reason="", is_begun=True,
                wave=len(spec.waves) - 1, step=len(spec.steps), is_paused=False,
                elapsed_s=0.0,
            )  # fmt: skip
    weights = dict(state.weights_bp)
    if isinstance(entered, WeightStep):
        weights = dict(entered.weights_bp)
    return replace(
        state, phase=phase, is_begun=True, wave=wave, step=step, weights_bp=weights,
        elapsed_s=0.0, is_approved=False, hold_reason="",
        units_at_step=served.units, requests_at_step=served.requests,
    )  # fmt: skip


def _final_weights(
    spec: Spec, state: ScopeState, promotes: int | None
) -> dict[int, int]:
    """What promotion comes to: everything to the one candidate; several keep their
    shares; nothing where no step ever gave any."""
    if not any(isinstance(step, WeightStep) for step in spec.steps):
        return {}
    if promotes is not None:
        return {promotes: EVERYTHING}
    if len(spec.candidates) == 1:
        return {spec.candidates[0]: EVERYTHING}
    return dict(state.weights_bp)


def _moved(spec: Spec, state: ScopeState, move: Move) -> tuple[ScopeState, Move]:
    return moved(spec, state, move), move


def _held(spec: Spec, state: ScopeState, reason: str) -> tuple[ScopeState, Move]:
    move = Move(Event.HOLD, reason)
    if state.phase == Phase.HOLDING:
        # Already: now by a person's word too.
        return replace(state, hold_reason=reason), move
    return moved(spec, state, move), move


def _resumed(spec: Spec, state: ScopeState, reason: str) -> tuple[ScopeState, Move]:
    move = Move(Event.RELEASE, reason)
    refused = TABLE[state.phase][Event.RELEASE]
    if state.phase != Phase.HOLDING:
        raise RefusedError(f"{state.scope}: {refused}")
    _refuse_drift(spec, state)
    deadline = spec.progress_deadline_s
    if deadline is not None and state.age_s > deadline:
        state = replace(state, age_s=0.0)  # whoever resumes it gives it as long again
    return moved(spec, replace(state, is_paused=False), move), move


def _answered(
    spec: Spec, state: ScopeState, command: Approve | Reject, said: str
) -> tuple[ScopeState, Move]:
    step = spec.steps[state.step] if state.step < len(spec.steps) else None
    if not isinstance(step, ApprovalStep) or state.phase not in (
        Phase.AWAITING_APPROVAL,
        Phase.HOLDING,
    ):
        raise RefusedError(f"{state.scope}: it does not wait for an approval")
    if isinstance(command, Reject):
        return _moved(spec, state, Move(Event.ROLL_BACK, said or "rejected"))
    _refuse_drift(spec, state)
    if state.is_paused:
        raise RefusedError(f"{state.scope}: it is on hold: resume it first")
    phase = phase_of(step)
    approved = replace(state, is_approved=True, phase=phase, hold_reason="")
    return approved, Move(Event.RELEASE, said or "approved")


def _reweighed(
    spec: Spec, state: ScopeState, command: SetWeight, said: str
) -> tuple[ScopeState, Move]:
    step = spec.steps[state.step] if state.step < len(spec.steps) else None
    if state.phase == Phase.HOLDING and (
        not state.is_begun or TABLE[phase_of(step)][Event.REWEIGH] != phase_of(step)
    ):
        raise RefusedError(f"{state.scope}: it is on hold and has no traffic to weigh")
    version = command.version
    if version is None:
        if len(spec.candidates) > 1:
            have = ", ".join(str(v) for v in spec.candidates)
            raise RefusedError(f"{state.scope}: say which version, it has {have}")
        version = spec.candidates[0]
    if version not in spec.candidates:
        raise RefusedError(f"{state.scope}: version {version} is not a candidate of it")
    if not 0 <= command.weight_bp <= EVERYTHING:
        raise RefusedError("a weight is between 0 and 100 percent")
    weights = {**state.weights_bp, version: command.weight_bp}
    if sum(weights.values()) > EVERYTHING:
        raise RefusedError(f"{state.scope}: the candidates would have more than 100 %")
    after, move = _moved(
        spec, state, Move(Event.REWEIGH, said or f"weight set to {version}: "
                          f"{command.weight_bp / 100:g} %")
    )  # fmt: skip
    return replace(after, weights_bp=weights), move


def _promoted(
    spec: Spec, state: ScopeState, command: Promote, said: str
) -> tuple[ScopeState, Move]:
    if command.is_full:
        return _moved(spec, state, Move(Event.COMPLETE, said or "promoted in full"))
    _refuse_drift(spec, state)
    if not state.is_begun:
        return _moved(
            spec, state, Move(Event.BEGIN, said or "begun by hand", place=(0, 0))
        )
    place = next_place(spec, state)
    if place is None:
        return _moved(spec, state, Move(Event.COMPLETE, said or "promoted"))
    return _moved(spec, state, Move(Event.ADVANCE, said or "promoted", place=place))


def _refuse_drift(spec: Spec, state: ScopeState) -> None:
    """Nothing goes on by steps that nobody began with."""
    if state.is_begun and state.spec_digest != spec.digest:
        raise RefusedError(f"{state.scope}: {DRIFT}")
