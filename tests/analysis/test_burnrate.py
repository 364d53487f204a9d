"""Burn rates: windows, and each of the three conditions of an alert."""

import pytest

from router.analysis.burnrate import (
    BURN_RULES,
    MINUTES_KEPT,
    BurnRule,
    Minutes,
    add_minute,
    judge_burn,
)

RULE = BurnRule(10.0, 60, 5, "page")


def minutes(*runs: tuple[int, int, int]) -> Minutes:
    """Runs of (how many minutes, errors a minute, requests a minute)."""
    found = Minutes()
    for count, errors, requests in runs:
        for _ in range(count):
            found = add_minute(found, errors, requests)
    return found


def test_burn_is_the_error_rate_over_the_allowed_one() -> None:
    found = minutes((10, 0, 100), (5, 2, 100))
    assert found.window(5) == (10, 500)
    assert found.window(10) == (10, 1000)
    assert found.window(99) == (10, 1500)
    assert found.burn(10, 0.999) == pytest.approx(10.0)
    assert Minutes().burn(5, 0.999) == 0.0


@pytest.mark.parametrize(
    ("runs", "answer"),
    [
        ([(55, 1, 100), (5, 2, 100)], "fail"),  # 1 in 100 is ten times 1 in 1,000
        ([(55, 2, 100), (5, 1, 100)], "pass"),  # it is over
        ([(55, 0, 100), (5, 9, 100)], "pass"),  # it is too short to matter
        ([(60, 0, 100)], "pass"),
        ([(60, 0, 0)], "inconclusive"),
        ([], "inconclusive"),
    ],
)
def test_an_alert_needs_both_windows(
    runs: list[tuple[int, int, int]], answer: str
) -> None:
    assert judge_burn(minutes(*runs), 0.999, [RULE]).verdict == answer


def test_a_burn_exactly_at_the_limit_is_not_above_it() -> None:
    # An eighth is exact in binary: 1/8 errors with 1/64 allowed burns at exactly 8.
    found = minutes((60, 1, 8))
    objective = 1 - 1 / 64
    at = BurnRule(8.0, 60, 5, "page")
    below = BurnRule(8.0 - 1e-9, 60, 5, "page")
    assert judge_burn(found, objective, [at]).verdict == "pass"
    assert judge_burn(found, objective, [below]).verdict == "fail"
    short_only = minutes((55, 2, 8), (5, 1, 8))
    assert judge_burn(short_only, objective, [at]).verdict == "pass"
    long_only = minutes((50, 1, 8), (5, 0, 8), (5, 2, 8))
    assert judge_burn(long_only, objective, [at]).verdict == "pass"


def test_an_alert_needs_a_few_errors_in_the_short_window() -> None:
    found = minutes((60, 1, 2))
    assert judge_burn(found, 0.9, [BurnRule(2.0, 60, 5, "page")]).verdict == "fail"
    few = judge_burn(found, 0.9, [BurnRule(2.0, 60, 5, "page")], errors_min=6)
    assert few.verdict == "pass"


def test_the_loudest_rule_that_fires_is_told() -> None:
    fast = judge_burn(minutes((60, 20, 100)), 0.99)
    assert fast.numbers["severity"] == "page"
    assert fast.numbers["burn_limit"] == 14.4
    assert "20 times too fast over 60 minutes" in fast.reason
    slow = judge_burn(minutes((6 * 60, 2, 100)), 0.99)
    assert slow.numbers["severity"] == "ticket"


def test_the_default_rules_spend_a_known_part_of_a_monthly_budget() -> None:
    spent = [rule.burn * rule.long_minutes / (30 * 24 * 60) for rule in BURN_RULES]
    assert spent == pytest.approx([0.02, 0.05, 0.10])
    assert all(rule.long_minutes == 12 * rule.short_minutes for rule in BURN_RULES)


def test_minutes_beyond_three_days_are_forgotten() -> None:
    full = Minutes((1,) * MINUTES_KEPT, (9,) * MINUTES_KEPT)
    after = add_minute(full, 0, 9)
    assert len(after.errors) == len(after.requests) == MINUTES_KEPT
    assert after.errors[-1] == 0


def test_what_makes_no_sense_cannot_be_written() -> None:
    for burn, long, short in (
        (0.0, 60, 5), (1.0, 5, 60), (1.0, 60, 0), (1.0, MINUTES_KEPT + 1, 5)
    ):  # fmt: skip
        with pytest.raises(AssertionError):
            BurnRule(burn, long, short, "page")
    with pytest.raises(AssertionError):
        Minutes((1,), ())
    for objective in (0.0, 1.0):
        with pytest.raises(AssertionError):
            judge_burn(minutes((5, 1, 1)), objective)
