"""What labels add up to: numbers whose sum over any parts is that of the whole.

One vector of floats per key; merging is adding, in any order, so replicas, restarts and
slices come to the same. The measures people read (accuracy, log loss, calibration) are
functions of such a vector. Squares are kept beside sums, for standard errors.

The score comes from the prediction id: no log of predictions is needed. It is rounded
to a 32-bit float there, which is why log loss clips at 1e-7 and not closer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, auto

from router.feedback.join import LABEL, REWARD, ModelTruth
from router.store.labels import LabelRow

CLIP = 1e-7
BINS = 10


class Sum(IntEnum):
    """The places of the vector."""

    JOINED = 0  # rows of any metric
    LABELS = auto()  # labels that could be compared with a score
    UNUSABLE = auto()  # labels without a score, or outside what the kind allows
    TRUE_POSITIVE = auto()
    FALSE_POSITIVE = auto()
    TRUE_NEGATIVE = auto()
    FALSE_NEGATIVE = auto()
    RIGHT = auto()
    LOG_LOSS = auto()
    LOG_LOSS_SQUARES = auto()
    BRIER = auto()
    BRIER_SQUARES = auto()
    ERROR = auto()  # score less label: bias
    ERROR_ABSOLUTE = auto()
    ERROR_SQUARES = auto()
    VALUES = auto()  # rewards, or values of a named metric
    VALUE = auto()
    VALUE_SQUARES = auto()
    ERROR_FOURTHS = auto()  # for the standard error of squared errors
    CONVERTED = auto()  # values above zero
    BEFORE = auto()  # the unit's value before the experiment, where it is known
    BEFORE_SQUARES = auto()
    BEFORE_VALUE = auto()  # its product with the value
    BIN_COUNT = 23  # calibration: BINS counts, as many sums of scores, and of labels
    BIN_SCORE = 33
    BIN_LABEL = 43


SIZE = Sum.BIN_LABEL + BINS
Sums = tuple[float, ...]
NOTHING: Sums = (0.0,) * SIZE


@dataclass(frozen=True, slots=True)
class Bin:
    """A calibration bin: how many scores fell into it, their mean, the labels' mean."""

    count: int
    score: float
    label: float


@dataclass(frozen=True, slots=True)
class Measures:
    """What people read. None where there is nothing to divide by."""

    labels: int
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    log_loss: float | None = None
    brier: float | None = None
    calibration_error: float | None = None
    calibration: tuple[Bin, ...] = ()
    mae: float | None = None
    rmse: float | None = None
    bias: float | None = None
    mean: float | None = None
    """Of rewards, or of the named metric."""


def add_row(
    sums: list[float], row: LabelRow, truth: ModelTruth, before: float = 0.0
) -> bool:
    """Count one row; whether it shows a wrong prediction (a negative label).

    For a value there is no right and wrong, and a row of rewards has no label.
    `before` is the unit's value from before the experiment, 0 when it is not known.
    """
    sums[Sum.JOINED] += 1
    if row.metric != LABEL:
        sums[Sum.VALUES] += 1
        sums[Sum.VALUE] += row.value
        sums[Sum.VALUE_SQUARES] += row.value * row.value
        sums[Sum.CONVERTED] += row.value > 0
        if before:
            sums[Sum.BEFORE] += before
            sums[Sum.BEFORE_SQUARES] += before * before
            sums[Sum.BEFORE_VALUE] += before * row.value
        return row.metric == REWARD and row.value < 0
    score = row.score
    if score is None:
        sums[Sum.UNUSABLE] += 1
        return False
    match truth.kind:
        case "probability":
            return _add_probability(sums, score, row.value, truth.threshold)
        case "class":
            return _add_class(sums, score, row.value)
        case _:
            _add_value(sums, score, row.value)
            return False


