"""Columns by name: from a manifest or the file, and what a condition may call them."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from router.config.check import Checks
from router.config.config import Config, config_revision, dump_config, restore_config
from router.config.features import columns_of
from router.config.load import read_config
from router.config.manifest import Input
from router.errors import ConfigError
from router.plan.compile import States, compile_plan
from router.plan.diff import diff_plans
from router.plan.explain import Asked, explain
from router.plan.plan import Feature

INPUTS = {"X": Input(features=("amount", "age"))}
STATES = States({"credit": (1, 2)})


def text(key: str, **model: Any) -> str:
    given = {"name": "credit", "repository": "models/credit", "stable": 2, **model}
    return yaml.safe_dump(
        {
            "api_version": "router/v1",
            "models": [given],
            "audiences": [{"name": "low-risk", "when": {"key": key, "lt": 1000}}],
            "routes": [{"model": "credit", "audience": "low-risk", "version": 1}],
        },
        sort_keys=False,
    )


def read(made: str, inputs: Mapping[str, Input] = INPUTS) -> Config:
    asked: list[tuple[str, int]] = []

    def read_inputs(repository: str, version: int) -> Mapping[str, Input]:
        asked.append((repository, version))
        return inputs

    config = read_config(
        made, "f.yaml", Checks(lambda _: (1, 2), read_inputs=read_inputs)
    )
    assert asked in ([], [("models/credit", 2)])  # stable's
    return config


def test_a_manifest_names_the_columns_of_stable() -> None:
    (model,) = read(text("input.amount")).models
    assert columns_of(model) == {
        "input.amount": ("X", 0),
        "input.X.amount": ("X", 0),
        "input.age": ("X", 1),
        "input.X.age": ("X", 1),
    }


def test_the_file_goes_before_the_manifest() -> None:
    own = {"X": {"features": ["age", "amount"]}}
    (model,) = read(text("input.amount", inputs=own)).models
    assert columns_of(model)["input.amount"] == ("X", 1)


def test_what_a_manifest_named_is_part_of_what_is_applied() -> None:
    config = read(text("input.amount"))
    assert restore_config(dump_config(config)) == config
    assert config_revision(config) != config_revision(read(text("input.amount"), {}))


def test_a_column_of_two_inputs_needs_its_long_name() -> None:
    both = {**INPUTS, "Y": Input(features=("amount",))}
    with pytest.raises(ConfigError, match=r"no such input or feature"):
        read(text("input.amount"), both)
    (model,) = read(text("input.Y.amount"), both).models
    assert columns_of(model)["input.Y.amount"] == ("Y", 0)


def test_an_unknown_column_is_an_error_that_says_what_there_is() -> None:
    with pytest.raises(ConfigError) as raised:
        read(text("input.amuont"))
    (problem,) = raised.value.problems
    assert problem.path == "audiences[0].when.key"
    assert problem.line == 9
    assert problem.value == "'input.amuont'"
    assert "input.age, input.amount" in problem.remedy


@pytest.mark.parametrize("key", ["input.X", "amount", "location"])
def test_other_keys_stay_what_they_were(key: str) -> None:
    read(text(key))


def test_without_named_columns_nothing_is_known_and_nothing_refused() -> None:
    read(text("input.amuont"), {})


def test_a_plan_knows_where_a_column_stands() -> None:
    (model,) = compile_plan(read(text("input.amount")), STATES).models
    assert Feature("input.amount", "X", 0) in model.features
    assert Feature("input.age", "X", 1) in model.features


@pytest.mark.parametrize(("amount", "version"), [("999", 1), ("1000", 2)])
def test_an_explanation_takes_a_column_like_any_value(
    amount: str, version: int
) -> None:
    plan = compile_plan(read(text("input.amount")), STATES)
    found = explain(plan, Asked("credit", b"u", {"input.amount": amount}))
    assert found.version == version


def test_a_preview_says_that_such_a_rule_is_not_sticky() -> None:
    plan = compile_plan(read(text("input.amount")), STATES)
    for before in (None, plan):
        (rule,) = diff_plans(before, plan).models[0].rules
        assert rule.cautions == (
            "not sticky: who matches depends on each request's input.amount",
        )
    sticky = compile_plan(read(text("location")), STATES)
    (rule,) = diff_plans(None, sticky).models[0].rules
    assert rule.cautions == ()
