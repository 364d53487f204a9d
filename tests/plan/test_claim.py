"""Bucket maps move only who must move."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router._fasthash import claim_order
from router.plan.claim import BucketMap, claim, order_of
from router.plan.plan import BUCKET_COUNT

ORDER = tuple(claim_order("credit"))


def moves(before: BucketMap, after: BucketMap) -> dict[tuple[int, int], int]:
    pairs = Counter(zip(before.owners(), after.owners(), strict=True))
    return {pair: count for pair, count in pairs.items() if pair[0] != pair[1]}


def holders(buckets: BucketMap) -> dict[int, int]:
    return dict(Counter(buckets.owners()))


def test_a_first_split_claims_from_the_start_of_the_order() -> None:
    made = claim(None, ORDER, {1: 9000, 2: 1000}, stable=1)
    assert made == BucketMap(1, ((2, ORDER[:1000]),))


def test_two_candidates_claim_one_after_the_other() -> None:
    made = claim(None, ORDER, {1: 9000, 3: 700, 2: 300}, stable=1)
    assert made == BucketMap(1, ((2, ORDER[:300]), (3, ORDER[300:1000])))


def test_growth_takes_only_from_stable() -> None:
    before = claim(None, ORDER, {1: 8000, 2: 1000, 3: 1000}, stable=1)
    after = claim(before, ORDER, {1: 5000, 2: 3000, 3: 2000}, stable=1)
    assert moves(before, after) == {(1, 2): 2000, (1, 3): 1000}


def test_growth_beside_a_shrink_does_not_take_what_was_just_given_up() -> None:
    before = claim(None, ORDER, {1: 8000, 2: 1000, 3: 1000}, stable=1)
    after = claim(before, ORDER, {1: 8000, 2: 500, 3: 1500}, stable=1)
    assert moves(before, after) == {(2, 1): 500, (1, 3): 500}


def test_shrinking_returns_the_last_claimed_first() -> None:
    small = claim(None, ORDER, {1: 9000, 2: 1000}, stable=1)
    large = claim(small, ORDER, {1: 5000, 2: 5000}, stable=1)
    assert claim(large, ORDER, {1: 9000, 2: 1000}, stable=1) == small


def test_what_was_claimed_last_goes_first_even_if_it_is_early_in_the_order() -> None:
    both = claim(None, ORDER, {1: 8000, 2: 1000, 3: 1000}, stable=1)
    alone = claim(both, ORDER, {1: 9000, 3: 1000}, stable=1)
    grown = claim(alone, ORDER, {1: 8500, 3: 1500}, stable=1)
    assert grown.claims == ((3, ORDER[1000:2000] + ORDER[:500]),)
    assert claim(grown, ORDER, {1: 9000, 3: 1000}, stable=1) == alone


def test_the_same_weights_change_nothing() -> None:
    made = claim(None, ORDER, {1: 6000, 2: 3000, 3: 1000}, stable=1)
    assert claim(made, ORDER, {1: 6000, 2: 3000, 3: 1000}, stable=1) == made


def test_equal_shares_of_other_versions_are_another_map() -> None:
    before = claim(None, ORDER, {1: 9000, 2: 1000}, stable=1)
    after = claim(before, ORDER, {1: 9000, 3: 1000}, stable=1)
    assert moves(before, after) == {(2, 1): 1000, (1, 3): 1000}
    # The same claims, and another version holds the rest.
    rest = claim(before, ORDER, {2: 1000, 3: 9000}, stable=3)
    assert holders(rest) == {2: 1000, 3: 9000}


def test_an_order_that_is_kept_is_the_order_of_its_salt() -> None:
    for salt in ("credit", "credit", "fraud"):
        assert order_of(salt) == tuple(claim_order(salt))


def test_a_dealt_map_says_what_the_owners_say() -> None:
    for target, stable in (({1: 8000, 2: 1500, 3: 500}, 1), ({2: 4000, 3: 6000}, 1)):
        made = claim(None, ORDER, target, stable)
        ordinals = {1: 4, 2: 0, 3: 7}
        dealt = made.dealt(ordinals)
        assert dealt == bytes(ordinals[version] for version in made.owners())


def test_a_removed_version_gives_its_buckets_to_stable() -> None:
    before = claim(None, ORDER, {1: 8000, 2: 1000, 3: 1000}, stable=1)
    after = claim(before, ORDER, {1: 9000, 3: 1000}, stable=1)
    assert moves(before, after) == {(2, 1): 1000}


def test_a_new_stable_with_the_same_weights_moves_nobody() -> None:
    before = claim(None, ORDER, {1: 7000, 2: 3000}, stable=1)
    after = claim(before, ORDER, {1: 7000, 2: 3000}, stable=2)
    assert moves(before, after) == {}
    assert after.rest == 2


def test_without_stable_every_bucket_is_claimed() -> None:
    made = claim(None, ORDER, {2: 4000, 3: 6000}, stable=1)
    assert made.rest is None
    assert holders(made) == {2: 4000, 3: 6000}


def test_without_stable_only_the_difference_moves() -> None:
    before = claim(None, ORDER, {2: 4000, 3: 6000}, stable=1)
    after = claim(before, ORDER, {2: 5000, 3: 5000}, stable=1)
    assert moves(before, after) == {(3, 2): 1000}


def test_stable_that_leaves_the_split_is_replaced_by_growth() -> None:
    before = claim(None, ORDER, {1: 4000, 2: 3000, 3: 3000}, stable=1)
    after = claim(before, ORDER, {2: 5000, 3: 5000}, stable=1)
    assert moves(before, after) == {(1, 2): 2000, (1, 3): 2000}


def test_stable_that_joins_a_split_takes_only_what_others_give_up() -> None:
    before = claim(None, ORDER, {2: 5000, 3: 5000}, stable=1)
    after = claim(before, ORDER, {1: 2000, 2: 4000, 3: 4000}, stable=1)
    assert moves(before, after) == {(2, 1): 1000, (3, 1): 1000}


def test_a_version_at_zero_keeps_nothing() -> None:
    before = claim(None, ORDER, {1: 5000, 2: 5000}, stable=1)
    assert claim(before, ORDER, {1: 10_000, 2: 0}, stable=1) == BucketMap(1, ((2, ()),))


def test_a_ramp_with_three_variants_flips_nobody_between_candidates() -> None:
    step = claim(None, ORDER, {1: 9500, 2: 250, 3: 250}, stable=1)
    for share in range(500, 5001, 250):
        target = {1: BUCKET_COUNT - 2 * share, 2: share, 3: share}
        following = claim(step, ORDER, target, stable=1)
        assert set(moves(step, following)) == {(1, 2), (1, 3)}
        step = following


def test_weights_have_to_add_up() -> None:
    with pytest.raises(AssertionError):
        claim(None, ORDER, {1: 9000, 2: 999}, stable=1)


@st.composite
def targets(draw: st.DrawFn) -> dict[int, int]:
    versions = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4, unique=True))
    cuts = sorted(draw(st.integers(0, BUCKET_COUNT)) for _ in versions[1:])
    ends = [0, *cuts, BUCKET_COUNT]
    return {v: ends[i + 1] - ends[i] for i, v in enumerate(versions)}


@given(edits=st.lists(targets(), min_size=1, max_size=5), stable=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_any_edit_reaches_its_weights_with_the_fewest_moves(
    edits: list[dict[int, int]], stable: int
) -> None:
    buckets = None
    for target in edits:
        following = claim(buckets, ORDER, target, stable)
        reached = holders(following)
        assert {v: reached.get(v, 0) for v in target} == target
        assert sorted(b for _, claimed in following.claims for b in claimed) == sorted(
            {b for _, claimed in following.claims for b in claimed}
        )
        if buckets is not None:
            had = Counter(buckets.owners())
            gained = {v: max(0, n - had[v]) for v, n in target.items()}
            moved = moves(buckets, following)
            losing = {source for source, _ in moved}
            # Nobody who gains also loses, but stable: it gives to one candidate what it
            # will get back from another, so that no unit goes between the two.
            assert not (losing - {stable, buckets.rest}) & {
                v for v, n in gained.items() if n
            }
        buckets = following


def test_maps_do_not_depend_on_the_order_versions_are_written_in() -> None:
    shuffled = [(1, 5000), (2, 3000), (3, 2000)]
    random.Random(3).shuffle(shuffled)
    assert claim(None, ORDER, dict(shuffled), 1) == claim(
        None, ORDER, {1: 5000, 2: 3000, 3: 2000}, 1
    )
