"""Two conditions are told apart only when that can be proved."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router._fasthash_bytes import Attribute, Node
from router._fasthash_py import passes
from router.plan.overlap import can_meet, is_possible
from router.plan.plan import All, AnyOf, Condition, Not, Op
from router.plan.plan import Test as KeyTest


def text(*values: str, key: str = "k", op: Op = Op.IN) -> KeyTest:
    return KeyTest(key, op, tuple(value.encode() for value in values))


def number(op: Op, low: float, high: float = 0.0, key: str = "k") -> KeyTest:
    return KeyTest(key, op, low=low, high=high)


NY, CA = text("new-york"), text("california")
PRESENT = KeyTest("k", Op.PRESENT)

APART: dict[str, tuple[Condition, Condition]] = {
    "other values": (NY, CA),
    "other values of lists": (text("a", "b"), text("c", "d")),
    "a value and its negation": (NY, Not(NY)),
    "a value and the negation of a longer list": (NY, Not(text("boston", "new-york"))),
    "ranges that do not meet": (number(Op.RANGE, 1, 2), number(Op.RANGE, 3, 4)),
    "an open end at the border": (number(Op.RANGE, 1, 2), number(Op.BETWEEN, 2, 9)),
    "two open ends": (number(Op.BETWEEN, 1, 2), number(Op.BETWEEN, 2, 9)),
    "a number outside": (number(Op.EQUAL, 5), number(Op.RANGE, 6, 7)),
    "before and after": (number(Op.BEFORE, 10), number(Op.AFTER, 10)),
    "a text and a range": (text("5", "x"), number(Op.RANGE, 6, 7)),
    "a range and a wider one refused": (
        number(Op.RANGE, 1, 2), Not(number(Op.RANGE, 1, 3)),
    ),
    "a range and an open one refused": (
        number(Op.BETWEEN, 1, 2), Not(number(Op.RANGE, 1, 2)),
    ),
    "another beginning": (text("new-", op=Op.PREFIX), CA),
    "other beginnings": (text("ab", op=Op.PREFIX), text("ac", op=Op.PREFIX)),
    "another end": (text("-york", op=Op.SUFFIX), CA),
    "without it": (text("york", op=Op.CONTAINS), CA),
    "present and absent": (NY, Not(PRESENT)),
    "one of all": (All((NY, text("x", key="other"))), CA),
    "each of any": (AnyOf((NY, text("boston"))), CA),
    "the negation of any": (Not(AnyOf((NY, CA))), CA),
    "the negation of all": (Not(All((NY, PRESENT))), All((NY, PRESENT))),
    "a negation of a negation": (Not(Not(NY)), CA),
    "nobody": (AnyOf(()), NY),
    "an empty range": (number(Op.BETWEEN, 1, 1), PRESENT),
}  # fmt: skip

TOGETHER: dict[str, tuple[Condition | None, Condition | None]] = {
    "everyone": (None, NY),
    "the same value": (NY, text("new-york", "boston")),
    "other keys": (NY, text("california", key="other")),
    "the unit and an attribute of that name": (
        NY, KeyTest("k", Op.IN, (b"california",), on_unit=True),
    ),
    "ranges that touch": (number(Op.RANGE, 1, 2), number(Op.RANGE, 2, 3)),
    "a range that reaches out": (
        number(Op.RANGE, 1, 3), Not(number(Op.RANGE, 1, 2)),
    ),
    "a closed range and an open one refused": (
        number(Op.RANGE, 1, 2), Not(number(Op.BETWEEN, 1, 2)),
    ),
    "a text that is a number inside": (text("6"), number(Op.RANGE, 6, 7)),
    "a truth is a number in a tensor": (text("true"), number(Op.EQUAL, 1)),
    "an expression": (KeyTest("k", Op.REGEX, (b"x",)), CA),
    "two refusals": (Not(NY), Not(CA)),
    "one of any": (AnyOf((NY, CA)), CA),
    "a shorter beginning": (text("a", op=Op.PREFIX), text("ab", op=Op.PREFIX)),
    "a date is no number": (number(Op.BEFORE, 9), Not(number(Op.RANGE, -9e99, 9))),
}  # fmt: skip


@pytest.mark.parametrize("pair", APART.values(), ids=APART)
def test_conditions_that_exclude_each_other(
    pair: tuple[Condition, Condition],
) -> None:
    assert not can_meet(*pair)
    assert not can_meet(*reversed(pair))


@pytest.mark.parametrize("pair", TOGETHER.values(), ids=TOGETHER)
def test_conditions_that_may_both_hold(pair: tuple[Any, Any]) -> None:
    assert can_meet(*pair)
    assert can_meet(*reversed(pair))


def test_a_condition_that_contradicts_itself_matches_nobody() -> None:
    assert not is_possible(All((NY, CA)))
    assert not is_possible(AnyOf((All((NY, CA)), number(Op.RANGE, 2, 1))))
    assert is_possible(All((NY, PRESENT)))


def test_what_takes_too_long_to_prove_is_not_proved() -> None:
    forks = tuple(
        AnyOf(tuple(text(str(value), key=f"k{key}") for value in range(4)))
        for key in range(12)
    )
    last = AnyOf((text("4", key="k11"), text("5", key="k11")))
    assert can_meet(All(forks), last)


VALUES = (b"a", b"ab", b"b", b"1", b"2", b"1.5", b"true", 1.0, 2, True, 1.5, None)
PIECES = st.one_of(
    st.lists(st.sampled_from(["a", "ab", "b", "1", "2", "true"]), max_size=3).flatmap(
        lambda texts: st.sampled_from(
            [text(*texts, op=op) for op in (Op.IN, Op.PREFIX, Op.SUFFIX, Op.CONTAINS)]
        )
    ),
    st.builds(
        number,
        st.sampled_from([Op.RANGE, Op.BETWEEN, Op.EQUAL, Op.BEFORE, Op.AFTER]),
        st.sampled_from([0.0, 1.0, 1.5, 2.0]),
        st.sampled_from([0.0, 1.0, 1.5, 2.0]),
    ),
    st.just(PRESENT),
)
CONDITIONS = st.recursive(
    PIECES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda of: All(tuple(of))),
        st.lists(inner, max_size=3).map(lambda of: AnyOf(tuple(of))),
        inner.map(Not),
    ),
    max_leaves=6,
)


def holds(condition: Condition, value: Any) -> bool:
    match condition:
        case All(of=members):
            return all(holds(member, value) for member in members)
        case AnyOf(of=members):
            return any(holds(member, value) for member in members)
        case Not(of=inner):
            return not holds(inner, value)
        case _:
            node = Node(
                Attribute("k", False), condition.op, condition.operands,
                condition.low, condition.high, 0, 0, 0,
            )  # fmt: skip
            return passes(node, value, None)


@settings(max_examples=300, deadline=None)
@given(CONDITIONS, CONDITIONS)
def test_nothing_matches_two_that_are_said_to_exclude_each_other(
    left: Condition, right: Condition
) -> None:
    if any(holds(left, value) and holds(right, value) for value in VALUES):
        assert can_meet(left, right)
