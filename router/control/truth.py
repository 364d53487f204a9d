"""What feedback says about each scope, looked at every few seconds.

`Truth` owns the strata that labels may refer to: the shares of every bucket map that an
attempt has had, because a label may come days after the map it was dealt under is gone.
They are saved beside the evidence. Everything else is a function of the stored labels.
"""

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from router.analysis.alpha import ALPHA_SRM
from router.analysis.srm import SplitBet, judge_srm, step_split_bet
from router.analysis.verdict import Verdict
from router.clock import Clock
from router.config.steps import Criterion
from router.control.evidence import bet_key
from router.control.gates import MEASURED, alpha_of, name_of
from router.control.label_tests import Labels, judge_labels, metric_of
from router.control.labelled import Cell, splits_of, ticks_of
from router.control.labels import name_hash
from router.control.primary import judge_primary
from router.control.strata import Stratum, StratumKey, strata_of
from router.errors import StoreError
from router.feedback.evidence import is_mature
from router.feedback.fold import EVERYONE, Folded
from router.feedback.sums import merge
from router.plan.plan import Plan
from router.plan.rollout import BakeStep, ScopeState, ShadowStep, Spec, WeightStep

log = logging.getLogger(__name__)

LOOK_S = 5.0  # labels come by the hour; a look reads all of a metric's sums
STRATA_MAX = 4_096
CHECKPOINT = "label-strata"
SRM_KEY = "srm"
PRIMARY = "primary"


class Fold(Protocol):
    """The calls of the feedback desk that this file makes."""

    @property
    def maturity_s(self) -> float: ...

    def folded(self, model_hash: int, metric: str) -> tuple[Folded, ...] | None: ...


