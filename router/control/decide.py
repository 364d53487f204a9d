"""May the rollout move? One pure function, and the order in which it thinks.

`decide(spec, state, evidence, now) -> Move | None` reads no clock, touches nothing and
remembers nothing. What ends a rollout comes first, what holds it second, what lets it
grow last; whoever reads top to bottom has read every case. A move says which event,
where to, and on which verdicts; `transitions.py` says whether the event is legal.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from router.config.rollout import Window
from router.control.evidence import Evidence
from router.control.gates import Judged, judge_scope
from router.control.transitions import Event
from router.plan.rollout import (
    ENDED,
    ApprovalStep,
    BakeStep,
    Phase,
    PreflightStep,
    ScopeState,
    ShadowStep,
    Spec,
    Step,
    WeightStep,
)

WHOLE_BP = 10_000
FRESH_S = 10.0  # growth wants evidence that is at most this old
DRIFT = "its steps in the file have changed: restart it, or restore them"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Now:
    """The instant a decision is made at, and what holds for all rollouts then."""

    wall_s: float
    is_frozen: bool = False
    promoted: frozenset[str] = frozenset()
    """Scopes that are promoted, for those that start after another."""
    promoted_for_s: float = 0.0
    """How long the scope this one starts after has been promoted."""


@dataclass(frozen=True, slots=True)
class Move:
    """What should happen to a scope, and why; `place` is (wave, step) where it goes."""

    event: Event
    reason: str
    judged: tuple[Judged, ...] = ()
    place: tuple[int, int] | None = None
    promotes: int | None = None  # the candidate that gets everything


@dataclass(frozen=True, slots=True)
class Served:
    """Whom candidates have served."""

    units: int
    requests: int


NOBODY = Served(0, 0)


def decide(spec: Spec, state: ScopeState, evidence: Evidence, now: Now) -> Move | None:
    """The next move of a scope, or none."""
    if state.is_retired or state.is_off or state.phase in ENDED:
        return None
    judged = judge_scope(spec, state, evidence)
    return (
        _end(spec, state, evidence, judged)
        or _hold(spec, state, judged)
        or _release(spec, state, judged)
        or _grow(spec, state, evidence, judged, now)
    )


def _end(
    spec: Spec, state: ScopeState, evidence: Evidence, judged: tuple[Judged, ...]
) -> Move | None:
    """What takes everybody back to stable, whatever else is true."""
    failed = [one for one in judged if _acts(one, "rollback") and _applies(one, state)]
    if failed and state.is_begun:
        return Move(Event.ROLL_BACK, _why(failed[0]), tuple(failed))
    if evidence.unavailable and state.is_begun:
        version, why = min(evidence.unavailable.items())
        return Move(Event.ROLL_BACK, f"version {version} is not there: {why}")
    if evidence.preflight is not None and evidence.preflight.verdict == "fail":
        return Move(Event.FAIL, f"preflight: {evidence.preflight.reason}")
    deadline = spec.progress_deadline_s
    if deadline is not None and state.age_s > deadline and spec.rolls_back_on_deadline:
        return Move(Event.ROLL_BACK, f"not done within {deadline:g} s")
    step = _step(spec, state)
    if (
        isinstance(step, ApprovalStep)
        and step.rolls_back_on_timeout
        and step.timeout_s is not None
        and state.elapsed_s > step.timeout_s
        and not state.is_approved
    ):
        return Move(Event.ROLL_BACK, f"nobody approved within {step.timeout_s:g} s")
    return None


def _hold(spec: Spec, state: ScopeState, judged: tuple[Judged, ...]) -> Move | None:
    """What stops growth until it is better, or until a person says otherwise."""
    reason = hold_reason(spec, state, judged)
    if not reason or state.phase == Phase.HOLDING:
        return None
    acting = tuple(one for one in judged if _acts(one, "hold"))
    return Move(Event.HOLD, reason, acting)


def hold_reason(spec: Spec, state: ScopeState, judged: Iterable[Judged]) -> str:
    """Why the scope has to hold; empty when it need not."""
    if state.is_paused:
        return "paused"
    if state.spec_digest != spec.digest:
        return DRIFT
    deadline = spec.progress_deadline_s
    if deadline is not None and state.age_s > deadline:
        return f"not done within {deadline:g} s"
    if is_decided := _experiment_ended(spec, state):
        return is_decided
    for one in judged:
        if _acts(one, "hold"):
            return _why(one)
    step = _step(spec, state)
    if (
        isinstance(step, ApprovalStep)
        and step.timeout_s is not None
        and state.elapsed_s > step.timeout_s
        and not state.is_approved
    ):
        return f"nobody approved within {step.timeout_s:g} s"
    return ""


def _release(spec: Spec, state: ScopeState, judged: tuple[Judged, ...]) -> Move | None:
    if state.phase != Phase.HOLDING or hold_reason(spec, state, judged):
        return None
    return Move(Event.RELEASE, "nothing holds it any more", place=_place(state))


def _grow(
    spec: Spec,
    state: ScopeState,
    evidence: Evidence,
    judged: tuple[Judged, ...],
    now: Now,
) -> Move | None:
    if state.phase == Phase.HOLDING or why_not_grow(spec, state, evidence, judged, now):
        return None
    if not state.is_begun:
        return Move(Event.BEGIN, "it may begin", place=(0, 0))
    passed = tuple(
        one
        for one in judged
        if one.verdict.verdict == "pass" and one.role in ("gate", "guardrail")
    )
    winner = _winner(spec, evidence)
    place = next_place(spec, state)
    if place is None or winner is not None:
        reason = "every step is done"
        if winner is not None and spec.primary is not None:
            shown = evidence.labels[f"primary|{winner}"]
            reason = f"it is the better one: {shown.reason}"
            name = f"primary metric {spec.primary.metric}"
            passed += (Judged(name, "primary", winner, shown, "promote"),)
        return Move(Event.COMPLETE, reason, passed, promotes=winner)
    return Move(Event.ADVANCE, "the step is done", passed, place)


def why_not_grow(
    spec: Spec,
    state: ScopeState,
    evidence: Evidence,
    judged: Iterable[Judged],
    now: Now,
) -> str:
    """What growth is still waiting for; empty when it may happen now."""
    if now.is_frozen:
        return "growth is frozen"
    if spec.windows and not any(is_open(one, now.wall_s) for one in spec.windows):
        return "outside its time windows"
    if evidence.disabled:
        return f"version {min(evidence.disabled)} is disabled: enable it first"
    if not state.is_begun:
        return _why_not_begin(spec, evidence, now)
    if evidence.age_s > FRESH_S:
        return f"the evidence is {evidence.age_s:.0f} s old"
    return _why_not_done(spec, state, evidence, tuple(judged))


def _why_not_begin(spec: Spec, evidence: Evidence, now: Now) -> str:
    if evidence.unavailable:
        version, why = min(evidence.unavailable.items())
        return f"version {version} is not there: {why}"
    if spec.after is not None and spec.after not in now.promoted:
        return f"it starts when {spec.after} is promoted"
    if spec.after is not None and now.promoted_for_s < spec.delay_s:
        return f"it starts {spec.delay_s:g} s after {spec.after}"
    return ""


def _why_not_done(
    spec: Spec, state: ScopeState, evidence: Evidence, judged: tuple[Judged, ...]
) -> str:
    """What the present step still lacks."""
    step = _step(spec, state)
    match step:
        case PreflightStep():
            if evidence.preflight is None:
                return "the preflight is running"
            if evidence.preflight.verdict != "pass":
                return f"preflight: {evidence.preflight.reason}"
        case ApprovalStep():
            if not state.is_approved:
                who = f" by {step.group}" if step.group else ""
                return f"an approval{who}"
        case ShadowStep():
            for version in spec.candidates:
                counts = evidence.shadows.get(version)
                pairs = counts.pairs if counts else 0
                if pairs < step.min_samples:
                    return f"{pairs} of {step.min_samples} shadow pairs"
        case WeightStep() | BakeStep() if step.min_units:
            units = units_at_step(state, evidence)
            if units < step.min_units:
                return f"{units} of {step.min_units} units at this step"
    soak_s = step.soak_s if isinstance(step, ShadowStep | WeightStep | BakeStep) else 0
    if state.elapsed_s < soak_s:
        return f"{soak_s - state.elapsed_s:.0f} s of its time are left"
    is_open_ended = isinstance(step, WeightStep) and step.is_open_ended
    if is_open_ended and _winner(spec, evidence) is None:
        return "the experiment is not decided"
    return _why_not_passed(step, judged)


def _why_not_passed(step: Step | None, judged: tuple[Judged, ...]) -> str:
    """No verdict is no pass: silence holds a rollout where it is."""
    for one in judged:
        if one.is_dry_run or one.action == "alert":
            continue
        if one.role == "gate" and one.verdict.verdict != "pass":
            return f"gate {one.name}: {one.verdict.reason}"
        is_exposed = isinstance(step, WeightStep | BakeStep)
        is_awaited = one.role == "guardrail" and is_exposed and _applies_now(one)
        if is_awaited and one.verdict.verdict != "pass":
            return f"guardrail {one.name}: {one.verdict.reason}"
    return ""


def _applies_now(one: Judged) -> bool:
    # A slice that nobody visits must not hold everybody else for ever.
    return not one.within or one.verdict.verdict in ("fail", "error")


def next_place(spec: Spec, state: ScopeState) -> tuple[int, int] | None:
    """The wave and step after this one; none after the last.

    The weights (and what stands between them) are gone through once a wave; what comes
    before the first weight and after the last happens once.
    """
    weights = [i for i, step in enumerate(spec.steps) if isinstance(step, WeightStep)]
    if weights and state.step == weights[-1] and state.wave + 1 < len(spec.waves):
        return state.wave + 1, weights[0]
    if state.step + 1 < len(spec.steps):
        return state.wave, state.step + 1
    return None


def served_by_candidates(evidence: Evidence) -> Served:
    """Whom any candidate has served in this attempt."""
    units = sum(
        counts.candidate for (_, within), counts in evidence.units.items() if not within
    )
    return Served(units, sum(one.requests for one in evidence.candidates.values()))


def units_at_step(state: ScopeState, evidence: Evidence) -> int:
    """Units that candidates have served since the step began.

    A unit is counted where it was first seen, so one that came from stable is not in
    the candidate's count. Of those it holds by now that have been seen anywhere, it has
    served no more than it had requests.
    """
    served = served_by_candidates(evidence)
    new = served.units - state.units_at_step
    asked = served.requests - state.requests_at_step
    if new < 0 or asked < 0:  # the evidence began anew since
        new, asked = served.units, served.requests
    seen = max(
        (
            counts.candidate + counts.stable + counts.baseline
            for (_, within), counts in evidence.units.items()
            if not within
        ),
        default=0,
    )
    held = seen * min(sum(state.weights_bp.values()), WHOLE_BP) // WHOLE_BP
    return max(new, min(asked, held))


def is_open(window: Window, wall_s: float) -> bool:
    """Whether growth is allowed at an instant; a window may cross midnight."""
    local = datetime.fromtimestamp(wall_s, ZoneInfo(window.tz))
    begin, end = time.fromisoformat(window.from_), time.fromisoformat(window.to)
    at = local.time().replace(second=0, microsecond=0)
    if begin <= end:
        return begin <= at <= end and _DAYS[local.weekday()] in window.days
    if at >= begin:
        return _DAYS[local.weekday()] in window.days
    # After midnight the window belongs to the day on which it began.
    return at <= end and _DAYS[(local - timedelta(days=1)).weekday()] in window.days


def _winner(spec: Spec, evidence: Evidence) -> int | None:
    """The candidate that an experiment has shown to be better."""
    if spec.primary is None or not spec.promotes_on_win:
        return None
    return _better(spec, evidence)


def _better(spec: Spec, evidence: Evidence) -> int | None:
    if spec.primary is None:
        return None
    for version in spec.candidates:
        verdict = evidence.labels.get(f"primary|{version}")
        if verdict is not None and verdict.verdict == "pass":
            return version
    return None


def _experiment_ended(spec: Spec, state: ScopeState) -> str:
    step = _step(spec, state)
    is_experiment = isinstance(step, WeightStep) and step.is_open_ended
    is_over = spec.horizon_s is not None and state.elapsed_s > spec.horizon_s
    return "the horizon is over without a decision" if is_experiment and is_over else ""


def _acts(one: Judged, action: str) -> bool:
    return one.verdict.verdict == "fail" and one.action == action and not one.is_dry_run


def _applies(one: Judged, state: ScopeState) -> bool:
    # Gates fail when the step is to be left; what must never be crossed always counts.
    return one.role != "gate" or state.phase != Phase.PENDING


def _why(one: Judged) -> str:
    within = f" in {one.within}" if one.within else ""
    about = f" (version {one.version})" if one.version else ""
    return f"{one.name}{within}{about}: {one.verdict.reason}"


def _step(spec: Spec, state: ScopeState) -> Step | None:
    return spec.steps[state.step] if state.step < len(spec.steps) else None


def _place(state: ScopeState) -> tuple[int, int]:
    return state.wave, state.step
