"""What units were seen is kept over a restart, whole or not at all."""

import logging
from pathlib import Path

import pytest

from router.control.checkpoint import Checkpoint
from router.errors import EngineError


class Filters:
    """What the engine would give and take."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def save(self) -> bytes:
        return self.data

    def restore(self, data: bytes) -> None:
        if data == b"damaged":
            raise EngineError("filters: damaged")
        self.data = data


def made(path: Path, filters: Filters) -> Checkpoint:
    return Checkpoint(path, filters.save, filters.restore)


def test_what_was_written_is_read_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "run" / "filters.bin"
    made(path, Filters(b"seen")).write()
    after = Filters()
    made(path, after).read()
    assert after.data == b"seen"
    assert [entry.name for entry in path.parent.iterdir()] == ["filters.bin"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_file_there_is_nothing_to_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path / "f", Filters()).read()
    assert caplog.records == []


def test_a_damaged_file_is_said_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "f").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        made(tmp_path / "f", Filters()).read()
    assert [record.message for record in caplog.records] == ["units are counted anew"]


def test_a_disk_that_takes_nothing_disturbs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        made(tmp_path / "file" / "f", Filters(b"seen")).write()
    assert "what units did is not kept" in caplog.text
