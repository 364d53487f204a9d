"""Every operator becomes the test it means."""

from math import inf
from typing import Any

import pytest

from router.config.audience import Audience
from router.plan.condition import compile_audiences
from router.plan.plan import All, AnyOf, Condition, Not, Op
from router.plan.plan import Test as KeyTest


def compiled(when: Any, **others: Any) -> Condition:
    audiences = {"it": when, **others}
    return compile_audiences(
        tuple(
            Audience.model_validate({"name": name, "when": each})
            for name, each in audiences.items()
        )
    )["it"]


@pytest.mark.parametrize(
    ("operator", "operand", "meant"),
    [
        ("exact", "a", KeyTest("k", Op.IN, (b"a",))),
        ("exact", 7, KeyTest("k", Op.IN, (b"7",))),
        ("exact", True, KeyTest("k", Op.IN, (b"true",))),
        ("exact", False, KeyTest("k", Op.IN, (b"false",))),
        ("in", ["a", 1], KeyTest("k", Op.IN, (b"a", b"1"))),
        ("not", "a", Not(KeyTest("k", Op.IN, (b"a",)))),
        ("not", ["a", "b"], Not(KeyTest("k", Op.IN, (b"a", b"b")))),
        ("prefix", "a", KeyTest("k", Op.PREFIX, (b"a",))),
        ("suffix", ["a", "b"], KeyTest("k", Op.SUFFIX, (b"a", b"b"))),
        ("contains", "ä", KeyTest("k", Op.CONTAINS, ("ä".encode(),))),
        ("present", True, KeyTest("k", Op.PRESENT)),
        ("absent", True, Not(KeyTest("k", Op.PRESENT))),
        ("regex", "a+", KeyTest("k", Op.REGEX, (b"a+",))),
        ("range", [18, 65], KeyTest("k", Op.RANGE, low=18.0, high=65.0)),
        ("gt", 1, KeyTest("k", Op.BETWEEN, low=1.0, high=inf)),
        ("gte", 1.5, KeyTest("k", Op.RANGE, low=1.5, high=inf)),
        ("lt", 1, KeyTest("k", Op.BETWEEN, low=-inf, high=1.0)),
        ("lte", 1, KeyTest("k", Op.RANGE, low=-inf, high=1.0)),
        ("eq", -2, KeyTest("k", Op.EQUAL, low=-2.0)),
        ("semver_eq", "1.2.3", KeyTest("k", Op.SEMVER, (b"1.2.3",), flags=2)),
        ("semver_gt", "1.2.3", KeyTest("k", Op.SEMVER, (b"1.2.3",), flags=4)),
        ("semver_gte", "1.2.3", KeyTest("k", Op.SEMVER, (b"1.2.3",), flags=6)),
        ("semver_lt", "1.2.3", KeyTest("k", Op.SEMVER, (b"1.2.3",), flags=1)),
        ("semver_lte", "1.2.3", KeyTest("k", Op.SEMVER, (b"1.2.3",), flags=3)),
        ("before", "1970-01-02", KeyTest("k", Op.BEFORE, low=86_400.0)),
        ("after", "1970-01-01T01:00:00+01:00", KeyTest("k", Op.AFTER, low=0.0)),
        ("after", 12.5, KeyTest("k", Op.AFTER, low=12.5)),
    ],
)
def test_an_operator_means_its_test(operator: str, operand: Any, meant: Any) -> None:
    assert compiled({"key": "k", operator: operand}) == meant


def test_the_targeting_key_is_the_unit_itself() -> None:
    made = compiled({"key": "targeting_key", "in": ["u1", "u2"]})
    assert made == KeyTest("unit", Op.IN, (b"u1", b"u2"), on_unit=True)


def test_all_any_and_not_nest() -> None:
    a, b = {"key": "a", "present": True}, {"key": "b", "present": True}
    first, second = KeyTest("a", Op.PRESENT), KeyTest("b", Op.PRESENT)
    assert compiled({"all": [a, {"any": [b, {"not": a}]}]}) == All(
        (first, AnyOf((second, Not(first))))
    )


def test_references_are_resolved_in_whatever_order_they_stand() -> None:
    leaf = {"key": "a", "present": True}
    made = compiled(
        {"any": [{"audience": "later"}, {"audience": "later"}]},
        later={"not": {"audience": "last"}},
        last=leaf,
    )
    assert made == AnyOf((Not(KeyTest("a", Op.PRESENT)),) * 2)
