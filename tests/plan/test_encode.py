"""A plan becomes the same bytes every time, small, named, and within the limits."""

from dataclasses import replace

import pytest

from router._fasthash import Table
from router._fasthash_bytes import read_models
from router.errors import ConfigError
from router.plan.encode import CellName, cell_names, encode, names, shares_of
from router.plan.plan import (
    All,
    AnyOf,
    MintKey,
    Model,
    Not,
    Op,
    Output,
    Plan,
    Reason,
    Rule,
    Shadow,
    Unit,
    Variant,
)
from router.plan.plan import Test as Ask  # pytest would collect a class named Test
from router.plan.program import ACCEPT, REJECT, Step, compile_condition
from router.plan.program import tests_of as every_test

A, B, C = (Ask(key, Op.PRESENT) for key in "abc")
VARIANTS = (Variant("one", 1), Variant("two", 2))
HALF = bytes([1]) * 5000 + bytes([0xFF]) * 5000
SPLIT = Rule("split", None, "layer", HALF, 1, Reason.SPLIT)
MODEL = Model("m", VARIANTS, 0, (SPLIT,))


def plan_of(*models: Model, keys: tuple[MintKey, ...] = ()) -> Plan:
    return Plan("test", models, keys)


def ruled(*rules: Rule) -> Plan:
    return plan_of(replace(MODEL, rules=rules))


def asking(*tests: Ask) -> Plan:
    return ruled(replace(SPLIT, condition=All(tests)))


# -- bytes ----------------------------------------------------------------------------


def test_the_same_plan_is_the_same_bytes():
    plan = plan_of(MODEL, replace(MODEL, name="n"))
    again = plan_of(replace(MODEL, name="n"), MODEL)
    assert encode(plan) == encode(plan) == encode(again)


def test_every_difference_changes_the_revision():
    plans = (
        plan_of(),
        plan_of(MODEL),
        plan_of(replace(MODEL, stable=1)),
        ruled(replace(SPLIT, rollout_revision=1)),
        ruled(replace(SPLIT, salt="other")),
        asking(A),
        asking(B),
    )
    assert len({Table(encode(plan)).revision for plan in plans}) == len(plans)


def test_an_empty_plan_is_a_table():
    assert Table(encode(plan_of())).revision
    assert names(encode(plan_of())) == ()


def test_equal_parts_are_stored_once():
    one = encode(ruled(SPLIT))
    two = encode(ruled(SPLIT, replace(SPLIT, name="again")))
    # One more rule (56 bytes) and its name, not another map of 10,000.
    assert len(two) - len(one) < 72


def test_models_are_sorted_by_the_bytes_of_their_names():
    plan = plan_of(
        *(replace(MODEL, name=name) for name in ("é", "b", "Z", "a\U0001f600"))
    )
    assert list(read_models(encode(plan))) == ["Z", "a\U0001f600", "b", "é"]


def test_attributes_are_collected_once_a_model():
    plan = ruled(
        replace(SPLIT, name="r1", condition=All((A, B, Not(A)))),
        replace(SPLIT, name="r2", condition=AnyOf((B, C, replace(C, on_unit=True)))),
    )
    rules = read_models(encode(plan))["m"].rules
    assert [node.attribute.name for node in rules[0].program] == ["a", "b", "a"]
    last = rules[1].program[-1].attribute
    assert (last.name, last.is_unit) == ("c", True)


def test_listed_operands_are_sorted_and_once():
    test = Ask("a", Op.IN, (b"bb", b"a", b"c", b"a", b""))
    (rule,) = read_models(encode(asking(test)))["m"].rules
    assert rule.program[0].operands == (b"", b"a", b"c", b"bb")


def test_a_models_settings_reach_the_table():
    output = Output("p", 3, low=0.0, high=1.0)
    unit = Unit(("x-id",), "user")
    model = replace(MODEL, output=output, unit=unit, has_prediction_id=True)
    data = encode(plan_of(model, keys=(MintKey(7, b"k" * 32),)))
    assert b"x-id" in data
    assert b"k" * 32 in data
    assert Table(data).revision != Table(encode(plan_of(MODEL))).revision


# -- shares ---------------------------------------------------------------------------


def test_a_variants_share_is_its_number_of_buckets():
    assert shares_of(MODEL, HALF) == (0, 5000)


def test_a_disabled_variants_share_is_stables():
    disabled = replace(
        MODEL, variants=(VARIANTS[0], replace(VARIANTS[1], is_disabled=True))
    )
    assert shares_of(disabled, HALF) == (5000, 0)


# -- cells ----------------------------------------------------------------------------


def test_every_cell_has_a_name_in_order():
    assert cell_names(plan_of(MODEL)) == (
        CellName("m", "pin", "one", 1),
        CellName("m", "pin", "two", 2),
        CellName("m", "default", "one", 1),
        CellName("m", "default", "two", 2),
        CellName("m", "split", "one", 1),
        CellName("m", "split", "two", 2),
    )


