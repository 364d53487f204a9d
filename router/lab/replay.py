"""Recorded requests, asked of two versions: would a client notice?

One pass, one pair at a time, in constant memory: what is kept are counts, the sum of a
ratio and the worst few pairs. The order within a pair alternates, so that neither
version always finds the caches warm. A pair in which stable fails says nothing about
the candidate and is counted apart.

`judge_replay` is the verdict; nothing else here decides.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from router.analysis.answers import (
    FAULTS,
    Difference,
    Expected,
    Tolerance,
    compare_answers,
)
from router.analysis.ratio import PAIRS_MIN, Ratio, RatioSum
from router.analysis.verdict import Verdict, percent
from router.client.lines import read_outputs, read_request
from router.clock import Clock
from router.config.model import Model
from router.engine._engine import CallResult
from router.lab.bay import INFER, Call
from router.lab.recording import PREFLIGHT_ID, Recorded
from router.plan.compile import compile_output

TIMEOUT_S = 30.0
WORST_MAX = 5
SHOWN_MAX = 8  # values of an output that an example shows
WARM_PAIRS = 3  # first runs allocate: they are compared and not timed
FAILED = "failed"  # the candidate gave no answer
SEVERITY = {kind: i for i, kind in enumerate((FAILED, *FAULTS, "decision", "value"))}
CAUSES_MAX = 3  # faults whose text is kept


@dataclass(frozen=True, slots=True)
class Question:
    """Whom to compare, and how."""

    model: str
    stable: int
    candidate: int
    expected: Expected = field(default_factory=Expected)
    tolerance: Tolerance = field(default_factory=Tolerance)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a candidate may do; `latency_worse_by` is relative, None: not judged."""

    disagreement: float = 0.0
    latency_worse_by: float | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A pair worth looking at; `request` counts from 0 within the recording."""

    request: int
    time_ms: int
    kinds: Mapping[str, str]
    distance: float
    stable: Mapping[str, list[Any]]
    candidate: Mapping[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a recording."""

    question: Question
    compared: int = 0
    disagreed: int = 0
    faulty: int = 0
    """Pairs with a fault of the candidate's: of form, of range, or no answer."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Pairs by what is different in them; one pair may have several."""
    stable_failed: int = 0
    skipped: int = 0
    """Of other models, without a body, or not a request at all."""
    latency: Ratio | None = None
    worst: tuple[Example, ...] = ()
    causes: tuple[str, ...] = ()
    stable_problem: str = ""
    """Why stable failed, the first time."""


def expected_of(model: Model) -> Expected:
    """What the configuration declares of a model's output."""
    output = compile_output(model)
    if output is None:
        return Expected()
    return Expected(
        output.tensor, output.index, output.kind.name.lower(), output.low, output.high,
        output.is_finite, output.threshold,
    )  # fmt: skip


class Replay:
    """Owner of the counts while a recording is asked."""

    def __init__(self, question: Question, call: Call, clock: Clock) -> None:
        self._question, self._call, self._clock = question, call, clock
        self._seen = self._compared = self._disagreed = self._faulty = 0
        self._stable_failed = self._skipped = 0
        self._stable_problem = ""
        self._kinds: Counter[str] = Counter()
        self._ratio = RatioSum()
        self._worst: list[tuple[int, float, int, Example]] = []
        self._causes: dict[str, None] = {}

    @property
    def faulty(self) -> int:
        return self._faulty

    def ask(self, recorded: Recorded) -> None:
        """Ask one request of both and take note."""
        number, self._seen = self._seen, self._seen + 1
        try:
            is_ours = recorded.model == self._question.model and recorded.body
            request = read_request(recorded.body) if is_ours else None
        except ValueError:
            request = None
        if request is None:
            self._skipped += 1
            return
        request.id = PREFLIGHT_ID
        request.model_name = self._question.model
        pair = [self._question.stable, self._question.candidate]
        answers: dict[int, tuple[CallResult, float]] = {}
        for version in pair if number % 2 else reversed(pair):
            request.model_version = str(version)
            body = request.SerializeToString()
            begun = self._clock.monotonic()
            answer = self._call(INFER, body, recorded.metadata, TIMEOUT_S)
            answers[version] = answer, self._clock.monotonic() - begun
        self._note(number, recorded, *(answers[version] for version in pair))

    def replayed(self) -> Replayed:
        """What has been found so far, the worst first."""
        worst = sorted(self._worst, reverse=True)
        return Replayed(
            self._question, self._compared, self._disagreed, self._faulty,
            dict(self._kinds), self._stable_failed, self._skipped, self._ratio.ratio(),
            tuple(example for *_, example in worst), tuple(self._causes),
            self._stable_problem,
        )  # fmt: skip

    def _note(
        self,
        number: int,
        recorded: Recorded,
        stable: tuple[CallResult, float],
        candidate: tuple[CallResult, float],
    ) -> None:
        question = self._question
        reference = _outputs(stable[0], question.stable)
        if isinstance(reference, str):
            self._stable_failed += 1
            self._stable_problem = self._stable_problem or reference
            return
        outputs = _outputs(candidate[0], question.candidate)
        self._compared += 1
        if isinstance(outputs, str):
            difference = Difference({FAILED: outputs}, disagrees=True)
            outputs = {}
        else:
            difference = compare_answers(
                reference, outputs, question.expected, question.tolerance
            )
            if self._compared > WARM_PAIRS:
                self._ratio.add(stable[1], candidate[1])
        self._kinds.update(difference.found.keys())
        self._disagreed += difference.disagrees
        if difference.is_faulty or FAILED in difference.found:
            self._faulty += 1
            for kind, cause in difference.found.items():
                is_new = kind in (FAILED, *FAULTS) and cause not in self._causes
                if is_new and len(self._causes) < CAUSES_MAX:
                    self._causes[cause] = None
        if difference.found:
            example = Example(
                number, recorded.time_ms, difference.found, difference.distance,
                _shown(reference), _shown(outputs),
            )  # fmt: skip
            self._keep(number, difference, example)

    def _keep(self, number: int, difference: Difference, example: Example) -> None:
        rank = -min(SEVERITY[kind] for kind in difference.found)
        entry = (rank, difference.distance, -number, example)
        if len(self._worst) < WORST_MAX:
            heapq.heappush(self._worst, entry)
        else:
            heapq.heappushpop(self._worst, entry)


