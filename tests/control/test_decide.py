"""Each case of `decide`, in the order in which it thinks.

Every comparison has a pair of tests around it, so that one which flips is noticed.
"""

from dataclasses import replace
from typing import Any

import pytest
from rollouts import evidence, now, said, spec_of, state_of, verdict, webhook

from router.config.rollout import Window
from router.control.decide import (
    DRIFT,
    FRESH_S,
    decide,
    is_open,
    next_place,
    units_at_step,
    why_not_grow,
)
from router.control.evidence import Evidence, ShadowCounts, Traffic, UnitCounts
from router.control.gates import judge_scope
from router.control.transitions import Event
from router.plan.rollout import ENDED, Phase, ScopeState, Spec

HOUR = 3600.0
SPEC = spec_of()


def waits(
    spec: Spec, state: ScopeState, known: Evidence | None = None, **at: Any
) -> str:
    """What growth waits for, given that nothing ends or holds the scope."""
    known = evidence() if known is None else known
    assert decide(spec, state, known, now(**at)) is None
    judged = judge_scope(spec, state, known)
    return why_not_grow(spec, state, known, judged, now(**at))


def test_what_has_ended_is_retired_or_off_never_moves() -> None:
    bad = evidence(breakers=frozenset({2}))
    for phase in ENDED:
        assert decide(SPEC, state_of(SPEC, phase), bad, now()) is None
    for out in ({"is_off": True}, {"is_retired": True}):
        assert decide(SPEC, state_of(SPEC, **out), bad, now()) is None
    assert decide(SPEC, state_of(SPEC), bad, now()) is not None


# -- what ends it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "phase", [p for p in Phase if p not in ENDED and p != Phase.PENDING]
)
def test_an_open_breaker_rolls_back_from_everywhere(phase: Phase) -> None:
    known = evidence(breakers=frozenset({2}))
    move = decide(SPEC, state_of(SPEC, phase), known, now(is_frozen=True))
    assert move is not None
    assert move.event == Event.ROLL_BACK
    assert "breaker is open" in move.reason
    assert move.judged[0].name == "circuit breaker"


def test_what_has_not_begun_is_not_rolled_back() -> None:
    known = evidence(breakers=frozenset({2}))
    state = state_of(SPEC, Phase.PENDING)
    move = decide(SPEC, state, known, now())
    assert move is None or move.event == Event.BEGIN


@pytest.mark.parametrize(("failures", "ends"), [(19, False), (20, True)])
def test_twenty_failures_within_a_minute_are_enough(failures: int, ends: bool) -> None:
    known = evidence(
        candidates={2: Traffic(400, recent_requests=400, recent_failures=failures)}
    )
    move = decide(SPEC, state_of(SPEC), known, now())
    assert (move is not None) == ends


@pytest.mark.parametrize(("requests", "ends"), [(400, True), (401, False)])
def test_twenty_failures_are_enough_from_a_twentieth_on(
    requests: int, ends: bool
) -> None:
    known = evidence(
        candidates={2: Traffic(requests, recent_requests=requests, recent_failures=20)}
    )
    assert (decide(SPEC, state_of(SPEC), known, now()) is not None) == ends


@pytest.mark.parametrize(("usual", "ends"), [(20, True), (21, False)])
def test_failures_that_stable_has_too_are_not_enough(usual: int, ends: bool) -> None:
    known = evidence(
        candidates={2: Traffic(100, recent_requests=100, recent_failures=20)},
        stable=Traffic(500, recent_requests=500, recent_failures=usual),
    )
    assert (decide(SPEC, state_of(SPEC), known, now()) is not None) == ends


def test_a_version_that_is_not_there_ends_a_rollout_that_has_begun() -> None:
    known = evidence(unavailable={2: "its file is damaged"})
    move = decide(SPEC, state_of(SPEC), known, now())
    assert move is not None
    assert move.event == Event.ROLL_BACK
    assert move.reason == "version 2 is not there: its file is damaged"
    assert waits(SPEC, state_of(SPEC, Phase.PENDING), known) == move.reason


