"""What assignment promises: even, independent, and nobody moves who need not.

Seeds are fixed. Chi-square limits are mean + 5 standard deviations of the chi-square
distribution, df + 5 * sqrt(2 * df): under a fair hash a test fails with a chance below
1e-5, and a bias of one part in fifty is found with 100,000 units.
"""

import math
import random
import uuid
from collections import Counter
from dataclasses import replace

import pytest
from kernel_plans import plan_of, rule_of

from router import _fasthash
from router.plan.encode import encode
from router.plan.plan import CONTINUE, Reason, Variant

UNIT_COUNT = 100_000
DEALER = random.Random(2024)
UNITS = {
    "integers": [b"%d" % n for n in range(UNIT_COUNT)],
    "padded integers": [b"%012d" % n for n in range(UNIT_COUNT)],
    "little-endian integers": [n.to_bytes(8, "little") for n in range(UNIT_COUNT)],
    "uuids": [
        str(uuid.UUID(int=DEALER.getrandbits(128), version=4)).encode()
        for _ in range(UNIT_COUNT)
    ],
    "e-mails": [b"first.last%d@example.com" % n for n in range(UNIT_COUNT)],
}


def limit(df: int) -> float:
    return df + 5 * math.sqrt(2 * df)


def chi_square(counts: Counter, cells: int, total: int) -> float:
    expected = total / cells
    seen = sum((count - expected) ** 2 / expected for count in counts.values())
    return seen + (cells - len(counts)) * expected


def buckets_in(salt: str, units: list[bytes]) -> list[int]:
    return [_fasthash.bucket(unit, salt) for unit in units]


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("groups", [10_000, 100, 2])
def test_units_fall_evenly_into_buckets(kind, groups):
    width = 10_000 // groups
    counts = Counter(b // width for b in buckets_in("credit", UNITS[kind]))
    assert chi_square(counts, groups, UNIT_COUNT) < limit(groups - 1)


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("salts", [("a", "b"), ("layer-1", "layer-2"), ("", "0")])
def test_layers_of_two_salts_are_independent(kind, salts):
    first, second = (buckets_in(salt, UNITS[kind]) for salt in salts)
    pairs = Counter(
        zip((b // 1000 for b in first), (b // 1000 for b in second), strict=True)
    )
    # 10 x 10 cells whose expectation is known, not estimated: 99 degrees of freedom.
    assert chi_square(pairs, 100, UNIT_COUNT) < limit(99)


def test_the_twin_deals_the_same_buckets(side):
    for kind, units in UNITS.items():
        sample = units[::5000]
        mine = [side.functions.bucket(unit, "credit") for unit in sample]
        assert mine == buckets_in("credit", sample), kind


def test_a_claim_is_an_even_sample_of_units():
    claimed = set(_fasthash.claim_order("roll")[:500])
    taken = sum(b in claimed for b in buckets_in("credit", UNITS["integers"]))
    # Binomial(100,000, 0.05): standard deviation 68.9, five of them are 345.
    assert abs(taken - 5000) < 345


def test_growing_a_variant_never_moves_a_unit_between_candidates(side):
    """Random growth of three candidates in claim order; a unit moves at most once."""
    dealer = random.Random(7)
    order = list(side.functions.claim_order("roll"))
    units = [b"%d" % n for n in range(60)]
    buckets, free = bytearray([CONTINUE]) * 10_000, 0
    held: dict[bytes, int] = dict.fromkeys(units, 0)
    while free < 10_000:
        candidate, size = dealer.randint(1, 3), dealer.randint(300, 1500)
        for bucket in order[free : free + size]:
            buckets[bucket] = candidate
        free += size
        rule = rule_of("roll", buckets=bytes(buckets), reason=Reason.SPLIT)
        table = side.table(encode(plan_of(rule, variants=4)))
        for unit in units:
            variant = table.route("m", {}, unit, 0).variant
            assert held[unit] in (0, variant)
            held[unit] = variant
    assert 0 not in held.values()


def served_versions(side, plan, units):
    table, variants = side.table(encode(plan)), plan.models[0].variants
    return [variants[table.route("m", {}, unit, 0).variant].version for unit in units]


def test_renaming_variants_moves_nobody(side):
    dealer = random.Random(8)
    units = [b"%d" % n for n in range(100)]
    plan = plan_of(rule_of("split", buckets=bytes(dealer.choices(range(3), k=10_000))))
    renamed = tuple(
        replace(variant, name=f"{variant.name}-renamed")
        for variant in plan.models[0].variants
    )
    after = replace(plan, models=(replace(plan.models[0], variants=renamed),))
    assert served_versions(side, after, units) == served_versions(side, plan, units)


def test_a_variant_added_before_the_others_moves_nobody(side):
    dealer = random.Random(9)
    units = [b"%d" % n for n in range(100)]
    dealt = dealer.choices(range(3), k=10_000)
    before = plan_of(rule_of("split", buckets=bytes(dealt)))
    options = (Variant("new", 0), *before.models[0].variants)
    shifted = bytes(ordinal + 1 for ordinal in dealt)
    after = plan_of(rule_of("split", buckets=shifted), options=options)
    assert served_versions(side, after, units) == served_versions(side, before, units)


def test_a_unit_keeps_its_variant_whatever_else_it_sends(side):
    dealer = random.Random(10)
    plan = plan_of(rule_of("split", buckets=bytes(dealer.choices(range(3), k=10_000))))
    table = side.table(encode(plan))
    first = table.route("m", {}, b"user", 0)
    for source, number in [(1, 5), (2, 6), (3, 7)]:
        again = table.route("m", {"x": number}, b"user", source, random=number)
        assert (again.variant, again.bucket) == (first.variant, first.bucket)
