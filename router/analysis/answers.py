"""Two versions' answers to one request: in what do they differ, and how much?

Pure and for one pair; `lab/replay.py` counts over many. What a client could trip over
(an output that is gone, another datatype or shape, a number that is none, a value
outside the declared range) is told apart from what is merely another answer, because
the first is wrong however seldom it happens and the second is judged by how often.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]

# In order of severity; the first five are faults, the others differences.
FAULTS = ("missing", "datatype", "shape", "nan", "range")
DECIDES = ("probability", "class", "embedding", "ranking")
RANKS_MAX = 10  # places of a ranking that are compared


@dataclass(frozen=True, slots=True)
class Expected:
    """What is declared of the output that is judged; without a tensor: nothing."""

    tensor: str = ""
    index: int = 0
    kind: str = "value"
    low: float = -math.inf
    high: float = math.inf
    is_finite: bool = True
    threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Numbers agree within `absolute + relative * |stable's|`."""

    absolute: float = 1e-5
    relative: float = 1e-3


@dataclass(frozen=True, slots=True)
class Difference:
    """What is different in a pair; `found` says for each kind where and what.

    `distance` is the largest excess of a value over nothing at all, absolute.
    `disagrees` says that the decision is another one: of a class or a probability; of
    other outputs, that a number is beyond the tolerance.
    """

    found: Mapping[str, str] = field(default_factory=dict)
    distance: float = 0.0
    disagrees: bool = False

    @property
    def is_faulty(self) -> bool:
        return any(kind in self.found for kind in FAULTS)


def compare_answers(
    stable: Outputs, candidate: Outputs, expected: Expected, tolerance: Tolerance
) -> Difference:
    """In what the candidate's answer differs from stable's."""
    found: dict[str, str] = {}
    distance = 0.0
    for name, reference in stable.items():
        other = candidate.get(name)
        wrong = _form(name, reference, other)
        if wrong is not None:
            found.setdefault(*wrong)
            continue
        assert other is not None
        if _lost_numbers(reference, other) or (
            name == expected.tensor and expected.is_finite and not _is_finite(other)
        ):
            found.setdefault("nan", f"output '{name}' has NaN or infinity")
        if reference.dtype.kind in "SUO":
            if not np.array_equal(reference, other):
                found.setdefault("value", f"output '{name}' has other texts")
            continue
        gap, excess = _gap(reference, other, tolerance)
        distance = max(distance, gap)
        if excess > 0:
            found.setdefault("value", f"output '{name}' differs by {gap:.6g}")
    judged = candidate.get(expected.tensor)
    if judged is not None and judged.dtype.kind not in "SUO":
        outside = _outside(judged, expected)
        if outside is not None:
            found.setdefault("range", outside)
    disagrees = "value" in found
    is_comparable = not any(kind in found for kind in FAULTS[:4])
    if expected.kind in DECIDES and expected.tensor in stable and is_comparable:
        pair = stable[expected.tensor], candidate[expected.tensor]
        disagrees = _decides_otherwise(*pair, expected, tolerance)
        if disagrees:
            found["decision"] = f"output '{expected.tensor}': another {expected.kind}"
    return Difference(found, distance, disagrees)


def _form(name: str, stable: Array, other: Array | None) -> tuple[str, str] | None:
    if other is None:
        return "missing", f"output '{name}' is missing"
    if other.dtype != stable.dtype:
        return "datatype", f"output '{name}' is {other.dtype}, not {stable.dtype}"
    if other.shape != stable.shape:
        shapes = f"{list(other.shape)}, not {list(stable.shape)}"
        return "shape", f"output '{name}' has shape {shapes}"
    return None


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _lost_numbers(stable: Array, other: Array) -> bool:
    if stable.dtype.kind != "f":
        return False
    return bool((np.isfinite(stable) & ~np.isfinite(other)).any())


def _gap(stable: Array, other: Array, tolerance: Tolerance) -> tuple[float, float]:
    """The largest difference of two numbers, and by how much one is beyond what is
    tolerated; where either is not a number there is no difference to measure."""
    if stable.size == 0:
        return 0.0, 0.0
    a, b = stable.astype(np.float64), other.astype(np.float64)
    gaps = np.abs(a - b, where=np.isfinite(a) & np.isfinite(b), out=np.zeros_like(a))
    allowed = tolerance.absolute + tolerance.relative * np.abs(a)
    excess = np.where(gaps > 0, gaps - allowed, 0.0)
    return float(gaps.max()), float(np.nan_to_num(excess).max())


def _outside(array: Array, expected: Expected) -> str | None:
    values = array.astype(np.float64).ravel()
    values = values[np.isfinite(values)]
    if values.size == 0:
        return None
    low, high = float(values.min()), float(values.max())
    wrong = low if low < expected.low else high
    if expected.low <= low and high <= expected.high:
        return None
    limits = f"[{expected.low:g}, {expected.high:g}]"
    return f"output '{expected.tensor}' has {wrong:g}, outside {limits}"


def _decides_otherwise(
    stable: Array, other: Array, expected: Expected, tolerance: Tolerance
) -> bool:
    a, b = _rows(stable), _rows(other)
    if a.size == 0:
        return False
    match expected.kind:
        case "probability":
            column = min(expected.index, a.shape[1] - 1)
            above = (one[:, column] >= expected.threshold for one in (a, b))
            return bool((next(above) != next(above)).any())
        case "class":
            return bool((_classes(a) != _classes(b)).any())
        case "embedding":
            return bool((_cosine_distance(a, b) > tolerance.absolute).any())
        case _:
            return bool((_ranked(a) != _ranked(b)).any())


def _rows(array: Array) -> npt.NDArray[np.float64]:
    """Rows of numbers; a vector is one value a row."""
    values = array.astype(np.float64)
    if values.ndim == 0:
        return values.reshape(1, 1)
    return values.reshape(len(values), -1)


def _classes(rows: npt.NDArray[np.float64]) -> Array:
    """A column is the class itself, several are its scores."""
    chosen: Array = rows[:, 0] if rows.shape[1] == 1 else rows.argmax(axis=1)
    return chosen


def _cosine_distance(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    cosine = np.divide(products, norms, where=norms > 0, out=np.ones_like(norms))
    distance: npt.NDArray[np.float64] = 1 - cosine
    return distance


def _ranked(rows: npt.NDArray[np.float64]) -> Array:
    order: Array = np.argsort(-rows, axis=1, kind="stable")[:, :RANKS_MAX]
    return order
