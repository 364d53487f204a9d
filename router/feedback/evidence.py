"""What labels say about the versions under a rule, as a frozen value that gates read.

Two readings of one fold. `early` is every label there is: a proxy that looks bad may
end a rollout, whatever its age. `mature` is what may promote: only cohorts that closed
at least the maturity time ago, and of these only the labels that came within that time,
so that every cohort had equally long. Nothing here judges; the counts per stratum let a
judge bet with the propensities of the decisions, never with today's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from router.feedback.fold import COHORT_S, EVERYONE, Folded
from router.feedback.sums import NOTHING, Measures, Sum, Sums, measure, merge


@dataclass(frozen=True, slots=True)
class Stratum:
    """Labels of one version under one propensity: what a label bet is made with.

    `propensity_bp` is the chance, in basis points, with which a unit like these got
    this version; `joined` counts rows, `negatives` first negative labels per unit.
    """

    rollout_revision: int
    propensity_bp: int
    is_sticky: bool
    version: int
    joined: int
    negatives: int


@dataclass(frozen=True, slots=True)
class VersionLabels:
    """The labels of one version: the sums, and the measures they come to."""

    version: int
    sums: Sums
    measures: Measures

    @property
    def joined(self) -> int:
        return int(self.sums[Sum.JOINED])


@dataclass(frozen=True, slots=True)
class Reading:
    """Labels by version, ascending, and by stratum."""

    versions: tuple[VersionLabels, ...] = ()
    strata: tuple[Stratum, ...] = ()

    def of(self, version: int) -> VersionLabels | None:
        return next((one for one in self.versions if one.version == version), None)


@dataclass(frozen=True, slots=True)
class LabelEvidence:
    """The labels of a metric under a rule and in a slice, at one instant.

    `cohorts` counts the hours that `mature` is made of; `newest_mature_s` is the end of
    the last of them, 0 without one. `is_complete` is False while labels from before the
    start are still being read, or when a bound left some out: then nothing may pass.
    """

    model: str
    rule: str
    metric: str
    slice: str
    at_s: float
    maturity_s: float
    early: Reading
    mature: Reading
    cohorts: int
    newest_mature_s: float
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Question:
    """Which labels are asked for. Revision None is all of them."""

    model: str
    rule: str
    rule_hash: int
    metric: str
    kind: str
    slice: str = EVERYONE
    rollout_revision: int | None = None
    is_complete: bool = True

    def wants(self, one: Folded) -> bool:
        revisions = (None, one.key.rollout_revision)
        return (
            one.key.rule == self.rule_hash
            and one.key.slice == self.slice
            and self.rollout_revision in revisions
        )


@dataclass(slots=True)
class _Part:
    """A reading while it is being added up."""

    sums: dict[int, Sums]
    strata: dict[tuple[int, int, bool, int], list[int]]

    @classmethod
    def empty(cls) -> Self:
        return cls({}, {})

    def add(self, one: Folded, sums: Sequence[float], negatives: int) -> None:
        key = one.key
        before = self.sums.get(key.version, NOTHING)
        self.sums[key.version] = merge(before, sums)
        where = (key.rollout_revision, key.propensity_bp, key.is_sticky, key.version)
        counts = self.strata.setdefault(where, [0, 0])
        counts[0] += int(sums[Sum.JOINED])
        counts[1] += negatives

    def reading(self, kind: str) -> Reading:
        return Reading(
            tuple(
                VersionLabels(version, sums, measure(sums, kind))
                for version, sums in sorted(self.sums.items())
            ),
            tuple(
                Stratum(*where, *counts)
                for where, counts in sorted(self.strata.items())
            ),
        )


def label_evidence(
    question: Question, folded: Iterable[Folded], maturity_s: float, now: float
) -> LabelEvidence:
    """What the folded labels say now."""
    early, mature = _Part.empty(), _Part.empty()
    cohorts: set[int] = set()
    for one in folded:
        if not question.wants(one):
            continue
        early.add(one, merge(one.prompt, one.tail), one.negatives + one.tail_negatives)
        if is_mature(one.key.cohort, maturity_s, now):
            mature.add(one, one.prompt, one.negatives)
            cohorts.add(one.key.cohort)
    return LabelEvidence(
        question.model,
        question.rule,
        question.metric,
        question.slice,
        now,
        maturity_s,
        early.reading(question.kind),
        mature.reading(question.kind),
        len(cohorts),
        (max(cohorts) + 1) * COHORT_S if cohorts else 0.0,
        question.is_complete,
    )


def is_mature(cohort: int, maturity_s: float, now: float) -> bool:
    """Whether the cohort closed at least the maturity time ago."""
    return (cohort + 1) * COHORT_S + maturity_s <= now
