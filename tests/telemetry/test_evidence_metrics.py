"""Gauges of what tests have come to."""

import math

import pytest

from router.telemetry.evidence import ROWS_MAX, evidence_metrics

ABOUT = {"scope": "better", "alpha_each": 0.01}
POINT = {
    "tests": {
        "error_rate|2||": ["pass", -0.5, None, None, None],
        "primary: reward|2||young": ["inconclusive", None, 0.1, None, 0.4],
    }
}


def test_odds_their_bar_and_bounds_have_a_row_each():
    odds, bars, effects = evidence_metrics([(ABOUT, POINT)])
    assert odds.rows == ((("better", "error_rate", "2", ""), -0.5),)
    assert bars.rows == ((("better",), pytest.approx(math.log(100))),)
    named = ("better", "primary: reward", "2", "young")
    # A bound that is infinite has no row.
    assert effects.rows == (((*named, "estimate"), 0.1), ((*named, "upper"), 0.4))
    assert all(family.is_gauge for family in (odds, bars, effects))


def test_rows_are_bounded():
    point = {"tests": {f"c{i}|2||": ["pass", 1.0, None, None, None]
                       for i in range(ROWS_MAX + 1)}}  # fmt: skip
    assert len(evidence_metrics([(ABOUT, point)])[0].rows) == ROWS_MAX
