"""The thread that stores labels: many reports, one commit.

Whoever submits goes on; `done` is called on this thread once the rows are on disk, or
with the error that kept them off it. The queue is bounded and refuses what it has no
room for, so a slow disk costs feedback and nothing else. The file is made when the
first label comes and opened again after every error, at most once a second: a disk that
was full takes labels again as soon as it can.

Rows that were stored before the start are read back in the idle time between commits,
and `restored` hands them to whoever folds them. Rows are folded in the order in which
they came, whenever that was: what comes while older rows are still being read waits.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from router.clock import Clock
from router.errors import StoreError, StoreFullError
from router.store.labels import Added, LabelRow, LabelStore

log = logging.getLogger(__name__)

Done = Callable[[tuple[Added, ...] | StoreError], None]
BATCH_ROWS = 4_096
QUEUE_ROWS = 65_536
# How long a commit waits for company. A sync costs about as much, and feedback is not
# latency bound; at 10,000 reports a second this is a commit per 50 reports.
BATCH_WAIT_S = 0.005
REOPEN_S = 1.0
IDLE_S = 0.25
PRUNE_EVERY_S = 60.0
PRUNE_ROWS = 2_000
JOIN_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the labels are, and how large the file may get."""

    path: Path
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Submission:
    """Rows that stand or fall together, and who wants to know; perhaps no rows, so that
    answers keep the order of their messages."""

    rows: tuple[LabelRow, ...]
    done: Done


@dataclass(slots=True)
class WriterCounts:
    """What happened; written by the writer's thread, `refused` under its lock."""

    commits: int = 0
    stored: int = 0
    duplicates: int = 0
    failed: int = 0
    full: int = 0
    refused: int = 0
    pruned: int = 0


@dataclass(frozen=True, slots=True)
class Folding:
    """Who counts what is stored. All are called on the writer's thread."""

    stored: Callable[[Sequence[LabelRow]], None]
    """Rows that were stored just now."""
    restored: Callable[[Sequence[LabelRow], bool], None]
    """Rows from before the start, and whether these were the last of them."""
    forget: Callable[[float], None]
    """Nothing that was decided before this time is kept."""


@dataclass(slots=True)
class _State:
    """What only the thread touches."""

    store: LabelStore | None = None
    read_until: int | None = None
    read_since: int = 0
    is_restored: bool = False
    opened_at: float = float("-inf")
    pruned_at: float = float("-inf")
    error: StoreError = field(default_factory=lambda: StoreError("not opened yet"))


