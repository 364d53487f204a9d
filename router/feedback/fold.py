"""Every stored label, folded into sums by what a decision can ask for.

A key is one (metric, slice, stratum, version, cohort): the stratum is the rule, its
`rollout_revision`, the propensity and whether the unit was sticky, all as they were
when the prediction was made; the cohort is the hour it was made in. A restart folds the
store again, in the order of arrival, and comes to the same.

Labels that come within the maturity time and those that come later go to two vectors.
Cohorts are compared at equal age by taking only the first, of closed cohorts: a cohort
that has had a week must not be compared with one that has had a day.

A *negative label* counts once per unit and rule, as a first event, because labels of
one unit are not independent. Tests that need outcomes of both kinds read the *firsts*:
the sums of only the first row of each unit under its rule, whatever it says.

All memory is bounded; what a bound cost is counted, and evidence says so.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from router.feedback.join import ModelTruth
from router.feedback.sums import NOTHING, Sums, add_row
from router.store.labels import LabelRow

COHORT_S = 3600
KEYS_MAX = 100_000
SLICES_MAX = 64  # of a model; the others are one slice
UNITS_MAX = 1_000_000  # remembered for first events
BEFORE = "pre_exposure"  # the metric that tells a unit's value before the experiment
_SEEN, _NEGATIVE = 1, 2
EVERYONE, OTHER = "", "other"


class Key(NamedTuple):
    """What a vector of sums is about; a tuple, as thousands are hashed a second."""

    model: int
    rule: int
    rollout_revision: int
    propensity_bp: int
    is_sticky: bool
    version: int
    metric: str
    slice: str
    cohort: int


@dataclass(frozen=True, slots=True)
class Folded:
    """The sums of one key, of labels in time and of those after; first negatives.

    `firsts` and `tail_firsts` are the same sums over units: of each its first row.
    """

    key: Key
    prompt: Sums
    tail: Sums
    negatives: int
    tail_negatives: int = 0
    firsts: Sums = NOTHING
    tail_firsts: Sums = NOTHING


@dataclass(slots=True)
class FoldCounts:
    """What was left out of the sums, and why."""

    fallbacks: int = 0
    keys_full: int = 0
    units_full: int = 0
    unnamed: int = 0


class LabelFold:
    """Owner of the sums. One thread adds, any may read."""

    def __init__(
        self, truth: Callable[[int], ModelTruth | None], maturity_s: float
    ) -> None:
        self._truth, self._maturity_s = truth, maturity_s
        self._lock = threading.Lock()
        self._prompt: dict[Key, list[float]] = {}
        self._tail: dict[Key, list[float]] = {}
        self._negatives: dict[tuple[Key, bool], int] = {}
        self._firsts: dict[tuple[Key, bool], list[float]] = {}
        self._units: dict[tuple[int, int, str, int], int] = {}
        self._before: dict[tuple[int, int], float] = {}
        self._slices: dict[int, set[str]] = {}
        self._is_complete = False
        self.counts = FoldCounts()

    @property
    def is_complete(self) -> bool:
        """Whether everything from before the start has been counted."""
        return self._is_complete

    def add(self, rows: Sequence[LabelRow]) -> None:
        """Count rows that were stored now."""
        with self._lock:
            for row in rows:
                self._add(row)

    def restore(self, rows: Sequence[LabelRow], is_last: bool) -> None:
        """Count rows from before the start."""
        self.add(rows)
        self._is_complete = self._is_complete or is_last

    def forget(self, made_before_s: float) -> None:
        """Drop cohorts that are no longer kept."""
        before = int(made_before_s) // COHORT_S
        with self._lock:
            for sums in (self._prompt, self._tail):
                for key in [key for key in sums if key.cohort < before]:
                    del sums[key]
            for counts in (self._negatives, self._firsts):
                for counted in [one for one in counts if one[0].cohort < before]:
                    counts.pop(counted)

    def read(self, model: int, metric: str) -> tuple[Folded, ...]:
        """Every key of a model and metric."""
        with self._lock:
            keys = {
                key
                for sums in (self._prompt, self._tail)
                for key in sums
                if key.model == model and key.metric == metric
            }
            return tuple(
                Folded(
                    key,
                    tuple(self._prompt.get(key, NOTHING)),
                    tuple(self._tail.get(key, NOTHING)),
                    self._negatives.get((key, True), 0),
                    self._negatives.get((key, False), 0),
                    tuple(self._firsts.get((key, True), NOTHING)),
                    tuple(self._firsts.get((key, False), NOTHING)),
                )
                for key in sorted(keys)
            )

    def _add(self, row: LabelRow) -> None:
        truth = self._truth(row.model_hash)
        if truth is None:
            self.counts.unnamed += 1
            return
        if row.is_fallback:
            # Stable answered for a candidate: the label is neither's to be judged by.
            self.counts.fallbacks += 1
            return
        if row.metric == BEFORE:
            self._learn_before(row)
        is_prompt = row.observed_s - row.made_s <= self._maturity_s
        vectors = self._prompt if is_prompt else self._tail
        is_first = self._is_first(row, _SEEN)
        is_first_negative: bool | None = None
        before = self._before.get((row.model_hash, row.unit_tag), 0.0)
        for name in (EVERYONE, *self._slices_of(row)):
            key = Key(
                row.model_hash, row.rule_hash, row.rollout_revision, row.propensity_bp,
                bool(row.is_sticky), row.version, row.metric, name,
                row.made_s // COHORT_S,
            )  # fmt: skip
            sums = vectors.get(key)
            if sums is None:
                if len(self._prompt) + len(self._tail) >= KEYS_MAX:
                    self.counts.keys_full += 1
                    continue
                sums = vectors[key] = list(NOTHING)
            is_negative = add_row(sums, row, truth)
            counted = (key, is_prompt)
            if is_first:
                firsts = self._firsts.setdefault(counted, list(NOTHING))
                add_row(firsts, row, truth, before)
            if is_negative:
                if is_first_negative is None:
                    is_first_negative = self._is_first(row, _NEGATIVE)
                if is_first_negative:
                    self._negatives[counted] = self._negatives.get(counted, 0) + 1

    def _is_first(self, row: LabelRow, kind: int) -> bool:
        """Whether this is the unit's first row (or negative label) under its rule."""
        if not row.is_sticky:
            # Each request is a unit; its rows are one.
            return kind == _NEGATIVE or row.row == 0
        unit = (row.model_hash, row.rule_hash, row.metric, row.unit_tag)
        known = self._units.get(unit, 0)
        if known & kind:
            return False
        if not known and len(self._units) >= UNITS_MAX:
            self.counts.units_full += 1
            return False
        self._units[unit] = known | kind
        return True

    def _learn_before(self, row: LabelRow) -> None:
        """Remember a unit's value from before; the first one told stands."""
        unit = (row.model_hash, row.unit_tag)
        if row.is_sticky and unit not in self._before:
            if len(self._before) >= UNITS_MAX:
                self.counts.units_full += 1
                return
            self._before[unit] = row.value

    def _slices_of(self, row: LabelRow) -> list[str]:
        if not row.groups:
            return []
        known = self._slices.setdefault(row.model_hash, set())
        names = [f"{key}={value}" for key, value in json.loads(row.groups)]
        for name in names:
            if len(known) < SLICES_MAX:
                known.add(name)
        return sorted({name if name in known else OTHER for name in names})
