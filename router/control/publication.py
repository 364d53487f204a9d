"""The one writer of the routing table, and of the control log.

`Publication` owns what routing means now: the configuration, what its repositories
held, the stored state, and the plan that these make. Whoever wants to change any of it
comes here, one after the other. Loading models is not done here, because it takes long.

Two orders, and which one is used is what makes the router safe. What *grows* somebody's
share is stored first and takes effect then: a router that dies in between has given
nothing that it does not remember. What *shrinks* a share takes effect first and is
stored then, again and again until the store takes it: a full disk never keeps a
rollback waiting. While something is waiting to be stored, nothing grows.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from router.clock import Clock
from router.config.config import Config
from router.config.resources import with_resources
from router.control.apply import ControlLog, Entropy, apply_config
from router.control.state import NOTHING, ControlState, fold, with_records
from router.errors import ConflictError, RefusedError, StoreError
from router.plan.compile import compile_plan
from router.plan.encode import encode
from router.plan.plan import Model, Plan
from router.plan.rollout import ENDED, ScopeState, Spec
from router.plan.scopes import specs_of
from router.store.log import Conflict, Record

log = logging.getLogger(__name__)

REVISION_AT = slice(16, 24)  # `revision` in fh_header
WAITING_MAX = 10_000
Key = tuple[str, int]
Listed = Mapping[str, tuple[int, ...]]


class Publisher(Protocol):
    """The engine's call this file makes."""

    def publish(self, table: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Routing:
    """What routing means at an instant."""

    file: Config
    """The configuration as it was applied."""
    config: Config
    """The same with the resources that were put beside it."""
    listed: Listed
    unavailable: frozenset[Key]
    state: ControlState
    specs: tuple[Spec, ...]
    plan: Plan
    table_revision: str
    table: bytes = field(repr=False, default=b"")

    def scopes(self) -> tuple[tuple[Spec, ScopeState], ...]:
        """Every scope that is configured and known."""
        states = self.state.scopes
        return tuple((s, states[s.scope]) for s in self.specs if s.scope in states)


class Publication:
    """Owner of the current `Routing`, and of records that wait to be stored."""

    def __init__(
        self,
        engine: Publisher,
        control_log: ControlLog,
        clock: Clock,
        entropy: Entropy,
        on_published: Callable[[Routing], None] = lambda _: None,
    ) -> None:
        self._engine, self._log = engine, control_log
        self._clock, self._entropy = clock, entropy
        self._on_published = on_published
        self._lock = threading.RLock()
        self._stored = NOTHING
        self._waiting: list[Record] = []
        self._current: Routing | None = None

    @property
    def lock(self) -> threading.RLock:
        """Held by who reads, decides and writes in one piece."""
        return self._lock

    @property
    def current(self) -> Routing | None:
        """What routing means now; None before the first configuration."""
        return self._current

    @property
    def waiting(self) -> int:
        """Records that took effect and are not stored yet."""
        return len(self._waiting)

    def state(self) -> ControlState:
        """The stored state, with what waits to be stored."""
        with self._lock:
            # What cannot be read now was read before, or waits to be stored.
            with suppress(StoreError):
                self._catch_up()
            return self._state()

    def take(
        self,
        config: Config,
        listed: Listed,
        unavailable: frozenset[Key],
        actor: str,
        reason: str,
    ) -> Routing:
        """Let a configuration take effect, once everything it decides is stored."""
        with self._lock:
            self.flush()
            tried: list[Routing] = []

            def try_out(state: ControlState) -> None:
                tried.append(self._route(config, listed, unavailable, state))

            # What cannot be laid out must not be stored.
            self._stored = apply_config(
                config, listed, self._log, actor, self._entropy, reason,
                known=self._stored, try_out=try_out,
            )  # fmt: skip
            # The same bytes may mean another version now: its file was replaced.
            return self._publish(self._as_stored(tried[-1]), is_forced=True)

    def grow(self, records: Sequence[Record]) -> Routing:
        """Store, then publish. StoreError when it cannot be stored: nothing changed."""
        with self._lock:
            self.flush()
            was = self._assured()
            after = with_records(self._stored, records)
            # Tried before it is stored, as above.
            tried = self._route(was.file, was.listed, was.unavailable, after)
            self._append(records)
            return self._publish(self._as_stored(tried))

    def shrink(self, records: Sequence[Record]) -> Routing:
        """Publish, then store; what cannot be stored now waits for `flush`."""
        with self._lock:
            was = self._assured()
            after = with_records(self._state(), records)
            routing = self._publish(
                self._route(was.file, was.listed, was.unavailable, after)
            )
            self._waiting.extend(records)
            assert len(self._waiting) < WAITING_MAX
            try:
                self.flush()
            except StoreError as error:
                log.error(
                    "took effect and could not be stored: it is tried again",
                    extra={"fields": {"problem": str(error)}},
                )
            return self._current or routing

    def flush(self) -> None:
        """Store what waits; StoreError when that is not possible."""
        with self._lock:
            self._catch_up()
            if self._waiting:
                self._append(self._waiting)
                self._waiting = []
                self._refresh()

    def _append(self, records: Sequence[Record]) -> None:
        if not records:
            return
        answer = self._log.append(self._stored.revision, tuple(records))
        self._catch_up()
        if isinstance(answer, Conflict):
            raise ConflictError("another process wrote to the control log: try again")

    def _catch_up(self) -> None:
        # Folded on from where it was: the log grows with every edit ever made.
        self._stored = fold(self._log.read(self._stored.revision), self._stored)

    def _state(self) -> ControlState:
        return with_records(self._stored, self._waiting)

    def _assured(self) -> Routing:
        assert self._current is not None, "a configuration comes first"
        return self._current

    def _refresh(self) -> None:
        if self._current is not None:
            self._current = replace(self._current, state=self._state())

    def _route(
        self,
        file: Config,
        listed: Listed,
        unavailable: frozenset[Key],
        state: ControlState,
    ) -> Routing:
        config = with_resources(file, state.resources)
        plan = compile_plan(config, state.states(listed))
        plan = without_unavailable(plan, unavailable)
        table = encode(plan)
        revision = f"{int.from_bytes(table[REVISION_AT], 'little'):016x}"
        specs = specs_of(config, listed)
        return Routing(
            file, config, listed, unavailable, state, specs, plan, revision, table
        )

    def _as_stored(self, tried: Routing) -> Routing:
        """What was tried out, now that it is stored; anew if others stored more."""
        state = self._state()
        if replace(tried.state, revision=state.revision) == state:
            return replace(tried, state=state)
        return self._route(tried.file, tried.listed, tried.unavailable, state)

    def _publish(self, routing: Routing, *, is_forced: bool = False) -> Routing:
        was = self._current
        if is_forced or was is None or routing.table != was.table:
            self._engine.publish(routing.table)
        self._current = routing
        self._on_published(routing)
        return routing


def refuse_drift(config: Config, current: Routing | None) -> None:
    """RefusedError when a rollout that is running would get other steps.

    A file that is edited by hand puts such a rollout on hold; a command is told no.
    """
    if current is None:
        return
    states = current.state.scopes
    changed = [
        spec.scope
        for spec in specs_of(config, current.listed)
        if (state := states.get(spec.scope)) is not None
        and state.is_begun
        and not state.is_retired
        and state.phase not in ENDED
        and state.spec_digest != spec.digest
    ]
    if changed:
        raise RefusedError(
            f"{', '.join(changed)}: running, and the new configuration has other steps"
            " for it: finish it or roll it back first"
        )


def without_unavailable(plan: Plan, unavailable: frozenset[Key]) -> Plan:
    """The plan with these versions disabled: their share goes to stable."""

    def variants_of(model: Model) -> Model:
        return replace(
            model,
            variants=tuple(
                replace(v, is_disabled=True)
                if (model.name, v.version) in unavailable
                else v
                for v in model.variants
            ),
        )

    return replace(plan, models=tuple(variants_of(model) for model in plan.models))
