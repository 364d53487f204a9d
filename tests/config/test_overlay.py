"""One file, several environments."""

from typing import Any

import pytest

from router.config.check import Checks
from router.config.load import read_config, render
from router.errors import ConfigError

TEXT = """\
api_version: router/v1
server: {loops: 1, state: run/state.db}
models:
  - name: credit
    repository: models/credit
    stable: 1
    unit: {metadata: [x-user-id]}
  - {name: debit, repository: models/debit}
routes:
  - {model: credit, split: {1: 90, 2: 10}}
environments:
  staging:
    server: {loops: 2}
    models:
      - name: debit
        stable: 2
      - {name: extra, repository: models/extra}
    routes:
      - {model: credit, version: 1}
  production:
    models: {debit: null, credit: {stable: null, unit: {metadata: [x-id]}}}
    server: {state: null}
  empty:
"""


def read(environment: str, text: str = TEXT) -> Any:
    return read_config(text, "f.yaml", Checks(environment=environment))


def test_without_an_environment_the_file_is_as_it_stands() -> None:
    config = read("")
    assert [model.name for model in config.models] == ["credit", "debit"]
    assert (config.server.loops, config.models[0].stable) == (1, 1)
    assert read("empty") == config


def test_mappings_merge_by_key_and_lists_by_name_and_the_rest_is_replaced() -> None:
    config = read("staging")
    assert [model.name for model in config.models] == ["credit", "debit", "extra"]
    assert (config.models[1].repository, config.models[1].stable) == ("models/debit", 2)
    assert (config.server.loops, config.server.state) == (2, "run/state.db")
    assert [route.version for route in config.routes] == [1]


def test_null_removes() -> None:
    config = read("production")
    assert [model.name for model in config.models] == ["credit"]
    assert config.models[0].stable is None
    assert config.models[0].unit.metadata == ("x-id",)


def problems(environment: str, text: str = TEXT) -> list[tuple[int, str, str]]:
    with pytest.raises(ConfigError) as raised:
        read(environment, text)
    return [(p.line, p.path, p.message) for p in raised.value.problems]


def test_a_problem_points_at_the_line_that_has_to_be_edited() -> None:
    wrong = TEXT.replace("stable: 2", "stable: two").replace("loops: 1", "loops: one")
    assert problems("staging", wrong) == [
        (16, "models[1].stable", "the model has no alias of this name")
    ]
    assert problems("production", wrong) == [
        (2, "server.loops", "expected a whole number")
    ]


def test_a_member_behind_a_removed_one_keeps_its_line() -> None:
    text = TEXT.replace("{debit: null,", "{credit: null, debit: {stable: x}}\n    #")
    assert problems("production", text) == [
        (10, "routes[0].model", "no model of this name"),
        (21, "models[0].stable", "the model has no alias of this name"),
    ]


def test_an_environment_has_to_exist() -> None:
    assert problems("prod") == [(11, "environments", "no environment of this name")]
    none = TEXT.split("environments")[0]
    assert problems("prod", none) == [
        (0, "environments", "no environment of this name")
    ]


def test_an_environment_is_a_mapping() -> None:
    head = TEXT.split("environments")[0]
    message = "expected a mapping"
    assert problems("", f"{head}environments: [a]\n") == [(11, "environments", message)]
    assert problems("", f"{head}environments: {{a: 1}}\n") == [
        (11, "environments.a", message)
    ]


def test_an_environment_is_rendered() -> None:
    made = render(TEXT, "f.yaml", "staging")
    assert "environments" not in made
    assert made["models"][1] == {
        "name": "debit", "repository": "models/debit", "stable": 2,
    }  # fmt: skip
    with pytest.raises(ConfigError):
        render(TEXT, "f.yaml", "prod")
