"""The `preflight` step: a recording against the candidate, before any user meets it.

`Preflights` owns one thread that works through what the controller asked for, one
request at a time and at nice 10; the controller looks up what came of it and never
waits. Requests go in process to the very versions that the engine serves, named by
number, so no rollout counts them and no user's answer changes. They are runs all the
same: they show in the versions' own counters and latency, and a failure is charged to
the version's breaker, which is why a replay ends after `FAULTS_MAX` of them, before a
breaker would open. A model that does not accept pins gets an engine of its own here.

A verdict holds for its attempt. One that says nothing about the candidate (a file that
is not there) is looked for again every `RETRY_S`.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from router.analysis.answers import Tolerance
from router.analysis.verdict import Verdict
from router.clock import Clock
from router.config.config import Config
from router.config.model import Model
from router.errors import RouterError
from router.lab.bay import Bay, Call, of_one
from router.lab.recording import read_replay
from router.lab.replay import Limits, Question, Replay, expected_of, judge_replay
from router.plan.plan import BUCKET_COUNT
from router.plan.rollout import PreflightStep, Spec

log = logging.getLogger(__name__)

NICE = 10
FAULTS_MAX = 3  # the engine's breakers open at five in a row
RETRY_S = 60.0
SCOPES_MAX = 1000  # whose verdicts are kept
JOIN_TIMEOUT_S = 10.0

# Why an attestation is not to be trusted here; None when it is.
Verify = Callable[[Config, Spec, str], str | None]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be found out; equal jobs have equal verdicts."""

    spec: Spec
    attempt: int
    step: PreflightStep


@dataclass(slots=True)
class _Entry:
    job: Job
    verdict: Verdict | None = None
    is_waiting: bool = True
    done_s: float = 0.0


class Preflights:
    """Owner of the thread that replays, and of what came of it."""

    def __init__(
        self,
        config: Callable[[], Config | None],
        call: Call,
        clock: Clock,
        verify: Verify,
    ) -> None:
        self._config, self._call, self._clock = config, call, clock
        self._verify = verify
        self._entries: dict[str, _Entry] = {}
        self._changed = threading.Condition()
        self._is_leaving = False
        self._thread = threading.Thread(target=self._run, name="preflight", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End after the request that is being asked, and wait for it."""
        with self._changed:
            self._is_leaving = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(JOIN_TIMEOUT_S)

    def verdict(self, spec: Spec, attempt: int, step: PreflightStep) -> Verdict | None:
        """What is known; None while it is being found out."""
        job = Job(spec, attempt, step)
        with self._changed:
            entry = self._entries.get(spec.scope)
            if entry is None or entry.job != job:
                if entry is None and len(self._entries) >= SCOPES_MAX:
                    del self._entries[next(iter(self._entries))]
                self._entries[spec.scope] = _Entry(job)
                self._changed.notify()
                return None
            if entry.verdict is not None and not entry.is_waiting:
                is_final = entry.verdict.verdict in ("pass", "fail")
                if not is_final and self._clock.monotonic() - entry.done_s >= RETRY_S:
                    entry.is_waiting = True
                    self._changed.notify()
            return entry.verdict

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_leaving or self._next())
                entry = self._next()
            if self._is_leaving or entry is None:
                return
            verdict = self._find(entry.job)
            with self._changed:
                entry.verdict, entry.is_waiting = verdict, False
                entry.done_s = self._clock.monotonic()
            fields = {"scope": entry.job.spec.scope, "attempt": entry.job.attempt,
                      "verdict": verdict.verdict, "reason": verdict.reason}  # fmt: skip
            log.info("a preflight is over", extra={"fields": fields})

    def _next(self) -> _Entry | None:
        waiting = (entry for entry in self._entries.values() if entry.is_waiting)
        return next(waiting, None)

    def _find(self, job: Job) -> Verdict:
        try:
            return self._judge(job)
        except RouterError as error:
            return Verdict("error", str(error))
        except Exception as error:
            # Nothing that goes wrong here may end the thread, or read as a pass.
            log.exception("a preflight failed")
            return Verdict("error", f"the preflight failed: {type(error).__name__}")

    def _judge(self, job: Job) -> Verdict:
        config, step = self._config(), job.step
        names = [] if config is None else [model.name for model in config.models]
        if config is None or job.spec.model not in names:
            return Verdict("inconclusive", "the model is not served yet")
        if step.attestation is not None:
            refused = self._verify(config, job.spec, step.attestation)
            if refused is not None:
                return Verdict("error", f"attestation {step.attestation}: {refused}")
        model = config.models[names.index(job.spec.model)]
        limits = Limits(step.max_disagreement_bp / BUCKET_COUNT, step.latency_worse_by)
        verdict = Verdict("inconclusive", "there is no candidate")
        with self._answers(config, model, job.spec) as call:
            for candidate in job.spec.candidates:
                verdict = self._replay(job, model, candidate, call, limits)
                if verdict.verdict != "pass":
                    return verdict
        return verdict

    def _replay(
        self, job: Job, model: Model, candidate: int, call: Call, limits: Limits
    ) -> Verdict:
        tolerance = Tolerance(relative=job.step.tolerance)
        asked = Question(
            model.name, job.spec.stable, candidate, expected_of(model), tolerance
        )
        running = Replay(asked, call, self._clock)
        for recorded in read_replay(job.step.replay):
            if self._is_leaving:
                return Verdict("inconclusive", "the router is leaving")
            if running.faulty >= FAULTS_MAX:
                break
            running.ask(recorded)
        return judge_replay(running.replayed(), limits)

    @contextmanager
    def _answers(self, config: Config, model: Model, spec: Spec) -> Iterator[Call]:
        """Who is asked: the serving engine, or one that lets versions be named."""
        if model.pins == "allow":
            yield self._call
            return
        with Bay(of_one(config, model.name, (spec.stable, *spec.candidates))) as bay:
            yield bay.call
