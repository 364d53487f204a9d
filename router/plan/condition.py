"""From the audiences of a configuration to the conditions of a plan.

References are resolved here: a plan's conditions stand alone. Every operator becomes
one of the table's few tests; `absent` and `not` are negations, one-sided comparisons
are ranges with an open end.
"""

from collections.abc import Mapping
from math import inf
from typing import Any

from router.config import audience as written
from router.config.audience import UNIT_KEY, Audience, operand_of, operators_of
from router.plan.plan import All, AnyOf, Condition, Not, Op, SemverAllows, Test

_TEXT = {"prefix": Op.PREFIX, "suffix": Op.SUFFIX, "contains": Op.CONTAINS}
_SEMVER = {
    "semver_eq": SemverAllows.EQUAL,
    "semver_gt": SemverAllows.GREATER,
    "semver_gte": SemverAllows.GREATER | SemverAllows.EQUAL,
    "semver_lt": SemverAllows.LESS,
    "semver_lte": SemverAllows.LESS | SemverAllows.EQUAL,
}


def compile_audiences(audiences: tuple[Audience, ...]) -> Mapping[str, Condition]:
    """Every audience's condition, by name. References are known and free of cycles."""
    by_name = {audience.name: audience.when for audience in audiences}
    made: dict[str, Condition] = {}
    for name in by_name:
        _compile_named(name, by_name, made)
    return made


def _compile_named(
    name: str, by_name: Mapping[str, written.Condition], made: dict[str, Condition]
) -> Condition:
    if name not in made:
        made[name] = _compile(by_name[name], by_name, made)
    return made[name]


def _compile(
    condition: written.Condition,
    by_name: Mapping[str, written.Condition],
    made: dict[str, Condition],
) -> Condition:
    match condition:
        case written.AllOf(all=members):
            return All(tuple(_compile(m, by_name, made) for m in members))
        case written.AnyOf(any=members):
            return AnyOf(tuple(_compile(m, by_name, made) for m in members))
        case written.NotOf(not_=member):
            return Not(_compile(member, by_name, made))
        case written.AudienceRef(audience=name):
            return _compile_named(name, by_name, made)
        case _:
            return _compile_test(condition)


def _compile_test(test: written.Test) -> Condition:
    (operator,) = operators_of(test)
    operand = operand_of(test, operator)
    is_unit = test.key == UNIT_KEY
    key = "unit" if is_unit else test.key

    def made(op: Op, operands: tuple[bytes, ...] = (), **numbers: Any) -> Test:
        return Test(key, op, operands, on_unit=is_unit, **numbers)

    match operator:
        case "exact":
            return made(Op.IN, (_operand(operand),))
        case "in":
            return made(Op.IN, tuple(_operand(value) for value in operand))
        case "not":
            return Not(made(Op.IN, tuple(_operand(value) for value in operand)))
        case "present":
            return made(Op.PRESENT)
        case "absent":
            return Not(made(Op.PRESENT))
        case "regex":
            return made(Op.REGEX, (_operand(operand),))
        case "prefix" | "suffix" | "contains":
            return made(_TEXT[operator], tuple(_operand(value) for value in operand))
        case "before":
            return made(Op.BEFORE, low=operand)
        case "after":
            return made(Op.AFTER, low=operand)
        case "range" | "gt" | "gte" | "lt" | "lte" | "eq":
            op, low, high = _bounds(operator, operand)
            return made(op, low=low, high=high)
        case _:
            return made(Op.SEMVER, (_operand(operand),), flags=int(_SEMVER[operator]))


def _bounds(operator: str, operand: Any) -> tuple[Op, float, float]:
    match operator:
        case "range":
            return Op.RANGE, float(operand[0]), float(operand[1])
        case "gt":
            return Op.BETWEEN, float(operand), inf
        case "gte":
            return Op.RANGE, float(operand), inf
        case "lt":
            return Op.BETWEEN, -inf, float(operand)
        case "lte":
            return Op.RANGE, -inf, float(operand)
        case _:
            return Op.EQUAL, float(operand), 0.0


def _operand(value: str | int | bool) -> bytes:
    """A value as the bytes a request would carry."""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode()
