"""One round of the control plane: observe, decide, carry out.

`Ticker` owns the thread, the progress of every scope since it was last stored, and what
people look at. Time counts only while the process runs and by the monotonic clock: a
leap of the wall clock, or a machine that slept, advances nothing by more than a few
ticks. Nothing here waits for the network; queries and preflights have threads of their
own and leave their answers behind.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from router.analysis.verdict import Verdict
from router.clock import Clock
from router.control.carry import claimed, settle
from router.control.controller import ScopeView
from router.control.decide import (
    Move,
    Now,
    decide,
    served_by_candidates,
    why_not_grow,
)
from router.control.evidence import Evidence, External
from router.control.gates import Judged, judge_scope
from router.control.observe import Observer, silent
from router.control.publication import Publication, Routing
from router.control.scope_records import record_of
from router.control.state import variant_record
from router.control.steer import moved
from router.control.thresholds import Limit
from router.control.transitions import Event
from router.errors import EngineError, RouterError, StoreError
from router.plan.rollout import ENDED, Phase, PreflightStep, ScopeState, Spec

log = logging.getLogger(__name__)

ACTOR = "router"
TICK_S = 0.25
STEP_MAX_S = 2.0  # what one tick may add to a step's time, however late it comes
SAVE_S = 15.0
STALLED_S = 10.0
CHECKPOINT = "evidence"


class Plane(Protocol):
    """The engine's calls this file makes."""

    def snapshot(self) -> Mapping[str, Any]: ...

    def thresholds(self, thresholds: Iterable[Limit]) -> None: ...


class Checkpoints(Protocol):
    """Where evidence and progress survive a restart."""

    def save(self, name: str, text: str) -> None: ...

    def load(self, name: str) -> str | None: ...


class Sources(Protocol):
    """Queries and webhooks; answers are looked up, never waited for."""

    def poll(self, specs: tuple[Spec, ...]) -> None: ...

    def answers(self, scope: str, now_s: float) -> Mapping[str, External]: ...


class Preflights(Protocol):
    """Replays of recordings, on threads of their own."""

    def verdict(
        self, spec: Spec, attempt: int, step: PreflightStep
    ) -> Verdict | None: ...


class Labels(Protocol):
    """Verdicts on what feedback says."""

    def verdicts(self, spec: Spec, state: ScopeState) -> Mapping[str, Verdict]: ...


@dataclass(frozen=True, slots=True)
class Happened:
    """A move, for those who tell others about it."""

    scope: str
    rollout: str
    model: str
    event: str
    before: Phase
    after: Phase
    reason: str
    actor: str
    revision: int
    judged: tuple[Judged, ...] = ()


@dataclass(frozen=True, slots=True)
class Around:
    """What a tick may ask, beside the engine."""

    observer: Observer
    checkpoints: Checkpoints
    sources: Sources | None = None
    preflights: Preflights | None = None
    labels: Labels | None = None
    each_tick: Callable[[Routing, Mapping[str, Any], float], None] | None = None
    """More to do with each snapshot: thresholds, alerts."""
    tell: Callable[[Happened], None] = lambda _: None
    save_s: float = SAVE_S
    save_filters: Callable[[], None] = lambda: None
    """Keep which units were seen, after their counts were saved."""


@dataclass(frozen=True, slots=True)
class _Progress:
    """How long a scope's attempt and step have run, beyond what is stored.

    `stored` is what it goes on from: [attempt, wave, step, elapsed_s, age_s] as the log
    has them. Once a move stores others, this is history.
    """

    stored: tuple[float, ...]
    elapsed_s: float
    age_s: float


