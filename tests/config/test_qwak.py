"""Files of Qwak's load unchanged, or every key that keeps them from it is named."""

from typing import Any

import pytest

from router.config.audience import AllOf, NotOf
from router.config.load import read_qwak
from router.config.model import Model
from router.config.qwak import Translated, variations_of
from router.errors import ConfigError

AUDIENCES = """\
api_version: v1
spec:
  audiences:
    - name: new-york
      description: everyone from New York
      conditions:
        unary:
          - {key: location, operand: new-york, operator: EXACT_MATCH}
          - {key: mail, operator: UNARY_OPERATOR_TYPE_SAFE_REGEX_MATCH, operand: ".*@x"}
          - {key: plan, operator: UNARY_OPERATOR_TYPE_PRESENT_MATCH}
        binary:
          - key: age
            operator: BINARY_OPERATOR_TYPE_RANGE_MATCH
            first_operand: "18"
            second_operand: 65
      routes:
        - {variation_name: new, weight: 30, shadow: false}
        - {variation_name: old, weight: 70}
    - name: california
      conditions:
        unary:
          - {key: location, operator: PREFIX_MATCH, operand: cali}
          - {key: beta, operator: SUFFIX_MATCH, operand: true, invert: true}
          - {key: zip, operator: CONTAINS_MATCH, operand: 94}
      routes: [{variation_name: "3", weight: 100}]
"""
DEPLOYMENT = """\
model_id: credit
build_id: 7f3
realtime:
  variation_name: new
  timeout: 1000
  workers: 4
  audiences:
    - name: new-york
      routes: [{variation_name: new, weight: 100}]
  fallback_variation: old
resources: {pods: 2}
"""
NAMES = {"old": 1, "new": 2}


def read(text: str) -> Translated:
    return read_qwak(text, "q.yaml", "credit", NAMES)


def test_an_audience_file_loads_unchanged() -> None:
    made = read(AUDIENCES)
    new_york, california = made.audiences
    assert new_york.model_dump(by_alias=True, exclude_none=True) == {
        "name": "new-york",
        "when": {"all": (
            {"key": "location", "exact": "new-york"}, {"key": "mail", "regex": ".*@x"},
            {"key": "plan", "present": True}, {"key": "age", "range": (18.0, 65.0)},
        )},
    }  # fmt: skip
    assert isinstance(california.when, AllOf)
    assert isinstance(california.when.all[1], NotOf)
    assert california.model_dump(by_alias=True, exclude_none=True)["when"]["all"] == (
        {"key": "location", "prefix": ("cali",)},
        {"not": {"key": "beta", "suffix": ("true",)}},
        {"key": "zip", "contains": ("94",)},
    )


def test_routes_of_audiences_are_sticky_splits_in_the_files_order() -> None:
    first, second = read(AUDIENCES).routes
    assert (first.model, first.audience) == ("credit", "new-york")
    assert [(s.version, s.weight) for s in first.split or ()] == [(2, 3000), (1, 7000)]
    assert (second.audience, second.version) == ("california", 3)


def test_a_deployment_is_routes_and_a_fallback() -> None:
    made = read(DEPLOYMENT)
    assert [(r.model, r.audience, r.version) for r in made.routes] == [
        ("credit", "new-york", 2), ("credit", None, 1),
    ]  # fmt: skip
    assert made.ignored == (
        "build_id", "resources", "realtime.timeout", "realtime.workers",
    )  # fmt: skip


def test_percentages_are_for_everyone_else() -> None:
    made = read(
        "realtime: {variations: [{name: new, traffic: {percentage: 20}},"
        " {name: old, traffic: {percentage: 80}}], fallback_variation: old}"
    )
    (route,) = made.routes
    assert [(s.version, s.weight) for s in route.split or ()] == [(2, 2000), (1, 8000)]


def test_variations_are_the_names_of_versions() -> None:
    named: dict[str, Any] = {"name": "m", "versions": {1: {}, 2: {"name": "new"}}}
    assert variations_of(Model.model_validate(named)) == {"1": 1, "2": 2, "new": 2}
    listed = {"name": "m", "versions": [4]}
    assert variations_of(Model.model_validate(listed)) == {"4": 4}
    assert variations_of(Model.model_validate({"name": "m"})) == {}


WRONG: dict[str, tuple[str, str, tuple[int, str, str]]] = {
    "another version of the file": (
        "api_version: v1",
        "api_version: v2",
        (1, "api_version", "expected v1"),
    ),
    "an operator that is none": (
        "operator: PREFIX_MATCH",
        "operator: PREFIX_MACH",
        (
            22,
            "spec.audiences[1].conditions.unary[0].operator",
            "no operator of this name",
        ),
    ),
    "another binary operator": (
        "BINARY_OPERATOR_TYPE_RANGE_MATCH",
        "LESS",
        (
            13,
            "spec.audiences[0].conditions.binary[0].operator",
            "no operator of this name",
        ),
    ),
    "a range of words": (
        'first_operand: "18"',
        "first_operand: low",
        (
            14,
            "spec.audiences[0].conditions.binary[0].first_operand",
            "expected a number",
        ),
    ),
    "an operand that is missing": (
        ", operand: cali}",
        "}",
        (22, "spec.audiences[1].conditions.unary[0].operand", "this key is required"),
    ),
    "a key of the interface that the file has not": (
        "weight: 70}",
        "weight: 70, request_timeout_ms: 5}",
        (
            18,
            "spec.audiences[0].routes[1].request_timeout_ms",
            "this key cannot be honoured",
        ),
    ),
    "a route that shadows": (
        "shadow: false",
        "shadow: true",
        (17, "spec.audiences[0].routes[0].shadow", "a route does not shadow"),
    ),
    "a variation that is none": (
        "variation_name: old",
        "variation_name: odl",
        (18, "spec.audiences[0].routes[1]", "no version is named like this variation"),
    ),
    "weights that come to less": (
        "weight: 70",
        "weight: 60",
        (16, "spec.audiences[0].routes", "weights add up to 100 percent"),
    ),
    "a name twice": (
        "name: california",
        "name: new-york",
        (19, "spec.audiences[1].name", "this name is taken"),
    ),
}


@pytest.mark.parametrize(("before", "after", "expected"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_honoured_is_named(
    before: str, after: str, expected: tuple[int, str, str]
) -> None:
    assert before in AUDIENCES
    with pytest.raises(ConfigError) as raised:
        read(AUDIENCES.replace(before, after))
    problem = raised.value.problems[0]
    assert (problem.line, problem.path, problem.message) == expected


def test_another_file_is_refused() -> None:
    for text in ("[]", "a: 1"):
        with pytest.raises(ConfigError):
            read(text)