def replay(
    question: Question, requests: Iterable[Recorded], call: Call, clock: Clock
) -> Replayed:
    """Ask a whole recording of both versions."""
    running = Replay(question, call, clock)
    for recorded in requests:
        running.ask(recorded)
    return running.replayed()


def judge_replay(found: Replayed, limits: Limits) -> Verdict:
    """Say whether the candidate may stand in for stable, as far as a recording tells.

    One fault is a fail. A recording is what it is, not a sample to draw conclusions
    from: its share of disagreements is compared as it stands. Latency is a
    measurement, and waits for an interval that is clear of the limit.
    """
    candidate = found.question.candidate
    share = found.disagreed / found.compared if found.compared else 0.0
    numbers: dict[str, float | int | str] = {
        "compared": found.compared, "disagreed": found.disagreed,
        "faulty": found.faulty, "stable_failed": found.stable_failed,
        "skipped": found.skipped, "disagreement": share,
        "disagreement_max": limits.disagreement,
    }  # fmt: skip
    if found.latency is not None:
        numbers |= {"latency_ratio": found.latency.ratio,
                    "latency_low": found.latency.low,
                    "latency_high": found.latency.high}  # fmt: skip
    if found.compared == 0:
        reason = f"no request of model '{found.question.model}' could be compared"
        if found.stable_failed:
            reason += f": stable fails ({found.stable_problem})"
        return Verdict("inconclusive", reason, numbers)
    if found.faulty:
        reason = (
            f"version {candidate} answers wrongly in {found.faulty} of"
            f" {found.compared} requests: {'; '.join(found.causes)}"
        )
        return Verdict("fail", reason, numbers)
    if share > limits.disagreement:
        reason = (
            f"version {candidate} disagrees in {percent(share)} of {found.compared}"
            f" requests, {percent(limits.disagreement)} are allowed"
        )
        return Verdict("fail", reason, numbers)
    slow = _judge_latency(found, limits, numbers)
    if slow is not None:
        return slow
    reason = f"version {candidate} agrees in {percent(1 - share)} of {found.compared}"
    return Verdict("pass", f"{reason} requests", numbers)


def _judge_latency(
    found: Replayed, limits: Limits, numbers: Mapping[str, float | int | str]
) -> Verdict | None:
    """None when latency is not judged, or good enough."""
    if limits.latency_worse_by is None:
        return None
    if found.latency is None:
        reason = f"latency needs {PAIRS_MIN + WARM_PAIRS} answered requests"
        return Verdict("inconclusive", reason, numbers)
    limit, ratio = 1 + limits.latency_worse_by, found.latency
    said = (
        f"version {found.question.candidate} takes {ratio.ratio:.3g} times as long"
        f" ({ratio.low:.3g} to {ratio.high:.3g}), {limit:.3g} is allowed"
    )
    if ratio.low > limit:
        return Verdict("fail", said, numbers)
    if ratio.high > limit:
        return Verdict("inconclusive", said, numbers)
    return None


def _outputs(answer: CallResult, version: int) -> dict[str, Any] | str:
    """A version's outputs, or why there are none of it."""
    if answer.code != 0:
        return f"code {answer.code}: {answer.detail}"
    try:
        answered_by, outputs = read_outputs(answer.message)
    except ValueError as error:
        return f"its answer cannot be read: {error}"
    if answered_by != str(version):
        return f"version {answered_by} answered in place of {version}"
    return outputs


def _shown(outputs: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {
        name: [_plain(value) for value in array.ravel()[:SHOWN_MAX].tolist()]
        for name, array in outputs.items()
    }


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: JSON knows no NaN, and no bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value