class Checkpoints(Protocol):
    """Where strata survive a restart."""

    def save(self, name: str, text: str) -> None: ...

    def load(self, name: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class _Known:
    """A stratum, and the attempt it belongs to."""

    key: StratumKey
    stratum: Stratum
    attempt: int


@dataclass(frozen=True, slots=True)
class _Looked:
    """What a scope's labels came to when they were last looked at."""

    at_s: float
    of: tuple[str, int]  # digest of the specification, attempt
    verdicts: Mapping[str, Verdict]


class Truth:
    """Owner of known strata. `learn` may be called by any thread, the rest by one."""

    def __init__(self, fold: Fold, checkpoints: Checkpoints, clock: Clock) -> None:
        self._fold, self._checkpoints, self._clock = fold, checkpoints, clock
        self._lock = threading.Lock()
        self._known: dict[tuple[int, int, int], _Known] = {}
        self._is_dirty = False
        self._looked: dict[str, _Looked] = {}

    def restore(self) -> None:
        """Take up the strata that an earlier process knew."""
        try:
            text = self._checkpoints.load(CHECKPOINT)
            known = [] if text is None else [_load(one) for one in json.loads(text)]
        except (ValueError, KeyError, TypeError, StoreError) as error:
            log.warning("labels of before the restart count for no rollout",
                        extra={"fields": {"problem": str(error)}})  # fmt: skip
            return
        with self._lock:
            self._known = {_place(one.key): one for one in known} | self._known

    def learn(self, plan: Plan) -> None:
        """A plan was published: know its strata."""
        attempts = {
            rule.name: rule.attempt for model in plan.models for rule in model.rules
        }
        with self._lock:
            for key, stratum in strata_of(plan).items():
                one = _Known(key, stratum, attempts[key.rule])
                if self._known.pop(_place(key), None) != one:
                    self._is_dirty = True
                self._known[_place(key)] = one
            while len(self._known) > STRATA_MAX:
                self._known.pop(next(iter(self._known)))

    def verdicts(self, spec: Spec, state: ScopeState) -> Mapping[str, Verdict]:
        """What labels say now; by `bet_key`, `primary|version` and `srm`."""
        asked = label_criteria(spec)
        if not asked and spec.primary is None:
            return {}
        self._save()
        now_s, of = self._clock.monotonic(), (spec.digest, state.attempt)
        looked = self._looked.get(spec.scope)
        if looked is None or looked.of != of or now_s - looked.at_s >= LOOK_S:
            found = self._look(spec, state, asked)
            looked = self._looked[spec.scope] = _Looked(now_s, of, found)
        return looked.verdicts

    def _look(
        self, spec: Spec, state: ScopeState, asked: tuple[Criterion, ...]
    ) -> dict[str, Verdict]:
        metrics = {metric_of(one.metric) for one in asked}
        if spec.primary is not None:
            metrics.add(metric_of(spec.primary.metric))
        found: dict[str, Verdict] = {}
        for metric in sorted(metrics):
            folded = self._fold.folded(name_hash(spec.model), metric)
            mine = tuple(c for c in asked if metric_of(c.metric) == metric)
            if folded is None:
                found |= _unread(spec, mine, metric)
                continue
            early, mature = self._cells(spec, state, folded)
            found |= judge_metric(spec, mine, early, mature)
            primary = spec.primary
            if primary is not None and metric_of(primary.metric) == metric:
                ticks = {v: ticks_of(mature, v, "") for v in spec.candidates}
                decided = judge_primary(primary, ticks, spec.alpha)
                found |= {f"{PRIMARY}|{v}": one for v, one in decided.items()}
            split = judge_split(spec, early, ALPHA_SRM / len(metrics))
            if SRM_KEY not in found or split.verdict == "fail":
                found[SRM_KEY] = split
        return found

    def _cells(
        self, spec: Spec, state: ScopeState, folded: Iterable[Folded]
    ) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
        """Cells of this attempt: of all labels, and of mature cohorts in time."""
        now = self._clock.now()
        early, mature = [], []
        with self._lock:
            known = dict(self._known)
        for one in folded:
            key = one.key
            found = known.get((key.model, key.rule, key.rollout_revision))
            if (
                key.slice != EVERYONE
                or found is None
                or found.stratum.scope != spec.scope
                or found.attempt != state.attempt
            ):
                continue
            cell = Cell(
                key.cohort,
                (found.key.rule, key.rollout_revision, key.is_sticky),
                found.stratum,
                key.version,
                merge(one.firsts, one.tail_firsts),
                one.negatives + one.tail_negatives,
            )
            early.append(cell)
            if is_mature(key.cohort, self._fold.maturity_s, now):
                mature.append(replace(cell, sums=one.firsts, negatives=one.negatives))
        return tuple(early), tuple(mature)

    def _save(self) -> None:
        with self._lock:
            if not self._is_dirty:
                return
            self._is_dirty = False
            text = json.dumps([_dump(one) for one in self._known.values()])
        try:
            self._checkpoints.save(CHECKPOINT, text)
        except StoreError:
            self._is_dirty = True


def label_criteria(spec: Spec) -> tuple[Criterion, ...]:
    """Guardrails and gates that feedback decides, each name once."""
    gates = (
        gate
        for step in spec.steps
        if isinstance(step, ShadowStep | WeightStep | BakeStep)
        for gate in step.gates
    )
    found: dict[str, Criterion] = {}
    for one in (*spec.guardrails, *gates):
        is_elsewhere = one.prometheus is not None or one.webhook is not None
        if is_elsewhere or one.metric in (*MEASURED, "disagreement", "srm"):
            continue
        found.setdefault(name_of(one), one)
    return tuple(found.values())


def judge_metric(
    spec: Spec,
    asked: Iterable[Criterion],
    early: tuple[Cell, ...],
    mature: tuple[Cell, ...],
) -> dict[str, Verdict]:
    """Every criterion on one feedback metric, for each candidate and slice."""
    found = {}
    alpha = alpha_of(spec)
    for criterion in asked:
        name = name_of(criterion)
        slices = spec.slices if criterion.worse_by is not None else ()
        for version in spec.candidates:
            for within in ("", *slices):
                labels = Labels(
                    ticks_of(early, version, within), ticks_of(mature, version, within)
                )
                # Slices share what one test may spend.
                part = alpha / len(slices) if within else alpha
                key = bet_key(name, version, within=within)
                found[key] = judge_labels(criterion, name, labels, part)
    return found


def judge_split(spec: Spec, cells: Iterable[Cell], alpha: float) -> Verdict:
    """Whether units with a label are split as they were dealt."""
    splits = splits_of(cells, spec.candidates)
    return judge_srm(step_split_bet(SplitBet(), *splits), alpha, where="label join")


def _unread(spec: Spec, asked: Iterable[Criterion], metric: str) -> dict[str, Verdict]:
    reason = "labels are still being read, or a bound left some out: nothing is judged."
    verdict = Verdict("inconclusive", f"{metric}: {reason}")
    keys = [
        bet_key(name_of(criterion), version, within=within)
        for criterion in asked
        for version in spec.candidates
        for within in ("", *spec.slices)
    ]
    primary = spec.primary
    if primary is not None and metric_of(primary.metric) == metric:
        keys += [f"{PRIMARY}|{version}" for version in spec.candidates]
    return dict.fromkeys(keys, verdict)


def _place(key: StratumKey) -> tuple[int, int, int]:
    """The stratum as prediction ids name it."""
    return name_hash(key.model), name_hash(key.rule), key.revision


def _dump(one: _Known) -> list[Any]:
    key, stratum = one.key, one.stratum
    shares = [[*variant, bp] for variant, bp in stratum.shares.items()]
    return [
        key.model, key.rule, key.revision, one.attempt, stratum.scope, stratum.within,
        stratum.stable, shares,
    ]  # fmt: skip


def _load(stored: list[Any]) -> _Known:
    model, rule, revision, attempt, scope, within, stable, shares = stored
    return _Known(
        StratumKey(str(model), str(rule), int(revision)),
        Stratum(
            str(scope), str(within), int(stable),
            {(int(v), int(o)): int(bp) for v, o, bp in shares},
        ),
        int(attempt),
    )  # fmt: skip
