"""Groups: golden disparities, minimum sizes, and verdicts by interval."""

import math

import pytest

from router.analysis.betabinomial import rate_bounds
from router.analysis.fairness import (
    Minimum,
    disparity,
    judge_parity,
    wilson_bounds,
)
from router.analysis.quality import Confusion, confused

Y = "101100101011"
PREDICTED = "101001101110"
GROUPS = "aaaaaabbbbbb"
ANY = Minimum(decisions=1, positives=1)


def golden() -> dict[str, Confusion]:
    groups: dict[str, Confusion] = {}
    for y, predicted, group in zip(Y, PREDICTED, GROUPS, strict=True):
        was = groups.get(group, Confusion())
        groups[group] = was + confused(predicted == "1", y == "1")
    return groups


def test_disparities_have_their_golden_values() -> None:
    groups = golden()
    assert groups["a"].selection_rate == pytest.approx(0.5)
    assert groups["b"].selection_rate == pytest.approx(0.666667, abs=5e-7)
    found = disparity(groups, ANY)
    assert found.demographic_parity_difference == pytest.approx(0.166667, abs=5e-7)
    assert found.demographic_parity_ratio == pytest.approx(0.75)
    assert found.equalized_odds_difference == pytest.approx(0.166667, abs=5e-7)
    assert found.equalized_odds_ratio == pytest.approx(0.666667, abs=5e-7)
    assert found.equal_opportunity_difference == pytest.approx(0.083333, abs=5e-7)
    assert found.equal_opportunity_ratio == pytest.approx(0.888889, abs=5e-7)


@pytest.mark.parametrize(("decisions", "is_in"), [(6, True), (7, False)])
def test_a_group_needs_its_minimum_of_decisions(decisions: int, is_in: bool) -> None:
    found = disparity(golden(), Minimum(decisions, 1))
    assert (found.groups == ("a", "b")) is is_in
    assert (found.insufficient == ()) is is_in
    assert math.isnan(found.demographic_parity_difference) is not is_in


@pytest.mark.parametrize(("positives", "is_in"), [(3, True), (4, False)])
def test_a_group_needs_its_minimum_of_positives_for_rates_of_labels(
    positives: int, is_in: bool
) -> None:
    found = disparity(golden(), Minimum(1, positives))
    assert ("a" not in found.unlabelled) is is_in
    assert math.isnan(found.equal_opportunity_difference) is not is_in
    assert found.demographic_parity_ratio == pytest.approx(0.75)


def test_the_defaults_say_nothing_about_a_dozen_decisions() -> None:
    assert disparity(golden()).insufficient == ("a", "b")
    assert judge_parity(golden(), 0.05).verdict == "inconclusive"


def test_wilson_has_its_golden_value() -> None:
    # Seven decimals, cut off.
    assert wilson_bounds(5, 50) == pytest.approx((0.0434757, 0.2136023), abs=1e-7)
    assert wilson_bounds(0, 0) == (0.0, 1.0)
    assert wilson_bounds(0, 10)[0] == 0.0
    assert wilson_bounds(10, 10)[1] == pytest.approx(1.0)
    with pytest.raises(AssertionError):
        wilson_bounds(2, 1)


def chosen(selected: int, of: int) -> Confusion:
    return Confusion(true_positive=selected, true_negative=of - selected)


@pytest.mark.parametrize(
    ("low", "answer"),
    [(500, "pass"), (430, "inconclusive"), (390, "inconclusive"), (250, "fail")],
)
def test_parity_is_judged_by_intervals(low: int, answer: str) -> None:
    groups = {"old": chosen(low * 10, 10_000), "young": chosen(5_000, 10_000)}
    verdict = judge_parity({**groups}, 0.05, rule=0.83)
    assert verdict.verdict == answer
    if answer == "fail":
        assert verdict.reason.startswith("old is chosen at most")


def test_parity_fails_and_passes_exactly_at_its_rule() -> None:
    groups = {"old": chosen(300, 1000), "young": chosen(500, 1000)}
    old, young = rate_bounds(300, 1000, 0.025), rate_bounds(500, 1000, 0.025)
    most, least = old[1] / young[0], old[0] / young[1]
    cases = [
        (math.nextafter(most, 1), "fail"), (most, "inconclusive"),
        (math.nextafter(least, 1), "inconclusive"), (least, "pass"),
    ]  # fmt: skip
    for rule, answer in cases:
        assert judge_parity(groups, 0.05, rule).verdict == answer


@pytest.mark.parametrize(
    ("decisions", "answer"), [(1000, "fail"), (1001, "inconclusive")]
)
def test_parity_leaves_small_groups_out(decisions: int, answer: str) -> None:
    groups = {"old": chosen(100, 1000), "young": chosen(900, 2000)}
    verdict = judge_parity(groups, 0.05, minimum=Minimum(decisions))
    assert verdict.verdict == answer


def test_a_group_nobody_was_chosen_from_is_compared_too() -> None:
    groups = {"none": chosen(0, 1000), "other": chosen(0, 1000)}
    assert judge_parity(groups, 0.05).verdict == "inconclusive"
    groups["some"] = chosen(500, 1000)
    assert judge_parity(groups, 0.05).verdict == "fail"


def test_another_rate_can_be_compared() -> None:
    groups = {"a": Confusion(90, 0, 900, 10), "b": Confusion(20, 0, 900, 80)}
    assert judge_parity(groups, 0.05).verdict == "fail"
    verdict = judge_parity(groups, 0.05, of=lambda c: (c.true_positive, c.positive))
    assert verdict.numbers["b_upper"] == pytest.approx(rate_bounds(20, 100, 0.025)[1])


def test_one_group_alone_has_no_disparity() -> None:
    found = disparity({"a": golden()["a"]}, ANY)
    assert math.isnan(found.demographic_parity_difference)
    assert math.isnan(found.demographic_parity_ratio)
