"""Another policy's value from logged propensities: golden values and no bias."""

import math

import pytest

from router.analysis.ope import Model, clipped, policy_value, weighted_mean

REWARDS, WEIGHTS = (1, 0, 0, 1), (0, 2, 0, 5)


def test_estimates_have_their_golden_values() -> None:
    found = policy_value(REWARDS, WEIGHTS)
    assert found.ips == pytest.approx(1.25)
    assert found.snips == pytest.approx(0.7142857, abs=5e-8)
    assert found.effective_units == pytest.approx(1.6896552, abs=5e-8)
    assert found.dr == found.ips


def test_a_model_that_predicts_every_reward_leaves_the_weights_out() -> None:
    model = Model(policy=(0.5, 0.25, 0.5, 0.75), logged=REWARDS)
    assert policy_value(REWARDS, WEIGHTS, model).dr == pytest.approx(0.5)


def test_a_wrong_model_does_not_bias_the_doubly_robust_estimate() -> None:
    # Two actions with rewards 1 and 3, logged 0.8 / 0.2, wanted 0.5 / 0.5: worth 2.
    model_policy, model_logged = 7.0, (9.0, 5.0)
    mean = sum(
        chance
        * policy_value(
            [reward], [0.5 / chance], Model([model_policy], [model_logged[action]])
        ).dr
        for action, (chance, reward) in enumerate([(0.8, 1.0), (0.2, 3.0)])
    )
    assert mean == pytest.approx(2.0)


def test_without_weight_nothing_is_known() -> None:
    found = policy_value([1.0], [0.0])
    assert (found.snips, found.effective_units) == (0.0, 0.0)


@pytest.mark.parametrize(("units", "answer"), [(100, True), (99, False)])
def test_an_estimate_is_trusted_from_a_hundred_effective_units(
    units: int, answer: bool
) -> None:
    assert policy_value([1.0] * units, [2.0] * units).is_trustworthy is answer


def test_weights_are_clipped_at_the_floor() -> None:
    assert clipped((0.5, 10.0, 11.0), 0.1) == (0.5, 10.0, 10.0)
    for floor in (0.0, 1.1):
        with pytest.raises(AssertionError):
            clipped((1.0,), floor)


def test_reviews_picked_by_uncertainty_give_the_accuracy_of_all() -> None:
    # 10 hard items, half right, all reviewed; 90 easy ones, all right, a tenth.
    right = [1] * 5 + [0] * 5 + [1] * 9
    chances = [1.0] * 10 + [0.1] * 9
    assert weighted_mean(right, chances) == pytest.approx(0.95)
    assert math.fsum(right) / len(right) < 0.75


def test_what_cannot_be_weighed_is_refused() -> None:
    for wrong in (([], []), ([1.0], [1.0, 2.0]), ([1.0], [-1.0])):
        with pytest.raises(AssertionError):
            policy_value(*wrong)
    for values, chances in (([1.0], [0.0]), ([1.0], [1.1]), ([], []), ([1.0], [])):
        with pytest.raises(AssertionError):
            weighted_mean(values, chances)
