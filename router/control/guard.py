"""The engine's door for versions, with a guard: probed first, and then loaded here or
in a worker.

It stands where the engine stands and is called the same way. What it needs to know of
a version comes among its options, under `guard.`: a change of limits is then a change
of the version, which is loaded anew, and that is also how one leaves quarantine.

A worker belongs to the load that started it. When a version is loaded anew the old
worker is kept until the next table is published, because the present one still routes
to it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from router.config.config import API_VERSION, Config
from router.config.isolation import Worker
from router.config.model import Model, is_isolated, runtime_of
from router.control.thresholds import Limit
from router.control.workers import (
    BEAT_S,
    DRAIN_S,
    Started,
    WorkerSpec,
    WorkerState,
)
from router.errors import ModelError
from router.models.child import MIB, Limits, Task, limits_words
from router.models.probe import SIZE_FACTOR, ProbeLimits, Subject
from router.models.repository import ModelFile
from router.plan.compile import States, compile_plan
from router.plan.encode import encode

log = logging.getLogger(__name__)

PREFIX = "guard."
Key = tuple[str, int]
REPORTED = ("load_ms", "run_ms", "peak_bytes", "outputs", "is_remembered")
# Loading a large model takes time, in a worker as anywhere.
START_S = 300.0
PROBES_AT_ONCE = max(2, os.cpu_count() or 1)


class Loading(Protocol):
    """The engine's calls that are guarded."""

    def load(
        self, model: str, version: int, data: bytes, options: Mapping[str, str]
    ) -> dict[str, Any]: ...

    def unload(self, model: str, version: int) -> None: ...

    def publish(self, table: bytes) -> None: ...

    def snapshot(self) -> dict[str, Any]: ...

    def thresholds(self, thresholds: Iterable[Limit]) -> None: ...


class Probing(Protocol):
    """`Prober.probe`."""

    def __call__(self, subject: Subject, limits: ProbeLimits) -> dict[str, Any]: ...


class Keeper(Protocol):
    """The calls of `Workers`."""

    def start(self, spec: WorkerSpec) -> Started: ...

    def stop(self, worker: int) -> None: ...

    def states(self) -> tuple[WorkerState, ...]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Guards:
    """Who probes, who keeps workers, and what a worker's engine is made with."""

    probe: Probing
    workers: Callable[[], Keeper]
    engine_options: Mapping[str, str]


def guard_options(model: Model, version: int, stable: int) -> dict[str, str]:
    """What the guard has to know of a version, in the words of its options."""
    runtime = runtime_of(model, version)
    options: dict[str, str] = {}
    if not runtime.probe.off:
        options["guard.probe"] = runtime.probe.model_dump_json()
    if is_isolated(model, version, stable):
        options["guard.worker"] = runtime.worker.model_dump_json()
    return options


def single_table(model: str, version: int) -> bytes:
    """A routing table of one version that answers everything."""
    config = Config.model_validate(
        {
            "api_version": API_VERSION,
            "models": [
                {
                    "name": model,
                    "repository": "-",
                    "stable": version,
                    "versions": [version],
                    "annotate": "none",
                    "fallback": False,
                }
            ],
        }
    )
    return encode(compile_plan(config, States({model: (version,)}, {}, ())))


