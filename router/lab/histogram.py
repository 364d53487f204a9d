"""Input histograms of a recording, with edges that every environment shares.

A bin for every power of two and sign, one for zero, one for what is not a number: no
edges have to be agreed upon, so two environments' counts can be laid side by side. A
column is a feature; of wide inputs the first columns are looked at.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

LOW, HIGH = -16, 24  # exponents with a bin of their own; beyond: the outermost
SIDE = HIGH - LOW + 1
NOT_A_NUMBER = 2 * SIDE + 1
BINS = 2 * SIDE + 2  # negatives, zero, positives, not a number
COLUMNS_MAX = 64
FEATURES_MAX = 1000


def bin_of(value: float) -> int:
    """Which bin a value falls into; bins are ordered as values are."""
    if not math.isfinite(value):
        return NOT_A_NUMBER
    if value == 0:
        return SIDE
    exponent = min(max(math.frexp(value)[1], LOW), HIGH)
    above = exponent - LOW
    return SIDE + 1 + above if value > 0 else SIDE - 1 - above


class InputHistograms:
    """Owner of the counts, by model, input and column."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}

    def add(self, model: str, inputs: Mapping[str, Any]) -> None:
        """Count the first row of a request: a request is one observation."""
        for name, array in inputs.items():
            for column, value in _first_row(array):
                key = f"{model}/{name}[{column}]"
                if key not in self._counts and len(self._counts) >= FEATURES_MAX:
                    continue
                self._counts.setdefault(key, [0] * BINS)[bin_of(value)] += 1

    def counts(self) -> dict[str, tuple[int, ...]]:
        return {key: tuple(counts) for key, counts in sorted(self._counts.items())}


def _first_row(array: Any) -> Iterator[tuple[int, float]]:
    if array.size == 0 or array.dtype.kind not in "fiub":
        return
    row = array.reshape(len(array), -1)[0] if array.ndim > 1 else array.ravel()
    yield from enumerate(map(float, row[:COLUMNS_MAX]))
