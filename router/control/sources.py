"""Verdicts from elsewhere: Prometheus queries and webhooks.

One thread asks, one question after the other, each at its own pace; the controller
looks answers up and never waits. An empty answer, a failure, or no answer is recorded
as such: it is inconclusive, whatever was said before.
"""

import json
import logging
import math
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from router.clock import Clock
from router.config.steps import Criterion
from router.control.evidence import External
from router.control.gates import name_of
from router.plan.rollout import BakeStep, ShadowStep, Spec, WeightStep

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
BODY_MAX = 1 << 20
WAKE_S = 0.5
VERDICTS = ("pass", "fail", "inconclusive", "error")


@dataclass(frozen=True, slots=True)
class _Question:
    criterion: Criterion
    scope: str


class ExternalSources:
    """Owner of the asking thread and of the last answers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._questions: dict[tuple[str, str], _Question] = {}
        self._answers: dict[tuple[str, str], tuple[float, External]] = {}
        self._asked_s: dict[tuple[str, str], float] = {}
        self._is_leaving = threading.Event()
        self._thread: threading.Thread | None = None
        self.failures = 0

    def poll(self, specs: tuple[Spec, ...]) -> None:
        """Know what is to be asked; the thread is started when there is something."""
        wanted = {
            (spec.scope, name_of(one)): _Question(one, spec.scope)
            for spec in specs
            for one in criteria_of(spec)
            if one.prometheus is not None or one.webhook is not None
        }
        with self._lock:
            self._questions = wanted
            self._answers = {k: v for k, v in self._answers.items() if k in wanted}
        if wanted and self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="sources", daemon=True
            )
            self._thread.start()

    def answers(self, scope: str, now_s: float) -> Mapping[str, External]:
        """The last answers to a scope's questions, with their age."""
        with self._lock:
            return {
                name: replace(answer, age_s=now_s - at_s)
                for (owner, name), (at_s, answer) in self._answers.items()
                if owner == scope
            }

    def close(self) -> None:
        """End the thread; it may be waiting for an answer."""
        self._is_leaving.set()
        if self._thread is not None:
            self._thread.join(TIMEOUT_S + 1.0)

    def ask_due(self) -> None:
        """Ask what is due, on the calling thread."""
        with self._lock:
            questions = dict(self._questions)
        for key, question in questions.items():
            now_s = self._clock.monotonic()
            last_s = self._asked_s.get(key, float("-inf"))
            if now_s - last_s < question.criterion.every or self._is_leaving.is_set():
                continue
            self._asked_s[key] = now_s
            answer = ask(question.criterion, question.scope)
            if answer.verdict == "error" or (
                answer.value is None and answer.verdict is None
            ):
                self.failures += 1
            with self._lock:
                self._answers[key] = (self._clock.monotonic(), answer)

    def _run(self) -> None:
        while not self._is_leaving.wait(WAKE_S):
            try:
                self.ask_due()
            except Exception:
                log.exception("asking a source failed")


def ask(criterion: Criterion, scope: str) -> External:
    """One answer; what goes wrong is an answer too."""
    try:
        if criterion.prometheus is not None:
            where = criterion.prometheus
            query = urllib.parse.urlencode({"query": where.query})
            url = f"{where.url.rstrip('/')}/api/v1/query?{query}"
            return read_prometheus(_fetch(urllib.request.Request(url), TIMEOUT_S))
        assert criterion.webhook is not None
        body = json.dumps({"scope": scope, "criterion": name_of(criterion)}).encode()
        request = urllib.request.Request(
            criterion.webhook.url, body, {"content-type": "application/json"}
        )
        return read_webhook(_fetch(request, criterion.webhook.timeout_s))
    except (OSError, ValueError, urllib.error.URLError) as error:
        return External(0.0, reason=f"it cannot be asked: {type(error).__name__}")


def read_prometheus(answer: Any) -> External:
    """The single value of an instant query; several or none are no value."""
    if not isinstance(answer, dict) or answer.get("status") != "success":
        return External(0.0, reason="the query was refused")
    data = answer.get("data", {})
    kind, result = data.get("resultType"), data.get("result")
    if kind == "scalar" and isinstance(result, list) and len(result) == 2:
        return _number(result[1])
    if kind != "vector" or not isinstance(result, list) or not result:
        return External(0.0, reason="an empty answer")
    if len(result) > 1:
        return External(0.0, reason=f"{len(result)} series instead of one: aggregate")
    return _number(result[0]["value"][1])


def read_webhook(answer: Any) -> External:
    """{"verdict": ..., "reason": ...}."""
    verdict = answer.get("verdict") if isinstance(answer, dict) else None
    if verdict not in VERDICTS:
        return External(0.0, reason="the webhook gave no verdict")
    return External(0.0, verdict=verdict, reason=str(answer.get("reason", ""))[:500])


def _number(text: Any) -> External:
    value = float(text)
    if math.isnan(value):
        return External(0.0, reason="not a number")
    return External(0.0, value=value)


def _fetch(request: urllib.request.Request, timeout_s: float) -> Any:
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        return json.loads(response.read(BODY_MAX))


def criteria_of(spec: Spec) -> tuple[Criterion, ...]:
    """Everything that a scope is judged by, at whatever step."""
    gates = (
        gate
        for step in spec.steps
        if isinstance(step, ShadowStep | WeightStep | BakeStep)
        for gate in step.gates
    )
    return (*spec.guardrails, *gates)