class Ticker:
    """Owner of the controller's thread."""

    def __init__(
        self,
        publication: Publication,
        plane: Plane,
        clock: Clock,
        around: Around,
        step_max_s: float = STEP_MAX_S,
    ) -> None:
        self._publication, self._plane, self._clock = publication, plane, clock
        self._around, self._step_max_s = around, step_max_s
        self._progress: dict[str, _Progress] = {}
        self._views: tuple[ScopeView, ...] = ()
        self._quiet: set[str] = set()  # scopes that are known to be silent
        self._last_s: float | None = None
        self._saved_s = clock.monotonic()
        self._said: dict[str, str] = {}
        self._is_leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self.ticks = 0
        self.failures = 0

    def start(self) -> None:
        """Take up what an earlier process saved, then tick until stopped."""
        self.restore()
        self._thread.start()

    def stop(self) -> None:
        """Save, and wait for the thread."""
        self._is_leaving.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self.save()

    def tick(self) -> None:
        """One round."""
        now_s = self._clock.monotonic()
        delta_s = (
            0.0 if self._last_s is None else min(now_s - self._last_s, self._step_max_s)
        )
        self._last_s = now_s
        routing = self._publication.current
        if routing is None:
            return
        if self._publication.waiting:
            self._try_to_store()
        self.ticks += 1
        if not routing.specs:
            # A snapshot lists every version: who rolls nothing out does not pay for it.
            self._views = ()
            return
        snapshot = self._plane.snapshot()
        scopes = tuple(
            (spec, self._aged(spec, state, delta_s)) for spec, state in routing.scopes()
        )
        evidence = self._around.observer.observe(snapshot, scopes, now_s)
        if self._around.sources is not None:
            self._around.sources.poll(routing.specs)
        views = []
        for spec, state in scopes:
            known = self._completed(routing, spec, state, evidence[spec.scope], now_s)
            now = self._now(routing, spec)
            self._alarm(spec, state, known)
            move = decide(spec, state, known, now)
            if move is not None:
                self._carry_out(spec, state, move, known)
            state = self.progress(spec, self._state(spec, state))
            views.append(_view(spec, state, known, now))
        self._views = tuple(views)
        self._set_limits(scopes)
        if self._around.each_tick is not None:
            self._around.each_tick(routing, snapshot, now_s)
        if now_s - self._saved_s >= self._around.save_s:
            self._saved_s = now_s
            self.save()

    def progress(self, spec: Spec, state: ScopeState) -> ScopeState:
        """The state with the time that has run since it was stored."""
        mine = self._progress.get(spec.scope)
        if mine is None or mine.stored != _stored(state):
            return state
        return replace(state, elapsed_s=mine.elapsed_s, age_s=mine.age_s)

    def views(self) -> tuple[ScopeView, ...]:
        """Every scope as the last tick saw it."""
        return self._views

    def is_stalled(self) -> bool:
        """Whether no tick came lately; growth has stopped then, too."""
        last_s = self._last_s
        return last_s is None or self._clock.monotonic() - last_s > STALLED_S

    def moved(
        self,
        spec: Spec,
        before: ScopeState,
        after: ScopeState,
        event: str,
        reason: str,
        actor: str,
        revision: int,
    ) -> None:
        """A person moved a scope: tell those who want to know."""
        self._tell(spec, before, after, Move(Event(event), reason), actor, revision)

    def save(self) -> None:
        """Leave evidence and progress for a later process."""
        progress = {
            scope: [one.stored, one.elapsed_s, one.age_s]
            for scope, one in self._progress.items()
        }
        try:
            self._around.checkpoints.save("progress", json.dumps(progress))
            self._around.checkpoints.save(CHECKPOINT, self._around.observer.save())
            # Last: what it counts beyond the observer's totals is counted next time.
            self._around.save_filters()
        except StoreError as error:
            self._say("checkpoint", f"progress cannot be saved: {error}")

    def restore(self) -> None:
        """Take up what was left; what cannot be read is left out and said."""
        try:
            text = self._around.checkpoints.load("progress")
            if text is not None:
                self._progress = {
                    str(scope): _Progress(
                        tuple(float(n) for n in stored), float(elapsed_s), float(age_s)
                    )
                    for scope, (stored, elapsed_s, age_s) in json.loads(text).items()
                }
            text = self._around.checkpoints.load(CHECKPOINT)
            if text is not None:
                self._around.observer.restore(text)
        except (ValueError, TypeError, AttributeError, StoreError) as error:
            log.warning("evidence of before the restart is lost: it begins anew",
                        extra={"fields": {"problem": str(error)}})  # fmt: skip

    def _run(self) -> None:
        while not self._is_leaving.wait(TICK_S):
            try:
                self.tick()
            except Exception:
                # One bad round must not end all later ones; a stalled controller shows.
                self.failures += 1
                log.exception("a tick of the controller failed")

    def _set_limits(self, scopes: tuple[tuple[Spec, ScopeState], ...]) -> None:
        try:
            self._plane.thresholds(self._around.observer.limits(scopes))
        except EngineError as error:
            # A scope whose table came and went between two ticks.
            self._say("thresholds", str(error))

    def _aged(self, spec: Spec, state: ScopeState, delta_s: float) -> ScopeState:
        """The state with its time, this tick's included if the scope is running."""
        stored, state = _stored(state), self.progress(spec, state)
        if _runs(state):
            # Held by itself, a step stands still and the attempt grows older. Promoted,
            # the step is over and what is counted is how long ago that was.
            is_held = state.phase == Phase.HOLDING
            is_promoted = state.phase == Phase.PROMOTED
            state = replace(
                state,
                elapsed_s=state.elapsed_s + (0.0 if is_held else delta_s),
                age_s=state.age_s + (0.0 if is_promoted else delta_s),
            )
        self._progress[spec.scope] = _Progress(stored, state.elapsed_s, state.age_s)
        return state

    def _completed(
        self,
        routing: Routing,
        spec: Spec,
        state: ScopeState,
        evidence: Evidence,
        now_s: float,
    ) -> Evidence:
        """The evidence with what others have found out."""
        around = self._around
        unavailable = {
            version: "it could not be loaded"
            for model, version in routing.unavailable
            if model == spec.model and version in spec.candidates
        }
        out = routing.state.states({}).disabled
        step = spec.steps[state.step] if state.step < len(spec.steps) else None
        preflight = None
        if isinstance(step, PreflightStep) and state.is_begun:
            preflight = Verdict("error", "this server cannot replay recordings")
            if around.preflights is not None:
                preflight = around.preflights.verdict(spec, state.attempt, step)
        return replace(
            evidence,
            unavailable=unavailable,
            disabled=frozenset(v for v in spec.candidates if (spec.model, v) in out),
            preflight=preflight,
            external=around.sources.answers(spec.scope, now_s)
            if around.sources
            else {},
            labels=around.labels.verdicts(spec, state) if around.labels else {},
        )

    def _now(self, routing: Routing, spec: Spec) -> Now:
        promoted = frozenset(
            scope
            for scope, state in routing.state.scopes.items()
            if state.phase == Phase.PROMOTED
        )
        before = self._progress.get(spec.after or "")
        return Now(
            wall_s=self._clock.now(),
            is_frozen=routing.state.is_frozen or self._publication.waiting > 0,
            promoted=promoted,
            promoted_for_s=before.elapsed_s if before is not None else 0.0,
        )

    def _carry_out(
        self, spec: Spec, state: ScopeState, move: Move, evidence: Evidence
    ) -> None:
        publication = self._publication
        try:
            with publication.lock:
                routing = publication.current
                before = self._state(spec, state)
                if routing is None or not _is_as_decided(before, state):
                    return  # a person was faster: look again
                now = claimed(
                    routing,
                    spec,
                    moved(spec, state, move, served_by_candidates(evidence)),
                )
                judged = [one.as_dict() for one in move.judged]
                records = [
                    record_of(now, before, str(move.event), ACTOR, move.reason, judged)
                ]
                is_back = move.event == Event.ROLL_BACK
                if is_back and spec.disables_on_rollback:
                    records += [
                        variant_record(spec.model, v, True, ACTOR, move.reason)
                        for v in spec.candidates
                    ]
                after = settle(
                    publication, [before], [now], records, is_shrinking=is_back
                )
        except RouterError as error:
            # One that cannot move must not keep the others from moving.
            self._say(spec.scope, f"{move.event}: {error}")
            return
        self._said.pop(spec.scope, None)
        self._tell(spec, before, now, move, ACTOR, after.state.revision)

    def _state(self, spec: Spec, fallback: ScopeState) -> ScopeState:
        routing = self._publication.current
        if routing is None:
            return fallback
        return routing.state.scopes.get(spec.scope, fallback)

    def _tell(
        self,
        spec: Spec,
        before: ScopeState,
        after: ScopeState,
        move: Move,
        actor: str,
        revision: int,
    ) -> None:
        fields = {
            "rollout": spec.rollout, "scope": spec.scope, "event": str(move.event),
            "from": str(before.phase), "to": str(after.phase), "reason": move.reason,
            "actor": actor, "revision": revision,
        }  # fmt: skip
        log.info("a rollout moved", extra={"fields": fields})
        self._around.tell(
            Happened(
                spec.scope, spec.rollout, spec.model, str(move.event), before.phase,
                after.phase, move.reason, actor, revision, move.judged,
            )
        )  # fmt: skip

    def _alarm(self, spec: Spec, state: ScopeState, evidence: Evidence) -> None:
        """Silence is an alarm: a candidate that should have traffic and has none."""
        if not silent(evidence, state, spec):
            self._quiet.discard(spec.scope)
        elif spec.scope not in self._quiet:
            self._quiet.add(spec.scope)
            reason = f"no request of a candidate for {evidence.idle_s:.0f} s"
            fields = {"rollout": spec.rollout, "scope": spec.scope, "problem": reason}
            log.warning("a rollout is silent", extra={"fields": fields})
            self._around.tell(
                Happened(
                    spec.scope, spec.rollout, spec.model, "silence", state.phase,
                    state.phase, reason, ACTOR, 0,
                )
            )  # fmt: skip

    def _try_to_store(self) -> None:
        try:
            self._publication.flush()
        except StoreError as error:
            self._say("store", f"still cannot be stored: {error}")
        except RouterError as error:
            self._say("store", str(error))

    def _say(self, about: str, problem: str) -> None:
        """Log a problem once, not every tick."""
        if self._said.get(about) != problem:
            self._said[about] = problem
            log.error("a rollout cannot move", extra={"fields": {
                "about": about, "problem": problem}})  # fmt: skip


def _stored(state: ScopeState) -> tuple[float, ...]:
    return state.attempt, state.wave, state.step, state.elapsed_s, state.age_s


def _runs(state: ScopeState) -> bool:
    """Whether time counts: not by a person's word, nor before and after everything."""
    is_out = state.is_paused or state.is_off or state.is_retired
    has_ended = state.phase in (Phase.ROLLED_BACK, Phase.FAILED)
    return state.is_begun and not is_out and not has_ended


def _is_as_decided(stored: ScopeState, decided: ScopeState) -> bool:
    """Whether the state is still the one that was decided about, time apart."""
    return stored == replace(decided, elapsed_s=stored.elapsed_s, age_s=stored.age_s)


def _view(spec: Spec, state: ScopeState, evidence: Evidence, now: Now) -> ScopeView:
    judged = judge_scope(spec, state, evidence)
    waits = "" if state.phase in ENDED else state.hold_reason
    if not waits and state.phase not in ENDED:
        waits = why_not_grow(spec, state, evidence, judged, now)
    return ScopeView(spec, state, judged, evidence, waits)
