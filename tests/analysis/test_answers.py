"""What two versions may differ in, each kind told apart."""

import math
from typing import Any

import numpy as np
import pytest

from router.analysis.answers import (
    Difference,
    Expected,
    Tolerance,
    compare_answers,
)

LOOSE = Tolerance(absolute=0.0, relative=0.1)


def f32(*values: float) -> Any:
    return np.array([values], np.float32)


def compared(stable: Any, candidate: Any, **expected: Any) -> Difference:
    declared = Expected(**({"tensor": "y"} | expected)) if expected else Expected()
    return compare_answers({"y": stable}, {"y": candidate}, declared, LOOSE)


def test_equal_answers_differ_in_nothing() -> None:
    assert compared(f32(1, 2), f32(1, 2)) == Difference({}, 0.0, False)


def test_a_number_at_the_tolerance_agrees_and_one_beyond_does_not() -> None:
    assert not compared(f32(100), f32(110)).found
    beyond = compared(f32(100), f32(110.1))
    assert set(beyond.found) == {"value"}
    assert beyond.disagrees
    assert not beyond.is_faulty


def test_the_tolerance_is_relative_to_the_stable_answer() -> None:
    tolerance = Tolerance(absolute=0.5, relative=0.0)
    near = compare_answers({"y": f32(0)}, {"y": f32(0.5)}, Expected(), tolerance)
    far = compare_answers({"y": f32(0)}, {"y": f32(0.51)}, Expected(), tolerance)
    assert not near.found
    assert far.disagrees
    assert far.distance == pytest.approx(0.51)


@pytest.mark.parametrize(
    ("candidate", "kind"),
    [
        (np.array([[1, 2]], np.float64), "datatype"),
        (np.array([[1], [2]], np.float32), "shape"),
        (f32(1, math.nan), "nan"),
        (f32(1, math.inf), "nan"),
    ],
)
def test_an_answer_of_another_form_is_a_fault(candidate: Any, kind: str) -> None:
    found = compared(f32(1, 2), candidate)
    assert kind in found.found
    assert found.is_faulty


def test_an_output_that_is_gone_is_a_fault() -> None:
    found = compare_answers({"y": f32(1)}, {"z": f32(1)}, Expected(), LOOSE)
    assert found.found == {"missing": "output 'y' is missing"}
    assert found.is_faulty


def test_a_nan_that_stable_has_too_is_no_news_unless_declared_finite() -> None:
    both = f32(1, math.nan), f32(1, math.nan)
    assert not compared(*both).found
    assert "nan" in compared(*both, is_finite=True).found
    assert not compared(*both, is_finite=False).found


def test_the_declared_range_is_inclusive() -> None:
    assert not compared(f32(0.95), f32(1), low=0, high=1).found
    assert "range" in compared(f32(0.95), f32(1.01), low=0, high=1).found
    assert "range" in compared(f32(0.01), f32(-0.001), low=0, high=1).found


def test_a_probability_disagrees_when_it_crosses_the_threshold() -> None:
    kind = {"kind": "probability", "index": 1, "threshold": 0.5}
    moved = compared(f32(0.9, 0.1), f32(0.6, 0.4), **kind)
    assert "value" in moved.found
    assert not moved.disagrees
    assert not compared(f32(0.5, 0.5), f32(0.4, 0.6), **kind).disagrees
    assert compared(f32(0.5, 0.5), f32(0.51, 0.49), **kind).disagrees


def test_a_class_disagrees_when_another_score_is_the_highest() -> None:
    assert not compared(f32(1, 5, 2), f32(3, 4, 3), kind="class").disagrees
    assert compared(f32(1, 5, 2), f32(5, 1, 2), kind="class").disagrees
    single = np.array([[3]], np.int64), np.array([[4]], np.int64)
    assert compared(*single, kind="class").disagrees


def test_embeddings_agree_by_direction() -> None:
    near = Tolerance(absolute=0.01, relative=0.0)
    declared = Expected("y", kind="embedding")

    def disagrees(candidate: Any) -> bool:
        pair = {"y": f32(1, 0)}, {"y": candidate}
        return compare_answers(*pair, declared, near).disagrees

    assert not disagrees(f32(7, 0))
    assert disagrees(f32(1, 0.5))


def test_rankings_agree_by_order() -> None:
    assert not compared(f32(3, 2, 1), f32(9, 5, 1), kind="ranking").disagrees
    assert compared(f32(3, 2, 1), f32(3, 1, 2), kind="ranking").disagrees


def test_texts_are_equal_or_not() -> None:
    one, other = np.array([b"a"], object), np.array([b"b"], object)
    assert not compared(one, one).found
    assert compared(one, other).disagrees
