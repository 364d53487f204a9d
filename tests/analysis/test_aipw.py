"""Effect sizes: golden values, no bias on a ramp, both sides of every comparison."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from router.analysis.aipw import (
    Effect,
    EffectState,
    Guess,
    Moments,
    Outcome,
    add_phis,
    clustered,
    effect_bounds,
    effect_radius,
    guess,
    judge_reward,
    moments,
    phi,
    step_effect,
    tuning,
)

RHO = (0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5)
CANDIDATE = (0, 1, 0, 1, 0, 1, 0, 1)
Y = (1, 2, 0, 3, 1, 2, 2, 4)
M = (0, 1, 1.5, 1, 1.5, 1.4, 1.5, 1.57)
PHI = (-1.111111, 10, 1.666667, 4, 1, 1.2, -1, 4.86)


def golden_phis() -> list[float]:
    return [
        phi(y, bool(w), rho, m, m)
        for y, w, rho, m in zip(Y, CANDIDATE, RHO, M, strict=True)
    ]


def test_contributions_and_interval_have_their_golden_values() -> None:
    phis = golden_phis()
    assert phis == pytest.approx(PHI, abs=5e-7)
    effect = add_phis(Effect(), phis)
    assert effect.estimate == pytest.approx(2.576944, abs=5e-7)
    assert effect_radius(effect, 0.05, 0.05) == pytest.approx(4.602391, abs=5e-7)
    first = add_phis(Effect(), phis[:1])
    assert effect_radius(first, 0.05, 0.05) == pytest.approx(11.335699, abs=5e-7)


def test_the_tuning_is_the_published_one() -> None:
    # sqrt((-2 ln a + ln(1 - 2 ln a)) / t) = 0.03984007 for a = 0.05, t = 5,000.
    assert math.sqrt(tuning(0.05, 5000)) == pytest.approx(0.03984007, rel=1e-6)


def test_the_tuning_makes_the_interval_narrowest_where_it_was_asked() -> None:
    effect = Effect(units=100, total=0.0, squares=400.0)
    best = effect_radius(effect, 0.05, tuning(0.05, 400.0))
    assert best < effect_radius(effect, 0.05, tuning(0.05, 200.0))
    assert best < effect_radius(effect, 0.05, tuning(0.05, 800.0))


def test_the_mean_over_assignments_is_the_effect_whatever_the_guess() -> None:
    for rho, guess_b, guess_a in ((0.05, 0.0, 0.0), (0.3, 7.0, -2.0), (0.9, 1.0, 4.0)):
        mean = rho * phi(5.0, True, rho, guess_b, guess_a)
        mean += (1 - rho) * phi(3.0, False, rho, guess_b, guess_a)
        assert mean == pytest.approx(5.0 - 3.0)


def test_a_contribution_needs_a_choice() -> None:
    for rho in (0.0, 1.0):
        with pytest.raises(AssertionError):
            phi(1.0, True, rho, 0.0, 0.0)


def test_a_guess_is_the_line_through_what_was_seen() -> None:
    line = guess(moments([1.0, 3.0, 5.0], [0.0, 1.0, 2.0]))
    assert (line.level, line.slope) == pytest.approx((1.0, 2.0))
    assert line.at(3.0) == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("seen", "level"),
    [
        (Moments(), 0.0),
        (moments([1.0, 5.0], [0.0, 1.0]), 3.0),  # two points are always on a line
        (moments([1.0, 5.0, 6.0], [2.0, 2.0, 2.0]), 4.0),  # no spread to lean on
        (moments([1.0, 5.0, 6.0]), 4.0),
    ],
)
def test_a_guess_without_enough_to_go_on_is_flat(seen: Moments, level: float) -> None:
    assert guess(seen) == Guess(level, 0.0)


def test_sums_give_the_same_effect_as_units_one_by_one() -> None:
    taught = step_effect(
        EffectState(),
        Outcome(
            moments([1.0, 2.0, 4.0] * 10, [0.0, 1.0, 3.0] * 10),
            moments([0.0, 2.0, 2.5] * 10, [0.0, 2.0, 2.0] * 10),
            0.4,
        ),
    )
    assert taught.precision is not None
    assert taught.effect == Effect()
    line_b, line_a = guess(taught.candidate), guess(taught.baseline)
    y_b, x_b, y_a, x_a, rho = [2.0, 7.0], [1.0, 4.0], [1.0, 0.5, 3.0], [0, 1, 5], 0.3
    after = step_effect(taught, Outcome(moments(y_b, x_b), moments(y_a, x_a), rho))
    phis = [
        *(phi(y, True, rho, line_b.at(x), line_a.at(x))
          for y, x in zip(y_b, x_b, strict=True)),
        *(phi(y, False, rho, line_b.at(x), line_a.at(x))
          for y, x in zip(y_a, x_a, strict=True)),
    ]  # fmt: skip
    expected = add_phis(Effect(), phis)
    assert after.effect.units == expected.units
    assert after.effect.total == pytest.approx(expected.total)
    assert after.effect.squares == pytest.approx(expected.squares)


def test_before_the_candidates_first_outcome_no_effect_is_guessed() -> None:
    taught = step_effect(
        EffectState(), Outcome(Moments(), moments([1.0, 3.0] * 30), 0.1)
    )
    after = step_effect(taught, Outcome(moments([2.0]), Moments(), 0.1))
    assert after.effect.total == pytest.approx(0.0)


def test_the_precision_is_chosen_once_from_ticks_that_are_not_used() -> None:
    tick = Outcome(moments([1.0, 2.0] * 5), moments([0.0, 4.0] * 19), 0.2)
    few = step_effect(EffectState(), tick)
    assert few.precision is None  # 48 units
    two_more = Outcome(moments([1.0]), moments([0.0]), 0.2)
    enough = step_effect(few, two_more)
    seen = enough.candidate + enough.baseline
    variance = seen.yy / seen.units - (seen.y / seen.units) ** 2
    expected = tuning(0.05, 10_000 * variance / (0.2 * 0.8))
    assert enough.precision == pytest.approx(expected)
    assert enough.effect == Effect()
    later = step_effect(enough, replace(tick, rho=0.5))
    assert later.precision == enough.precision
    assert later.effect.units == 48


def test_outcomes_that_never_vary_choose_no_precision() -> None:
    same = Outcome(moments([1.0] * 90), moments([1.0] * 90), 0.5)
    assert step_effect(EffectState(), same).precision is None


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_a_stratum_without_a_choice_teaches_and_is_not_compared(rho: float) -> None:
    tick = Outcome(moments([1.0, 2.0] * 40), moments([0.0, 4.0] * 40), rho)
    taught = step_effect(EffectState(), tick)
    assert taught.precision is None
    ready = step_effect(taught, replace(tick, rho=0.5))
    after = step_effect(ready, tick)
    assert after.effect == Effect()
    assert after.candidate.units == 240


def test_effects_of_replicas_add_up() -> None:
    phis = golden_phis()
    whole = add_phis(Effect(), phis)
    parts = add_phis(Effect(), phis[:3]) + add_phis(Effect(), phis[3:])
    assert parts.units == whole.units
    assert (parts.total, parts.squares) == pytest.approx((whole.total, whole.squares))
    assert Effect.from_dict(json.loads(json.dumps(whole.as_dict()))) == whole


def test_requests_that_repeat_each_other_do_not_narrow_a_clustered_interval() -> None:
    once = [add_phis(Effect(), [value]) for value in golden_phis()]
    tenfold = [add_phis(Effect(), [value] * 10) for value in golden_phis()]
    single, repeated = clustered(once), clustered(tenfold)
    assert repeated.estimate == pytest.approx(single.estimate)
    assert repeated.units == 10 * single.units
    # The same tuning relative to the sum of squares, which is a hundredfold.
    narrow = effect_radius(single, 0.05, 0.05)
    assert effect_radius(repeated, 0.05, 0.0005) == pytest.approx(narrow)
    alone = add_phis(Effect(), golden_phis() * 10)
    assert effect_radius(alone, 0.05, 0.005) < 0.5 * narrow


def simulated(gap: float, noise: float, ticks: int = 40, seed: int = 5) -> EffectState:
    """A ramp from 5 to 50 % while the baseline rises; the covariate explains half."""
    random = np.random.default_rng(seed)
    state = EffectState()
    for t in range(ticks):
        rho, trend = (0.05 if t < ticks // 2 else 0.5), 3.0 * t / ticks
        x = random.normal(size=200)
        is_b = random.random(200) < rho
        y = trend + x + noise * random.normal(size=200) + gap * is_b
        state = step_effect(
            state,
            Outcome(moments(y[is_b], x[is_b]), moments(y[~is_b], x[~is_b]), rho),
        )
    return state


def test_a_trend_on_a_ramp_does_not_bend_the_estimate() -> None:
    state = simulated(gap=0.0, noise=1.0)
    lower, upper = effect_bounds(state.effect, 0.05, state.precision)
    assert lower < 0 < upper
    pooled = state.candidate.y / state.candidate.units
    pooled -= state.baseline.y / state.baseline.units
    assert pooled > upper  # cumulative totals would have claimed an effect


def test_a_covariate_narrows_the_interval() -> None:
    state = simulated(gap=0.0, noise=0.5)
    blind = EffectState(precision=state.precision)
    random = np.random.default_rng(5)
    for t in range(40):
        rho, trend = (0.05 if t < 20 else 0.5), 3.0 * t / 40
        x = random.normal(size=200)
        is_b = random.random(200) < rho
        y = trend + x + 0.5 * random.normal(size=200)
        tick = Outcome(moments(y[is_b]), moments(y[~is_b]), rho)
        blind = step_effect(blind, tick)
    seeing = effect_bounds(state.effect, 0.05, state.precision)
    unseeing = effect_bounds(blind.effect, 0.05, blind.precision)
    assert seeing[1] - seeing[0] < 0.9 * (unseeing[1] - unseeing[0])


def test_a_fall_beyond_the_margin_fails_and_none_passes() -> None:
    falls = simulated(gap=-3.0, noise=0.5)
    verdict = judge_reward(falls, 0.5, 0.05)
    assert verdict.verdict == "fail"
    assert "it may be 0.5 lower" in verdict.reason
    same = simulated(gap=0.0, noise=0.5)
    assert judge_reward(same, 1.0, 0.05).verdict == "pass"
    assert judge_reward(same, 0.0, 0.05).verdict == "inconclusive"


def test_the_margin_is_compared_with_the_bounds_exactly() -> None:
    state = simulated(gap=-1.0, noise=0.5)
    lower, upper = effect_bounds(state.effect, 0.05, state.precision)
    assert lower < upper < 0
    cases = [
        (-upper, "inconclusive"), (math.nextafter(-upper, 0), "fail"),
        (-lower, "inconclusive"), (math.nextafter(-lower, 9), "pass"),
    ]  # fmt: skip
    for worse_by, answer in cases:
        assert judge_reward(state, worse_by, 0.05).verdict == answer


def test_a_reward_is_judged_exactly_from_its_minimum_of_units() -> None:
    state = simulated(gap=-3.0, noise=0.5)
    units = state.effect.units
    assert judge_reward(state, 0.0, 0.05, units).verdict == "fail"
    assert judge_reward(state, 0.0, 0.05, units + 1).verdict == "inconclusive"


def test_no_data_is_inconclusive() -> None:
    assert judge_reward(EffectState(), 0.0, 0.05).verdict == "inconclusive"
    untuned = EffectState(Effect(900, 1.0, 9.0))
    assert judge_reward(untuned, 0.0, 0.05).verdict == "inconclusive"
    assert effect_bounds(Effect(), 0.05, 0.1) == (-math.inf, math.inf)
    assert math.isnan(Effect().estimate)


@pytest.mark.parametrize(("worse_by", "units_min"), [(-0.1, 500), (0.1, 0)])
def test_a_margin_and_a_minimum_make_sense(worse_by: float, units_min: int) -> None:
    with pytest.raises(AssertionError):
        judge_reward(EffectState(), worse_by, 0.05, units_min)


def test_a_state_continues_from_where_it_was_stored() -> None:
    state = simulated(gap=0.1, noise=1.0, ticks=4)
    assert EffectState.from_dict(json.loads(json.dumps(state.as_dict()))) == state
