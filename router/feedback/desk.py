"""Where reports come in: joined, handed to the writer, answered once they are stored.

The desk owns the writer and the fold. Callers are method threads; `done` of a message
is called on the writer's thread, in the order in which messages came. A message is
stored whole or not at all.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.clock import Clock
from router.errors import RouterError, StoreError
from router.feedback.evidence import LabelEvidence, Question, label_evidence
from router.feedback.fold import EVERYONE, Folded, LabelFold
from router.feedback.join import (
    DIFFERENT,
    JOINED,
    SAME,
    Answer,
    Catalogue,
    Outcome,
    Report,
    Terms,
    join,
)
from router.feedback.writer import Folding, LabelWriter, Place
from router.store.labels import Added, LabelRow

Read = Callable[[Sequence[tuple[int, bytes]], Iterable[str]], list[list[Any] | None]]
Done = Callable[[tuple[Answer, ...] | StoreError], None]
_ANSWERS = {Added.STORED: JOINED, Added.SAME: SAME, Added.DIFFERENT: DIFFERENT}


class BusyError(RouterError):
    """More feedback waits to be stored than is allowed to."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where labels are kept, how long they may take, when a cohort is mature."""

    place: Place
    terms: Terms = field(default_factory=Terms)
    maturity_s: float = 72 * 3600.0


class FeedbackDesk:
    """Owner of the writer and the fold. Any thread may report and ask."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Callable[[], Catalogue],
        read: Read,
        clock: Clock,
    ) -> None:
        self._settings, self._catalogue = settings, catalogue
        self._read, self._clock = read, clock
        self._lock = threading.Lock()
        self._outcomes = dict.fromkeys(Outcome, 0)
        terms = settings.terms
        self.fold = LabelFold(lambda m: catalogue().models.get(m), settings.maturity_s)
        folding = Folding(self.fold.add, self.fold.restore, self.fold.forget)
        self.writer = LabelWriter(settings.place, folding, clock, terms.retention_s)

    def start(self) -> None:
        self.writer.start()

    def close(self) -> None:
        """Answer what was taken; from now on nothing is."""
        self.writer.close()

    def report(self, reports: Sequence[Report], done: Done) -> None:
        """Take the reports of a message; BusyError when they cannot wait in line.

        `done` gets an answer for each, in order, or what kept them from being stored.
        """
        catalogue, now = self._catalogue(), self._clock.now()
        ids = (report.prediction_id for report in reports)
        read = self._read(catalogue.keys, ids)
        terms = self._settings.terms
        found = [
            join(report, prediction, catalogue, terms, now)
            for report, prediction in zip(reports, read, strict=True)
        ]
        rows = tuple(one for one in found if isinstance(one, LabelRow))

        def stored(result: tuple[Added, ...] | StoreError) -> None:
            if isinstance(result, StoreError):
                done(result)
            else:
                done(self._answers(found, result))

        if not self.writer.submit(rows, stored):
            raise BusyError("too much feedback waits to be stored")

    def outcomes(self) -> dict[str, int]:
        """How many reports were answered so, by outcome."""
        with self._lock:
            return {outcome.name: n for outcome, n in self._outcomes.items()}

    def evidence(
        self,
        model: str,
        rule: str,
        metric: str,
        *,
        slice_name: str = EVERYONE,
        rollout_revision: int | None = None,
    ) -> LabelEvidence:
        """What labels of a metric say now about the versions under a rule.

        `rule` is empty for requests that no rule matched. ValueError names a model or
        rule that the catalogue does not have.
        """
        catalogue = self._catalogue()
        model_hash = _hash_of(model, {h: m.name for h, m in catalogue.models.items()})
        rule_hash = _hash_of(rule, catalogue.rules) if rule else 0
        counts = self.fold.counts
        question = Question(
            model, rule, rule_hash, metric, catalogue.models[model_hash].kind,
            slice_name, rollout_revision,
            self.fold.is_complete and not (counts.keys_full or counts.units_full),
        )  # fmt: skip
        folded = self.fold.read(model_hash, metric)
        return label_evidence(
            question, folded, self._settings.maturity_s, self._clock.now()
        )

    def folded(self, model_hash: int, metric: str) -> tuple[Folded, ...] | None:
        """The sums of a metric, by stratum and cohort; None while they are incomplete.

        Incomplete: labels from before the start are still being read, or a bound left
        some out.
        """
        counts = self.fold.counts
        if not self.fold.is_complete or counts.keys_full or counts.units_full:
            return None
        return self.fold.read(model_hash, metric)

    @property
    def maturity_s(self) -> float:
        """How old a cohort has to be before it may promote."""
        return self._settings.maturity_s

    def _answers(
        self, found: Sequence[LabelRow | Answer], added: tuple[Added, ...]
    ) -> tuple[Answer, ...]:
        results = iter(added)
        answers = tuple(
            one if isinstance(one, Answer) else _ANSWERS[next(results)] for one in found
        )
        with self._lock:
            for answer in answers:
                self._outcomes[answer.outcome] += 1
        return answers


def _hash_of(name: str, names: dict[int, str] | Any) -> int:
    for number, known in names.items():
        if known == name:
            return int(number)
    raise ValueError(f"feedback knows no '{name}'")
