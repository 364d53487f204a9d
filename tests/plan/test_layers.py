"""Scopes that share a layer: what each of them gets, and what a unit sees of it."""

import random
from typing import Any

import pytest
from rollout_plans import Moves, candidates_of, config, held, rollout

from router._fasthash import claim_order
from router.errors import ClaimError
from router.plan.claim import BASELINE, BucketMap, claim_scope

ORDER = claim_order("credit-2")
NEW_YORK, CALIFORNIA = {"audience": "new-york"}, {"audience": "california"}


def claimed(
    previous: BucketMap | None, weights: dict[int, int], **more: Any
) -> BucketMap:
    given = {"baseline_bp": 0, "blocked": frozenset(), "stable": 1} | more
    return claim_scope(previous, ORDER, weights, **given)


# -- claiming --------------------------------------------------------------------------


def test_a_candidate_claims_from_the_front_and_its_baseline_from_the_end() -> None:
    made = claimed(None, {2: 500}, baseline_bp=500)
    assert dict(made.claims)[2] == tuple(ORDER[:500])
    assert dict(made.claims)[BASELINE] == tuple(reversed(ORDER[-500:]))
    assert made.rest == 1


def test_growth_keeps_what_is_held_and_may_take_the_baselines() -> None:
    small = claimed(None, {2: 4000}, baseline_bp=4000)
    large = claimed(small, {2: 7000}, baseline_bp=3000)
    assert held(large, 2) == frozenset(ORDER[:7000])
    assert held(large, BASELINE) == frozenset(ORDER[7000:])
    full = claimed(large, {2: 10_000}, baseline_bp=10_000)
    assert (len(held(full, 2)), held(full, BASELINE)) == (10_000, frozenset())


def test_shrinking_gives_back_what_was_claimed_last() -> None:
    large = claimed(None, {2: 3000}, baseline_bp=3000)
    small = claimed(large, {2: 100}, baseline_bp=100)
    assert small == claimed(None, {2: 100}, baseline_bp=100)


def test_a_blocked_bucket_is_never_claimed_and_is_lost_when_held() -> None:
    blocked = frozenset(ORDER[:1000])
    made = claimed(None, {2: 500}, baseline_bp=500, blocked=blocked)
    assert held(made, 2) == frozenset(ORDER[1000:1500])
    before = claimed(None, {2: 2000})
    after = claimed(before, {2: 2000}, blocked=blocked)
    assert held(after, 2) == frozenset(ORDER[1000:3000])


def test_a_bucket_given_up_by_another_candidate_is_the_last_to_be_taken() -> None:
    before = claimed(None, {2: 4000, 3: 4000})
    after = claimed(before, {2: 1000, 3: 6000})
    assert held(after, 3) & held(before, 2) == frozenset()
    assert held(after, 3) == held(before, 3) | frozenset(ORDER[8000:])
    over = claimed(before, {2: 1000, 3: 6001})
    assert len(held(over, 3) & held(before, 2)) == 1


def test_a_baseline_stays_where_it_is_while_others_come_and_go() -> None:
    first = claimed(None, {2: 1000}, baseline_bp=1000, blocked=frozenset(ORDER[-500:]))
    again = claimed(first, {2: 1000}, baseline_bp=1000)
    assert held(again, BASELINE) == held(first, BASELINE)


def test_too_few_buckets_are_an_error() -> None:
    with pytest.raises(ClaimError, match=r"0\.01 % more is asked for than is free"):
        claimed(None, {2: 9001}, blocked=frozenset(ORDER[:1000]))
    assert (
        len(held(claimed(None, {2: 9000}, blocked=frozenset(ORDER[:1000])), 2)) == 9000
    )


# -- several candidates ----------------------------------------------------------------


def test_three_candidates_that_grow_in_any_order_never_exchange_a_unit() -> None:
    dealer = random.Random(11)
    for _ in range(5):
        moves = Moves(config(rollout(candidates=[2, 3, 4], strategy="canary")))
        weights, before = {2: 0, 3: 0, 4: 0}, dict[int, int]()
        while sum(weights.values()) < 9000:
            version = dealer.choice([2, 3, 4])
            room = 10_000 - sum(weights.values())
            weights[version] += min(room, dealer.randrange(1, 2500))
            (buckets,) = moves.set("credit-2", dict(weights)).maps
            after = candidates_of(buckets)
            assert {b: after.get(b) for b in before} == before
            assert {v: len(held(buckets, v)) for v in weights} == weights
            before = after


# -- several rollouts ------------------------------------------------------------------


def test_rollouts_for_everyone_never_share_a_bucket() -> None:
    moves = Moves(config(rollout("a"), rollout("b", candidate=3)))
    (first,) = moves.set("a", 3000).maps
    (second,) = moves.set("b", 4000).maps
    (first,) = moves.set("a", 5000).maps
    assert not candidates_of(first).keys() & candidates_of(second).keys()
    assert (len(held(first, 2)), len(held(second, 3))) == (5000, 4000)
    with pytest.raises(ClaimError) as refused:
        moves.set("b", 5001)
    assert refused.value.in_the_way == ("a",)
    assert "a holds 50 %" in str(refused.value)