@pytest.mark.parametrize(
    ("action", "event"),
    [("rollback", Event.ROLL_BACK), ("hold", Event.HOLD), ("alert", None)],
)
def test_a_guardrail_leads_to_what_it_says(action: str, event: Event | None) -> None:
    spec = spec_of(guardrails=[webhook("ok", action=action)])
    known = evidence(external=said(ok="fail"))
    move = decide(spec, state_of(spec), known, now())
    assert (move.event if move else None) == event
    rehearsed = spec_of(guardrails=[webhook("ok", action=action, dry_run=True)])
    assert decide(rehearsed, state_of(rehearsed), known, now()) is None


def test_a_failed_gate_acts_but_not_before_the_rollout_begins() -> None:
    spec = spec_of(steps=[{"weight": {"to": 5, "for": "1h", "gates": [webhook("ok")]}}])
    known = evidence(external=said(ok="fail"))
    move = decide(spec, state_of(spec), known, now())
    assert move is not None
    assert move.event == Event.ROLL_BACK
    pending = state_of(spec, Phase.PENDING, is_begun=True)
    assert decide(spec, pending, known, now()) is None


def test_a_failed_preflight_ends_before_anybody_was_exposed() -> None:
    spec = spec_of(
        steps=[{"preflight": {"replay": "f"}}, {"weight": {"to": 5, "for": 9}}]
    )
    pending = state_of(spec, Phase.PENDING, is_begun=True)
    known = evidence(preflight=verdict("fail"))
    move = decide(spec, pending, known, now())
    assert move is not None
    assert (move.event, move.reason) == (
        Event.FAIL,
        "preflight: so it is",
    )
    assert waits(spec, pending) == "the preflight is running"
    for word in ("inconclusive", "error"):
        known = evidence(preflight=verdict(word))
        assert waits(spec, pending, known) == "preflight: so it is"
    passed = decide(spec, pending, evidence(preflight=verdict("pass")), now())
    assert passed is not None
    assert passed.event == Event.ADVANCE


@pytest.mark.parametrize(
    ("settings", "event"),
    [({}, Event.HOLD), ({"on_deadline": "rollback"}, Event.ROLL_BACK)],
)
def test_a_rollout_has_so_long_and_no_longer(settings: Any, event: Event) -> None:
    spec = spec_of(progress_deadline="2h", **settings)
    late = state_of(spec, age_s=2 * HOUR + 1)
    move = decide(spec, late, evidence(), now())
    assert move is not None
    assert move.event == event
    assert move.reason == "not done within 7200 s"
    assert decide(spec, state_of(spec, age_s=2 * HOUR), evidence(), now()) is None


@pytest.mark.parametrize(
    ("on_timeout", "event"), [("hold", Event.HOLD), ("rollback", Event.ROLL_BACK)]
)
def test_an_approval_that_nobody_gives(on_timeout: str, event: Event) -> None:
    steps = [{"approval": {"timeout": "1h", "on_timeout": on_timeout, "group": "sre"}}]
    spec = spec_of(steps=[*steps, {"weight": {"to": 5, "for": "1h"}}])
    asked = state_of(spec, Phase.AWAITING_APPROVAL, elapsed_s=HOUR)
    assert waits(spec, asked) == "an approval by sre"
    late = replace(asked, elapsed_s=HOUR + 1)
    move = decide(spec, late, evidence(), now())
    assert move is not None
    assert move.event == event
    assert move.reason == "nobody approved within 3600 s"


@pytest.mark.parametrize("on_timeout", ["hold", "rollback"])
def test_an_approval_that_was_given_does_not_time_out(on_timeout: str) -> None:
    steps = [{"approval": {"timeout": "1h", "on_timeout": on_timeout}}]
    spec = spec_of(steps=[*steps, {"weight": {"to": 5, "for": "1h"}}])
    approved = state_of(
        spec, Phase.AWAITING_APPROVAL, elapsed_s=HOUR + 1, is_approved=True
    )
    assert waits(spec, approved, is_frozen=True) == "growth is frozen"
    move = decide(spec, approved, evidence(), now())
    assert move is not None
    assert (move.event, move.place) == (Event.ADVANCE, (0, 1))


# -- what holds it ---------------------------------------------------------------------


