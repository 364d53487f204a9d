"""An explanation is the decision, with every test that led to it."""

from typing import Any

import pytest

from router._fasthash import bucket
from router.config.config import Config
from router.plan.compile import States, compile_plan
from router.plan.explain import Asked, Explanation, explain
from router.plan.plan import Plan


def plan(**sections: Any) -> Plan:
    model = {"name": "credit", "repository": "r", "stable": 1}
    model |= sections.pop("model", {})
    value = {"api_version": "router/v1", "models": [model], **sections}
    config = Config.model_validate(value)
    return compile_plan(config, States({"credit": (1, 2, 3)}))


def audience(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {
        "audiences": [{"name": "a", "when": {"all": list(conditions)}}],
        "routes": [
            {"model": "credit", "audience": "a", "version": 3},
            {"model": "credit", "split": {1: 0, 2: 100}},
        ],
    }


def asked(unit: bytes | None = b"u1", **attributes: str) -> Asked:
    return Asked("credit", unit, attributes)


def asked_tests(found: Explanation) -> list[tuple[str, str | None, bool]]:
    return [(t.text, t.value, t.has_passed) for t in found.tried[0].tests]


def test_a_matching_audience_answers() -> None:
    made = plan(**audience({"key": "location", "exact": "new-york"}))
    found = explain(made, asked(location="new-york"))
    assert (found.version, found.rule, found.reason) == (
        3, "credit/a", "TARGETING_MATCH",
    )  # fmt: skip
    assert (found.bucket, found.propensity_bp, found.refusal) == (None, 10_000, "")
    assert asked_tests(found) == [("location is 'new-york'", "new-york", True)]


def test_a_test_that_fails_is_shown_and_the_next_rule_answers() -> None:
    made = plan(**audience({"key": "location", "exact": "new-york"}))
    found = explain(made, asked())
    assert (found.version, found.rule, found.reason) == (2, "credit", "SPLIT")
    assert found.bucket == bucket(b"u1", "credit")
    assert asked_tests(found) == [("location is 'new-york'", None, False)]
    assert [rule.is_match for rule in found.tried] == [False, True]
    assert [rule.version for rule in found.tried] == [None, 2]


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ({"in": ["a", "b"]}, "k is 'a' or 'b'"),
        ({"prefix": "a"}, "k begins with 'a'"),
        ({"suffix": "a"}, "k ends with 'a'"),
        ({"contains": "a"}, "k contains 'a'"),
        ({"regex": "a+"}, "k matches 'a+'"),
        ({"present": True}, "k is present"),
        ({"range": [1, 2.5]}, "1 <= k <= 2.5"),
        ({"lt": 2}, "-inf < k < 2"),
        ({"eq": 2}, "k == 2"),
        ({"semver_gte": "1.2.3"}, "k >= version 1.2.3"),
        ({"before": 5}, "k is before 5"),
        ({"after": 5}, "k is after 5"),
    ],
)
def test_every_test_has_words(test: dict[str, Any], words: str) -> None:
    found = explain(plan(**audience({"key": "k", **test})), asked())
    assert asked_tests(found) == [(words, None, False)]


def test_the_unit_key_is_named_as_such() -> None:
    made = plan(**audience({"key": "targeting_key", "in": ["u1"]}))
    assert asked_tests(explain(made, asked())) == [("the unit key is 'u1'", "u1", True)]


def test_expressions_are_asked_of_whoever_knows_them() -> None:
    made = plan(**audience({"key": "k", "regex": "a+"}))
    found = explain(made, asked(k="aa"), regex=lambda _, value: value == b"aa")
    assert found.version == 3


def test_nobody_matching_is_stable() -> None:
    found = explain(plan(), asked())
    assert (found.version, found.rule, found.reason) == (1, None, "DEFAULT")
    assert found.tried == ()


def test_a_pin_answers_before_any_rule() -> None:
    found = explain(plan(), Asked("credit", b"u1", pin=2))
    assert (found.version, found.reason, found.rule) == (2, "STATIC", None)


@pytest.mark.parametrize(
    ("model", "question", "refusal"),
    [
        ({}, Asked("credit", b"u", pin=9), "refused: no such version"),
        ({"pins": "deny"}, Asked("credit", b"u", pin=2),
         "refused: versions may not be asked for"),
        ({"versions": {2: {"disabled": True}}}, Asked("credit", b"u", pin=2),
         "refused: this version is disabled"),
        ({"unit": {"on_missing": "reject"}}, Asked("credit"),
         "refused: the request has no unit"),
    ],
)  # fmt: skip
def test_a_refusal_is_said(
    model: dict[str, Any], question: Asked, refusal: str
) -> None:
    assert explain(plan(model=model), question).refusal == refusal


def test_without_a_unit_the_random_number_draws() -> None:
    made = plan(routes=[{"model": "credit", "split": {1: 50, 2: 50}}])
    drawn = {explain(made, Asked("credit", random=i)).bucket for i in range(5)}
    assert len(drawn) == 5
    assert not explain(made, Asked("credit")).has_unit
