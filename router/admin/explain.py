"""Explain: which version a request would get from the running table, and why."""

from typing import Any

from router.client.messages import message
from router.lab.live import LivePlan, Question


def explain(live: LivePlan, asked: Any) -> Any:
    """The answer to an `ExplainRequest`; what there is none of is left out."""
    found = live.explain(
        Question(
            asked.model,
            asked.unit if asked.HasField("unit") else None,
            dict(asked.attributes),
            asked.pin if asked.HasField("pin") else None,
        )
    )
    made = message("router.v1.ExplainResponse")(
        model=found.model,
        version=found.version,
        variant=found.variant,
        reason=found.reason,
        rule=found.rule,
        bucket=found.bucket,
        propensity_bp=found.propensity_bp,
        table_revision=found.revision,
        refusal=found.refusal,
        has_unit=found.has_unit,
    )
    for rule in found.tried:
        tried = made.tried.add(
            name=rule.name,
            is_match=rule.is_match,
            bucket=rule.bucket,
            version=rule.version,
        )
        for test in rule.tests:
            tried.tests.add(
                text=test.text, value=test.value, has_passed=test.has_passed
            )
    return made
