"""Which shadows take a request: by bucket or drawn, never changing who answers."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_plans import buckets_of, plan_of, rule_of, single_tests, unhurried

from router import _fasthash_py
from router._fasthash import Table, bucket, xxh64
from router._fasthash_py import UnitSource, read_table
from router.plan.encode import encode
from router.plan.explain import Asked, explain
from router.plan.plan import OnMissing, Op, Pins, Shadow, Unit, Variant
from router.plan.plan import Test as Ask  # pytest would collect a class named Test

EVERYONE = bytes([1]) * 10_000


def shadows_of(side, plan, unit=b"u", attributes=None, pin=-1, draw=0):
    source = UnitSource.NONE if unit is None else UnitSource.METADATA
    table = side.table(encode(plan))
    return table.shadows("m", attributes or {}, unit, source, pin, draw)


def test_without_shadows_nothing_is_taken(side):
    assert shadows_of(side, plan_of()) == ()


def test_several_shadows_take_the_same_request(side):
    plan = plan_of(shadows=(Shadow("a", 1), Shadow("b", 2)))
    assert shadows_of(side, plan) == (0, 1)


def test_a_shadow_of_the_answering_variant_does_not_run(side):
    rule = rule_of("r", buckets=buckets_of((range(10_000), 1)))
    plan = plan_of(rule, shadows=(Shadow("a", 1), Shadow("b", 2), Shadow("c", 0)))
    assert shadows_of(side, plan) == (1, 2)


def test_a_disabled_shadow_does_not_run(side):
    options = (Variant("a", 1), Variant("b", 2, 0, True), Variant("c", 3))
    plan = plan_of(options=options, shadows=(Shadow("a", 1), Shadow("b", 2)))
    assert shadows_of(side, plan) == (1,)


def test_by_bucket_a_unit_is_always_or_never_taken(side):
    taken = bytes(int(b < 3000) for b in range(10_000))
    plan = plan_of(shadows=(Shadow("a", 1, salt="s", buckets=taken),))
    for n in range(100):
        unit = f"u{n}".encode()
        expected = (0,) if bucket(unit, "s") < 3000 else ()
        assert shadows_of(side, plan, unit, draw=n) == expected


def test_by_sampling_each_request_is_drawn_alone(side):
    plan = plan_of(shadows=(Shadow("a", 1, salt="s", sample_bp=2500),))
    table = side.table(encode(plan))
    taken = sum(
        len(table.shadows("m", {}, b"u", 1, -1, draw)) for draw in range(10_000)
    )
    # Binomial(10000, 0.25): standard deviation 43; six of them.
    assert abs(taken - 2500) < 260


@pytest.mark.parametrize(("sample_bp", "taken"), [(0, ()), (10_000, (0,))])
def test_a_share_of_nothing_or_of_all_is_exact(side, sample_bp, taken):
    plan = plan_of(shadows=(Shadow("a", 1, sample_bp=sample_bp),))
    dealer = random.Random(1)
    for draw in (0, 2**64 - 1, *(dealer.getrandbits(64) for _ in range(50))):
        assert shadows_of(side, plan, draw=draw) == taken


def test_sampling_is_independent_of_a_rule_with_the_same_salt(side):
    """Without a unit both draw from the same number, and must not agree."""
    rule = rule_of("r", salt="s", buckets=buckets_of((range(5000), 1)))
    shadow = Shadow("a", 2, salt="s", sample_bp=5000)
    table = side.table(encode(plan_of(rule, shadows=(shadow,))))
    both = 0
    for draw in range(4000):
        is_candidate = table.route("m", {}, None, 4, -1, draw).variant == 1
        both += is_candidate and bool(table.shadows("m", {}, None, 4, -1, draw))
    # A quarter of 4,000: standard deviation 27; six of them.
    assert abs(both - 1000) < 165


def test_a_condition_chooses_who_is_taken(side):
    asks = Ask("city", Op.IN, (b"x",))
    plan = plan_of(shadows=(Shadow("a", 1, asks, buckets=EVERYONE),))
    assert shadows_of(side, plan, attributes={"city": "x"}) == (0,)
    assert shadows_of(side, plan, attributes={"city": "y"}) == ()


def test_a_refused_request_is_not_shadowed(side):
    unit = Unit(on_missing=OnMissing.REJECT)
    plan = plan_of(unit=unit, pins=Pins.DENY, shadows=(Shadow("a", 1),))
    assert shadows_of(side, plan, None) == ()
    assert shadows_of(side, plan, pin=1) == ()
    assert shadows_of(side, plan) == (0,)


def test_a_shadow_changes_no_decision(side):
    rule = rule_of("r", buckets=buckets_of((range(5000), 1)))
    plain = side.table(encode(plan_of(rule)))
    shadowed = side.table(encode(plan_of(rule, shadows=(Shadow("a", 2),))))
    for n in range(200):
        asked = ("m", {}, f"u{n}".encode(), 1)
        assert plain.route(*asked) == shadowed.route(*asked)


@given(
    asks=st.none() | single_tests().filter(lambda test: test.op != Op.REGEX),
    sample_bp=st.integers(0, 10_000),
    is_sticky=st.booleans(),
    unit=st.none() | st.binary(max_size=9),
    draw=st.integers(0, 2**64 - 1),
    value=st.sampled_from(("abc", 1, 1.5, True, b"1.2.3")),
)
@unhurried(200)
def test_kernel_and_twin_take_the_same(asks, sample_bp, is_sticky, unit, draw, value):
    taken = bytes(b % 2 for b in range(10_000)) if is_sticky else None
    plan = plan_of(shadows=(Shadow("a", 1, asks, "s", taken, sample_bp),))
    data = encode(plan)
    source = 4 if unit is None else 0
    asked = ("m", {"a": value, "b": value}, unit, source, -1, draw)
    assert Table(data).shadows(*asked) == read_table(data).shadows(*asked)


def test_explain_says_who_also_runs_it():
    plan = plan_of(shadows=(Shadow("night", 1), Shadow("other", 2, sample_bp=0)))
    found = explain(plan, Asked("m", b"u"))
    assert found.version == 1
    assert found.shadows == ("night: version 2",)


def test_the_draw_is_of_the_seed_turned_over():
    plan = plan_of(shadows=(Shadow("a", 1, salt="s", sample_bp=5000),))
    shadow = read_table(encode(plan)).models["m"].shadows[0]
    assert shadow.seed == xxh64(b"s", 0)
    digest = xxh64((7).to_bytes(8, "little"), shadow.seed ^ (2**64 - 1))
    asked = ("m", {}, None, 4, -1, 7)
    taken = Table(encode(plan)).shadows(*asked)
    assert bool(taken) == (_fasthash_py.bucket_of(digest) < 5000)
