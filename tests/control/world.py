"""The controller whole: publication, ticker and commands over one log, time by hand.

`World` can be crashed at any moment: a new one over the same log and engine goes on.
`FailingLog` refuses to store while it is told to, as a full disk does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from router.clock import ManualClock
from router.config.check import Checks
from router.config.config import Config
from router.control.commands import ApplyConfig, Asked, Command, Done
from router.control.controller import Controller, View
from router.control.evidence import External
from router.control.observe import Observer
from router.control.publication import Publication, Routing
from router.control.state import ControlState, fold
from router.control.tick import Around, Happened, Ticker
from router.errors import StoreError
from router.lab.demand import Behaviour, Demand
from router.lab.simulate import MemoryLog
from router.lab.simulated import SimulatedEngine
from router.plan.claim import BASELINE
from router.plan.rollout import Phase, ScopeState
from router.store.log import Conflict, Entry, Record

VERSIONS = {"credit": (1, 2, 3, 4)}
SOMEONE = Asked("someone", "because")


class FailingLog(MemoryLog):
    """A log in memory that cannot be written, or not even be read, for a while."""

    cannot_write = False
    cannot_read = False

    def append(
        self, expected_revision: int, records: Sequence[Record]
    ) -> int | Conflict:
        if self.cannot_write:
            raise StoreError("disk full")
        return super().append(expected_revision, records)

    def read(self, since: int = 0) -> tuple[Entry, ...]:
        if self.cannot_read:
            raise StoreError("input/output error")
        return super().read(since)

    def watch(self, since: int, timeout_s: float) -> tuple[Entry, ...]:  # noqa: ARG002
        return self.read(since)

    def save(self, name: str, text: str) -> None:
        if self.cannot_write:
            raise StoreError("disk full")
        super().save(name, text)


class Answers:
    """What webhooks would say, by criterion; silence for the others."""

    def __init__(self) -> None:
        self.said: dict[str, External] = {}

    def poll(self, specs: Any) -> None:
        pass

    def answers(self, scope: str, now_s: float) -> Mapping[str, External]:  # noqa: ARG002
        return self.said


class World:
    """Everything of one process; `crashed` is the next process over what is left."""

    def __init__(
        self,
        config: Config,
        demand: Demand | None = None,
        *,
        before: "World | None" = None,
        log: Any = None,
        step_max_s: float = 60.0,
    ) -> None:
        self.config = config
        self.demand = demand or Demand("credit", {v: Behaviour() for v in (1, 2, 3, 4)})
        self.clock = before.clock if before else ManualClock()
        self.log = log or (before.log if before else FailingLog(self.clock))
        self.engine = SimulatedEngine(self.clock, [self.demand])
        self.answers = before.answers if before else Answers()
        self.told: list[Happened] = []
        observer = Observer()
        self.published: list[Routing] = []

        def published(routing: Routing) -> None:
            observer.learn(routing.plan)
            self.published.append(routing)

        self.publication = Publication(
            self.engine, self.log, self.clock, bytes, published
        )
        around = Around(observer, self.log, self.answers, tell=self.told.append)
        self.ticker = Ticker(
            self.publication, self.engine, self.clock, around, step_max_s
        )
        self.controller = Controller(
            self.publication, self.log, self.ticker, self._apply, Checks()
        )
        self.take(config)
        self.ticker.restore()
        self.ticker.tick()

    def crashed(self) -> "World":
        """Another process, after this one was killed."""
        return World(self.config, self.demand, before=self)

    def take(self, config: Config) -> Routing:
        """Apply a configuration, as a reload does."""
        self.config = config
        return self.publication.take(config, VERSIONS, frozenset(), "test", "")

    def run(self, seconds: float, tick_s: float = 10.0) -> None:
        """Let time pass, tick by tick."""
        for _ in range(max(1, round(seconds / tick_s))):
            self.clock.move(tick_s)
            self.ticker.tick()

    def ask(self, command: Command) -> Done:
        return self.controller.execute(command)

    def scope(self, name: str = "credit-2") -> ScopeState:
        """A scope as it is, its time included."""
        for spec, state in self.routing.scopes():
            if spec.scope == name:
                return self.ticker.progress(spec, state)
        raise AssertionError(f"no scope {name}")

    def phase(self, name: str = "credit-2") -> Phase:
        return self.scope(name).phase

    def waits_for(self, name: str = "credit-2") -> str:
        return next(
            view.waits_for for view in self.ticker.views() if view.spec.scope == name
        )

    def share_bp(self, version: int = 2) -> int:
        """Buckets of the published table that go to a version, over all rules."""
        (model,) = self.routing.plan.models
        place = {v.version: at for at, v in enumerate(model.variants) if not v.ordinal}
        at = place[version]
        if model.variants[at].is_disabled:
            return 0
        return sum(
            rule.buckets.count(at) for rule in model.rules if rule.buckets is not None
        )

    def stored(self) -> ControlState:
        """What replaying the log comes to."""
        return fold(self.log.read())

    def moves(self) -> list[tuple[str, str]]:
        """Every move so far, by event and phase."""
        return [(one.event, str(one.after)) for one in self.told]

    @property
    def routing(self) -> Routing:
        assert self.publication.current is not None
        return self.publication.current

    def view(self) -> View:
        return self.controller.view()

    def _apply(self, command: ApplyConfig) -> str:  # noqa: ARG002
        raise AssertionError("configurations are taken directly here")


def held(state: ScopeState) -> dict[int, set[int]]:
    """The buckets of each candidate, over all waves."""
    found: dict[int, set[int]] = {}
    for one in state.maps:
        for version, claimed in one.claims:
            if version != BASELINE:
                found.setdefault(version, set()).update(claimed)
    return found