def _add_probability(
    sums: list[float], score: float, label: float, threshold: float
) -> bool:
    if label not in (0.0, 1.0) or not 0.0 <= score <= 1.0:
        sums[Sum.UNUSABLE] += 1
        return False
    sums[Sum.LABELS] += 1
    is_positive = score >= threshold
    if label:
        cell = Sum.TRUE_POSITIVE if is_positive else Sum.FALSE_NEGATIVE
    else:
        cell = Sum.FALSE_POSITIVE if is_positive else Sum.TRUE_NEGATIVE
    sums[cell] += 1
    is_right = is_positive == bool(label)
    sums[Sum.RIGHT] += is_right
    loss = -math.log(max(score if label else 1 - score, CLIP))
    sums[Sum.LOG_LOSS] += loss
    sums[Sum.LOG_LOSS_SQUARES] += loss * loss
    brier = (score - label) ** 2
    sums[Sum.BRIER] += brier
    sums[Sum.BRIER_SQUARES] += brier * brier
    at = min(int(score * BINS), BINS - 1)
    sums[Sum.BIN_COUNT + at] += 1
    sums[Sum.BIN_SCORE + at] += score
    sums[Sum.BIN_LABEL + at] += label
    return not is_right


def _add_class(sums: list[float], score: float, label: float) -> bool:
    sums[Sum.LABELS] += 1
    is_right = score == label
    sums[Sum.RIGHT] += is_right
    return not is_right


def _add_value(sums: list[float], score: float, label: float) -> None:
    error = score - label
    sums[Sum.LABELS] += 1
    sums[Sum.ERROR] += error
    sums[Sum.ERROR_ABSOLUTE] += abs(error)
    sums[Sum.ERROR_SQUARES] += error * error
    sums[Sum.ERROR_FOURTHS] += error**4


def merge(left: Sequence[float], right: Sequence[float]) -> Sums:
    """The sums of both parts together."""
    return tuple(a + b for a, b in zip(left, right, strict=True))


def measure(sums: Sequence[float], kind: str) -> Measures:
    """What the sums say, for an output of this kind."""
    labels = sums[Sum.LABELS]
    mean = _ratio(sums[Sum.VALUE], sums[Sum.VALUES])
    if kind == "probability":
        found = sums[Sum.TRUE_POSITIVE]
        return Measures(
            int(labels),
            accuracy=_ratio(sums[Sum.RIGHT], labels),
            precision=_ratio(found, found + sums[Sum.FALSE_POSITIVE]),
            recall=_ratio(found, found + sums[Sum.FALSE_NEGATIVE]),
            log_loss=_ratio(sums[Sum.LOG_LOSS], labels),
            brier=_ratio(sums[Sum.BRIER], labels),
            calibration_error=_calibration_error(sums),
            calibration=_bins(sums),
            mean=mean,
        )
    if kind == "class":
        return Measures(
            int(labels), accuracy=_ratio(sums[Sum.RIGHT], labels), mean=mean
        )
    squares = _ratio(sums[Sum.ERROR_SQUARES], labels)
    return Measures(
        int(labels),
        mae=_ratio(sums[Sum.ERROR_ABSOLUTE], labels),
        rmse=None if squares is None else math.sqrt(squares),
        bias=_ratio(sums[Sum.ERROR], labels),
        mean=mean,
    )


def _bins(sums: Sequence[float]) -> tuple[Bin, ...]:
    counts = sums[Sum.BIN_COUNT : Sum.BIN_SCORE]
    scores = sums[Sum.BIN_SCORE : Sum.BIN_LABEL]
    labels = sums[Sum.BIN_LABEL :]
    return tuple(
        Bin(int(n), s / n if n else 0.0, y / n if n else 0.0)
        for n, s, y in zip(counts, scores, labels, strict=True)
    )


def _calibration_error(sums: Sequence[float]) -> float | None:
    """The expected calibration error: |mean score - mean label|, weighted by bin."""
    gaps = sum(
        abs(sums[Sum.BIN_SCORE + at] - sums[Sum.BIN_LABEL + at]) for at in range(BINS)
    )
    return _ratio(gaps, sums[Sum.LABELS])


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
