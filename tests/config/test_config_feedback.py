"""The feedback section."""

import pytest

from router.config.load import read_config
from router.errors import ConfigError

MODEL = """
api_version: router/v1
models: [{name: credit, repository: models/credit, stable: 1}]
"""


def problems(text):
    with pytest.raises(ConfigError) as caught:
        read_config(MODEL + text, "router.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_times_are_written_with_a_unit():
    config = read_config(MODEL + "feedback: {window: 3d, maturity: 12h}\n", "f")
    assert (config.feedback.window, config.feedback.maturity) == (3 * 86_400, 43_200)


def test_equal_times_are_allowed():
    text = "feedback: {window: 2d, maturity: 2d, retention: 2d}\n"
    assert read_config(MODEL + text, "f").feedback.retention == 2 * 86_400


def test_a_maturity_beyond_the_window_is_an_error_with_place_and_remedy():
    (found,) = problems("feedback: {window: 1d, maturity: 2d}\n")
    assert found.startswith("router.yaml:4: feedback.maturity: longer than window")
    assert "at most 86400 s" in found


def test_a_window_beyond_the_retention_is_an_error():
    (found,) = problems("feedback: {window: 31d}\n")
    assert "feedback.window: longer than retention" in found


def test_a_misspelt_key_is_named():
    (found,) = problems("feedback: {maturety: 1d}\n")
    assert "did you mean 'maturity'?" in found
