"""What two answers differ in, held against numpy on random tensors, by real models."""

from typing import Any

import numpy as np
import pytest
from plane import INFER, Plane
from shadows import ask, lookup, settled, shadowed

from router.control.options import find_runtime_library
from router.errors import EngineError
from router.plan.plan import Output, OutputKind, Shadow

ROWS, WIDTH = 40, 6
DRAW = np.random.default_rng(5)


def compared(
    stable: Any,
    other: Any,
    kind: OutputKind,
    *,
    together: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """The shadow's counters after every row was asked: one by one, or in one request.

    `settings` of Output: `index`, `threshold`; all others are the Shadow's.
    """
    output = {k: settings.pop(k) for k in ("index", "threshold") if k in settings}
    options = {"kind": "ort", "library": find_runtime_library()}
    with Plane(loops=1, shadow_queue=4096, shadow_wait_ms=20_000) as plane:
        for version, rows in ((1, stable), (2, other)):
            plane.engine.load("m", version, lookup(rows), options)
            plane.tags["m", version] = version
        made = Output("y", kind=kind, is_finite=False, **output)
        plane.publish(shadowed(Shadow("s", 1, **settings), output=made))
        plane.start()
        numbers = range(len(stable))
        for wanted in [ask(*numbers)] if together else [ask(n) for n in numbers]:
            result = plane.engine.call(INFER, wanted)
            assert result.code == 0, result.detail
        return settled(plane)


def spread(values: Any) -> dict[str, Any]:
    values = np.asarray(values, float)
    return {
        "count": len(values),
        "sum": pytest.approx(values.sum(), rel=1e-6, abs=1e-9),
        "sum_squares": pytest.approx((values**2).sum(), rel=1e-6, abs=1e-9),
        "max": pytest.approx(values.max(), rel=1e-6, abs=1e-9),
    }


def without_histogram(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "histogram"}


def flips(was: Any, now: Any) -> list[list[int]]:
    counted: dict[tuple[int, int], int] = {}
    for pair in zip(np.minimum(was, 7), np.minimum(now, 7), strict=True):
        counted[int(pair[0]), int(pair[1])] = counted.get(pair, 0) + 1
    return [[*key, count] for key, count in sorted(counted.items())]


def near(rows: Any, scale: float = 0.1) -> Any:
    return (rows + DRAW.normal(scale=scale, size=rows.shape)).astype(rows.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_probabilities_flip_at_the_threshold(dtype):
    a = DRAW.uniform(size=(ROWS, 2)).astype(dtype)
    b = near(a)
    found = compared(a, b, OutputKind.PROBABILITY, index=1, threshold=0.4)
    was, now = a[:, 1] >= 0.4, b[:, 1] >= 0.4
    assert found["disagreements"] == (was != now).sum() > 0
    assert found["flips"] == flips(was, now)
    distance = np.abs(a[:, 1].astype(float) - b[:, 1].astype(float))
    assert without_histogram(found["distance"]) == spread(distance)
    powers = np.clip(np.ceil(np.log2(distance)), -32, 31).astype(int)
    counted = np.stack(np.unique(powers, return_counts=True), axis=1)
    assert found["distance"]["histogram"] == counted.tolist()


def test_a_score_at_the_threshold_is_of_the_second_class():
    a = np.array([[0.5], [np.nextafter(np.float32(0.5), np.float32(0))]], np.float32)
    found = compared(a, a[::-1].copy(), OutputKind.PROBABILITY)
    assert found["flips"] == [[0, 1, 1], [1, 0, 1]]


def test_classes_are_the_greatest_score():
    a = DRAW.dirichlet(np.ones(10), size=ROWS).astype(np.float32)
    b = near(a, 0.05)
    found = compared(a, b, OutputKind.CLASS)
    was, now = a.argmax(1), b.argmax(1)
    assert found["disagreements"] == (was != now).sum() > 0
    assert found["flips"] == flips(was, now)
    variation = np.abs(a.astype(float) - b.astype(float)).sum(1) / 2
    assert without_histogram(found["distance"]) == spread(variation)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_labels_are_classes(dtype):
    a = DRAW.integers(0, 12, ROWS).astype(dtype)
    b = np.where(DRAW.uniform(size=ROWS) < 0.3, (a + 1) % 12, a).astype(dtype)
    found = compared(a, b, OutputKind.CLASS)
    assert found["disagreements"] == (a != b).sum() > 0
    assert found["flips"] == flips(a, b)


def test_labels_may_be_texts():
    a = np.array(["yes", "no", "no", ""], object)
    b = np.array(["yes", "yes", "no", ""], object)
    found = compared(a, b, OutputKind.CLASS)
    assert (found["pairs"], found["disagreements"], found["flips"]) == (4, 1, [])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_values_agree_within_the_tolerance(dtype):
    a = (DRAW.normal(size=(ROWS, WIDTH)) * 100).astype(dtype)
    b = near(a, 2.0)
    found = compared(a, b, OutputKind.VALUE, tolerance_abs=1.0, tolerance_rel=0.05)
    left, right = a.astype(float), b.astype(float)
    apart = np.abs(left - right)
    is_within = (apart <= 1.0 + 0.05 * np.abs(left)).all(1)
    assert found["pairs"] - found["disagreements"] == is_within.sum()
    assert 0 < is_within.sum() < ROWS
    assert without_histogram(found["distance"]) == spread(apart.max(1))
    assert found["relative"] == spread((apart / (np.abs(left) + 1e-9)).max(1))


def test_a_difference_of_the_tolerance_is_within_it():
    a, b = np.array([[1.0], [1.0]]), np.array([[1.5], [np.nextafter(1.5, 2)]])
    found = compared(a, b, OutputKind.VALUE, tolerance_abs=0.5, tolerance_rel=0)
    assert (found["pairs"], found["disagreements"]) == (2, 1)


def test_embeddings_are_compared_by_their_angle():
    a = DRAW.normal(size=(ROWS, 32)).astype(np.float32)
    b = near(a, 0.2)
    a[0] = b[0] = a[1] = 0
    found = compared(a, b, OutputKind.EMBEDDING, tolerance_abs=0.02)
    x, y = a[2:].astype(float), b[2:].astype(float)
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    cosine = np.concatenate([[1, 0], cosine])
    assert found["disagreements"] == (1 - cosine > 0.02).sum()
    assert 0 < found["disagreements"] < ROWS
    assert without_histogram(found["distance"]) == spread(1 - cosine)
    assert found["cosine"] == spread(cosine)


def rbo(a: list[Any], b: list[Any], p: float = 0.9) -> float:
    agreement = [len({*a[:d]} & {*b[:d]}) / d for d in range(1, len(a) + 1)]
    weights = [p**d for d in range(1, len(a) + 1)]
    total = sum(x * w for x, w in zip(agreement, weights, strict=True))
    return total * (1 - p) / p + agreement[-1] * p ** len(a)


@pytest.mark.parametrize("dtype", [np.int64, object])
def test_rankings_are_compared_by_overlap_and_rank(dtype):
    first = DRAW.permuted(np.tile(np.arange(20), (ROWS, 1)), axis=1)
    other = DRAW.permuted(np.tile(np.arange(20), (ROWS, 1)), axis=1)
    other[::4] = first[::4]
    a, b = first, other
    if dtype is object:
        a, b = first.astype(str).astype(object), other.astype(str).astype(object)
    found = compared(a, b, OutputKind.RANKING, top_k=8)
    tops = [(x[:8].tolist(), y[:8].tolist()) for x, y in zip(a, b, strict=True)]
    assert found["rbo"] == spread([rbo(x, y) for x, y in tops])
    assert found["overlap"] == spread([len({*x} & {*y}) / 8 for x, y in tops])
    assert found["disagreements"] == ROWS - len(tops[::4])


def test_scores_are_ranked():
    a = DRAW.normal(size=(ROWS, 12)).astype(np.float32)
    b = near(a, 0.3)
    found = compared(a, b, OutputKind.RANKING, top_k=5)
    orders = [(x.argsort()[::-1][:5], y.argsort()[::-1][:5])
              for x, y in zip(a, b, strict=True)]  # fmt: skip
    assert found["rbo"] == spread([rbo([*x], [*y]) for x, y in orders])


@pytest.mark.parametrize(
    ("other", "expected"),
    [([0, 1, 2, 3, 4, 5], 1.0), ([1, 0, 2, 3, 4, 5], 0.9),
     ([5, 4, 3, 2, 1, 0], 0.679428), ([6, 7, 8, 9, 10, 11], 0.0)],
)  # fmt: skip
def test_rank_biased_overlap_is_the_published_one(other, expected):
    a, b = np.array([range(6)]), np.array([other])
    found = compared(a, b, OutputKind.RANKING, top_k=6)
    assert found["rbo"]["sum"] == pytest.approx(expected, abs=1e-6)


def test_rows_of_one_request_make_one_pair_with_the_worst_figure():
    a = DRAW.uniform(size=(ROWS, 1)).astype(np.float32)
    b = near(a)
    found = compared(a, b, OutputKind.PROBABILITY, together=True)
    differ = ((a >= 0.5) != (b >= 0.5)).sum()
    assert (found["pairs"], found["disagreements"]) == (1, 1)
    assert (found["rows"], found["rows_differing"]) == (ROWS, differ)
    worst = np.abs(a.astype(float) - b.astype(float)).max()
    assert found["distance"]["max"] == pytest.approx(worst)


def test_what_is_not_a_number_never_agrees():
    nan, inf = float("nan"), float("inf")
    a = np.array([[1.0], [nan], [inf], [inf], [nan], [1.0]], np.float32)
    b = np.array([[nan], [1.0], [inf], [-inf], [nan], [1.0]], np.float32)
    found = compared(a, b, OutputKind.VALUE)
    assert (found["pairs"], found["nan"], found["disagreements"]) == (6, 4, 4)
    assert found["distance"]["count"] == 2


@pytest.mark.parametrize(
    ("other", "reason"),
    [(np.zeros((4, 3), np.float64), "dtype"), (np.zeros((4, 2), np.float32), "shape")],
)
def test_another_datatype_or_shape_never_agrees(other, reason):
    found = compared(np.zeros((4, 3), np.float32), other, OutputKind.VALUE)
    assert (found[reason], found["mismatched"], found["disagreements"]) == (4, 4, 4)


def test_identical_answers_are_no_distance_apart():
    a = DRAW.normal(size=(ROWS, WIDTH)).astype(np.float32)
    for kind in OutputKind:
        found = compared(a, a, kind)
        assert (found["pairs"], found["disagreements"]) == (ROWS, 0)
        assert found["distance"]["max"] == pytest.approx(0, abs=1e-9)


def test_a_version_of_several_threads_needs_a_session_of_its_own():
    options = {"kind": "ort", "library": find_runtime_library()}
    wide = {**options, "intra_op_threads": "2"}
    rows = np.zeros((2, 2), np.float32)
    with Plane(loops=1) as plane:
        plane.engine.load("m", 1, lookup(rows), options)
        plane.engine.load("m", 2, lookup(rows), wide)
        plane.tags |= {("m", 1): 1, ("m", 2): 2}
        model = shadowed(Shadow("s", 1))
        with pytest.raises(EngineError, match="needs a session of its own"):
            plane.publish(model)
        plane.engine.load("m", 2, lookup(rows), {**wide, "shadow": "1"})
        plane.publish(model)
        plane.start()
        assert plane.engine.call(INFER, ask(0, 1)).code == 0
        assert settled(plane)["pairs"] == 1
        plane.engine.unload("m", 2)
