"""Why a request gets the version it gets: the twin's decision, in words and numbers.

Explaining decides by the specification, on the very bytes a router would publish, so
what it says is what happens. It serves nothing and records nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from router._fasthash_py import (
    Decision,
    Op,
    Outcome,
    Reason,
    Regex,
    Request,
    RuleTried,
    Table,
    TestAsked,
    UnitSource,
    find_shadows,
    read_table,
)
from router.plan.encode import encode
from router.plan.plan import Model, Plan, SemverAllows

REFUSALS = {
    Outcome.REFUSED_UNIT: "refused: the request has no unit",
    Outcome.PIN_UNKNOWN: "refused: no such version",
    Outcome.PIN_DENIED: "refused: versions may not be asked for",
    Outcome.PIN_DISABLED: "refused: this version is disabled",
}
_SEMVER = {
    SemverAllows.LESS: "<",
    SemverAllows.EQUAL: "==",
    SemverAllows.GREATER: ">",
    SemverAllows.LESS | SemverAllows.EQUAL: "<=",
    SemverAllows.GREATER | SemverAllows.EQUAL: ">=",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of itself. Without a unit `random` stands in for one."""

    model: str
    unit: bytes | None = None
    attributes: Mapping[str, str] | None = None
    pin: int | None = None
    random: int = 0


@dataclass(frozen=True, slots=True)
class TestExplained:
    """One test as it was asked: its words, what was found, the answer."""

    __test__ = False  # not a test case, whatever pytest thinks of the name
    text: str
    value: str | None
    has_passed: bool


@dataclass(frozen=True, slots=True)
class RuleExplained:
    """One rule in the order tried, its bucket and the version found there."""

    name: str
    is_match: bool
    tests: tuple[TestExplained, ...]
    bucket: int | None
    version: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision and everything that led to it.

    `refusal` is why there is no answer, empty when there is one; `version` is then the
    one that would otherwise have served.
    """

    model: str
    version: int
    variant: str
    reason: str
    rule: str | None
    bucket: int | None
    propensity_bp: int
    revision: str
    refusal: str
    has_unit: bool
    tried: tuple[RuleExplained, ...]
    shadows: tuple[str, ...] = ()  # "name: version", of those that run it as well


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """A plan and the routing table it is encoded as, read back."""

    plan: Plan
    table: Table

    @property
    def revision(self) -> str:
        """The table's, as answers carry it."""
        return f"{self.table.revision:016x}"


def explain(plan: Plan, asked: Asked, regex: Regex | None = None) -> Explanation:
    """Decide a request as a router with this plan would, and say how."""
    return explain_on(read_plan(plan), asked, regex)


def read_plan(plan: Plan) -> ReadPlan:
    """The plan with its table, for more than one question."""
    return ReadPlan(plan, read_table(encode(plan)))


def explain_on(read: ReadPlan, asked: Asked, regex: Regex | None = None) -> Explanation:
    """As `explain`, on a plan whose table was read before."""
    plan, table = read.plan, read.table
    model = next(model for model in plan.models if model.name == asked.model)
    request = Request(
        attributes=dict(asked.attributes or {}),
        unit=asked.unit,
        unit_source=UnitSource.NONE if asked.unit is None else UnitSource.PARAMETER,
        pin=-1 if asked.pin is None else asked.pin,
        random=asked.random,
        regex=regex,
    )
    decision, tried = table.explain(asked.model, request)
    return Explanation(
        model=model.name,
        version=model.variants[decision.variant].version,
        variant=model.variants[decision.variant].name,
        reason=Reason(decision.reason).name,
        rule=_rule_name(decision, tried),
        bucket=decision.bucket,
        propensity_bp=decision.propensity_bp,
        revision=read.revision,
        refusal=REFUSALS.get(Outcome(decision.outcome), ""),
        has_unit=asked.unit is not None,
        tried=tuple(_explain_rule(model, rule) for rule in tried),
        shadows=tuple(
            f"{shadow.name}: version {model.variants[shadow.variant].version}"
            for shadow in (
                model.shadows[at]
                for at in find_shadows(table.models[asked.model], request)
            )
        ),
    )


def _rule_name(decision: Decision, tried: tuple[RuleTried, ...]) -> str | None:
    # The rule that answers is the last one tried, when any answers.
    return None if decision.rule is None else tried[-1].rule.name


def _explain_rule(model: Model, tried: RuleTried) -> RuleExplained:
    version = None if tried.variant is None else model.variants[tried.variant].version
    return RuleExplained(
        name=tried.rule.name,
        is_match=tried.is_match,
        tests=tuple(_explain_test(test) for test in tried.tests),
        bucket=tried.bucket,
        version=version,
    )


def _explain_test(asked: TestAsked) -> TestExplained:
    value = asked.value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return TestExplained(
        text=_words(asked),
        value=None if value is None else str(value),
        has_passed=asked.has_passed,
    )


def _words(asked: TestAsked) -> str:
    node = asked.node
    name = "the unit key" if node.attribute.is_unit else node.attribute.name
    texts = [operand.decode("utf-8", "replace") for operand in node.operands]
    quoted = " or ".join(repr(text) for text in texts)
    match node.op:
        case Op.PRESENT:
            return f"{name} is present"
        case Op.RANGE:
            return f"{node.low:g} <= {name} <= {node.high:g}"
        case Op.BETWEEN:
            return f"{node.low:g} < {name} < {node.high:g}"
        case Op.EQUAL:
            return f"{name} == {node.low:g}"
        case Op.SEMVER:
            return f"{name} {_SEMVER[SemverAllows(node.flags)]} version {texts[0]}"
        case Op.BEFORE | Op.AFTER:
            return f"{name} is {Op(node.op).name.lower()} {node.low:.0f}"
        case _:
            return f"{name} {_VERBS[Op(node.op)]} {quoted}"


_VERBS = {
    Op.IN: "is",
    Op.PREFIX: "begins with",
    Op.SUFFIX: "ends with",
    Op.CONTAINS: "contains",
    Op.REGEX: "matches",
}
