"""Three candidates of one rollout, whatever persons, disks and crashes do to it."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from rollouts import config, rollout
from world import SOMEONE, FailingLog, World, held

from router.control.commands import (
    Freeze,
    OnRollout,
    Pause,
    Promote,
    Restart,
    Resume,
    Retry,
    RollBack,
    SetFlag,
    SetVariant,
    SetWeight,
)
from router.errors import RefusedError, StoreError
from router.lab.demand import Behaviour, Demand
from router.plan.rollout import Phase

R = "credit-2"
CANDIDATES = (2, 3, 4)
STEPS = [{"weight": {"to": share, "for": "1m"}} for share in (3, 10, 20, 33)]
GIVEN_BACK = (Phase.PENDING, Phase.ROLLED_BACK, Phase.FAILED)
COMMANDS = (Pause, Resume, Retry, Restart, RollBack)


class Life(RuleBasedStateMachine):
    """One world, its crashes, and what must be true of it at any moment."""

    world: World
    owners: dict[int, int]
    weights: dict[int, int]
    attempt: int

    @initialize(waves=st.booleans())
    def begin(self, waves: bool) -> None:
        made: dict[str, Any] = {"candidates": list(CANDIDATES), "steps": STEPS}
        if waves:
            made["waves"] = ["new-york", "everyone"]
        quiet = Demand("credit", {v: Behaviour() for v in (1, *CANDIDATES)}, rate=5)
        self.world = World(config(rollout(**made)), quiet)
        self.owners, self.weights, self.attempt = {}, {}, 0

    @property
    def log(self) -> FailingLog:
        log = self.world.log
        assert isinstance(log, FailingLog)
        return log

    def ask(self, command: Any) -> None:
        try:
            self.world.ask(command)
        except (RefusedError, StoreError):
            return

    # Less than a step: between two looks there is one move at most.
    @rule(ticks=st.integers(1, 3))
    def wait(self, ticks: int) -> None:
        self.world.run(ticks * 15, tick_s=15)

    @rule(kind=st.sampled_from(COMMANDS))
    def command(self, kind: type[OnRollout]) -> None:
        self.ask(kind(R, asked=SOMEONE))  # type: ignore[call-arg]

    @rule(is_full=st.booleans())
    def promote(self, is_full: bool) -> None:
        self.ask(Promote(R, is_full, SOMEONE))

    @rule(version=st.sampled_from(CANDIDATES), bp=st.integers(0, 4_000))
    def weigh(self, version: int, bp: int) -> None:
        self.ask(SetWeight(R, bp, version, SOMEONE))

    @rule(is_frozen=st.booleans())
    def freeze(self, is_frozen: bool) -> None:
        self.ask(Freeze(is_frozen, SOMEONE))

    @rule(is_on=st.booleans())
    def flag(self, is_on: bool) -> None:
        self.ask(SetFlag(f"rollout/{R}", is_on, SOMEONE))

    @rule(version=st.sampled_from(CANDIDATES), is_disabled=st.booleans())
    def disable(self, version: int, is_disabled: bool) -> None:
        self.ask(SetVariant("credit", version, is_disabled, SOMEONE))

    @rule()
    def disk_fills_up(self) -> None:
        self.log.cannot_write = True

    @rule()
    def disk_has_room(self) -> None:
        self.log.cannot_write = False

    @rule(version=st.sampled_from(CANDIDATES), is_broken=st.booleans())
    def behave(self, version: int, is_broken: bool) -> None:
        quiet = {v: Behaviour() for v in (1, *CANDIDATES)}
        quiet[version] = Behaviour(1.0 if is_broken else 0.0)
        self.world.engine.behave("credit", Demand("credit", quiet, rate=5))

    @precondition(lambda self: not self.log.cannot_write)
    @rule()
    def crash(self) -> None:
        self.world = self.world.crashed()
        self.owners = {}  # a rollback that was not stored is undone, and seen again

    # -- what must be true -------------------------------------------------------------

    @invariant()
    def nobody_is_left_behind(self) -> None:
        state = self.world.scope()
        if state.phase in GIVEN_BACK or state.is_off:
            assert [self.world.share_bp(v) for v in CANDIDATES] == [0, 0, 0]

    @invariant()
    def shares_are_what_was_asked_for(self) -> None:
        state = self.world.scope()
        if state.maps:
            claims = dict(state.maps[-1].claims)
            assert {v: len(claims.get(v, ())) for v in state.weights_bp} == (
                state.weights_bp
            )

    @invariant()
    def replaying_the_log_rebuilds_the_state(self) -> None:
        if self.world.publication.waiting == 0:
            assert self.world.stored() == self.world.routing.state

    @invariant()
    def nothing_grew_that_is_not_stored(self) -> None:
        stored = self.world.stored().scopes[R]
        now = self.world.routing.state.scopes[R]
        kept = held(stored) if not stored.is_off else {}
        grown = held(now) if not now.is_off else {}
        for version, buckets in grown.items():
            assert buckets <= kept.get(version, set())

    @invariant()
    def no_unit_changes_candidate_while_they_grow(self) -> None:
        state = self.world.scope()
        owners = {
            bucket: version
            for version, buckets in held(state).items()
            for bucket in buckets
        }
        if state.attempt == self.attempt and len(state.maps) == 1:
            for bucket, version in owners.items():
                was = self.owners.get(bucket, version)
                gave_up = state.weights_bp.get(was, 0) < self.weights.get(was, 0)
                assert was == version or gave_up
        self.owners, self.attempt = owners, state.attempt
        self.weights = dict(state.weights_bp)

    @invariant()
    def the_controller_lives(self) -> None:
        assert self.world.ticker.failures == 0


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.mark.slow
class TestManyLives(Life.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(
        max_examples=150, stateful_step_count=60, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