def test_the_bytes_alone_name_the_cells():
    plan = plan_of(MODEL, replace(MODEL, name="a", rules=()))
    assert names(encode(plan)) == cell_names(plan)


def test_a_decisions_cell_is_named_after_it():
    plan = plan_of(replace(MODEL, name="a"), MODEL)
    table, cells = Table(encode(plan)), cell_names(plan)
    for unit in (b"%d" % n for n in range(20)):
        decision = table.route("m", {}, unit, 0)
        rule = "default" if decision.rule is None else "split"
        variant = VARIANTS[decision.variant]
        expected = CellName("m", rule, variant.name, variant.version)
        assert cells[decision.cell] == expected


# -- programs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "steps"),
    [
        (None, ()),
        (All(()), ()),
        (AnyOf(()), None),
        (Not(AnyOf(())), ()),
        (A, (Step(A, ACCEPT, REJECT),)),
        (Not(A), (Step(A, REJECT, ACCEPT),)),
        (Not(Not(A)), (Step(A, ACCEPT, REJECT),)),
        (All((A, B)), (Step(A, 1, REJECT), Step(B, ACCEPT, REJECT))),
        (AnyOf((A, B)), (Step(A, ACCEPT, 1), Step(B, ACCEPT, REJECT))),
        (Not(All((A, B))), (Step(A, 1, ACCEPT), Step(B, REJECT, ACCEPT))),
        (
            AnyOf((All((A, B)), C)),
            (Step(A, 1, 2), Step(B, ACCEPT, 2), Step(C, ACCEPT, REJECT)),
        ),
        # What cannot be reached is left out, what is always true costs nothing.
        (All((AnyOf(()), A)), None),
        (All((A, AnyOf(()), B)), (Step(A, REJECT, REJECT),)),
        (AnyOf((All((AnyOf(()), B)), C)), (Step(C, ACCEPT, REJECT),)),
        (All((All(()), A)), (Step(A, ACCEPT, REJECT),)),
    ],
)
def test_a_condition_compiles_to_forward_jumps(condition, steps):
    assert compile_condition(condition) == steps


def test_tests_are_found_in_the_order_written():
    assert every_test(AnyOf((All((A, Not(B))), C))) == (A, B, C)
    assert every_test(None) == ()


def test_a_rule_that_nobody_can_match_leaves_everyone_to_the_next():
    never = replace(SPLIT, condition=AnyOf(()), buckets=None)
    assert Table(encode(ruled(never))).route("m", {}, b"u", 0).rule is None


# -- limits ---------------------------------------------------------------------------


def listed(count: int) -> All:
    return All(tuple(Ask("a", Op.EQUAL, low=float(n)) for n in range(count)))


def keyed(count: int) -> Plan:
    return asking(*(Ask(f"k{n}", Op.PRESENT) for n in range(count)))


AT_THE_LIMIT = {
    "name": plan_of(replace(MODEL, name="n" * 256)),
    "variants": plan_of(
        Model("m", tuple(Variant(f"v{n}", n) for n in range(64)), 63, ())
    ),
    "attributes": keyed(64),
    "nodes": ruled(replace(SPLIT, condition=listed(4096))),
    "numbers": plan_of(
        Model("m", (Variant("v", 2**32 - 1, 2**16 - 1, False, 2**32 - 1),), 0)
    ),
    "unit keys": plan_of(replace(MODEL, unit=Unit(tuple(f"k{n}" for n in range(64))))),
}


@pytest.mark.parametrize("what", AT_THE_LIMIT)
def test_a_plan_at_the_limit_is_a_table(what):
    assert Table(encode(AT_THE_LIMIT[what])).revision


def varied(**changes: object) -> Plan:
    return plan_of(
        replace(MODEL, variants=(replace(VARIANTS[0], **changes),), rules=())
    )