def test_steps_that_were_edited_hold_it_until_they_are_restored() -> None:
    state = state_of(SPEC, spec_digest="of other steps")
    move = decide(SPEC, state, evidence(), now())
    assert move is not None
    assert (move.event, move.reason) == (Event.HOLD, DRIFT)
    held = replace(state, phase=Phase.HOLDING, hold_reason=DRIFT)
    assert decide(SPEC, held, evidence(), now()) is None
    restored = replace(held, spec_digest=SPEC.digest)
    move = decide(SPEC, restored, evidence(), now())
    assert move is not None
    assert (move.event, move.place) == (Event.RELEASE, (0, 0))


def test_a_person_holds_it_until_a_person_resumes_it() -> None:
    paused = state_of(SPEC, Phase.HOLDING, is_paused=True, elapsed_s=2 * HOUR)
    assert decide(SPEC, paused, evidence(), now()) is None
    move = decide(SPEC, replace(paused, is_paused=False), evidence(), now())
    assert move is not None
    assert move.event == Event.RELEASE


def test_a_split_that_contradicts_the_plan_holds() -> None:
    known = evidence(srm=verdict("fail"))
    move = decide(SPEC, state_of(SPEC), known, now())
    assert move is not None
    assert (move.event, move.reason) == (
        Event.HOLD,
        "sample ratio: so it is",
    )
    assert decide(SPEC, state_of(SPEC), evidence(srm=verdict("pass")), now()) is None


@pytest.mark.parametrize("word", ["inconclusive", "error"])
def test_only_a_failure_acts(word: str) -> None:
    spec = spec_of(guardrails=[webhook("ok")])
    known = evidence(external=said(ok=word))
    assert decide(spec, state_of(spec), known, now()) is None


@pytest.mark.parametrize(("elapsed", "holds"), [(HOUR, False), (HOUR + 1, True)])
def test_an_experiment_is_held_when_its_horizon_is_over(
    elapsed: float, holds: bool
) -> None:
    spec = spec_of(
        strategy="ab",
        steps=[],
        split=50,
        horizon="1h",
        primary={"metric": "conversion"},
    )
    move = decide(spec, state_of(spec, elapsed_s=elapsed), evidence(), now())
    assert (move is not None and move.event == Event.HOLD) == holds


# -- what lets it grow -----------------------------------------------------------------


def test_it_begins_when_nothing_is_in_the_way() -> None:
    pending = state_of(SPEC, Phase.PENDING)
    move = decide(SPEC, pending, Evidence(), now())
    assert move is not None
    assert (move.event, move.place) == (Event.BEGIN, (0, 0))
    assert waits(SPEC, pending, is_frozen=True) == "growth is frozen"


def test_a_channel_starts_a_while_after_another() -> None:
    spec = replace(SPEC, after="other", delay_s=60.0)
    pending = state_of(spec, Phase.PENDING)
    assert waits(spec, pending) == "it starts when other is promoted"
    done = {"promoted": frozenset({"other"})}
    early = waits(spec, pending, promoted_for_s=59.0, **done)
    assert early == "it starts 60 s after other"
    move = decide(spec, pending, evidence(), now(promoted_for_s=60.0, **done))
    assert move is not None
    assert move.event == Event.BEGIN


@pytest.mark.parametrize(("elapsed", "grows"), [(HOUR - 1, False), (HOUR, True)])
def test_a_step_takes_its_time(elapsed: float, grows: bool) -> None:
    move = decide(SPEC, state_of(SPEC, elapsed_s=elapsed), evidence(), now())
    assert (move is not None) == grows
    if move is not None:
        assert (move.event, move.place) == (Event.ADVANCE, (0, 1))


@pytest.mark.parametrize(("age", "grows"), [(FRESH_S, True), (FRESH_S + 1, False)])
def test_stale_evidence_holds_growth_and_no_rollback(age: float, grows: bool) -> None:
    state = state_of(SPEC, elapsed_s=HOUR)
    assert (decide(SPEC, state, evidence(age_s=age), now()) is not None) == grows
    broken = evidence(age_s=age, breakers=frozenset({2}))
    move = decide(SPEC, state, broken, now())
    assert move is not None
    assert move.event == Event.ROLL_BACK