def test_a_baseline_never_keeps_a_rival_from_its_share() -> None:
    half = [{"weight": {"to": 40, "for": "1h"}}]
    moves = Moves(
        config(rollout("a", steps=half), rollout("b", candidate=3, steps=half))
    )
    (first,) = moves.set("a", 4000).maps
    assert len(held(first, BASELINE)) == 2000  # what b may want is left free
    (second,) = moves.set("b", 4000).maps
    assert len(held(second, 3)) == 4000


def test_audiences_that_exclude_each_other_reach_everyone_of_theirs() -> None:
    moves = Moves(
        config(
            rollout("ny", **NEW_YORK), rollout("ca", candidate=3, **CALIFORNIA)
        )
    )  # fmt: skip
    for share in (500, 5000, 10_000):
        moves.set("ny", share)
    for share in (100, 10_000):
        moves.set("ca", share)
    assert len(held(moves.state("ny").maps[0], 2)) == 10_000
    assert len(held(moves.state("ca").maps[0], 3)) == 10_000


def test_an_audience_that_may_overlap_is_a_rival() -> None:
    moves = Moves(
        config(
            rollout("ny", **NEW_YORK), rollout("old", candidate=3, audience="adults")
        )
    )
    moves.set("ny", 6000)
    with pytest.raises(ClaimError, match="ny holds 60 %"):
        moves.set("old", 4001)


def test_other_layers_are_other_deals() -> None:
    moves = Moves(
        config(
            rollout("a"),
            rollout("b", candidate=3, layer="apart"),
            layers=[{"name": "apart"}],
        )
    )  # fmt: skip
    moves.set("a", 10_000)
    assert len(held(moves.set("b", 10_000).maps[0], 3)) == 10_000


def test_a_holdout_of_the_layers_own_salt_keeps_its_buckets() -> None:
    kept = [{"name": "control", "percent": 5, "salt": "credit"}]
    moves = Moves(config(rollout(), holdouts=kept))
    (buckets,) = moves.set("credit-2", 9500).maps
    assert not candidates_of(buckets).keys() & set(claim_order("credit")[:500])
    with pytest.raises(ClaimError, match="holdouts keep 5 %"):
        moves.set("credit-2", 9501)
    apart = Moves(config(rollout(), holdouts=[{"name": "control", "percent": 5}]))
    apart.set("credit-2", 10_000)


# -- sets nest -------------------------------------------------------------------------


def test_channels_reach_everyone_in_their_own_time_and_a_units_sets_nest() -> None:
    moves = Moves(config(rollout(channels=["web", "mobile"])))
    ladder = [("web", 500), ("web", 5000), ("mobile", 100), ("web", 10_000)]
    for channel, share in [*ladder, ("mobile", 2500), ("mobile", 10_000)]:
        moves.set(f"credit-2/{channel}", share)
        sets = [held(state.maps[0], 2) for state in moves.states.scopes.values()]
        assert all(a <= b or b <= a for a in sets for b in sets)
    assert len(sets[0]) == len(sets[1]) == 10_000


def test_channels_nest_with_several_candidates_whatever_way_each_grew() -> None:
    moves = Moves(config(rollout(candidates=[2, 3, 4], channels=["web", "mobile"])))
    dealer = random.Random(5)
    weights = {c: {2: 0, 3: 0, 4: 0} for c in ("web", "mobile")}
    for _ in range(20):
        channel, version = dealer.choice(["web", "mobile"]), dealer.choice([2, 3, 4])
        room = 4500 - sum(weights[channel].values())
        weights[channel][version] += min(room, dealer.randrange(600))
        moves.set(f"credit-2/{channel}", dict(weights[channel]))
    web, mobile = (
        candidates_of(state.maps[0]) for state in moves.states.scopes.values()
    )
    both = web.keys() & mobile.keys()
    assert {b: web[b] for b in both} == {b: mobile[b] for b in both}
    for version in (2, 3, 4):
        sets = [held(state.maps[0], version) for state in moves.states.scopes.values()]
        assert sets[0] <= sets[1] or sets[1] <= sets[0]


def test_waves_nest_and_earlier_ones_keep_their_map() -> None:
    moves = Moves(config(rollout(waves=["low-risk", "everyone"])))
    (low,) = moves.set("credit-2", 10_000).maps
    kept, everyone = moves.set("credit-2", 500, wave=1).maps
    assert kept == low
    assert held(everyone, 2) == frozenset(ORDER[:500])
    # The baseline of a wave begins with that wave.
    assert len(held(everyone, BASELINE)) == 500


def test_a_wave_without_its_map_gets_it_at_its_last_weight() -> None:
    moves = Moves(config(rollout(waves=["low-risk", "everyone"])))
    maps = moves.set("credit-2", 500, wave=1).maps
    assert [len(held(buckets, 2)) for buckets in maps] == [10_000, 500]


def test_after_a_rollback_the_next_attempt_claims_the_same() -> None:
    moves = Moves(config(rollout(candidates=[2, 3]), rollout("b", candidate=4)))
    ladder = [{2: 100, 3: 100}, {2: 1000, 3: 500}, {2: 2000, 3: 2000}]
    first = [moves.set("credit-2", weights).maps for weights in ladder]
    revision = moves.state("credit-2").revision
    moves.roll_back("credit-2")
    second = [moves.set("credit-2", weights).maps for weights in ladder]
    assert first == second
    assert moves.state("credit-2").revision > revision
