"""What an operator applies is stored first, and survives edits and restarts."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router._fasthash import bucket
from router.clock import SystemClock
from router.config.config import Config, config_revision
from router.control.apply import (
    ATTEMPTS_MAX,
    applied_plan,
    apply_config,
    read_state,
)
from router.control.scope_records import record_of
from router.control.state import ControlState, fold, route_record
from router.errors import StoreError
from router.plan.claim import BucketMap
from router.plan.compile import RouteState, compile_plan
from router.plan.plan import MintKey, Plan
from router.plan.rollout import Phase
from router.store.log import Conflict, Entry, Record
from router.store.sqlite import SqliteLog

VERSIONS = {"credit": (1, 2, 3)}
SECRET = bytes(range(32))


def entropy(count: int) -> bytes:
    return SECRET[:count]


def config(weights: dict[int, float] | None = None, **model: Any) -> Config:
    value: dict[str, Any] = {
        "api_version": "router/v1",
        "models": [{"name": "credit", "repository": "r", "stable": 1, **model}],
    }
    if weights:
        value["routes"] = [{"model": "credit", "split": weights}]
    return Config.model_validate(value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    made = SqliteLog(path, SystemClock())
    yield made
    made.close()


def apply(log: SqliteLog, made: Config) -> Plan:
    state = apply_config(made, VERSIONS, log, "someone", entropy)
    assert state == fold(log.read())
    return compile_plan(made, state.states(VERSIONS))


def kinds(log: SqliteLog) -> list[str]:
    return [entry.record.kind for entry in log.read()]


def versions_of(plan: Plan, buckets: list[int]) -> list[int]:
    (model,) = plan.models
    (rule,) = model.rules
    assert rule.buckets is not None
    return [model.variants[rule.buckets[b]].version for b in buckets]


def test_a_first_apply_is_stored(log: SqliteLog) -> None:
    apply(log, config({1: 90, 2: 10}))
    assert kinds(log) == ["route_claimed", "config_applied"]


def test_applying_again_appends_nothing(log: SqliteLog) -> None:
    first = apply(log, config({1: 90, 2: 10}))
    assert apply(log, config({1: 90, 2: 10})) == first
    assert len(log.read()) == 2


def test_a_key_is_made_once_and_only_when_it_is_needed(log: SqliteLog) -> None:
    assert apply(log, config()).keys == ()
    made = config(prediction_id=True)
    assert apply(log, made).keys == (MintKey(0, SECRET),)
    assert apply(log, config(prediction_id=True, pins="deny")).keys == (
        MintKey(0, SECRET),
    )
    assert kinds(log).count("key_made") == 1


def test_a_route_that_goes_is_retired_and_comes_back_as_it_was(log: SqliteLog) -> None:
    apply(log, config({1: 80, 2: 10, 3: 10}))
    before = apply(log, config({1: 90, 3: 10}))
    apply(log, config())
    assert fold(log.read()).routes["credit"].is_retired
    assert apply(log, config({1: 90, 3: 10})).models == before.models
    assert not fold(log.read()).routes["credit"].is_retired


def test_100_000_ids_move_only_as_claimed_over_three_edits_and_a_restart(
    path: Path, log: SqliteLog
) -> None:
    buckets = [bucket(f"user-{i}".encode(), "credit") for i in range(100_000)]
    edits: list[tuple[dict[int, float], set[tuple[int, int]]]] = [
        ({1: 80, 2: 10, 3: 10}, set()),
        ({1: 60, 2: 25, 3: 15}, {(1, 2), (1, 3)}),  # both grow, from stable alone
        ({1: 60, 2: 5, 3: 35}, {(2, 1), (1, 3)}),  # one shrinks: never to the other
        ({1: 85, 2: 5, 3: 10}, {(3, 1)}),
    ]
    before: list[int] = []
    for weights, moves in edits:
        after = versions_of(apply(log, config(weights)), buckets)
        assert {p for p in zip(before, after, strict=False) if p[0] != p[1]} == moves
        # A share is a sum of 100,000 ids over its buckets: standard deviation at most
        # sqrt(100,000 / 4) = 158 ids, so five of them are 0.8 %.
        for version, weight in weights.items():
            assert abs(after.count(version) / 1000 - weight) < 0.8
        before = after
    log.close()
    restarted = SqliteLog(path, SystemClock())
    assert versions_of(apply(restarted, config(edits[-1][0])), buckets) == before
    state = read_state(path, SystemClock())
    assert state == fold(restarted.read())
    plan = applied_plan(state)
    assert plan is not None
    assert versions_of(plan, buckets) == before
    restarted.close()


@pytest.mark.slow
@given(cuts=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=4))
@settings(max_examples=15, deadline=None)
def test_replaying_the_log_rebuilds_the_state(cuts: list[tuple[int, int]]) -> None:
    class Memory:
        """A control log that keeps its entries in a list."""

        def __init__(self) -> None:
            self.entries: list[Entry] = []

        def append(self, expected_revision: int, records: tuple[Record, ...]) -> int:
            assert expected_revision == len(self.entries)
            for record in records:
                self.entries.append(Entry(len(self.entries) + 1, 0.0, record))
            return len(self.entries)

        def read(self, since: int = 0) -> tuple[Entry, ...]:
            return tuple(self.entries[since:])

    log = Memory()
    for cut in cuts:
        low, high = sorted(cut)
        made = config({1: low, 2: high - low, 3: 100 - high})
        state = apply_config(made, VERSIONS, log, "someone", entropy)
        assert state == fold(log.read())
        assert applied_plan(state) == compile_plan(made, state.states(VERSIONS))
    whole = fold(log.read())
    for at in range(len(log.entries)):
        assert fold(log.entries[at:], fold(log.entries[:at])) == whole


class Contested:
    """A control log that others append to between our look and our append."""

    def __init__(self, conflicts: int) -> None:
        self.conflicts = conflicts
        self.entries: list[Entry] = []

    def append(
        self, expected_revision: int, records: tuple[Record, ...]
    ) -> int | Conflict:
        if self.conflicts:
            self.conflicts -= 1
            other = Record("note", "x", "{}", "other")
            self.entries.append(Entry(len(self.entries) + 1, 0.0, other))
            return Conflict(len(self.entries))
        assert expected_revision == len(self.entries)
        for record in records:
            self.entries.append(Entry(len(self.entries) + 1, 0.0, record))
        return len(self.entries)

    def read(self, since: int = 0) -> tuple[Entry, ...]:
        return tuple(self.entries[since:])


def test_an_apply_that_loses_a_race_looks_again() -> None:
    log = Contested(conflicts=2)
    apply_config(config({1: 90, 2: 10}), VERSIONS, log, "someone", entropy)
    assert [entry.record.kind for entry in log.entries] == [
        "note", "note", "route_claimed", "config_applied",
    ]  # fmt: skip


def test_an_apply_that_always_loses_gives_up() -> None:
    with pytest.raises(StoreError, match="another router"):
        apply_config(
            config(), VERSIONS, Contested(ATTEMPTS_MAX), "someone", entropy
        )  # fmt: skip


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path / "absent.db", SystemClock()) == ControlState()
    assert not (tmp_path / "absent.db").exists()
    assert applied_plan(ControlState()) is None


def test_a_configuration_of_another_release_is_no_plan() -> None:
    assert applied_plan(ControlState(applied={"api_version": "router/v9"})) is None


def entry(kind: str, payload: str = "{}", subject: str = "s") -> Entry:
    return Entry(7, 0.0, Record(kind, subject, payload, "someone"))


def test_records_of_other_kinds_pass_by() -> None:
    assert fold([entry("rollout_moved")]) == ControlState(revision=7)


@pytest.mark.parametrize(
    "broken",
    [
        entry("config_applied", "{"),
        entry("config_applied", "{}"),
        entry("route_claimed", "{}"),
        entry("route_retired"),
        entry("key_made", '{"secret": "zz"}', "0"),
        entry("key_made", '{"secret": "00"}', "first"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(broken: Entry) -> None:
    with pytest.raises(StoreError, match="record 7"):
        fold([broken])


@pytest.mark.parametrize("rest", [1, None])
def test_a_route_reads_back_as_it_was_written(rest: int | None) -> None:
    buckets = BucketMap(rest, ((2, (5, 9_999, 0)), (10, ())))
    route = RouteState("r", "credit", "ny", "salt", 3, buckets)
    written = Entry(1, 0.0, route_record(route, "someone", ""))
    assert fold([written]).routes == {"r": route}
    retired = fold([written, replace(entry("route_retired", subject="r"), revision=2)])
    assert retired.routes == {"r": replace(route, is_retired=True)}


def test_a_new_key_mints_and_the_old_ones_still_read() -> None:
    keys = [entry("key_made", f'{{"secret": "{i:02x}"}}', str(i)) for i in (0, 1, 0)]
    assert fold(keys).keys == (MintKey(0, b"\x00"), MintKey(1, b"\x01"))


STEPS = [{"weight": {"to": 10, "for": "1h"}}, {"weight": {"to": 100, "for": "1h"}}]


def rivals(*audiences: str | None) -> Config:
    """A rollout for each audience, to a version of its own."""
    value = config().model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return Config.model_validate({
        **value, "api_version": "router/v1",
        "audiences": [{"name": n, "when": {"key": "k", "exact": n}} for n in "ab"],
        "rollouts": [
            {"name": f"r{at}", "model": "credit", "candidate": at + 2, "steps": STEPS,
             **({"audience": audience} if audience else {})}
            for at, audience in enumerate(audiences)
        ],
    })  # fmt: skip


def ramp(log: SqliteLog, scope: str, buckets: BucketMap) -> int:
    """Let a scope serve with these buckets; its revision."""
    state = fold(log.read())
    was = state.scopes[scope]
    now = replace(was, phase=Phase.RAMPING, is_begun=True, maps=(buckets,),
                  weights_bp={2: 1000}, revision=was.revision + 1)  # fmt: skip
    log.append(state.revision, (record_of(now, was, "begin", "someone", ""),))
    return now.revision


TENTH = BucketMap(1, ((2, tuple(range(1000))),))


@pytest.mark.parametrize(
    ("before", "after", "more"),
    [
        ((None,), (None, None), 1),  # a rival comes: the rest is left to it
        ((None, None), (None,), 1),  # it goes: the rest is stable's again
        ((None,), (None,), 0),
        (("a",), ("a", "b"), 0),  # they never meet
    ],
)
def test_another_comparison_group_is_another_stratum(
    log: SqliteLog,
    before: tuple[str | None, ...],
    after: tuple[str | None, ...],
    more: int,
) -> None:
    apply(log, rivals(*before))
    revision = ramp(log, "r0", TENTH)
    apply(log, rivals(*before))  # nothing has changed
    assert fold(log.read()).scopes["r0"].revision == revision
    apply(log, rivals(*after))
    now = fold(log.read()).scopes["r0"]
    assert (now.maps, now.revision) == ((TENTH,), revision + more)
    length = len(log.read())
    apply(log, rivals(*after))
    assert len(log.read()) == length


def test_the_applied_revision_is_the_records_subject(log: SqliteLog) -> None:
    apply(log, config())
    assert log.read()[-1].record.subject == config_revision(config())
