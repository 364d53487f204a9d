"""Every move a rollout's scope can make.

The table is complete: each (phase, event) pair leads somewhere or says why it does not,
and a refusal is an answer that operators see. Nothing here reads the clock or knows
what a gate is; `decide.py` and `steer.py` choose the event, this file says where it
leads. Rolling back is legal from every phase.
"""

from enum import StrEnum

from router.plan.rollout import (
    ApprovalStep,
    BakeStep,
    Phase,
    PreflightStep,
    ShadowStep,
    Step,
)


class Event(StrEnum):
    """What can happen to a scope."""

    BEGIN = "begin"  # the first step is entered
    ADVANCE = "advance"  # the step is done: the next one, or the next wave
    REWEIGH = "reweigh"  # a person sets a weight
    HOLD = "hold"
    RELEASE = "release"
    COMPLETE = "complete"  # the last step is done, or a person promotes in full
    ROLL_BACK = "roll_back"
    FAIL = "fail"  # it cannot go on: no user was ever exposed, or nothing to serve
    RETRY = "retry"
    RESTART = "restart"


TO_STEP = "the phase of the step"
_P = Phase
_NOT_BEGUN = "it has not begun"
_HAS_BEGUN = "it has begun already"
_HOLDS = "it is on hold: resume it first"
_IS_HELD = "it is on hold already"
_NOT_HELD = "it is not on hold"
_PROMOTED = "it is promoted: roll it back, or restart it"
_ROLLED_BACK = "it was rolled back: retry or restart it"
_FAILED = "it has failed: retry or restart it"
_RUNNING = "it is still running: roll it back first, or restart it"
_NO_TRAFFIC = "it has no traffic to weigh in this phase"

Target = Phase | str


def _active(phase: Phase) -> dict[Event, Target]:
    may_reweigh = phase in (_P.RAMPING, _P.BAKING, _P.AWAITING_APPROVAL)
    return {
        Event.BEGIN: _HAS_BEGUN,
        Event.ADVANCE: TO_STEP,
        Event.REWEIGH: phase if may_reweigh else _NO_TRAFFIC,
        Event.HOLD: _P.HOLDING,
        Event.RELEASE: _NOT_HELD,
        Event.COMPLETE: _P.PROMOTED,
        Event.ROLL_BACK: _P.ROLLED_BACK,
        Event.FAIL: _P.FAILED,
        Event.RETRY: _RUNNING,
        Event.RESTART: _P.PENDING,
    }


def _ended(why: str, *, may_retry: bool) -> dict[Event, Target]:
    refused: dict[Event, Target] = dict.fromkeys(Event, why)
    return refused | {
        Event.ROLL_BACK: _P.ROLLED_BACK,
        Event.RETRY: _P.PENDING if may_retry else why,
        Event.RESTART: _P.PENDING,
    }


TABLE: dict[Phase, dict[Event, Target]] = {
    _P.PENDING: {
        Event.BEGIN: TO_STEP,
        Event.ADVANCE: TO_STEP,  # a preflight runs while it is pending
        Event.REWEIGH: _NOT_BEGUN,
        Event.HOLD: _P.HOLDING,
        Event.RELEASE: _NOT_HELD,
        Event.COMPLETE: _P.PROMOTED,
        Event.ROLL_BACK: _P.ROLLED_BACK,
        Event.FAIL: _P.FAILED,
        Event.RETRY: _NOT_BEGUN,
        Event.RESTART: _P.PENDING,
    },
    _P.SHADOWING: _active(_P.SHADOWING),
    _P.RAMPING: _active(_P.RAMPING),
    _P.AWAITING_APPROVAL: _active(_P.AWAITING_APPROVAL),
    _P.BAKING: _active(_P.BAKING),
    _P.HOLDING: {
        Event.BEGIN: _HOLDS,
        Event.ADVANCE: _HOLDS,
        Event.REWEIGH: _P.HOLDING,
        Event.HOLD: _IS_HELD,
        Event.RELEASE: TO_STEP,
        Event.COMPLETE: _P.PROMOTED,
        Event.ROLL_BACK: _P.ROLLED_BACK,
        Event.FAIL: _P.FAILED,
        Event.RETRY: _RUNNING,
        Event.RESTART: _P.PENDING,
    },
    _P.PROMOTED: _ended(_PROMOTED, may_retry=False),
    _P.ROLLED_BACK: _ended(_ROLLED_BACK, may_retry=True),
    _P.FAILED: _ended(_FAILED, may_retry=True),
}


def target_of(phase: Phase, event: Event, step: Step | None) -> Phase | str:
    """Where an event leads; text says why it leads nowhere.

    `step` is the one that is entered or gone back to.
    """
    target = TABLE[phase][event]
    if target == TO_STEP and not isinstance(target, Phase):
        return phase_of(step)
    return target


def phase_of(step: Step | None) -> Phase:
    """The phase in which a step is worked on."""
    match step:
        case None:
            return Phase.PROMOTED
        case PreflightStep():
            return Phase.PENDING
        case ShadowStep():
            return Phase.SHADOWING
        case ApprovalStep():
            return Phase.AWAITING_APPROVAL
        case BakeStep():
            return Phase.BAKING
        case _:
            return Phase.RAMPING