class Guard:
    """Owner of which worker serves which version. One thread loads and publishes."""

    def __init__(self, engine: Loading, guards: Guards) -> None:
        self._engine, self._guards = engine, guards
        self._workers: Keeper | None = None
        self._current: dict[Key, int] = {}
        self._replaced: list[int] = []
        # What came out while many were prepared at once, for the loads that follow.
        self._prepared: dict[bytes, dict[str, Any] | ModelError] = {}
        # By version: what earlier workers of it went through. Counters only grow.
        self._restarts: dict[Key, int] = {}

    def prepare(self, files: Sequence[tuple[ModelFile, Mapping[str, str]]]) -> None:
        """Probe what is about to be loaded, several at a time."""
        self._prepared = {}
        with ThreadPoolExecutor(PROBES_AT_ONCE, "probe") as pool:
            list(pool.map(lambda each: self._prepare(*each), files))

    def _prepare(self, file: ModelFile, options: Mapping[str, str]) -> None:
        if options["kind"] != "ort" or "guard.probe" not in options:
            return
        try:
            subject = _subject(file.model, file.version, file.read(), options)
        except ModelError:
            return  # loading says so
        found: dict[str, Any] | ModelError
        try:
            found = self._probe(subject, options["guard.probe"])
        except ModelError as error:
            found = error
        self._prepared[_digest(subject)] = found

    def load(
        self, model: str, version: int, data: bytes, options: Mapping[str, str]
    ) -> dict[str, Any]:
        """Probe a version, then load it, here or in a worker. ModelError or
        EngineError when it cannot serve."""
        subject = _subject(model, version, data, options)
        if options["kind"] != "ort":
            return self._engine.load(model, version, data, subject.options)
        if "guard.probe" in options:
            self._judge(subject, options["guard.probe"])
        key = model, version
        if "guard.worker" not in options:
            report = self._engine.load(model, version, data, subject.options)
            self._replace(key, None)
            return report
        settings = Worker.model_validate_json(options["guard.worker"])
        started = self._keeper().start(self._spec(subject, settings))
        try:
            report = self._engine.load(
                model, version, b"", upstream_options(model, version, started)
            )
        except BaseException:
            self._keeper().stop(started.id)
            raise
        self._replace(key, started.id)
        return {**started.report, "warnings": report["warnings"], "worker": started.id}

    def _judge(self, subject: Subject, settings: str) -> None:
        """ModelError when the version fails its probe; the log says what it took."""
        report = self._prepared.pop(_digest(subject), None)
        if isinstance(report, ModelError):
            raise report
        if report is None:
            report = self._probe(subject, settings)
        fields = {"model": subject.model, "version": subject.version}
        fields |= {key: report[key] for key in REPORTED if key in report}
        log.info("a version passed its probe", extra={"fields": fields})

    def _probe(self, subject: Subject, settings: str) -> dict[str, Any]:
        given = json.loads(settings)
        limits = ProbeLimits(given["memory_mb"], given["cpu_s"], given["wall_s"])
        return self._guards.probe(subject, limits)

    def unload(self, model: str, version: int) -> None:
        self._engine.unload(model, version)
        worker = self._take_away((model, version))
        if worker is not None:
            self._keeper().stop(worker)

    def publish(self, table: bytes) -> None:
        self._engine.publish(table)
        self._retire()

    def thresholds(self, thresholds: Iterable[Limit]) -> None:
        self._engine.thresholds(thresholds)

    def snapshot(self) -> dict[str, Any]:
        """The engine's, with the workers, and honest about versions whose is away."""
        found = self._engine.snapshot()
        states = {state.id: state for state in self._states()}
        current = {
            key: states[worker]
            for key, worker in list(self._current.items())
            if worker in states
        }
        for version in found["versions"]:
            state = current.get((version["model"], version["version"]))
            if state is not None:
                version["is_ready"] = version["is_ready"] and state.is_up
                version["memory_bytes"] = state.memory_bytes
        found["workers"] = [
            self._describe(key, state) for key, state in sorted(current.items())
        ]
        return found

    def close(self) -> None:
        """End every worker; after the engine was stopped."""
        if self._workers is not None:
            self._workers.close()

    def _describe(self, key: Key, state: WorkerState) -> dict[str, Any]:
        return {
            "model": key[0],
            "version": key[1],
            "is_up": state.is_up,
            "is_quarantined": state.is_quarantined,
            "restarts": self._restarts.get(key, 0) + state.restarts,
            "memory_bytes": state.memory_bytes,
        }

    def _keeper(self) -> Keeper:
        # Nobody pays for a thread and a folder who isolates nothing.
        if self._workers is None:
            self._workers = self._guards.workers()
        return self._workers

    def _states(self) -> tuple[WorkerState, ...]:
        return () if self._workers is None else self._workers.states()

    def _spec(self, subject: Subject, settings: Worker) -> WorkerSpec:
        memory_mb = settings.memory_mb + SIZE_FACTOR * len(subject.data) // MIB
        limits = Limits(
            memory_mb=memory_mb,
            files_max=settings.files_max,
            cores=settings.cores or 0,
            nice=settings.nice,
        )
        words = {
            "model": subject.model,
            "version": subject.version,
            "options": dict(subject.options),
            "engine": dict(self._guards.engine_options),
            "limits": limits_words(limits),
            "beat_s": min(BEAT_S, settings.hang_s / 4),
            "hang_s": settings.hang_s,
            "drain_s": DRAIN_S,
        }
        task = Task(words, subject.table, subject.data)
        return WorkerSpec(
            subject.model, subject.version, task, settings.hang_s, START_S, memory_mb
        )

    def _replace(self, key: Key, worker: int | None) -> None:
        old = self._take_away(key)
        if old is not None:
            self._replaced.append(old)
        if worker is not None:
            self._current[key] = worker

    def _take_away(self, key: Key) -> int | None:
        """The worker of a version, which it is no more."""
        old = self._current.pop(key, None)
        for state in self._states():
            if state.id == old:
                before = self._restarts.get(key, 0)
                self._restarts[key] = before + state.restarts
        return old

    def _retire(self) -> None:
        replaced, self._replaced = self._replaced, []
        for worker in replaced:
            self._keeper().stop(worker)


def _subject(
    model: str, version: int, data: bytes, options: Mapping[str, str]
) -> Subject:
    own = {k: v for k, v in options.items() if not k.startswith(PREFIX)}
    return Subject(model, version, data, own, single_table(model, version))


def _digest(subject: Subject) -> bytes:
    name = f"{subject.model}\0{subject.version}\0".encode()
    return hashlib.sha256(name + hashlib.sha256(subject.data).digest()).digest()


def upstream_options(model: str, version: int, started: Started) -> dict[str, str]:
    """The worker as the engine sees it: a server elsewhere whose signature is known."""
    options = {
        "kind": "upstream",
        "targets": f"unix:{started.path}",
        "upstream_model": model,
        "upstream_version": str(version),
        "platform": started.report["platform"],
    }
    for kind in ("input", "output"):
        for index, tensor in enumerate(started.report[f"{kind}s"]):
            shape = ",".join(str(size) for size in tensor["shape"])
            text = f"{tensor['name']}|{tensor['datatype']}|{shape}"
            options[f"{kind}.{index}"] = text
    return options
