"""The tape on disk: within its size and age, and readable after any end."""

import os
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from router.engine._engine import crc32c
from router.telemetry.tape import (
    Kind,
    TapeFiles,
    TapeReader,
    TapeRecord,
    frames,
    read_tape,
    segments,
)


class ManualClock:
    def __init__(self, time: float) -> None:
        self.time = time

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def frame(payload: bytes, kind: int = Kind.FIRST_EVENT) -> bytes:
    length, varint = len(payload), b""
    while length >= 0x80:
        varint += bytes([length & 0x7F | 0x80])
        length >>= 7
    record = bytes([kind << 3 | 2]) + varint + bytes([length]) + payload
    return struct.pack("<II", len(record), crc32c(record)) + record


def records(*payloads: bytes) -> list[TapeRecord]:
    return [TapeRecord(Kind.FIRST_EVENT, payload) for payload in payloads]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1e9)


def tape(folder: Path, clock: ManualClock, **limits: int) -> TapeFiles:
    given = {"bytes_max": 1 << 30, "age_max_s": 1 << 30, **limits}
    return TapeFiles(folder, given["bytes_max"], given["age_max_s"], clock)


def read(folder: Path) -> tuple[list[TapeRecord], list[str]]:
    problems: list[str] = []
    return list(read_tape(folder, problems.append)), problems


def test_a_checksum_is_the_published_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("length", [0, 1, 127, 128, 20_000])
def test_what_was_kept_is_read_back(
    tmp_path: Path, clock: ManualClock, length: int
) -> None:
    files = tape(tmp_path, clock)
    data = frame(b"a" * length, Kind.REQUEST) + frame(b"second")
    files.append(data)
    files.close()
    expected = [TapeRecord(Kind.REQUEST, b"a" * length), *records(b"second")]
    assert list(frames(data)) == expected
    assert read(tmp_path) == (expected, [])


def test_a_tape_goes_on_in_a_new_segment_after_a_restart(
    tmp_path: Path, clock: ManualClock
) -> None:
    for payload in (b"one", b"two", b"three"):
        files = tape(tmp_path, clock)
        files.append(frame(payload))
        files.close()
    assert len(segments(tmp_path)) == 3
    assert read(tmp_path) == (records(b"one", b"two", b"three"), [])


@pytest.mark.parametrize("cut", range(1, len(frame(b"second"))))
def test_a_torn_end_costs_the_record_it_tore(
    tmp_path: Path, clock: ManualClock, cut: int
) -> None:
    files = tape(tmp_path, clock)
    files.append(frame(b"first") + frame(b"second"))
    files.close()
    (path,) = segments(tmp_path)
    os.truncate(path, path.stat().st_size - cut)
    again = tape(tmp_path, clock)
    again.append(frame(b"third"))
    again.close()
    found, problems = read(tmp_path)
    assert found == records(b"first", b"third")
    assert len(problems) == 1


def test_a_damaged_record_costs_itself(tmp_path: Path, clock: ManualClock) -> None:
    files = tape(tmp_path, clock)
    files.append(frame(b"first") + frame(b"second") + frame(b"third"))
    files.close()
    (path,) = segments(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(frame(b"first")) + 12] ^= 1
    path.write_bytes(data)
    found, problems = read(tmp_path)
    assert found == records(b"first", b"third")
    assert problems == [f"{path}: damaged at byte {len(frame(b'first'))}"]


def test_a_tape_keeps_to_its_size_and_loses_the_oldest(
    tmp_path: Path, clock: ManualClock
) -> None:
    files = tape(tmp_path, clock, bytes_max=1 << 20)
    for number in range(64):
        files.append(frame(bytes([number]) * 65_536))
        files.retain()
        assert files.status().bytes_kept <= (1 << 20) + 65_600
    files.close()
    found, problems = read(tmp_path)
    assert problems == []
    numbers = [record.payload[0] for record in found]
    assert numbers == list(range(numbers[0], 64))
    assert 10 <= len(numbers) <= 16


def test_a_tape_forgets_what_is_too_old(tmp_path: Path, clock: ManualClock) -> None:
    files = tape(tmp_path, clock, age_max_s=1600)
    for number in range(4):
        files.append(frame(b"%d" % number))
        os.utime(segments(tmp_path)[-1], (clock.time, clock.time))
        clock.time += 100  # a sixteenth of its age: each gets a segment of its own
    files.retain()
    assert len(segments(tmp_path)) == 4
    clock.time = 1e9 + 1600 + 101
    files.retain()
    assert read(tmp_path)[0] == records(b"2", b"3")
    files.close()


def test_what_cannot_be_written_is_counted_and_disturbs_nothing(
    tmp_path: Path, clock: ManualClock
) -> None:
    files = tape(tmp_path / "tape", clock)
    (tmp_path / "tape").rmdir()
    files.append(frame(b"lost"))
    assert files.status().bytes_lost == len(frame(b"lost"))
    (tmp_path / "tape").mkdir()
    files.append(frame(b"kept"))
    files.close()
    assert read(tmp_path / "tape")[0] == records(b"kept")


def test_every_record_reaches_every_sink_even_beside_one_that_fails(
    tmp_path: Path, clock: ManualClock
) -> None:
    chunks = [b"", frame(b"b"), frame(b"a")]
    seen: list[TapeRecord] = []
    was_last_read = threading.Event()

    def drain() -> bytes:
        if not chunks:
            was_last_read.set()
        return chunks.pop() if chunks else b""

    def fails(_: Sequence[TapeRecord]) -> None:
        raise RuntimeError("not today")

    reader = TapeReader(drain, tape(tmp_path, clock), (fails, seen.extend))
    reader.start()
    assert was_last_read.wait(10)
    chunks.append(frame(b"last"))
    reader.stop()
    assert seen == records(b"a", b"b", b"last")
    assert read(tmp_path) == (seen, [])
