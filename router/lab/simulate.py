"""A rollout played out before it is begun: the real controller, imagined traffic.

Publication, ticker and `decide` are the server's own; the clock is moved by hand, the
control log is a list, and the engine is the simulated one. What cannot be known
beforehand is assumed and said: persons approve at once, recordings replay well, and
queries, webhooks and feedback pass.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from router.analysis.verdict import Verdict
from router.clock import ManualClock, SystemClock
from router.config.config import Config
from router.control.carry import claimed, settle
from router.control.commands import Approve, Asked
from router.control.evidence import External, bet_key
from router.control.gates import MEASURED, name_of
from router.control.observe import Observer
from router.control.publication import Publication
from router.control.scope_records import record_of
from router.control.sources import criteria_of
from router.control.steer import steer
from router.control.tick import Around, Happened, Ticker
from router.lab.demand import Demand
from router.lab.simulated import SimulatedEngine
from router.plan.rollout import (
    ENDED,
    Phase,
    PreflightStep,
    ScopeState,
    Spec,
)
from router.store.log import Conflict, Entry, Record

TICK_MAX_S = 60.0
ACTOR = "simulate"

Listed = Mapping[str, tuple[int, ...]]


class MemoryLog:
    """A control log that is forgotten; the same calls as the one in a file."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._entries: list[Entry] = []
        self._saved: dict[str, str] = {}

    def append(
        self, expected_revision: int, records: Sequence[Record]
    ) -> int | Conflict:
        if expected_revision != len(self._entries):
            return Conflict(len(self._entries))
        for record in records:
            at = len(self._entries) + 1
            self._entries.append(Entry(at, self._clock.now(), record))
        return len(self._entries)

    def read(self, since: int = 0) -> tuple[Entry, ...]:
        return tuple(self._entries[since:])

    def save(self, name: str, text: str) -> None:
        self._saved[name] = text

    def load(self, name: str) -> str | None:
        return self._saved.get(name)


@dataclass(frozen=True, slots=True)
class Moved:
    """A move of a scope, `at_s` after the beginning."""

    at_s: float
    scope: str
    event: str
    before: Phase
    after: Phase
    share_bp: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a scope ended, and what happened on the way.

    `phase` is the last one, whether or not it is an end; `waits_for` says what it was
    still waiting for.
    """

    scope: str
    phase: Phase
    took_s: float
    reason: str
    waits_for: str
    requests: int
    units: int
    moves: tuple[Moved, ...] = ()


class Simulation:
    """Owner of one run: a world in which only this configuration's rollouts move."""

    def __init__(
        self,
        config: Config,
        listed: Listed,
        demands: Sequence[Demand],
        seed: int = 0,
        tick_s: float = 1.0,
    ) -> None:
        self.clock = ManualClock(SystemClock().now())
        self.log = MemoryLog(self.clock)
        self.engine = SimulatedEngine(self.clock, demands, seed)
        observer = Observer()
        self.publication = Publication(
            self.engine, self.log, self.clock, bytes,
            lambda routing: observer.learn(routing.plan),
        )  # fmt: skip
        self._assumed = _Assumed()
        self._happened: list[Happened] = []
        around = Around(
            observer, self.log, self._assumed, self._assumed, self._assumed,
            tell=self._happened.append, save_s=math.inf,
        )  # fmt: skip
        self.ticker = Ticker(
            self.publication, self.engine, self.clock, around, step_max_s=TICK_MAX_S
        )
        self.tick_s = tick_s
        self.moves: list[Moved] = []
        self._began_s = self.clock.monotonic()
        self.publication.take(config, listed, frozenset(), ACTOR, "")
        self.ticker.tick()

    @property
    def at_s(self) -> float:
        """Seconds since the beginning."""
        return self.clock.monotonic() - self._began_s

    def scopes(self) -> dict[str, ScopeState]:
        """Where every scope is, with the time it has run."""
        routing = self.publication.current
        assert routing is not None
        return {
            spec.scope: self.ticker.progress(spec, state)
            for spec, state in routing.scopes()
        }

    def step(self) -> None:
        """One tick later."""
        self.clock.move(self.tick_s)
        self.ticker.tick()
        self._approve()
        for one in self._happened:
            state = self.scopes()[one.scope]
            share = sum(state.weights_bp.values()) if state.maps else 0
            self.moves.append(
                Moved(
                    self.at_s, one.scope, one.event, one.before, one.after, share,
                    one.reason,
                )
            )  # fmt: skip
        self._happened.clear()

    def run(self, patience_s: float) -> tuple[Ended, ...]:
        """Play until everything has ended, or has stood still for too long."""
        while self.at_s < patience_s and any(
            state.phase not in ENDED for state in self.scopes().values()
        ):
            self.step()
        return tuple(self._ended())

    def _ended(self) -> Iterator[Ended]:
        for view in self.ticker.views():
            state = self.scopes()[view.spec.scope]
            moves = tuple(one for one in self.moves if one.scope == state.scope)
            has_ended = state.phase in ENDED and moves
            yield Ended(
                scope=state.scope,
                phase=state.phase,
                took_s=moves[-1].at_s if has_ended else self.at_s,
                reason=moves[-1].reason if moves else "",
                waits_for=view.waits_for,
                requests=sum(t.requests for t in view.evidence.candidates.values()),
                units=sum(
                    counts.candidate
                    for (_, within), counts in view.evidence.units.items()
                    if not within
                ),
                moves=moves,
            )

    def _approve(self) -> None:
        routing = self.publication.current
        assert routing is not None
        for spec, state in routing.scopes():
            if state.phase != Phase.AWAITING_APPROVAL or state.is_approved:
                continue
            current = self.ticker.progress(spec, state)
            asked = Asked(ACTOR, "assumed: approved at once")
            after, move = steer(spec, current, Approve(spec.scope, asked))
            now = claimed(routing, spec, after)
            record = record_of(now, state, str(move.event), ACTOR, move.reason)
            routing = settle(self.publication, [state], [now], [record])


@dataclass(slots=True)
class _Assumed:
    """Says yes where only the real world knows."""

    specs: dict[str, Spec] = field(default_factory=dict)

    def poll(self, specs: tuple[Spec, ...]) -> None:
        self.specs = {spec.scope: spec for spec in specs}

    def answers(self, scope: str, now_s: float) -> Mapping[str, External]:  # noqa: ARG002
        return {
            name_of(one): External(0.0, verdict="pass", reason="assumed")
            for one in criteria_of(self.specs[scope])
            if one.prometheus is not None or one.webhook is not None
        }

    def verdict(self, spec: Spec, attempt: int, step: PreflightStep) -> Verdict | None:  # noqa: ARG002
        return Verdict("pass", "assumed.")

    def verdicts(self, spec: Spec, state: ScopeState) -> Mapping[str, Verdict]:  # noqa: ARG002
        passed = Verdict("pass", "assumed.")
        return {
            bet_key(name_of(one), version, within=within): passed
            for one in criteria_of(spec)
            if one.metric not in MEASURED
            for version in spec.candidates
            for within in ("", *spec.slices)
        }