def test_a_disabled_candidate_gets_no_more() -> None:
    state = state_of(SPEC, elapsed_s=HOUR)
    known = evidence(disabled=frozenset({2}))
    assert waits(SPEC, state, known) == "version 2 is disabled: enable it first"
    pending = state_of(SPEC, Phase.PENDING)
    assert waits(SPEC, pending, known) == "version 2 is disabled: enable it first"


def test_the_last_step_ends_in_promotion() -> None:
    last = state_of(SPEC, step=2, elapsed_s=HOUR)
    move = decide(SPEC, last, evidence(), now())
    assert move is not None
    assert (move.event, move.promotes) == (Event.COMPLETE, None)


@pytest.mark.parametrize(("units", "grows"), [(99, False), (100, True)])
def test_a_step_wants_so_many_units(units: int, grows: bool) -> None:
    spec = spec_of(steps=[{"weight": {"to": 5, "min_units": 100}}])
    state = state_of(spec, units_at_step=50, requests_at_step=1000)
    known = evidence(units={(2, ""): UnitCounts(50 + units)})
    move = decide(spec, state, known, now())
    assert (move is not None) == grows


def test_units_that_came_from_stable_count_once_they_have_asked() -> None:
    # All 1,000 units were seen while the candidate had 5 %; now it holds half of them.
    state = state_of(SPEC, units_at_step=50, requests_at_step=300, weights_bp={2: 5000})
    seen = {(2, ""): UnitCounts(50, 900, 50)}

    def after(requests: int) -> int:
        known = evidence(units=seen, candidates={2: Traffic(300 + requests)})
        return units_at_step(state, known)

    assert [after(0), after(70), after(499), after(5000)] == [0, 70, 499, 500]


def test_units_are_counted_anew_when_the_evidence_was_lost() -> None:
    state = state_of(SPEC, units_at_step=5000, requests_at_step=9000)
    known = evidence(
        units={(2, ""): UnitCounts(30)}, candidates={2: Traffic(requests=40)}
    )
    assert units_at_step(state, known) == 30


@pytest.mark.parametrize(("pairs", "grows"), [(99, False), (100, True)])
def test_a_shadow_wants_so_many_pairs(pairs: int, grows: bool) -> None:
    spec = spec_of(steps=[{"shadow": {"percent": 10, "min_samples": 100}}])
    state = state_of(spec, Phase.SHADOWING)
    known = evidence(shadows={2: ShadowCounts(pairs=pairs)})
    assert (decide(spec, state, known, now()) is not None) == grows
    assert waits(spec, state) == "0 of 100 shadow pairs"


@pytest.mark.parametrize("word", ["pass", "inconclusive", "error"])
@pytest.mark.parametrize("role", ["gate", "guardrail"])
def test_only_a_pass_lets_it_grow(role: str, word: str) -> None:
    step: dict[str, Any] = {"to": 5, "for": "1h"}
    settings: dict[str, Any] = {"guardrails": [webhook("ok")]}
    if role == "gate":
        unheard = [webhook("unheard", dry_run=True), webhook("loud", action="alert")]
        step["gates"], settings = [webhook("ok")], {"guardrails": unheard}
    spec = spec_of(steps=[{"weight": step}], **settings)
    state = state_of(spec, elapsed_s=HOUR)
    known = evidence(external=said(ok=word))
    move = decide(spec, state, known, now())
    assert (move is not None) == (word == "pass")
    silent = waits(spec, state)
    assert silent == f"{role} ok: ok: no recent answer."


def test_guardrails_are_not_awaited_before_somebody_is_exposed() -> None:
    spec = spec_of(
        steps=[
            {"shadow": {"percent": 10, "for": "1h"}},
            {"weight": {"to": 5, "for": 1}},
        ],
        guardrails=[webhook("ok")],
    )
    state = state_of(spec, Phase.SHADOWING, elapsed_s=HOUR)
    assert decide(spec, state, evidence(), now()) is not None


