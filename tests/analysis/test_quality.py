"""Quality from sums: each metric by hand, and merging that loses nothing."""

import math
from functools import reduce
from operator import add
from typing import Any

import pytest

from router.analysis.quality import (
    Confusion,
    Errors,
    Probabilities,
    Rewards,
    confused,
    foreseen,
    missed,
    rewarded,
)


def test_a_confusion_gives_its_rates() -> None:
    counts = Confusion(
        true_positive=6, false_positive=2, true_negative=10, false_negative=3
    )
    assert counts.total == 21
    assert counts.accuracy == pytest.approx(16 / 21)
    assert counts.precision == pytest.approx(6 / 8)
    assert counts.recall == pytest.approx(6 / 9)
    assert counts.false_positive_rate == pytest.approx(2 / 12)
    assert counts.selection_rate == pytest.approx(8 / 21)


@pytest.mark.parametrize(
    ("is_predicted", "is_true", "name"),
    [
        (True, True, "true_positive"), (True, False, "false_positive"),
        (False, False, "true_negative"), (False, True, "false_negative"),
    ],
)  # fmt: skip
def test_one_prediction_is_in_one_cell(
    is_predicted: bool, is_true: bool, name: str
) -> None:
    assert confused(is_predicted, is_true) == Confusion(**{name: 1})


def test_probabilities_give_loss_and_calibration() -> None:
    seen = [(0.9, True), (0.8, True), (0.2, False), (0.25, True)]
    sums = reduce(add, (foreseen(p, y) for p, y in seen))
    loss = -(math.log(0.9) + math.log(0.8) + math.log(0.8) + math.log(0.25)) / 4
    assert sums.log_loss == pytest.approx(loss)
    assert sums.brier == pytest.approx((0.01 + 0.04 + 0.04 + 0.5625) / 4)
    # Bins of a tenth: 0.9 and 0.8 alone in theirs, 0.2 and 0.25 share one.
    gap = (0.1 + 0.2 + abs(0.45 - 1)) / 4
    assert sums.calibration_error == pytest.approx(gap)


def test_a_certain_mistake_costs_much_and_not_infinitely() -> None:
    assert foreseen(1.0, False).log_loss == pytest.approx(34.539, abs=1e-3)
    assert foreseen(0.0, True).log_loss == pytest.approx(34.539, abs=1e-3)
    assert foreseen(1.0, True).bin_units[-1] == 1
    for wrong in (-0.1, 1.1):
        with pytest.raises(AssertionError):
            foreseen(wrong, True)


def test_errors_give_bias_mae_and_rmse() -> None:
    sums = missed(3.0, 1.0) + missed(1.0, 2.0)
    assert sums.bias == pytest.approx(0.5)
    assert sums.mae == pytest.approx(1.5)
    assert sums.rmse == pytest.approx(math.sqrt(2.5))


def test_rewards_give_mean_and_variance() -> None:
    sums = rewarded(1.0) + rewarded(2.0) + rewarded(6.0)
    assert sums.mean == pytest.approx(3.0)
    assert sums.variance == pytest.approx(7.0)
    assert math.isnan(rewarded(1.0).variance)
    assert (rewarded(0.1) + rewarded(0.1)).variance == 0.0


def test_of_nothing_there_is_no_metric() -> None:
    nothing: list[tuple[Any, list[str]]] = [
        (Confusion(), ["accuracy", "precision", "recall", "selection_rate",
                       "false_positive_rate"]),
        (Probabilities(), ["log_loss", "brier", "calibration_error"]),
        (Errors(), ["bias", "mae", "rmse"]),
        (Rewards(), ["mean", "variance"]),
    ]  # fmt: skip
    for sums, names in nothing:
        for name in names:
            assert math.isnan(getattr(sums, name)), name


def test_merging_in_any_order_gives_the_same_sums() -> None:
    parts = [foreseen(p, p > 0.4) for p in (0.0, 0.25, 0.5, 1.0)]
    assert reduce(add, parts) == reduce(add, reversed(parts))
    assert Confusion(1, 2, 3, 4) + Confusion(10, 20, 30, 40) == Confusion(
        11, 22, 33, 44
    )
