"""The tape: records that the engine's loops leave, read and kept.

`frames` reads what `Engine.tape()` returns and what stands on disk; they are the same
bytes: u32 length and u32 CRC-32C of a record, then the record, one
`router.v1.Record`. `TapeFiles` keeps them in numbered segments, within a size and an
age; `read_tape` passes over what is damaged or cut off. `TapeReader` is the one thread
that drains the engine and hands records to whoever subscribed.

Everything here may be lost: nothing is synced to disk, a full disk costs records and
never disturbs anything else, and each loss has a counter.
"""

import logging
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from router.clock import Clock
from router.engine._engine import crc32c

log = logging.getLogger(__name__)

FRAME = struct.Struct("<II")
RECORD_LENGTH_MAX = 1 << 30  # a ring's largest; a longer length is damage
SEGMENTS_IN_TAPE = 16  # what retention deletes at once is a sixteenth of the tape
SEGMENT_BYTES_MIN = 64 * 1024
INTERVAL_S = 0.2  # a ring of 1 MiB then takes 5 MiB a second from its loop
JOIN_TIMEOUT_S = 10.0
SUFFIX = ".tape"


class Kind(IntEnum):
    """Kinds of records: field numbers of `router.v1.Record`."""

    EXPOSURE = 1
    FIRST_EVENT = 2
    SHADOW_PAIR = 3
    REQUEST = 4
    SPAN = 5


@dataclass(frozen=True, slots=True)
class TapeRecord:
    """One record: `payload` is the message that `kind` names in `router.v1.Record`."""

    kind: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class TapeStatus:
    """What became of the tape on disk."""

    bytes_kept: int
    segments: int
    bytes_lost: int  # could not be written


def frames(data: bytes) -> Iterator[TapeRecord]:
    """The records of bytes that `Engine.tape` returned: whole and sound."""
    at = 0
    while at < len(data):
        length, _ = FRAME.unpack_from(data, at)
        at += FRAME.size
        yield _record(data[at : at + length])
        at += length


def read_tape(
    folder: str | Path, damaged: Callable[[str], None]
) -> Iterator[TapeRecord]:
    """The records of a tape, oldest first; `damaged` is told what was passed over."""
    for path in segments(Path(folder)):
        with suppress(FileNotFoundError):  # retention was quicker
            yield from _sound_frames(path, path.read_bytes(), damaged)


def segments(folder: Path) -> list[Path]:
    """The segments of a tape, oldest first."""
    found = [path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdigit()]
    return sorted(found, key=lambda path: int(path.stem))


def _sound_frames(
    path: Path, data: bytes, damaged: Callable[[str], None]
) -> Iterator[TapeRecord]:
    at = 0
    while at < len(data):
        if len(data) - at < FRAME.size:
            return damaged(f"{path}: cut off at byte {at}")
        length, checksum = FRAME.unpack_from(data, at)
        record = data[at + FRAME.size : at + FRAME.size + length]
        if len(record) < length:
            return damaged(f"{path}: cut off at byte {at}")
        if crc32c(record) == checksum and record:
            yield _record(record)
        else:
            damaged(f"{path}: damaged at byte {at}")
        at += FRAME.size + length
    return None


def _record(record: bytes) -> TapeRecord:
    # One length-delimited field below 16: a byte of tag, a varint, the message.
    start = 1
    while record[start] >= 0x80:
        start += 1
    return TapeRecord(record[0] >> 3, record[start + 1 :])


class TapeFiles:
    """Owner of the segments in a folder. One thread writes."""

    def __init__(
        self, folder: str | Path, bytes_max: int, age_max_s: float, clock: Clock
    ) -> None:
        self._folder, self._clock = Path(folder), clock
        self._bytes_max, self._age_max_s = bytes_max, age_max_s
        self._segment_bytes = max(bytes_max // SEGMENTS_IN_TAPE, SEGMENT_BYTES_MIN)
        self._folder.mkdir(parents=True, exist_ok=True)
        existing = segments(self._folder)
        self._number = int(existing[-1].stem) + 1 if existing else 1
        self._descriptor = -1
        self._written, self._opened_at = 0, 0.0
        self._lost = 0

    def append(self, data: bytes) -> None:
        """Keep these frames. Never raises: what cannot be written is counted."""
        if not data:
            return
        try:
            self._write(data)
        except OSError as error:
            # What was written of it is a torn end: the next frames get a file of
            # their own, so that a reader finds them.
            self._lost += len(data)
            self._close_segment()
            log.warning("the tape lost records", extra={"fields": {
                "bytes": len(data), "because": error.strerror}})  # fmt: skip

    def retain(self) -> None:
        """Delete what is too old or too much, whole segments, the oldest first."""
        kept = [(path, path.stat()) for path in segments(self._folder)]
        total = sum(status.st_size for _, status in kept)
        oldest = self._clock.now() - self._age_max_s
        for path, status in kept[:-1] if self._descriptor >= 0 else kept:
            if total <= self._bytes_max and status.st_mtime >= oldest:
                return
            path.unlink(missing_ok=True)
            total -= status.st_size

    def status(self) -> TapeStatus:
        kept = [path.stat().st_size for path in segments(self._folder)]
        return TapeStatus(sum(kept), len(kept), self._lost)

    def close(self) -> None:
        self._close_segment()

    def _write(self, data: bytes) -> None:
        now = self._clock.now()
        is_old = now - self._opened_at >= self._age_max_s / SEGMENTS_IN_TAPE
        if is_old or self._written >= self._segment_bytes:
            self._close_segment()
        if self._descriptor < 0:
            path = self._folder / f"{self._number:012}{SUFFIX}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o600)
            self._number += 1
            self._written, self._opened_at = 0, now
        rest = memoryview(data)
        while rest:
            done = os.write(self._descriptor, rest)
            self._written += done
            rest = rest[done:]

    def _close_segment(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


Sink = Callable[[Sequence[TapeRecord]], None]


class TapeReader:
    """Owner of the thread that drains the engine's tape: the only reader.

    `sinks` see every record in turn, on this thread; one that raises is logged and
    goes on being asked.
    """

    def __init__(
        self,
        drain: Callable[[], bytes],
        files: TapeFiles | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self._drain, self._files, self._sinks = drain, files, tuple(sinks)
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tape", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Read what is left, then end. Call it when the engine has stopped."""
        self._is_stopping.set()
        self._thread.join(JOIN_TIMEOUT_S)

    def read_once(self) -> None:
        """Drain, keep and hand on: one round of the thread."""
        data = self._drain()
        if self._files is not None:
            self._files.append(data)
            self._files.retain()
        if not data or not self._sinks:
            return
        records = tuple(frames(data))
        for sink in self._sinks:
            try:
                sink(records)
            except Exception:
                log.exception("a reader of the tape failed")

    def _run(self) -> None:
        while not self._is_stopping.wait(INTERVAL_S):
            self.read_once()
        self.read_once()
        if self._files is not None:
            self._files.close()