class LabelWriter:
    """Owner of the thread, its queue and, through it, the file."""

    def __init__(
        self,
        place: Place,
        folding: Folding,
        clock: Clock,
        retention_s: float,
    ) -> None:
        self._place, self._folding, self._clock = place, folding, clock
        self._retention_s = retention_s
        self._queue: queue.SimpleQueue[Submission | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._rows_queued = 0
        self._is_closed = False
        self.counts = WriterCounts()
        self._state = _State()
        self._thread = threading.Thread(target=self._run, name="labels", daemon=True)

    @property
    def rows_queued(self) -> int:
        return self._rows_queued

    def start(self) -> None:
        self._thread.start()

    def submit(self, rows: tuple[LabelRow, ...], done: Done) -> bool:
        """Whether there was room; `done` is called later, and only then."""
        with self._lock:
            if self._is_closed or self._rows_queued + len(rows) > QUEUE_ROWS:
                self.counts.refused += len(rows)
                return False
            self._rows_queued += len(rows)
            self._queue.put(Submission(rows, done))
        return True

    def close(self) -> None:
        """Store what was submitted, close the file, join."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._queue.put(None)
        if self._thread.ident is not None:  # it may never have been started
            self._thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        is_open = True
        self._idle()
        while is_open:
            batch, is_open = self._gather()
            if batch:
                self._commit(batch)
            else:
                self._idle()
        if self._state.store is not None:
            self._state.store.close()

    def _gather(self) -> tuple[list[Submission], bool]:
        """The next batch, and whether more may come; () when nothing comes for now."""
        state = self._state
        is_busy = state.store is not None and not state.is_restored
        try:
            first = self._queue.get(timeout=0.0 if is_busy else IDLE_S)
        except queue.Empty:
            return [], True
        batch: list[Submission] = []
        rows = 0
        until = self._clock.monotonic() + BATCH_WAIT_S
        while first is not None:
            batch.append(first)
            rows += len(first.rows)
            left_s = until - self._clock.monotonic()
            if rows >= BATCH_ROWS:
                break
            try:
                first = self._queue.get(timeout=min(max(left_s, 0), BATCH_WAIT_S))
            except queue.Empty:
                break
        return batch, first is not None

    def _commit(self, batch: list[Submission]) -> None:
        rows = [row for one in batch for row in one.rows]
        try:
            added = self._append(rows) if rows else ()
        except StoreError as error:
            self._fail(batch, error)
            return
        finally:
            with self._lock:
                self._rows_queued -= len(rows)
        stored = [r for r, a in zip(rows, added, strict=True) if a is Added.STORED]
        counts = self.counts
        counts.commits += 1
        counts.stored += len(stored)
        counts.duplicates += len(rows) - len(stored)
        at = 0
        for one in batch:
            _tell(one, added[at : at + len(one.rows)])
            at += len(one.rows)
        if self._state.is_restored:
            self._folding.stored(stored)

    def _append(self, rows: list[LabelRow]) -> tuple[Added, ...]:
        store = self._opened()
        added = store.append(rows)
        if not self._state.is_restored:
            # Folded in its turn, when what came before has been read back.
            self._state.read_until = store.last_seq()
        return added

    def _fail(self, batch: list[Submission], error: StoreError) -> None:
        rows = sum(len(one.rows) for one in batch)
        if isinstance(error, StoreFullError):
            self.counts.full += rows
        else:
            self.counts.failed += rows
            self._drop_store(error)
        log.error("labels were not stored", extra={"fields": {
            "rows": rows, "problem": str(error)}})  # fmt: skip
        for one in batch:
            _tell(one, error)

    def _opened(self) -> LabelStore:
        """The open file; the last error when it was tried a moment ago."""
        state = self._state
        if state.store is None:
            now = self._clock.monotonic()
            if now - state.opened_at < REOPEN_S:
                raise state.error
            state.opened_at = now
            try:
                state.store = LabelStore(self._place.path, self._place.bytes_max)
                if state.read_until is None:
                    state.read_until = state.store.last_seq()
            except StoreError as error:
                self._drop_store(error)
                raise
        return state.store

    def _drop_store(self, error: StoreError) -> None:
        """Whatever state an error left the connection in, a new one is clean."""
        state = self._state
        state.error = error
        if state.store is not None:
            state.store.close()
            state.store = None

    def _idle(self) -> None:
        """Read back, then delete what is too old; a little at a time."""
        state = self._state
        if state.store is None and not self._place.path.exists():
            return  # a router without feedback has no file for it
        try:
            store = self._opened()
            if not state.is_restored:
                until = state.read_until or 0
                found = store.read(state.read_since, until)
                state.read_since = found[-1][0] if found else until
                state.is_restored = state.read_since >= until
                rows = [row for _, row in found]
                self._folding.restored(rows, state.is_restored)
            elif self._clock.monotonic() - state.pruned_at >= PRUNE_EVERY_S:
                before_s = self._clock.now() - self._retention_s
                self._folding.forget(before_s)
                deleted = store.prune(before_s, PRUNE_ROWS)
                self.counts.pruned += deleted
                if deleted < PRUNE_ROWS:
                    state.pruned_at = self._clock.monotonic()
        except StoreError as error:
            self._drop_store(error)
            log.error("labels cannot be read", extra={"fields": {
                "problem": str(error)}})  # fmt: skip


def _tell(one: Submission, result: tuple[Added, ...] | StoreError) -> None:
    try:
        one.done(result)
    except Exception:
        log.exception("a feedback answer was lost")
