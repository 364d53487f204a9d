"""Why a request gets the version it gets, as the router's operators are told."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Test:
    """One condition as it was asked: its words, the value found, the answer."""

    __test__ = False  # not a test case, whatever pytest thinks of the name
    text: str
    value: str | None
    has_passed: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule in the order tried; the bucket it drew and the version found there."""

    name: str
    is_match: bool
    tests: tuple[Test, ...]
    bucket: int | None
    version: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision and everything that led to it.

    `refusal` says why there would be no answer, and is empty when there would be one.
    Without a unit (`has_unit`) the bucket is an example: each request draws its own.
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
    tried: tuple[Rule, ...]


def read_explanation(reply: Any) -> Explanation:
    """The value in an `ExplainResponse`."""
    return Explanation(
        model=reply.model,
        version=reply.version,
        variant=reply.variant,
        reason=reply.reason,
        rule=reply.rule or None,
        bucket=reply.bucket if reply.HasField("bucket") else None,
        propensity_bp=reply.propensity_bp,
        revision=reply.table_revision,
        refusal=reply.refusal,
        has_unit=reply.has_unit,
        tried=tuple(_rule(rule) for rule in reply.tried),
    )


def _rule(rule: Any) -> Rule:
    return Rule(
        name=rule.name,
        is_match=rule.is_match,
        tests=tuple(
            Test(t.text, t.value if t.HasField("value") else None, t.has_passed)
            for t in rule.tests
        ),
        bucket=rule.bucket if rule.HasField("bucket") else None,
        version=rule.version if rule.HasField("version") else None,
    )
