"""What persons may ask of a rollout in each phase, and the words of every refusal."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rollouts import LADDER, evidence, now, spec_of, state_of

from router.control.commands import (
    Approve,
    Asked,
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
from router.control.decide import DRIFT, decide
from router.control.steer import steer
from router.control.transitions import Event
from router.errors import RefusedError
from router.plan.rollout import Phase, ScopeState, Spec

ASKED = Asked("someone", "because")
NAME = "credit-2"
SPEC = spec_of(
    steps=[{"shadow": {"percent": 5, "for": "1h"}}, {"approval": {}}, *LADDER,
           {"bake": {"for": "1h"}}]
)  # fmt: skip
STEP_OF = {
    Phase.PENDING: 0, Phase.SHADOWING: 0, Phase.AWAITING_APPROVAL: 1, Phase.RAMPING: 2,
    Phase.HOLDING: 2, Phase.BAKING: 5, Phase.PROMOTED: 6, Phase.ROLLED_BACK: 2,
    Phase.FAILED: 0,
}  # fmt: skip
COMMANDS: dict[str, Callable[[], OnRollout]] = {
    "promote": lambda: Promote(NAME, is_full=False, asked=ASKED),
    "promote in full": lambda: Promote(NAME, is_full=True, asked=ASKED),
    "pause": lambda: Pause(NAME, asked=ASKED),
    "resume": lambda: Resume(NAME, asked=ASKED),
    "approve": lambda: Approve(NAME, asked=ASKED),
    "reject": lambda: Reject(NAME, asked=ASKED),
    "roll back": lambda: RollBack(NAME, asked=ASKED),
    "retry": lambda: Retry(NAME, asked=ASKED),
    "restart": lambda: Restart(NAME, asked=ASKED),
    "set weight": lambda: SetWeight(NAME, 1_000, None, asked=ASKED),
}
BEGUN = (Phase.SHADOWING, Phase.AWAITING_APPROVAL, Phase.RAMPING, Phase.BAKING)
RUNNING = "it is still running: roll it back first, or restart it"
WAITS_NOT = "it does not wait for an approval"
ENDS = {
    Phase.PROMOTED: "it is promoted: roll it back, or restart it",
    Phase.ROLLED_BACK: "it was rolled back: retry or restart it",
    Phase.FAILED: "it has failed: retry or restart it",
}


def answers() -> dict[tuple[str, Phase], Phase | str]:
    """What each command comes to in each phase."""
    found: dict[tuple[str, Phase], Phase | str] = {}
    for phase in Phase:
        found |= {
            ("promote in full", phase): Phase.PROMOTED,
            ("pause", phase): Phase.HOLDING,
            ("resume", phase): "it is not on hold",
            ("approve", phase): WAITS_NOT,
            ("reject", phase): WAITS_NOT,
            ("roll back", phase): Phase.ROLLED_BACK,
            ("retry", phase): RUNNING,
            ("restart", phase): Phase.PENDING,
            ("set weight", phase): phase,
        }
        if phase in ENDS:
            for command in (
                "promote",
                "promote in full",
                "pause",
                "resume",
                "set weight",
            ):
                found[command, phase] = ENDS[phase]
    found |= {("retry", phase): Phase.PENDING for phase in ENDS}
    found["retry", Phase.PROMOTED] = ENDS[Phase.PROMOTED]
    found |= {
        ("promote", Phase.PENDING): Phase.SHADOWING,
        ("promote", Phase.SHADOWING): Phase.AWAITING_APPROVAL,
        ("promote", Phase.AWAITING_APPROVAL): Phase.RAMPING,
        ("promote", Phase.RAMPING): Phase.RAMPING,
        ("promote", Phase.HOLDING): "it is on hold: resume it first",
        ("promote", Phase.BAKING): Phase.PROMOTED,
        ("resume", Phase.HOLDING): Phase.RAMPING,
        ("approve", Phase.AWAITING_APPROVAL): Phase.AWAITING_APPROVAL,
        ("reject", Phase.AWAITING_APPROVAL): Phase.ROLLED_BACK,
        ("retry", Phase.PENDING): "it has not begun",
        ("set weight", Phase.PENDING): "it has not begun",
        ("set weight", Phase.SHADOWING): "it has no traffic to weigh in this phase",
    }
    return found


def at(phase: Phase, **changes: Any) -> ScopeState:
    return state_of(SPEC, phase, step=STEP_OF[phase], **changes)


def refusal(spec: Spec, state: ScopeState, command: OnRollout) -> str:
    with pytest.raises(RefusedError) as refused:
        steer(spec, state, command)
    return str(refused.value)


@pytest.mark.parametrize(("command", "phase"), answers(), ids=str)
def test_a_command_does_what_it_says_or_says_why_not(
    command: str, phase: Phase
) -> None:
    expected = answers()[command, phase]
    if isinstance(expected, Phase):
        after, move = steer(SPEC, at(phase), COMMANDS[command]())
        assert (after.phase, move.reason) == (expected, "because")
    else:
        found = refusal(SPEC, at(phase), COMMANDS[command]())
        assert found == f"{NAME}: {expected}"


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_longer_configured_takes_no_command(command: str) -> None:
    gone = at(Phase.RAMPING, is_retired=True)
    found = refusal(SPEC, gone, COMMANDS[command]())
    assert found == f"{NAME} is no longer in the configuration"


def test_one_that_was_paused_before_it_began_waits_for_its_turn_again() -> None:
    held, _ = steer(SPEC, at(Phase.PENDING), COMMANDS["pause"]())
    assert (held.phase, held.is_begun, held.is_paused) == (Phase.HOLDING, False, True)
    back, _ = steer(SPEC, held, COMMANDS["resume"]())
    assert (back.phase, back.is_begun) == (Phase.PENDING, False)
    move = decide(SPEC, back, evidence(), now())
    assert move is not None
    assert move.event == Event.BEGIN
    reason = refusal(SPEC, held, COMMANDS["set weight"]())
    assert reason == f"{NAME}: it is on hold and has no traffic to weigh"


def test_pausing_what_is_held_keeps_it_held() -> None:
    held = at(Phase.HOLDING, hold_reason="too many errors")
    paused, _ = steer(SPEC, held, COMMANDS["pause"]())
    assert (paused.is_paused, paused.hold_reason) == (True, "because")
    assert decide(SPEC, paused, evidence(), now()) is None


@pytest.mark.parametrize("command", ["promote", "resume", "approve"])
def test_nothing_goes_on_by_steps_that_nobody_began_with(command: str) -> None:
    phase = {"promote": Phase.RAMPING, "resume": Phase.HOLDING}.get(
        command, Phase.AWAITING_APPROVAL
    )
    edited = at(phase, spec_digest="of other steps")
    assert refusal(SPEC, edited, COMMANDS[command]()) == f"{NAME}: {DRIFT}"


def test_resuming_after_the_deadline_gives_it_as_long_again() -> None:
    spec = replace(SPEC, progress_deadline_s=3600.0)
    late = at(Phase.HOLDING, age_s=3601.0, elapsed_s=60.0)
    assert decide(spec, late, evidence(), now()) is None
    resumed, _ = steer(spec, late, COMMANDS["resume"]())
    assert (resumed.age_s, resumed.elapsed_s) == (0.0, 60.0)
    assert decide(spec, resumed, evidence(), now()) is None
    in_time = at(Phase.HOLDING, age_s=3600.0)
    assert steer(spec, in_time, COMMANDS["resume"]())[0].age_s == 3600.0


def test_a_paused_approval_is_resumed_before_it_is_approved() -> None:
    paused, _ = steer(SPEC, at(Phase.AWAITING_APPROVAL), COMMANDS["pause"]())
    assert refusal(SPEC, paused, COMMANDS["approve"]()) == (
        f"{NAME}: it is on hold: resume it first"
    )
    timed_out = at(Phase.HOLDING, hold_reason="nobody approved")
    timed_out = replace(timed_out, step=1)
    approved, _ = steer(SPEC, timed_out, COMMANDS["approve"]())
    assert (approved.phase, approved.is_approved) == (Phase.AWAITING_APPROVAL, True)


@pytest.mark.parametrize(
    ("weight_bp", "version", "wrong"),
    [
        (-1, 2, "a weight is between 0 and 100 percent"),
        (10_001, 2, "a weight is between 0 and 100 percent"),
        (1_000, 9, "credit-2: version 9 is not a candidate of it"),
        (1_000, None, "credit-2: say which version, it has 2, 3"),
        (9_501, 3, "credit-2: the candidates would have more than 100 %"),
    ],
)
def test_a_weight_that_cannot_be(
    weight_bp: int, version: int | None, wrong: str
) -> None:
    spec = spec_of(candidates=[2, 3])
    command = SetWeight(NAME, weight_bp, version, asked=ASKED)
    assert refusal(spec, state_of(spec), command) == wrong


@pytest.mark.parametrize(("version", "bp"), [(2, 0), (2, 9_500), (3, 10_000 - 500)])
def test_a_weight_is_one_candidates(version: int, bp: int) -> None:
    spec = spec_of(candidates=[2, 3])
    after, _ = steer(spec, state_of(spec), SetWeight(NAME, bp, version, asked=ASKED))
    assert after.weights_bp == {2: 500, 3: 500} | {version: bp}


def test_rolling_back_gives_everything_back() -> None:
    state = at(Phase.HOLDING, is_paused=True, is_approved=True)
    after, _ = steer(SPEC, state, COMMANDS["roll back"]())
    assert (after.weights_bp, after.is_paused, after.is_approved) == ({}, False, False)


def test_a_new_attempt_knows_nothing_of_the_last_one() -> None:
    old = at(Phase.ROLLED_BACK, elapsed_s=9.0, age_s=9.0, wave=1, revision=7,
             units_at_step=4, is_off=True, weights_bp={})  # fmt: skip
    after, _ = steer(SPEC, old, COMMANDS["retry"]())
    assert after == ScopeState(
        NAME, NAME, "credit", SPEC.digest, attempt=2, revision=7, is_off=True
    )


@pytest.mark.parametrize(
    ("settings", "weights", "promoted"),
    [
        ({}, {2: 500}, {2: 10_000}),
        ({"candidates": [2, 3]}, {2: 500, 3: 700}, {2: 500, 3: 700}),
        ({"steps": [{"shadow": {"percent": 5, "for": 1}}]}, {}, {}),
    ],
)
def test_promotion_gives_one_candidate_everything(
    settings: Any, weights: dict[int, int], promoted: dict[int, int]
) -> None:
    spec = spec_of(**settings)
    state = state_of(spec, weights_bp=weights, elapsed_s=5.0)
    after, _ = steer(spec, state, COMMANDS["promote in full"]())
    assert (dict(after.weights_bp), after.elapsed_s) == (promoted, 0.0)
    assert after.is_begun
    assert after.step == len(spec.steps)
