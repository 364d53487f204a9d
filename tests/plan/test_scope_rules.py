"""The rules that rollouts become, and who they answer."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from rollout_plans import LADDER, Moves, config, held, rollout

from router._fasthash import Table, bucket, claim_order
from router._fasthash_py import Decision, Reason, UnitSource, read_table
from router.plan.claim import BASELINE
from router.plan.diff import diff_plans
from router.plan.encode import cell_names, encode, names
from router.plan.plan import BASELINE_ORDINAL, CONTINUE
from router.plan.plan import Reason as Written
from router.plan.rollout import Phase

UNITS = [f"unit-{n}".encode() for n in range(400)]
NY, CA = {"location": "new-york"}, {"location": "california"}


class Both:
    """The kernel and its specification, which have to agree."""

    def __init__(self, moves: Moves) -> None:
        self.table = encode(moves.plan())
        self.kernel, self.twin = Table(self.table), read_table(self.table)
        self.model = self.twin.models["credit"]

    def decide(self, unit: bytes, **attributes: str) -> Decision:
        asked = ("credit", attributes, unit, UnitSource.PARAMETER)
        found = self.kernel.route(*asked)
        assert found == self.twin.route(*asked)
        return found

    def version(self, unit: bytes, **attributes: str) -> int:
        return self.model.variants[self.decide(unit, **attributes).variant].version

    def rule(self, unit: bytes, **attributes: str) -> str | None:
        at = self.decide(unit, **attributes).rule
        return None if at is None else self.model.rules[at].name


def test_a_share_of_buckets_is_the_candidates_and_as_many_the_baselines() -> None:
    moves = Moves(config(rollout()))
    moves.set("credit-2", 500)
    model = moves.model()
    assert [(v.version, v.ordinal, v.name) for v in model.variants] == [
        (1, 0, "1"), (1, BASELINE_ORDINAL, "1@baseline"), (2, 0, "2"), (3, 0, "3"),
        (4, 0, "4"),
    ]  # fmt: skip
    (rule,) = model.rules
    assert rule.buckets is not None
    assert Counter(rule.buckets) == {0: 9000, 1: 500, 2: 500}
    assert (rule.name, rule.scope, rule.salt) == ("credit-2", "credit-2", "credit")
    assert (rule.reason, rule.rollout_revision) == (Written.SPLIT, 1)


def test_cells_say_which_is_the_baseline() -> None:
    moves = Moves(config(rollout()))
    moves.set("credit-2", 500)
    cells = cell_names(moves.plan())
    assert cells == names(encode(moves.plan()))
    apart = [c for c in cells if c.ordinal == BASELINE_ORDINAL and c.rule == "credit-2"]
    assert [(c.variant, c.version) for c in apart] == [("1@baseline", 1)]


def test_without_a_baseline_there_is_no_variant_for_it() -> None:
    moves = Moves(config(rollout(baseline="off")))
    moves.set("credit-2", 500)
    assert [v.ordinal for v in moves.model().variants] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"phase": Phase.PENDING}, {"phase": Phase.SHADOWING}, {"phase": Phase.FAILED},
        {"phase": Phase.ROLLED_BACK}, {"is_off": True}, {"is_retired": True},
        {"maps": ()},
    ],
)  # fmt: skip
def test_who_does_not_serve_has_no_rule(change: dict[str, Any]) -> None:
    moves = Moves(config(rollout()))
    moves.put(replace(moves.set("credit-2", 500), **change))
    assert moves.model().rules == ()
    assert [v.ordinal for v in moves.model().variants] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "phase",
    [
        Phase.RAMPING,
        Phase.HOLDING,
        Phase.AWAITING_APPROVAL,
        Phase.BAKING,
        Phase.PROMOTED,
    ],
)
def test_who_serves_has_one(phase: Phase) -> None:
    moves = Moves(config(rollout()))
    moves.put(replace(moves.set("credit-2", 10_000), phase=phase))
    assert list(moves.rules()) == ["credit-2"]


def test_a_candidate_that_became_stable_has_no_rule_and_nobody_moves() -> None:
    moves = Moves(config(rollout(allow=["a"], deny=["b"])))
    moves.put(replace(moves.set("credit-2", 10_000), phase=Phase.PROMOTED))
    before = moves.plan()
    moves.config = config(rollout(allow=["a"], deny=["b"]), model={"stable": 2})
    after = moves.plan()
    assert after.models[0].rules == ()
    (diff,) = diff_plans(before, after).models
    (gone,) = [rule for rule in diff.rules if rule.name == "credit-2"]
    assert (gone.change, gone.moves) == ("removed", ())


def test_who_moves_is_shown_for_rollouts_too() -> None:
    moves = Moves(config(rollout()))
    nothing = moves.plan()
    moves.set("credit-2", 500)
    five = moves.plan()
    moves.set("credit-2", 2500)
    (added,) = diff_plans(nothing, five).models[0].rules
    assert [(m.source, m.target, m.share_bp) for m in added.moves] == [(1, 2, 500)]
    (grown,) = diff_plans(five, moves.plan()).models[0].rules
    assert [(m.source, m.target, m.share_bp) for m in grown.moves] == [(1, 2, 2000)]
    (gone,) = diff_plans(five, nothing).models[0].rules
    assert [(m.source, m.target, m.share_bp) for m in gone.moves] == [(2, 1, 500)]
    assert diff_plans(nothing, five).models[0].notes == ()


def test_a_version_that_is_no_longer_served_is_answered_by_stable() -> None:
    moves = Moves(config(rollout()))
    moves.set("credit-2", 5000)
    moves.states = replace(moves.states, versions={"credit": (1, 3)})
    (rule,) = moves.model().rules
    assert rule.buckets is not None
    assert set(rule.buckets) == {0, 1}  # stable and its baseline slice


def test_a_version_taken_out_at_run_time_is_disabled() -> None:
    moves = Moves(config(rollout()))
    moves.set("credit-2", 10_000)
    moves.states = replace(moves.states, disabled=frozenset({("credit", 2)}))
    both = Both(moves)
    assert {both.version(unit) for unit in UNITS} == {1}
    assert both.decide(UNITS[0]).reason == Reason.DISABLED


# -- order and overrides ---------------------------------------------------------------


def test_rules_stand_in_the_order_of_their_right() -> None:
    moves = Moves(
        config(
            rollout(allow=["vip"], deny=["shy"], slices=["adults"]),
            routes=[{"model": "credit", "audience": "california", "version": 3}],
            holdouts=[{"name": "control", "percent": 1}],
            model={"force": {"header": "X-Router-Variant"}},
        )
    )
    moves.set("credit-2", 500)
    assert list(moves.rules()) == [
        "force:1", "force:2", "force:3", "force:4", "credit-2!deny", "credit-2!allow",
        "holdout:control", "credit/california", "credit-2@adults", "credit-2",
    ]  # fmt: skip


def test_a_caller_may_force_a_variant_by_version_or_name() -> None:
    versions = {1: {}, 2: {"name": "new"}, 3: {}, 4: {"disabled": True}}
    moves = Moves(config(model={"force": {}, "versions": versions}))
    both = Both(moves)
    for value, version in (("2", 2), ("new", 2), ("3", 3), ("4", 1), ("5", 1)):
        assert both.version(b"u", **{"x-router-variant": value}) == version
    assert both.decide(b"u", **{"x-router-variant": "2"}).reason == Reason.OVERRIDE
    off = Both(Moves(config(model={"versions": versions})))
    assert off.version(b"u", **{"x-router-variant": "2"}) == 1


def test_listed_units_always_or_never_get_the_candidate() -> None:
    moves = Moves(config(rollout(allow=["vip"], deny=["shy"])))
    before = Both(moves)
    assert (before.version(b"vip"), before.rule(b"vip")) == (1, None)  # not begun
    moves.set("credit-2", 100)
    both = Both(moves)
    assert (both.version(b"vip"), both.decide(b"vip").reason) == (2, Reason.OVERRIDE)
    moves.set("credit-2", 10_000)
    both = Both(moves)
    assert {both.version(unit) for unit in UNITS} == {2}
    assert (both.version(b"shy"), both.rule(b"shy")) == (1, "credit-2!deny")
    moves.roll_back("credit-2")
    assert Both(moves).version(b"vip") == 1


def test_lists_of_a_channel_count_for_that_channel() -> None:
    moves = Moves(config(rollout(channels=["web", "mobile"], allow=["vip"])))
    moves.set("credit-2/web", 1)
    both = Both(moves)
    assert both.version(b"vip", channel="web") == 2
    assert both.version(b"vip", channel="mobile") == 1


def test_units_held_out_are_kept_from_routes_and_rollouts() -> None:
    moves = Moves(
        config(
            rollout(),
            holdouts=[{"name": "control", "percent": 20}],
            routes=[{"model": "credit", "audience": "california", "version": 3}],
        )
    )
    moves.set("credit-2", 10_000)
    both = Both(moves)
    kept = set(claim_order("control")[:2000])
    for unit in UNITS:
        is_kept = bucket(unit, "control") in kept
        assert both.version(unit) == (1 if is_kept else 2)
        assert both.version(unit, **CA) == (1 if is_kept else 3)
        if is_kept:
            assert both.decide(unit).reason == Reason.HOLDOUT


def test_a_holdout_may_be_for_some_models() -> None:
    elsewhere = [{"name": "control", "percent": 20, "models": "other"}]
    moves = Moves(config(rollout(), holdouts=elsewhere))
    moves.set("credit-2", 10_000)
    assert list(moves.rules()) == ["credit-2"]


# -- waves, slices, rivals -------------------------------------------------------------


def test_waves_are_tried_in_order() -> None:
    moves = Moves(config(rollout(waves=["new-york", "everyone"])))
    moves.set("credit-2", 10_000)
    assert list(moves.rules()) == ["credit-2:new-york"]
    moves.set("credit-2", 500, wave=1)
    assert list(moves.rules()) == ["credit-2:new-york", "credit-2:everyone"]
    both = Both(moves)
    early = set(claim_order("credit-2")[:500])
    for unit in UNITS:
        assert both.version(unit, **NY) == 2
        assert both.version(unit) == (2 if bucket(unit, "credit") in early else 1)


def test_what_a_wave_leaves_never_falls_into_the_next() -> None:
    """Its units would be in the baseline of a wave that they are no part of."""
    moves = Moves(
        config(
            rollout(waves=["new-york", "everyone"], candidates=[2, 3]),
            rollout("b", candidate=4, audience="adults"),
        )
    )
    moves.set("credit-2", 3000)
    moves.set("credit-2", 100, wave=1)
    both = Both(moves)
    assert {both.rule(unit, **NY) for unit in UNITS} == {"credit-2:new-york", None}


def test_a_slice_decides_as_its_wave_and_counts_apart() -> None:
    moves = Moves(config(rollout(slices=["new-york"])))
    moves.set("credit-2", 3000)
    both = Both(moves)
    for unit in UNITS:
        assert both.version(unit, **NY) == both.version(unit, **CA)
        assert both.rule(unit, **NY) == "credit-2@new-york"
        assert both.rule(unit, **CA) == "credit-2"


def test_rivals_get_what_they_ask_for_and_leave_the_rest_to_stable() -> None:
    steps = [{"weight": {"to": 45, "for": "1h"}}]
    moves = Moves(
        config(rollout("a", steps=steps), rollout("b", candidate=3, steps=steps))
    )
    moves.set("a", 4000)
    moves.set("b", 4500)
    first, second = moves.model().rules
    assert first.buckets is not None
    assert second.buckets is not None
    # Neither has stable buckets of its own: those change when the other one moves.
    assert Counter(first.buckets) == {2: 4000, 1: 1500, CONTINUE: 4500}
    assert Counter(second.buckets) == {3: 4500, CONTINUE: 5500}
    both = Both(moves)
    for unit in UNITS:
        drawn = bucket(unit, "credit")
        if drawn in held(moves.state("b").maps[0], 3):
            assert both.version(unit) == 3
        elif drawn in held(moves.state("a").maps[0], 2):
            assert both.version(unit) == 2
        else:
            assert both.version(unit) == 1


def test_a_rule_does_not_change_when_a_rival_moves() -> None:
    moves = Moves(config(rollout("a"), rollout("b", candidate=3)))
    moves.set("a", 1000)
    before = moves.rules()["a"]
    for share in (500, 3000):
        moves.set("b", share)
        assert moves.rules()["a"] == before
    moves.roll_back("b")
    assert moves.rules()["a"] == before


def test_new_york_and_california_each_reach_everyone() -> None:
    moves = Moves(
        config(
            rollout("ny", audience="new-york"),
            rollout("ca", candidate=3, audience="california"),
        )
    )
    moves.set("ny", 10_000)
    moves.set("ca", 500)
    both = Both(moves)
    assert {both.version(unit, **NY) for unit in UNITS} == {2}
    assert {both.rule(unit, **CA) for unit in UNITS} == {"ca"}  # stable's part as well
    moves.set("ca", 10_000)
    both = Both(moves)
    assert {both.version(unit, **CA) for unit in UNITS} == {3}
    assert {both.version(unit) for unit in UNITS} == {1}


def test_after_a_rollback_everyone_is_back_on_stable() -> None:
    moves = Moves(config(rollout(), rollout("b", candidate=3)))
    before = encode(moves.plan())
    moves.set("credit-2", 5000)
    moves.set("b", 5000)
    moves.roll_back("credit-2")
    both = Both(moves)
    assert 2 not in {both.version(unit) for unit in UNITS}
    moves.roll_back("b")
    assert encode(moves.plan()) == before


def test_compiling_is_deterministic_and_kernel_equals_twin() -> None:
    dealer = random.Random(3)
    for _ in range(3):
        moves = Moves(
            config(
                rollout("a", candidates=[2, 3], waves=["low-risk", "everyone"]),
                rollout("b", candidate=4, audience="new-york", slices=["adults"]),
                rollout(
                    "c",
                    candidate=4,
                    channels=["web", "mobile"],
                    audience="california",
                ),
                holdouts=[{"name": "control", "percent": 2}],
            )
        )
        moves.set("a", {2: dealer.randrange(2000), 3: dealer.randrange(2000)})
        moves.set("a", dealer.randrange(1000), wave=1)
        moves.set("b", dealer.randrange(3000))
        moves.set("c/web", dealer.randrange(3000))
        moves.set("c/mobile", dealer.randrange(3000))
        both = Both(moves)
        assert both.table == encode(moves.plan())
        for unit in UNITS[:60]:
            both.decide(
                unit,
                location=dealer.choice(["new-york", "california", "x"]),
                age=dealer.choice(["7", "30"]),
                channel=dealer.choice(["web", "mobile", "x"]),
                **{"input.amount": dealer.choice(["1", "5000"])},
            )


def test_a_baseline_is_stables_and_named_apart() -> None:
    moves = Moves(config(rollout()))
    moves.set("credit-2", 3000)
    both = Both(moves)
    apart = held(moves.state("credit-2").maps[0], BASELINE)
    for unit in UNITS:
        decision = both.decide(unit)
        is_apart = bucket(unit, "credit") in apart
        name = both.model.variants[decision.variant].name
        assert (name == "1@baseline") == is_apart


# -- shadows ---------------------------------------------------------------------------

SHADOW = [{"shadow": {"percent": 20, "for": "1h"}}, *LADDER]


def shadowing(moves: Moves, scope: str = "credit-2", **change: Any) -> None:
    state = {spec.scope: state for spec, state in moves.scopes()}[scope]
    moves.put(replace(state, phase=Phase.SHADOWING, **change))


def test_a_shadow_takes_the_units_that_the_candidate_will_answer_first() -> None:
    moves = Moves(config(rollout(steps=SHADOW, audience="adults")))
    shadowing(moves)
    (shadow,) = moves.model().shadows
    assert shadow.buckets is not None
    taken = {b for b in range(10_000) if shadow.buckets[b]}
    assert taken == set(claim_order("credit-2")[:2000])
    assert (shadow.name, shadow.variant, shadow.salt) == ("credit-2", 1, "credit")
    assert shadow.condition is not None
    assert moves.model().rules == ()
    Both(moves)


def test_a_shadow_by_request_is_a_sample() -> None:
    steps = [{"shadow": {"percent": 20, "by": "request", "for": "1h"}}, *LADDER]
    moves = Moves(config(rollout(steps=steps, candidates=[2, 3])))
    shadowing(moves)
    made = [(s.name, s.variant, s.buckets, s.sample_bp) for s in moves.model().shadows]
    assert made == [("credit-2#2", 1, None, 2000), ("credit-2#3", 2, None, 2000)]


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({}, 1), ({"phase": Phase.HOLDING, "elapsed_s": 1.0}, 1),
        ({"phase": Phase.HOLDING}, 0), ({"phase": Phase.PENDING}, 0),
        ({"phase": Phase.ROLLED_BACK}, 0), ({"is_off": True}, 0), ({"step": 1}, 0),
        ({"is_retired": True}, 0), ({"step": 9}, 0),
    ],
)  # fmt: skip
def test_a_shadow_runs_while_its_step_does(change: dict[str, Any], count: int) -> None:
    moves = Moves(config(rollout(steps=SHADOW)))
    shadowing(moves)
    moves.put(replace(moves.state("credit-2"), **change))
    assert len(moves.model().shadows) == count


@pytest.mark.parametrize(
    "change",
    [
        {"shadows_off": frozenset({"credit-2"})},
        {"disabled": frozenset({("credit", 2)})},
        {"versions": {"credit": (1, 3)}},
    ],
)
def test_a_shadow_can_be_turned_off(change: dict[str, Any]) -> None:
    moves = Moves(config(rollout(steps=SHADOW)))
    shadowing(moves)
    moves.states = replace(moves.states, **change)
    assert moves.model().shadows == ()