def test_a_slice_that_nobody_visits_holds_nobody() -> None:
    spec = spec_of(
        guardrails=[{"metric": "error_rate", "worse_by": "1pp", "min_samples": 1}],
        slices=["new-york"],
    )
    state = state_of(spec, elapsed_s=HOUR)
    judged = judge_scope(spec, state, evidence())
    assert {one.within for one in judged} == {"", "new-york"}
    reason = why_not_grow(spec, state, evidence(), judged, now())
    assert reason.startswith("guardrail error_rate")  # the whole, which has no bet yet


def test_an_experiment_is_left_when_it_is_decided() -> None:
    spec = spec_of(
        strategy="ab", steps=[], split=50, on_win="promote",
        primary={"metric": "conversion"},
    )  # fmt: skip
    state = state_of(spec, elapsed_s=HOUR)
    assert waits(spec, state) == "the experiment is not decided"
    won = evidence(labels={"primary|2": verdict("pass")})
    move = decide(spec, state, won, now())
    assert move is not None
    assert (move.event, move.promotes) == (Event.COMPLETE, 2)
    lost = evidence(labels={"primary|2": verdict("fail")})
    assert decide(spec, state, lost, now()) is None
    kept = replace(spec, promotes_on_win=False)
    assert decide(kept, state, won, now()) is None


# -- where the next step is ------------------------------------------------------------


def test_weights_are_gone_through_once_a_wave() -> None:
    spec = spec_of(
        waves=["new-york", "everyone"],
        steps=[
            {"shadow": {"percent": 10, "for": "1h"}},
            {"weight": {"to": 5, "for": "1h"}},
            {"approval": {}},
            {"weight": {"to": 100, "for": "1h"}},
            {"bake": {"for": "1h"}},
        ],
    )  # fmt: skip
    place: tuple[int, int] | None = (0, 0)
    course = []
    while place is not None:
        course.append(place)
        wave, step = place
        place = next_place(spec, state_of(spec, wave=wave, step=step))
    assert course == [
        (0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (1, 4),
    ]  # fmt: skip


# -- windows ---------------------------------------------------------------------------

MONDAY = 1_700_438_400.0  # 2023-11-20 00:00 UTC


def window(**settings: Any) -> Window:
    return Window.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "minutes"),
    [
        # Open from the first minute to the end of the last one; minutes of Monday, UTC.
        ({"from": "09:00", "to": "17:00"}, (9 * 60, 17 * 60)),
        (
            {"from": "09:00", "to": "17:00", "tz": "America/New_York"},
            (14 * 60, 22 * 60),
        ),
        ({"from": "09:00", "to": "09:00"}, (9 * 60, 9 * 60)),
        # In Tokyo, Monday's morning is Sunday's evening in UTC: open from midnight on.
        (
            {"from": "06:00", "to": "12:00", "tz": "Asia/Tokyo", "days": ["mon"]},
            (0, 180),
        ),
    ],
)
def test_a_window_opens_and_closes_in_its_own_zone(
    settings: Any, minutes: tuple[int, int]
) -> None:
    one = window(**settings)
    opened = [m for m in range(24 * 60) if is_open(one, MONDAY + 60 * m + 59)]
    assert (opened[0], opened[-1]) == minutes
    assert len(opened) == minutes[1] - minutes[0] + 1


def test_a_window_may_cross_midnight_and_belongs_to_the_day_it_began_on() -> None:
    late = window(**{"from": "22:00", "to": "02:00", "days": ["mon"]})
    hours = [h for h in range(-24, 72) if is_open(late, MONDAY + 3600 * h)]
    assert hours == [22, 23, 24, 25, 26]


def test_growth_waits_for_a_window_and_a_rollback_does_not() -> None:
    spec = spec_of(windows=[{"from": "09:00", "to": "10:00"}])
    state = state_of(spec, elapsed_s=HOUR)
    assert waits(spec, state) == "outside its time windows"
    assert waits(spec, state_of(spec, Phase.PENDING)) == "outside its time windows"
    open_now = now(wall_s=MONDAY + 9.5 * HOUR)
    assert decide(spec, state, evidence(), open_now) is not None
    broken = decide(spec, state, evidence(breakers=frozenset({2})), now())
    assert broken is not None
    assert broken.event == Event.ROLL_BACK