BEYOND = [
    (plan_of(replace(MODEL, name="")), r"models\[\]\.name: a name of 0 bytes"),
    (plan_of(replace(MODEL, name="n" * 257)), "a name of 257 bytes"),
    (plan_of(replace(MODEL, name="é" * 129)), "a name of 258 bytes"),
    (plan_of(replace(MODEL, name="\ud800")), "not valid Unicode"),
    (plan_of(MODEL, MODEL), r"models\[m\]: the name is taken"),
    (plan_of(Model("m", (), 0)), "0 variants"),
    (plan_of(Model("m", tuple(Variant("v", n) for n in range(65)), 0)), "65 variants"),
    (plan_of(replace(MODEL, variants=VARIANTS[::-1])), "not sorted"),
    (plan_of(replace(MODEL, variants=VARIANTS[:1] * 2)), "not sorted"),
    (varied(name=""), "a name of 0 bytes"),
    (varied(version=2**32), "a number is out of range"),
    (varied(ordinal=2**16), "a number is out of range"),
    (varied(timeout_us=-1), "a number is out of range"),
    (plan_of(replace(MODEL, stable=2)), "not the position of a variant"),
    (varied(is_disabled=True), "the variant is disabled"),
    (plan_of(replace(MODEL, unit=Unit(("X-Id",)))), "'X-Id' is not lower case"),
    (plan_of(replace(MODEL, unit=Unit(("",)))), "a name of 0 bytes"),
    (plan_of(replace(MODEL, unit=Unit(("k",) * 65))), "more than 64 keys"),
    (plan_of(replace(MODEL, unit=Unit((), "t" * 257))), "a name of 257 bytes"),
    (plan_of(replace(MODEL, queue_us_max=2**32)), "queue_us_max: out of range"),
    (plan_of(replace(MODEL, output=Output(""))), "a name of 0 bytes"),
    (plan_of(replace(MODEL, output=Output("o", low=1, high=0))), "range is empty"),
    (plan_of(replace(MODEL, output=Output("o", low=float("nan")))), "range is empty"),
    (plan_of(replace(MODEL, output=Output("o", index=-1))), "output.index: out of"),
    (ruled(SPLIT, SPLIT), r"rules\[split\]: the name is taken"),
    (ruled(replace(SPLIT, name="pin")), "the name is taken by requests"),
    (ruled(replace(SPLIT, name="default")), "the name is taken by requests"),
    (ruled(replace(SPLIT, variant=2)), "not the position of a variant"),
    (ruled(replace(SPLIT, rollout_revision=-1)), "rollout_revision: out of range"),
    (ruled(replace(SPLIT, buckets=b"\0")), "1 buckets instead of 10000"),
    (ruled(replace(SPLIT, buckets=b"\2" * 10_000)), "a bucket names no variant"),
    (keyed(65), "more than 64 attributes"),
    (ruled(replace(SPLIT, condition=listed(4097))), "4097 tests"),
    (asking(Ask("", Op.PRESENT)), "a name of 0 bytes"),
    (asking(Ask("a", Op.RANGE, low=float("nan"))), "a bound is not a number"),
    (asking(Ask("a", Op.RANGE, high=float("nan"))), "a bound is not a number"),
    (asking(Ask("a", Op.REGEX)), "REGEX takes one pattern"),
    (asking(Ask("a", Op.SEMVER, (b"1.0",))), "SEMVER takes one semantic version"),
    (asking(Ask("a", Op.SEMVER)), "SEMVER takes one semantic version"),
    (asking(Ask("a", Op.SEMVER, (b"1.0.0",), flags=8)), "a flag is unknown"),
    (asking(Ask("a", Op.IN, (b"x",), flags=1)), "a flag is unknown"),
    (plan_of(replace(MODEL, has_prediction_id=True)), "prediction ids need a key"),
    (plan_of(keys=(MintKey(256, bytes(32)),)), "an id is 0-255"),
    (plan_of(keys=(MintKey(1, bytes(31)),)), "a secret 32 bytes"),
    (plan_of(keys=(MintKey(1, bytes(32)),) * 2), r"keys\[1\]: the name is taken"),
]


def shadowed(**settings: object) -> Plan:
    given = {"name": "s", "variant": 1} | settings
    return plan_of(replace(MODEL, shadows=(Shadow(**given),)))


BEYOND += [
    (plan_of(replace(MODEL, output=Output("o", threshold=float("nan")))),
     "output.threshold: not a number"),
    (plan_of(replace(MODEL, shadows=tuple(Shadow(f"s{n}", 1) for n in range(17)))),
     "17; a model has at most 16"),
    (plan_of(replace(MODEL, shadows=(Shadow("s", 1), Shadow("s", 0)))),
     r"shadows\[s\]: the name is taken"),
    (shadowed(name=""), "a name of 0 bytes"),
    (shadowed(variant=2), r"shadows\[s\].variant: 2 is not the position"),
    (shadowed(sample_bp=10_001), "10001 of 10000"),
    (shadowed(top_k=2**32), "top_k: out of range"),
    (shadowed(tolerance_abs=-1.0), "tolerance: below 0"),
    (shadowed(tolerance_rel=float("nan")), "tolerance: below 0"),
    (shadowed(buckets=b"\0"), "1 buckets instead of 10000"),
    (shadowed(buckets=bytes([2]) * 10_000), "a bucket is not 0 or 1"),
    (shadowed(condition=Ask("", Op.PRESENT)), "a name of 0 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("plan", "message"), BEYOND)
def test_a_plan_beyond_a_limit_is_refused_and_named(plan, message):
    with pytest.raises(ConfigError, match=message):
        encode(plan)


def test_every_problem_is_told_in_one_run():
    broken = replace(MODEL, stable=9, unit=Unit(("X",)), queue_us_max=-1)
    with pytest.raises(ConfigError) as caught:
        encode(plan_of(broken, replace(broken, name="")))
    assert len(caught.value.problems) == 7
