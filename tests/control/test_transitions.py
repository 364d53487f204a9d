"""The whole table, written out once more: what is not here does not exist."""

from pathlib import Path

import pytest

from router.control.transitions import TABLE, TO_STEP, Event, phase_of, target_of
from router.plan.rollout import (
    ApprovalStep,
    BakeStep,
    Phase,
    PreflightStep,
    ShadowStep,
    WeightStep,
)

PREFLIGHT = PreflightStep("file", 0, 1e-3, None, None)
SHADOW = ShadowStep(500, True, 0, 60.0, ())
WEIGHT = WeightStep(((2, 500),), 60.0, 0, ())
APPROVAL = ApprovalStep(None, None, False)
BAKE = BakeStep(60.0, 0, ())
ACTIVE = (Phase.SHADOWING, Phase.RAMPING, Phase.AWAITING_APPROVAL, Phase.BAKING)
# Entering a weight step; a sentence is a refusal.
ROWS = {
    Phase.PENDING: {
        Event.BEGIN: Phase.RAMPING, Event.ADVANCE: Phase.RAMPING,
        Event.REWEIGH: "it has not begun", Event.HOLD: Phase.HOLDING,
        Event.RELEASE: "it is not on hold", Event.COMPLETE: Phase.PROMOTED,
        Event.ROLL_BACK: Phase.ROLLED_BACK, Event.FAIL: Phase.FAILED,
        Event.RETRY: "it has not begun", Event.RESTART: Phase.PENDING,
    },
    **{
        phase: {
            Event.BEGIN: "it has begun already", Event.ADVANCE: Phase.RAMPING,
            Event.REWEIGH: "it has no traffic to weigh in this phase"
            if phase == Phase.SHADOWING
            else phase,
            Event.HOLD: Phase.HOLDING, Event.RELEASE: "it is not on hold",
            Event.COMPLETE: Phase.PROMOTED, Event.ROLL_BACK: Phase.ROLLED_BACK,
            Event.FAIL: Phase.FAILED,
            Event.RETRY: "it is still running: roll it back first, or restart it",
            Event.RESTART: Phase.PENDING,
        }
        for phase in ACTIVE
    },
    Phase.HOLDING: {
        Event.BEGIN: "it is on hold: resume it first",
        Event.ADVANCE: "it is on hold: resume it first",
        Event.REWEIGH: Phase.HOLDING, Event.HOLD: "it is on hold already",
        Event.RELEASE: Phase.RAMPING, Event.COMPLETE: Phase.PROMOTED,
        Event.ROLL_BACK: Phase.ROLLED_BACK, Event.FAIL: Phase.FAILED,
        Event.RETRY: "it is still running: roll it back first, or restart it",
        Event.RESTART: Phase.PENDING,
    },
    Phase.PROMOTED: {
        **dict.fromkeys(Event, "it is promoted: roll it back, or restart it"),
        Event.ROLL_BACK: Phase.ROLLED_BACK, Event.RESTART: Phase.PENDING,
    },
    Phase.ROLLED_BACK: {
        **dict.fromkeys(Event, "it was rolled back: retry or restart it"),
        Event.ROLL_BACK: Phase.ROLLED_BACK, Event.RESTART: Phase.PENDING,
        Event.RETRY: Phase.PENDING,
    },
    Phase.FAILED: {
        **dict.fromkeys(Event, "it has failed: retry or restart it"),
        Event.ROLL_BACK: Phase.ROLLED_BACK, Event.RESTART: Phase.PENDING,
        Event.RETRY: Phase.PENDING,
    },
}  # fmt: skip
PAIRS = [(phase, event) for phase in Phase for event in Event]


def test_every_pair_is_in_the_table() -> None:
    assert {phase: set(row) for phase, row in TABLE.items()} == {
        phase: set(Event) for phase in Phase
    }


@pytest.mark.parametrize(("phase", "event"), PAIRS, ids=lambda one: str(one))
def test_a_pair_leads_where_it_should_or_says_why_not(
    phase: Phase, event: Event
) -> None:
    found = target_of(phase, event, WEIGHT)
    assert found == ROWS[phase][event]
    assert isinstance(found, Phase) == isinstance(ROWS[phase][event], Phase)


@pytest.mark.parametrize("phase", Phase)
def test_rolling_back_is_legal_from_everywhere(phase: Phase) -> None:
    assert target_of(phase, Event.ROLL_BACK, None) == Phase.ROLLED_BACK


@pytest.mark.parametrize(
    ("step", "phase"),
    [
        (PREFLIGHT, Phase.PENDING),
        (SHADOW, Phase.SHADOWING),
        (WEIGHT, Phase.RAMPING),
        (APPROVAL, Phase.AWAITING_APPROVAL),
        (BAKE, Phase.BAKING),
        (None, Phase.PROMOTED),
    ],
)
def test_each_kind_of_step_has_its_phase(step: object, phase: Phase) -> None:
    assert phase_of(step) == phase  # type: ignore[arg-type]


def drawn() -> list[str]:
    """The table as docs/rollouts.md has to show it."""
    rows = []
    for phase in Phase:
        cells = [str(phase)]
        for event in Event:
            target = TABLE[phase][event]
            is_step = target == TO_STEP and not isinstance(target, Phase)
            refused = "*step*" if is_step else "–"
            cells.append(str(target) if isinstance(target, Phase) else refused)
        rows.append(f"| {' | '.join(cells)} |".replace("_", " "))
    return rows


def test_the_drawing_is_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "rollouts.md").read_text()
    found = text.partition("<!-- transitions")[2].partition("<!-- end -->")[0]
    assert [line for line in found.splitlines() if line.startswith("| ")][1:] == drawn()
