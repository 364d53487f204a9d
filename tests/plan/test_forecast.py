"""What a rollout will do and how long that takes, before it does it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from rollout_plans import LADDER, Moves, config, rollout

from router.config.config import Config
from router.config.rollout import Window
from router.plan.forecast import Load, ScopeForecast, forecast, plan_notes
from router.plan.windows import is_open, next_open

MONDAY = datetime(2026, 6, 1, 8, 0, tzinfo=UTC).timestamp()
HOUR = 3600.0


def of(made: Config, now_s: float = MONDAY, load: Load = Load()) -> ScopeForecast:  # noqa: B008
    return forecast(made, Moves(made).scopes(), now_s, load)[0]


def test_every_step_says_what_it_is_and_when_it_is_over() -> None:
    steps: list[dict[str, Any]] = [
        {"shadow": {"percent": 20, "min_samples": 100, "for": "1h"}},
        {"ramp": {"to": 50, "increment": 25, "every": "2h", "min_units": 9}},
        {"approval": {"group": "risk"}},
        *LADDER[1:],
    ]
    found = of(config(rollout(steps=steps)))
    assert [(s.text, s.lasts_s, s.ends_s) for s in found.steps] == [
        ("shadow 20 %, needs 100 samples", HOUR, HOUR),
        ("weight 2: 25 %, needs 9 units", 2 * HOUR, 3 * HOUR),
        ("weight 2: 50 %, needs 9 units", 2 * HOUR, 5 * HOUR),
        ("approval by risk", 0.0, 5 * HOUR),
        ("weight 2: 100 %", 0.0, 5 * HOUR),
        ("bake", HOUR, 6 * HOUR),
    ]
    assert (found.total_s, found.phase) == (6 * HOUR, "pending")


def test_every_wave_takes_all_weights_and_baking_comes_once() -> None:
    found = of(config(rollout(waves=["low-risk", "everyone"])))
    assert [(step.wave, step.text) for step in found.steps] == [
        ("low-risk", "weight 2: 5 %"), ("low-risk", "weight 2: 100 %"),
        ("everyone", "weight 2: 5 %"), ("everyone", "weight 2: 100 %"), ("", "bake"),
    ]  # fmt: skip
    assert found.total_s == 3 * HOUR


def test_a_rate_says_how_long_units_take_at_least() -> None:
    steps = [{"weight": {"to": 5, "min_units": 1000}}, {"weight": {"to": 100}}]
    found = of(config(rollout(steps=steps, expected_rate=10)))
    assert found.steps[0].lasts_s == 1000 / (10 * 0.05)


def test_growth_waits_for_its_window() -> None:
    windows = [{"from": "09:00", "to": "11:59", "days": ["mon", "wed"]}]
    steps = [{"weight": {"to": 5, "for": "4h"}}, {"weight": {"to": 100}}]
    found = of(config(rollout(steps=steps, windows=windows)))
    # It begins at nine, has soaked at one, and grows on Wednesday at nine.
    assert [step.ends_s / HOUR for step in found.steps] == [49.0, 49.0]


@pytest.mark.parametrize(
    ("at", "opens"),
    [
        ((2026, 6, 1, 6, 59), (2026, 6, 1, 7, 0)),
        ((2026, 6, 1, 7, 0), (2026, 6, 1, 7, 0)),
        ((2026, 6, 1, 14, 59), (2026, 6, 1, 14, 59)),
        ((2026, 6, 1, 15, 0), (2026, 6, 2, 7, 0)),
        ((2026, 12, 1, 7, 0), (2026, 12, 1, 8, 0)),
    ],
)
def test_a_window_opens_and_closes_in_its_zone(
    at: tuple[int, ...], opens: tuple[int, ...]
) -> None:
    window = Window.model_validate(
        {"from": "09:00", "to": "16:59", "tz": "Europe/Berlin"}
    )
    now = datetime(*at, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]
    then = datetime(*opens, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]
    assert next_open((window,), now) == then
    assert is_open((window,), now) == (now == then)
    assert is_open((), now)


def test_a_window_of_yesterday_in_another_zone_may_still_be_open() -> None:
    window = Window.model_validate(
        {"from": "20:00", "to": "23:59", "days": ["sun"], "tz": "America/Los_Angeles"}
    )
    monday_in_utc = datetime(2026, 6, 1, 5, 0, tzinfo=UTC).timestamp()
    assert is_open((window,), monday_in_utc)


def test_shares_asked_for_stand_beside_those_held() -> None:
    moves = Moves(config(rollout()))
    moves.set("credit-2", 500)
    (found,) = forecast(moves.config, moves.scopes(), MONDAY, Load())
    assert (found.requested_bp, found.effective_bp) == ({2: 500}, {2: 500})


def notes(*rollouts: dict[str, Any], load: Load = Load(), **more: Any) -> str:  # noqa: B008
    return "\n".join(of(config(*rollouts, **more), load=load).notes)


def test_what_a_person_should_know_is_noted() -> None:
    guard = [{"metric": "error_rate", "worse_by": "0.2pp"}]
    assert notes(rollout(guardrails=guard)) == ""
    assert "no guardrails" in notes(rollout())
    assert "not sticky: who takes part depends on each request's input.amount" in notes(
        rollout(audience="low-risk")
    )
    assert "same requests as b" in notes(rollout("a"), rollout("b", candidate=3))
    assert "its candidate is stable" in notes(rollout(), model={"stable": 2})
    waves = rollout(audience="new-york", waves=["california", "everyone"])
    assert "wave 'california' can never match" in notes(waves)
    gate = [{"metric": "error_rate", "max": "1%", "min_samples": 500}]
    steps = [{"weight": {"to": 5, "min_units": 100, "gates": gate}}, LADDER[1]]
    assert "needs 500 samples" in notes(rollout(steps=steps))


def test_capacity_is_the_rate_times_the_share_times_the_run_time() -> None:
    busy = Load(executors=2, run_s={("credit", 2): 0.016})
    assert "keeps 1.6 of 2 executors" not in notes(
        rollout(expected_rate=100), load=busy
    )
    more = notes(rollout(expected_rate=101), load=busy)
    assert "weight 2: 100 % keeps 1.6 of 2 executors busy" in more
    assert "capacity is not known" in notes(rollout(expected_rate=1), load=Load(2))
    assert "capacity" not in notes(rollout(), load=busy)


def test_rules_that_never_match_and_routes_that_overlap_are_noted() -> None:
    nobody = {"name": "x", "when": {"all": [{"audience": "a"}, {"audience": "b"}]}}
    audiences = [
        {"name": "a", "when": {"key": "k", "exact": "a"}},
        {"name": "b", "when": {"key": "k", "exact": "b"}},
        {"name": "c", "when": {"key": "j", "present": True}},
        nobody,
    ]
    routes = [{"model": "credit", "audience": n, "version": 2} for n in "abcx"]
    made = config(audiences=audiences, routes=routes)
    assert list(plan_notes(Moves(made).plan())) == [
        "credit: rule 'credit/x' can never match",
        "credit: 'credit/a' and 'credit/c' may match the same request; 'credit/a'"
        " answers it",
        "credit: 'credit/b' and 'credit/c' may match the same request; 'credit/b'"
        " answers it",
    ]
