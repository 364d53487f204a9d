"""Workers: processes that serve one version each, and who keeps them.

One thread owns every worker. It starts them, hears their beats, and when one dies,
hangs or grows too large it ends it and starts it again: after half a second, then
twice that, up to half a minute. One that keeps dying is put into quarantine and stays
there until somebody loads its version anew, from another file or with other settings.
The kernel kills a worker when the thread that started it ends, so this thread lives
until everything else has stopped.

A worker is started by a load and belongs to it: a version that is loaded anew gets a
worker of its own, with a socket of its own, and the old one serves until the table that
routes to it is gone.
"""

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from router.clock import Clock
from router.control.listeners import Listener, open_listeners
from router.control.rundir import RunDirectory
from router.errors import ModelError
from router.models.child import MIB, Task, pack, resident_bytes, spawn

log = logging.getLogger(__name__)

MODULE = "router.models.worker"
REMEDY = "load its version anew: touch its file, or change its settings, and reload"
BEAT_S = 0.25
DRAIN_S = 10.0
# After being asked to leave, and on top of the drain.
LEAVE_S = 2.0
PAUSE_MAX_S = 0.5
JOIN_TIMEOUT_S = 10.0
REPORT_LINE_MAX = 1 << 20
UNIX_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a worker may die, and how long it stays away."""

    pause_min_s: float = 0.5
    pause_max_s: float = 30.0
    crashes_max: int = 5
    window_s: float = 60.0
    forgiven_after_s: float = 60.0
    """Up for so long, and the next crash is the first again."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker serves and what it may use.

    `memory_mb_max` is resident memory, 0 for no limit; `hang_s` the longest silence.
    """

    model: str
    version: int
    task: Task
    hang_s: float
    start_s: float
    memory_mb_max: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """A worker that answers: where, and what its version is like."""

    id: int
    path: Path
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerState:
    """How a worker is at the moment."""

    id: int
    model: str
    version: int
    is_up: bool
    is_quarantined: bool
    restarts: int
    memory_bytes: int
    pid: int


@dataclass(slots=True)
class _Worker:
    """Owner of one process and what it needs to be started again."""

    id: int
    spec: WorkerSpec
    parcel: BinaryIO
    path: Path
    ready: "Future[Started]"
    process: subprocess.Popen[bytes] | None = None
    listener: Listener | None = None
    report: int = -1
    heard: bytes = b""
    is_up: bool = False
    is_quarantined: bool = False
    is_leaving: bool = False
    restarts: int = 0
    crashes: deque[float] = field(default_factory=deque)
    streak: int = 0
    up_at: float = 0.0
    memory_bytes: int = 0
    # When something is due: the end of silence, of the pause, or of its patience.
    due_at: float = float("inf")
    why_killed: str = ""


def judge_crash(
    patience: Patience, crashes: Sequence[float], streak: int, now: float
) -> float | None:
    """How long to wait before another start; None for quarantine.

    `crashes` are the latest, this one included; `streak` counts those in a row.
    """
    recent = sum(now - at <= patience.window_s for at in crashes)
    if recent >= patience.crashes_max:
        return None
    pause_s = patience.pause_min_s * 2.0 ** min(streak - 1, 16)
    return min(pause_s, patience.pause_max_s)


class Workers:
    """Owner of the worker processes and of their folder. Any thread may call."""

    def __init__(
        self, directory: RunDirectory, clock: Clock, patience: Patience = Patience()
    ) -> None:
        self._directory, self._clock = directory, clock
        self._patience = patience
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._serial = 0
        self._is_stopping = False
        self._states: tuple[WorkerState, ...] = ()
        self._thread = threading.Thread(target=self._run, name="workers", daemon=True)
        self._thread.start()

    def start(self, spec: WorkerSpec) -> Started:
        """Start a worker and wait until it answers. ModelError when it does not."""
        ready: Future[Started] = Future()
        parcel = pack(spec.task)
        self._post(lambda: self._add(spec, parcel, ready))
        return ready.result(spec.start_s + JOIN_TIMEOUT_S)

    def stop(self, worker: int) -> None:
        """Let a worker finish what it has and leave; returns at once."""
        self._post(lambda: self._ask_to_leave(worker))

    def states(self) -> tuple[WorkerState, ...]:
        """Every worker as it was at its last beat."""
        return self._states

    def close(self) -> None:
        """End every worker now, and the thread, and remove the folder."""
        self._post(self._stop)
        self._thread.join(JOIN_TIMEOUT_S)
        self._directory.close()

    # -- the thread's own from here ----------------------------------------------------

    def _post(self, act: Callable[[], None]) -> None:
        self._inbox.append(act)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                self._turn()
            except Exception:
                log.exception("the workers' thread failed at something")
        for worker in list(self._workers.values()):
            self._end(worker)
            self._give_up(worker, "the router is leaving")
            self._forget(worker)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _stop(self) -> None:
        self._is_stopping = True

    def _turn(self) -> None:
        now = self._clock.monotonic()
        due = min((w.due_at for w in self._workers.values()), default=float("inf"))
        pause = min(max(due - now, 0.0), PAUSE_MAX_S)
        for key, _ in self._selector.select(pause):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            else:
                self._hear(key.data)
        while self._inbox:
            self._inbox.popleft()()
        now = self._clock.monotonic()
        for worker in list(self._workers.values()):
            if worker.due_at <= now:
                self._is_due(worker)
        self._states = tuple(_state(worker) for worker in self._workers.values())

    def _add(
        self, spec: WorkerSpec, parcel: BinaryIO, ready: "Future[Started]"
    ) -> None:
        self._serial += 1
        path = self._directory.path / f"{self._serial}.sock"
        worker = _Worker(self._serial, spec, parcel, path, ready)
        self._workers[worker.id] = worker
        self._spawn(worker)

    def _spawn(self, worker: _Worker) -> None:
        try:
            reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            os.set_blocking(writing, True)
            address = f"unix:{worker.path}"
            (worker.listener,) = open_listeners([address], "", [], UNIX_MODE)
            try:
                worker.process = spawn(
                    MODULE, worker.parcel, writing,
                    listener=worker.listener.socket.fileno(),
                )  # fmt: skip
            finally:
                # Ours closed, a connection to a dead worker is refused at once.
                os.close(writing)
                worker.listener.socket.close()
        except OSError as error:
            self._crashed(worker, f"cannot be started: {error.strerror}")
            return
        worker.report, worker.heard, worker.why_killed = reading, b"", ""
        worker.due_at = self._clock.monotonic() + worker.spec.start_s
        self._selector.register(reading, selectors.EVENT_READ, worker)

    def _hear(self, worker: _Worker) -> None:
        try:
            data = os.read(worker.report, 1 << 16)
        except BlockingIOError:
            return
        worker.heard += data
        *lines, worker.heard = worker.heard.split(b"\n")
        for line in lines:
            self._told(worker, json.loads(line))
        if not data or len(worker.heard) > REPORT_LINE_MAX:
            self._died(worker)

    def _told(self, worker: _Worker, words: Mapping[str, Any]) -> None:
        now = self._clock.monotonic()
        if "refused" in words:
            worker.why_killed = words["refused"]
        elif "ready" in words:
            self._is_ready(worker, words["ready"], now)
        elif not worker.is_leaving:
            worker.due_at = now + worker.spec.hang_s
            self._beat(worker, words, now)

    def _is_ready(self, worker: _Worker, report: Mapping[str, Any], now: float) -> None:
        worker.is_up, worker.up_at = True, now
        worker.due_at = now + worker.spec.hang_s
        assert worker.process is not None
        worker.memory_bytes = resident_bytes(worker.process.pid)
        _say(log.info, "a worker is ready", worker, pid=worker.process.pid)
        if not worker.ready.done():
            self._states = tuple(_state(each) for each in self._workers.values())
            worker.ready.set_result(Started(worker.id, worker.path, report))

    def _beat(self, worker: _Worker, words: Mapping[str, Any], now: float) -> None:
        assert worker.process is not None
        worker.memory_bytes = resident_bytes(worker.process.pid)
        most = worker.spec.memory_mb_max * MIB
        if now - worker.up_at > self._patience.forgiven_after_s:
            worker.streak = 0
        if most and worker.memory_bytes > most:
            self._kill(worker, f"holds more than {worker.spec.memory_mb_max} MB")
        elif words.get("abandoned"):
            self._kill(worker, "a run in it does not end")

    def _is_due(self, worker: _Worker) -> None:
        """Silence has lasted too long, or a pause has ended."""
        if worker.process is None:
            if worker.is_leaving:
                self._forget(worker)
            else:
                worker.restarts += 1
                self._spawn(worker)
        elif worker.is_up and not worker.is_leaving:
            self._kill(worker, f"hangs: silent for {worker.spec.hang_s:g} s")
        else:
            self._kill(worker, "took too long")

    def _kill(self, worker: _Worker, why: str) -> None:
        worker.why_killed = worker.why_killed or why
        worker.due_at = self._clock.monotonic() + LEAVE_S
        if worker.process is not None:
            worker.process.kill()

    def _died(self, worker: _Worker) -> None:
        code = self._end(worker)
        if worker.is_leaving:
            self._forget(worker)
            return
        self._crashed(worker, worker.why_killed or _cause(code))

    def _crashed(self, worker: _Worker, why: str) -> None:
        if self._give_up(worker, why):
            self._forget(worker)
            return
        now = self._clock.monotonic()
        worker.is_up, worker.memory_bytes = False, 0
        worker.streak += 1
        worker.crashes.append(now)
        if len(worker.crashes) > self._patience.crashes_max:
            worker.crashes.popleft()
        pause = judge_crash(self._patience, worker.crashes, worker.streak, now)
        if pause is None:
            worker.is_quarantined, worker.due_at = True, float("inf")
            _say(log.error, "a worker is in quarantine", worker, why=why, remedy=REMEDY)
        else:
            worker.due_at = now + pause
            _say(log.error, "a worker died", worker, why=why, again_in_s=pause)

    def _give_up(self, worker: _Worker, why: str) -> bool:
        """Tell whoever waits for its first start; whether somebody did."""
        if worker.ready.done():
            return False
        spec = worker.spec
        error = ModelError(spec.model, spec.version, f"its worker failed: {why}")
        worker.ready.set_exception(error)
        return True

    def _ask_to_leave(self, number: int) -> None:
        worker = self._workers.get(number)
        if worker is None:
            return
        worker.is_leaving = True
        if worker.process is None or worker.process.stdin is None:
            self._forget(worker)
            return
        worker.due_at = self._clock.monotonic() + DRAIN_S + LEAVE_S
        worker.process.stdin.close()

    def _end(self, worker: _Worker) -> int:
        """Make sure that the process has ended; how it did."""
        if worker.report >= 0:
            self._selector.unregister(worker.report)
            os.close(worker.report)
            worker.report = -1
        process, worker.process = worker.process, None
        if process is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            # It closed its end, so it is about to go, and its own code tells more.
            process.wait(0.05 if not self._is_stopping else 0)
        process.kill()
        code = process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        worker.is_up = False
        return code

    def _forget(self, worker: _Worker) -> None:
        self._workers.pop(worker.id, None)
        worker.parcel.close()
        if worker.listener is not None:
            worker.listener.close()


def _state(worker: _Worker) -> WorkerState:
    return WorkerState(
        worker.id, worker.spec.model, worker.spec.version, worker.is_up,
        worker.is_quarantined, worker.restarts, worker.memory_bytes,
        worker.process.pid if worker.process is not None else 0,
    )  # fmt: skip


def _cause(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with {code}"


def _say(say: Callable[..., None], event: str, worker: _Worker, **more: Any) -> None:
    spec = worker.spec
    fields = {"model": spec.model, "version": spec.version, "worker": worker.id, **more}
    say(event, extra={"fields": fields})
