"""Change detection: the promise about false alarms, exactly."""

import json
import math

import pytest
from expectation import mean_of

from router.analysis.detector import Detector, has_changed, watch


@pytest.mark.parametrize("usual", [0.01, 0.2, 0.6])
def test_without_a_change_the_sum_of_gamblers_grows_by_one_an_outcome(
    usual: float,
) -> None:
    # That M - t has mean zero is what makes the mean run at least A.
    coin = [(usual, True), (1 - usual, False)]
    for outcomes in (1, 4, 8):
        mean = mean_of(
            Detector(usual),
            [coin] * outcomes,
            lambda state, is_bad: watch(state, [is_bad]),
            lambda state: state.log_m,
        )
        assert mean == pytest.approx(outcomes, rel=1e-12)


def test_outcomes_may_come_in_any_portions() -> None:
    outcomes = [False, True, True, False, True]
    whole = watch(Detector(0.1), outcomes)
    assert watch(watch(Detector(0.1), outcomes[:2]), outcomes[2:]) == whole
    assert whole.outcomes == 5


def test_a_higher_rate_raises_the_alarm_soon() -> None:
    calm = watch(Detector(0.01), ([False] * 99 + [True]) * 10)
    assert not has_changed(calm, 10_000)
    hurt = watch(calm, ([False] * 9 + [True]) * 10)
    assert has_changed(hurt, 10_000)


def test_the_alarm_comes_exactly_at_its_budget() -> None:
    state = watch(Detector(0.1), [True, True])
    budget = math.exp(state.log_m)
    assert has_changed(state, budget * (1 - 1e-12))
    assert not has_changed(state, budget * (1 + 1e-12))


def test_a_detector_that_saw_nothing_has_no_evidence() -> None:
    assert Detector(0.1).log_m == -math.inf
    assert not has_changed(Detector(0.1), 1.0)


@pytest.mark.parametrize("outcomes", [[], [True, False]])
def test_a_detector_continues_from_where_it_was_stored(outcomes: list[bool]) -> None:
    state = watch(Detector(0.1), outcomes)
    stored = json.loads(json.dumps(state.as_dict(), allow_nan=False))
    assert Detector.from_dict(stored) == state


@pytest.mark.parametrize("usual", [0.0, 1.0])
def test_a_rate_that_never_varies_cannot_be_watched(usual: float) -> None:
    with pytest.raises(AssertionError):
        Detector(usual)
