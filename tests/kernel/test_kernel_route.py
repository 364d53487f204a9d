"""Who serves a request: pin, then the rules in order, then stable; and why."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_plans import (
    buckets_of,
    calls,
    conditions,
    deal_call,
    deal_plan,
    full_match,
    plan_of,
    rule_of,
    single_tests,
    unhurried,
)

from router import _fasthash_py
from router._fasthash import Table, bucket, xxh64
from router._fasthash_py import Decision, Outcome, Reason, UnitSource, read_table
from router.plan.encode import encode
from router.plan.plan import (
    All,
    AnyOf,
    Condition,
    Not,
    OnMissing,
    Op,
    Pins,
    Unit,
    Variant,
)
from router.plan.plan import Test as Ask  # pytest would collect a class named Test

UNIT = b"user-1"
EVERYONE = buckets_of((range(10_000), 1))


def route(side, plan, attributes=None, unit=UNIT, **request):
    source = UnitSource.NONE if unit is None else UnitSource.METADATA
    return side.table(encode(plan)).route(
        "m", attributes or {}, unit, source, **request
    )


# -- without a rule -------------------------------------------------------------------


def test_without_rules_stable_answers(side):
    assert route(side, plan_of()) == Decision(
        outcome=Outcome.ROUTED,
        reason=Reason.DEFAULT,
        variant=0,
        rule=None,
        bucket=None,
        propensity_bp=10_000,
        digest=0,
        cell=3,  # after the three of pinned requests
        rollout_revision=0,
        unit_source=UnitSource.METADATA,
    )


def test_a_pin_gets_its_version(side):
    decision = route(side, plan_of(rule_of("all")), pin=3)
    assert (decision.outcome, decision.reason) == (Outcome.ROUTED, Reason.STATIC)
    assert (decision.variant, decision.cell, decision.rule) == (2, 2, None)


def test_a_pin_gets_the_lowest_ordinal_of_its_version(side):
    options = (Variant("a", 1), Variant("b", 2, 3), Variant("c", 2, 4))
    assert route(side, plan_of(options=options), pin=2).variant == 1


@pytest.mark.parametrize("pin", [0, 9, 2**32 + 1, 2**63 - 1])
def test_a_pin_of_no_version_is_unknown(side, pin):
    assert route(side, plan_of(), pin=pin).outcome == Outcome.PIN_UNKNOWN


def test_version_zero_can_be_pinned(side):
    plan = plan_of(options=(Variant("zero", 0), Variant("one", 1)))
    decision = route(side, plan, pin=0)
    assert (decision.outcome, decision.reason) == (Outcome.ROUTED, Reason.STATIC)


def test_a_disabled_version_refuses_pins(side):
    plan = plan_of(options=(Variant("a", 1), Variant("b", 2, is_disabled=True)))
    assert route(side, plan, pin=2).outcome == Outcome.PIN_DISABLED


def test_denied_pins_are_refused_even_for_unknown_versions(side):
    plan = plan_of(pins=Pins.DENY)
    assert route(side, plan, pin=1).outcome == Outcome.PIN_DENIED
    assert route(side, plan, pin=99).outcome == Outcome.PIN_DENIED


def test_ignored_pins_leave_the_decision_to_the_rules(side):
    plan = plan_of(rule_of("all"), pins=Pins.IGNORE)
    assert route(side, plan, pin=3) == route(side, plan)


# -- without a unit -------------------------------------------------------------------


def test_without_a_unit_a_rejecting_model_refuses(side):
    plan = plan_of(rule_of("all"), unit=Unit(on_missing=OnMissing.REJECT))
    assert route(side, plan, unit=None).outcome == Outcome.REFUSED_UNIT
    assert route(side, plan).outcome == Outcome.ROUTED


def test_without_a_unit_stable_answers_where_told(side):
    plan = plan_of(rule_of("all"), unit=Unit(on_missing=OnMissing.STABLE))
    decision = route(side, plan, unit=None)
    assert (decision.variant, decision.reason) == (0, Reason.DEFAULT)
    assert decision.unit_source == UnitSource.NONE


def test_without_a_unit_a_random_number_is_the_unit(side):
    plan = plan_of(rule_of("all", buckets=EVERYONE, reason=Reason.SPLIT))
    number = 2**63 + 12_345
    as_bytes = number.to_bytes(8, "little")
    decision = route(side, plan, unit=None, random=number)
    assert decision.digest == xxh64(as_bytes, xxh64(b"layer", 0))
    assert decision.bucket == bucket(as_bytes, "layer")


def test_a_pin_needs_no_unit(side):
    plan = plan_of(unit=Unit(on_missing=OnMissing.REJECT))
    assert route(side, plan, unit=None, pin=2).outcome == Outcome.ROUTED


# -- rules ----------------------------------------------------------------------------


def test_the_first_rule_that_matches_answers(side):
    nobody = Ask("plan", Op.IN, (b"gold",))
    plan = plan_of(
        rule_of("gold", nobody, variant=2),
        rule_of("all", variant=1, rollout_revision=7),
        rule_of("late", variant=2),
    )
    decision = route(side, plan, {"plan": "silver"})
    assert (decision.rule, decision.variant) == (1, 1)
    assert decision.reason == Reason.TARGETING_MATCH
    assert decision.rollout_revision == 7
    # Pinned, default and the first rule have three cells each.
    assert decision.cell == 9 + 1


def test_a_rule_without_a_map_draws_no_bucket(side):
    decision = route(side, plan_of(rule_of("all")))
    assert (decision.bucket, decision.digest) == (None, 0)
    assert decision.propensity_bp == 10_000


def test_a_rule_with_a_map_gives_what_the_bucket_says(side):
    mine = bucket(UNIT, "layer")
    buckets = buckets_of((range(10_000), 0), (range(mine, mine + 1), 2))
    plan = plan_of(rule_of("split", buckets=buckets, reason=Reason.SPLIT))
    decision = route(side, plan)
    assert (decision.variant, decision.bucket) == (2, mine)
    assert decision.digest == xxh64(UNIT, xxh64(b"layer", 0))
    assert (decision.propensity_bp, decision.reason) == (1, Reason.SPLIT)


def test_an_unclaimed_bucket_goes_on_to_the_next_rule(side):
    nothing = buckets_of()
    plan = plan_of(rule_of("roll", buckets=nothing), rule_of("rest", variant=2))
    decision = route(side, plan)
    assert (decision.rule, decision.variant) == (1, 2)


def test_an_unclaimed_bucket_of_the_last_rule_is_stables(side):
    decision = route(side, plan_of(rule_of("roll", buckets=buckets_of())))
    assert (decision.variant, decision.reason) == (0, Reason.DEFAULT)
    assert (decision.rule, decision.bucket, decision.cell) == (None, None, 3)


def test_each_layer_draws_a_bucket_of_its_own(side):
    layers = [f"layer-{n}" for n in range(7)]  # more than a request keeps digests of
    for last in layers:
        rules = [
            rule_of(salt, salt=salt, buckets=EVERYONE if salt == last else buckets_of())
            for salt in layers
        ]
        plan = plan_of(*rules, rule_of("again", salt=layers[0], buckets=EVERYONE))
        assert route(side, plan).bucket == bucket(UNIT, last)


def test_a_disabled_variant_is_answered_by_stable(side):
    options = (Variant("a", 1), Variant("b", 2, is_disabled=True), Variant("c", 3))
    halves = buckets_of((range(6000), 1), (range(6000, 9000), 0))
    plan = plan_of(rule_of("split", buckets=halves), options=options)
    unit = next(u for u in map(str, range(99)) if bucket(u.encode(), "layer") < 6000)
    decision = route(side, plan, unit=unit.encode())
    assert (decision.variant, decision.reason) == (0, Reason.DISABLED)
    assert (decision.rule, decision.cell) == (0, 6)
    assert decision.propensity_bp == 9000  # what stable answers in all


def test_a_disabled_variant_without_a_map_is_answered_by_stable(side):
    options = (Variant("a", 1), Variant("b", 2, is_disabled=True))
    decision = route(side, plan_of(rule_of("all"), options=options))
    assert (decision.variant, decision.reason) == (0, Reason.DISABLED)
    assert decision.propensity_bp == 10_000


# -- tests of attributes --------------------------------------------------------------

LOW, UP = Op.RANGE, Op.BETWEEN
SLOT_CASES = [
    (Ask("k", Op.PRESENT), {"k": ""}, True),
    (Ask("k", Op.PRESENT), {}, False),
    (Ask("k", Op.IN, (b"a", b"b")), {"k": "b"}, True),
    (Ask("k", Op.IN, (b"a", b"b")), {"k": "c"}, False),
    (Ask("k", Op.IN, ()), {"k": "c"}, False),
    (Ask("k", Op.IN, (b"",)), {"k": ""}, True),
    (Ask("k", Op.IN, (b"a\x00b",)), {"k": b"a\x00b"}, True),
    (Ask("k", Op.IN, (b"a",)), {"k": b"a\x00b"}, False),
    (Ask("k", Op.IN, (b"-12",)), {"k": -12}, True),
    (Ask("k", Op.IN, (b"0",)), {"k": 0}, True),
    (Ask("k", Op.IN, (b"-9223372036854775808",)), {"k": -(2**63)}, True),
    (Ask("k", Op.IN, (b"9223372036854775807",)), {"k": 2**63 - 1}, True),
    (Ask("k", Op.IN, (b"true",)), {"k": True}, True),
    (Ask("k", Op.IN, (b"false",)), {"k": False}, True),
    (Ask("k", Op.IN, (b"1",)), {"k": True}, False),
    (Ask("k", Op.IN, (b"1.5",)), {"k": 1.5}, False),
    (Ask("k", Op.PREFIX, (b"x", b"ab")), {"k": "abc"}, True),
    (Ask("k", Op.PREFIX, (b"abcd",)), {"k": "abc"}, False),
    (Ask("k", Op.PREFIX, (b"",)), {"k": ""}, True),
    (Ask("k", Op.SUFFIX, (b"x", b"bc")), {"k": "abc"}, True),
    (Ask("k", Op.SUFFIX, (b"ab",)), {"k": "abc"}, False),
    (Ask("k", Op.CONTAINS, (b"x", b"b")), {"k": "abc"}, True),
    (Ask("k", Op.CONTAINS, (b"ca",)), {"k": "abc"}, False),
    (Ask("k", Op.CONTAINS, (b"2",)), {"k": 123}, True),
    (Ask("k", Op.REGEX, (b"a.c",)), {"k": "abc"}, True),
    (Ask("k", Op.REGEX, (b"a.c",)), {"k": "abcd"}, False),
    (Ask("k", LOW, low=18, high=65), {"k": "18"}, True),
    (Ask("k", LOW, low=18, high=65), {"k": "65"}, True),
    (Ask("k", LOW, low=18, high=65), {"k": "65.0001"}, False),
    (Ask("k", LOW, low=18, high=65), {"k": 17}, False),
    (Ask("k", LOW, low=18, high=65), {"k": "old"}, False),
    (Ask("k", LOW, low=18, high=65), {"k": "2024-01-01"}, False),
    (Ask("k", LOW, low=18, high=float("inf")), {"k": 1e300}, True),
    (Ask("k", LOW, low=-float("inf"), high=5), {"k": float("nan")}, False),
    (Ask("k", LOW, low=0, high=1), {"k": True}, True),
    (Ask("k", UP, low=18, high=65), {"k": 18}, False),
    (Ask("k", UP, low=18, high=65), {"k": 65}, False),
    (Ask("k", UP, low=18, high=65), {"k": "19"}, True),
    (Ask("k", Op.EQUAL, low=1.5), {"k": "15e-1"}, True),
    (Ask("k", Op.EQUAL, low=1.5), {"k": 2}, False),
    (Ask("k", Op.EQUAL, low=2.0**63), {"k": 2**63 - 1}, True),  # rounded to a double
    (Ask("k", Op.SEMVER, (b"2.0.0",), flags=1), {"k": "1.9.9"}, True),
    (Ask("k", Op.SEMVER, (b"2.0.0",), flags=2), {"k": "1.9.9"}, False),
    (Ask("k", Op.SEMVER, (b"2.0.0",), flags=6), {"k": "2.0.0+x"}, True),
    (Ask("k", Op.SEMVER, (b"2.0.0",), flags=4), {"k": "2.0.1-a"}, True),
    (Ask("k", Op.SEMVER, (b"2.0.0",), flags=7), {"k": "2.0"}, False),
    (Ask("k", Op.SEMVER, (b"2.0.0",), flags=7), {"k": 2}, False),
    (Ask("k", Op.BEFORE, low=100.0), {"k": "1970-01-01T00:01:39Z"}, True),
    (Ask("k", Op.BEFORE, low=100.0), {"k": "1970-01-01T00:01:40Z"}, False),
    (Ask("k", Op.AFTER, low=100.0), {"k": "1970-01-02"}, True),
    (Ask("k", Op.AFTER, low=100.0), {"k": "100"}, False),
    (Ask("k", Op.AFTER, low=100.0), {"k": 101}, True),
    (Ask("k", Op.AFTER, low=100.0), {"k": 100.5}, True),
    (Ask("k", Op.AFTER, low=100.0), {"k": "tomorrow"}, False),
    (Ask("unit", Op.IN, (UNIT,), on_unit=True), {"unit": "other"}, True),
    (Ask("unit", Op.IN, (b"other",), on_unit=True), {"unit": "other"}, False),
]


@pytest.mark.parametrize(("test", "attributes", "is_true"), SLOT_CASES)
def test_a_test_is_true_of_exactly_its_values(side, test, attributes, is_true):
    answer = route(side, plan_of(rule_of("r", test)), attributes, regex=full_match)
    denied = plan_of(rule_of("r", Not(test)))
    assert (answer.rule == 0) is is_true
    assert (route(side, denied, attributes, regex=full_match).rule == 0) is not is_true


@pytest.mark.parametrize("op", Op)
def test_nothing_is_true_of_a_missing_value(side, op):
    operands = {Op.SEMVER: (b"1.0.0",), Op.REGEX: (b".*",)}.get(op, (b"",))
    test = Ask("k", op, operands, -float("inf"), float("inf"))
    assert route(side, plan_of(rule_of("r", test)), regex=full_match).rule is None


def test_without_a_regex_function_no_regex_matches(side):
    plan = plan_of(rule_of("r", Ask("k", Op.REGEX, (b".*",))))
    assert route(side, plan, {"k": "a"}).rule is None


def test_what_a_regex_function_raises_reaches_the_caller(side):
    def broken(pattern, value):
        raise ZeroDivisionError(pattern, value)

    plan = plan_of(rule_of("r", Ask("k", Op.REGEX, (b".*",))))
    with pytest.raises(ZeroDivisionError):
        route(side, plan, {"k": "a"}, regex=broken)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 10, 1000])
def test_a_list_of_any_length_is_searched_right(side, count):
    listed = tuple(b"%d" % (n * 2) for n in range(count))
    table = side.table(encode(plan_of(rule_of("r", Ask("k", Op.IN, listed)))))
    for n in range(-1, min(count, 40) * 2 + 1):
        decision = table.route("m", {"k": b"%d" % n}, UNIT, 0)
        assert (decision.rule == 0) is (b"%d" % n in listed)
    assert table.route("m", {"k": listed[-1]}, UNIT, 0).rule == 0


def test_a_value_read_as_text_first_is_still_a_number(side):
    both = All((Ask("k", Op.IN, (b"7",)), Ask("k", LOW, low=7, high=7)))
    again = rule_of("again", Ask("k", Op.EQUAL, low=7), variant=2)
    none = rule_of("none", All((both, Not(both))))
    assert route(side, plan_of(none, again), {"k": "7"}).rule == 1


# -- programs -------------------------------------------------------------------------


def is_true(condition: Condition, present: set[str]) -> bool:
    """The condition evaluated as it reads."""
    if isinstance(condition, Ask):
        return condition.key in present
    if isinstance(condition, Not):
        return not is_true(condition.of, present)
    combine = all if isinstance(condition, All) else any
    return combine(is_true(member, present) for member in condition.of)


LEAVES = st.sampled_from("abcde").map(lambda key: Ask(key, Op.PRESENT))
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda of: All(tuple(of)))
        | st.lists(inner, max_size=4).map(lambda of: AnyOf(tuple(of)))
        | inner.map(Not)
    ),
    max_leaves=40,
)


@unhurried(60)
@given(TREES, st.lists(st.sets(st.sampled_from("abcde")), min_size=4, max_size=4))
def test_a_program_says_what_its_condition_says(tree, contexts):
    data = encode(plan_of(rule_of("r", tree)))
    for table in (Table(data), read_table(data)):
        for present in contexts:
            decision = table.route("m", dict.fromkeys(present, 1), UNIT, 0)
            assert (decision.rule == 0) is is_true(tree, present)


def test_deep_nesting_is_as_true_as_its_parts(side):
    tree: Condition = Ask("a", Op.PRESENT)
    for depth in range(300):
        tree = (Not, lambda c: All((c,)), lambda c: AnyOf((Ask("b", Op.PRESENT), c)))[
            depth % 3
        ](tree)
    table = side.table(encode(plan_of(rule_of("r", tree))))
    for present in (set(), {"a"}, {"b"}, {"a", "b"}):
        decision = table.route("m", dict.fromkeys(present, 1), UNIT, 0)
        assert (decision.rule == 0) is is_true(tree, present)


def test_ten_thousand_nots_cost_no_stack(side):
    tree: Condition = Ask("a", Op.PRESENT)
    for _ in range(10_001):
        tree = Not(tree)
    assert route(side, plan_of(rule_of("r", tree))).rule == 0
    assert route(side, plan_of(rule_of("r", tree)), {"a": 1}).rule is None


# -- kernel and twin ------------------------------------------------------------------


def assert_twins(plan, requests):
    data = encode(plan)
    kernel, twin = Table(data), read_table(data)
    assert kernel.revision == twin.revision
    for request in requests:
        assert request.on(kernel) == request.on(twin)


def deal_and_compare(seed, plan_count):
    dealer = random.Random(seed)
    for _ in range(plan_count):
        assert_twins(deal_plan(dealer), [deal_call(dealer) for _ in range(8)])


def test_kernel_and_twin_decide_alike():
    deal_and_compare(seed=1, plan_count=60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_kernel_and_twin_decide_alike_at_length(seed):
    deal_and_compare(seed=100 + seed, plan_count=1000)


CONDITIONS, CALLS, SINGLE_TESTS = conditions(), calls(), single_tests()


@unhurried(25)
@given(CONDITIONS, CALLS)
def test_kernel_and_twin_agree_on_conditions(condition, request):
    assert_twins(plan_of(rule_of("r", condition)), [replace(request, model="m")])


@unhurried(40)
@given(SINGLE_TESTS, st.lists(CALLS, min_size=1, max_size=4))
def test_kernel_and_twin_agree_on_single_tests(test, requests):
    requests = [replace(request, model="m") for request in requests]
    assert_twins(plan_of(rule_of("r", test)), requests)


# -- the doors ------------------------------------------------------------------------


def test_an_unknown_model_is_a_key_error(side):
    with pytest.raises(KeyError):
        side.table(encode(plan_of())).route("other", {}, UNIT, 0)


@pytest.mark.parametrize(("unit", "source"), [(None, 0), (UNIT, 4), (UNIT, 9)])
def test_a_unit_and_its_source_must_agree(unit, source):
    with pytest.raises(ValueError, match=r"unit"):
        Table(encode(plan_of())).route("m", {}, unit, source)


def test_an_attribute_of_no_known_type_is_a_type_error():
    plan = plan_of(rule_of("r", Ask("k", Op.PRESENT)))
    with pytest.raises(TypeError, match="cannot be a list"):
        Table(encode(plan)).route("m", {"k": [1]}, UNIT, 0)


def test_explain_says_which_rules_were_tried_and_which_tests_failed():
    young = All((Ask("city", Op.IN, (b"x",)), Ask("age", LOW, low=0, high=17)))
    plan = plan_of(
        rule_of("young", young),
        rule_of("roll", buckets=buckets_of()),
        rule_of("rest", variant=2),
        rule_of("never tried"),
    )
    request = _fasthash_py.Request({"city": "x", "age": 40}, UNIT, 0, -1, 0, None)
    decision, tried = read_table(encode(plan)).explain("m", request)
    assert decision.rule == 2
    assert [(one.rule.name, one.is_match, one.variant) for one in tried] == [
        ("young", False, None),
        ("roll", True, None),
        ("rest", True, 2),
    ]
    asked = [(test.node.attribute.name, test.has_passed) for test in tried[0].tests]
    assert asked == [("city", True), ("age", False)]
    assert tried[1].bucket == bucket(UNIT, "layer")


def test_a_timed_loop_takes_time():
    table = Table(encode(plan_of(rule_of("r", buckets=EVERYONE))))
    assert table.time_route(1000, "m", [({}, b"a"), ({}, b"b")]) > 0
    with pytest.raises(ValueError, match="power of two"):
        table.time_route(1000, "m", [({}, b"a")] * 3)
