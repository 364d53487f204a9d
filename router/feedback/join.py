"""From a report to the label row it becomes, or to why it becomes none.

A prediction id carries everything that joining needs: when, by which model, version and
rule, with which propensity and score. So a label is attributed to what was served, on
any replica and after a restart, and the attribution never looks at what is served now.
Pure: the clock, the keys and the names come in as values.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from router.store.labels import LabelRow

LABEL, REWARD = "label", "reward"
CLOCK_SKEW_S = 300.0  # replicas' clocks differ; an id from further ahead is not ours


class Outcome(IntEnum):
    """What became of a report; the numbers are those of feedback.proto."""

    JOINED = 1
    DUPLICATE = 2
    LATE = 3
    UNKNOWN = 4


@dataclass(frozen=True, slots=True)
class Report:
    """One report as it came, checked for form. `observed_s` 0 is now."""

    prediction_id: str
    row: int
    metric: str
    value: float
    event: str = ""
    groups: tuple[tuple[str, str], ...] = ()
    observed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender of a report is told."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelTruth:
    """What a label of this model means: the kind of its output, and its threshold."""

    name: str
    kind: str = ""
    threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The keys whose ids are read, and the names behind an id's hashes."""

    keys: tuple[tuple[int, bytes], ...] = ()
    models: Mapping[int, ModelTruth] = field(default_factory=dict)
    rules: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a label may take, and how long it is kept. Seconds."""

    window_s: float = 7 * 86_400.0
    retention_s: float = 30 * 86_400.0


NOT_OURS = Answer(Outcome.UNKNOWN, "no prediction of this router's keys")
FROM_AHEAD = Answer(Outcome.UNKNOWN, "the prediction was made in the future")
NO_MODEL = Answer(Outcome.UNKNOWN, "its model is not served any more")
JOINED = Answer(Outcome.JOINED)
SAME = Answer(Outcome.DUPLICATE, "reported before")
DIFFERENT = Answer(
    Outcome.DUPLICATE, "reported before with another value, which stands"
)


def join(
    report: Report,
    prediction: Sequence[Any] | None,
    catalogue: Catalogue,
    terms: Terms,
    now: float,
) -> LabelRow | Answer:
    """The row to store, or the answer when there is none to store.

    `prediction` is the engine's reading of the id (`PREDICTION_FIELDS`).
    """
    if prediction is None:
        return NOT_OURS
    (
        made_s, model_hash, version, rule_hash, rollout_revision, variant, bucket,
        is_fallback, is_sticky, propensity_bp, score, unit_tag, _,
    ) = prediction  # fmt: skip
    if made_s > now + CLOCK_SKEW_S:
        return FROM_AHEAD
    if model_hash not in catalogue.models:
        return NO_MODEL
    observed_s = min(report.observed_s or now, now)
    delay_s = observed_s - made_s
    if delay_s > terms.window_s:
        return Answer(Outcome.LATE, f"{_days(delay_s)} after the prediction")
    if now - made_s > terms.retention_s:
        age = _days(now - made_s)
        return Answer(Outcome.LATE, f"the prediction is {age} old, older than is kept")
    return LabelRow(
        made_s,
        base64.urlsafe_b64decode(report.prediction_id),
        report.row,
        report.metric,
        report.event,
        report.value,
        max(observed_s, float(made_s)),
        now,
        json.dumps(report.groups, separators=(",", ":")) if report.groups else "",
        model_hash,
        version,
        rule_hash,
        rollout_revision,
        variant,
        bucket,
        is_fallback,
        is_sticky,
        propensity_bp,
        score if report.row == 0 else None,  # the id has row 0's score
        unit_tag,
    )


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.1f} days"
