"""A verdict is a value: it says why, and it survives being stored."""

import json
import math

import numpy as np
import pytest

from router.analysis.verdict import Verdict, percent, times


def test_a_verdict_is_the_same_after_it_was_stored() -> None:
    verdict = Verdict("fail", "It fails.", {"n": 3, "rate": 0.5, "unit": "request"})
    assert Verdict.from_dict(json.loads(json.dumps(verdict.as_dict()))) == verdict


def test_a_verdict_holds_only_what_json_holds() -> None:
    numbers = {
        "upper": math.inf, "lower": -math.inf, "gap": math.nan,
        "n": np.int64(7), "rate": np.float64(0.25),
    }  # fmt: skip
    stored = Verdict("inconclusive", "Too early.", numbers).as_dict()["numbers"]
    assert stored == {
        "upper": "unbounded", "lower": "-unbounded", "gap": "unknown",
        "n": 7, "rate": 0.25,
    }  # fmt: skip
    assert [type(stored[name]) for name in ("n", "rate")] == [int, float]


def test_a_verdict_is_one_of_four_answers_and_says_why() -> None:
    with pytest.raises(AssertionError):
        Verdict("perhaps", "Who knows.")  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        Verdict("pass", "")


def test_the_numbers_of_a_verdict_cannot_be_changed() -> None:
    verdict = Verdict("pass", "All is well.", {"n": 1})
    with pytest.raises(TypeError):
        verdict.numbers["n"] = 2  # type: ignore[index]


def test_rates_and_odds_are_said_as_people_say_them() -> None:
    assert percent(0.0123) == "1.23 %"
    assert times(math.log(20)) == "20 times"
    assert times(math.log(1e6)) == "1e+06 times"
    assert times(14.0) == "over a million times"
