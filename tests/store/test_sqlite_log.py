"""The control log keeps what it acknowledged, and says so when it cannot."""

import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from router.clock import SystemClock
from router.errors import StoreError
from router.store.log import Conflict, Entry, Record
from router.store.sqlite import SqliteLog


class ManualClock:
    """Time that stands still until a test moves it; each look moves it by a second."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        self.seconds += 1
        return self.seconds


def record(subject: str) -> Record:
    return Record("kind", subject, '{"a": 1}', "someone", "why")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "state.db"


@pytest.fixture
def log(path: Path) -> SqliteLog:
    return SqliteLog(path, ManualClock())


def test_what_is_appended_is_read_in_order(log: SqliteLog) -> None:
    assert log.append(0, [record("a"), record("b")]) == 2
    assert log.append(2, [record("c")]) == 3
    assert log.read(1) == (
        Entry(2, 1000.0, record("b")),
        Entry(3, 1000.0, record("c")),
    )


def test_who_is_behind_gets_a_conflict_and_appends_nothing(log: SqliteLog) -> None:
    log.append(0, [record("a")])
    assert log.append(0, [record("b")]) == Conflict(1)
    assert [entry.record.subject for entry in log.read()] == ["a"]


def test_appending_nothing_is_no_entry(log: SqliteLog) -> None:
    assert log.append(0, []) == 0
    assert log.read() == ()


def test_a_log_is_the_same_after_a_restart(path: Path, log: SqliteLog) -> None:
    log.append(0, [record("a")])
    before = log.read()
    log.close()
    assert SqliteLog(path, ManualClock()).read() == before


def test_two_writers_of_one_file_see_each_other(path: Path, log: SqliteLog) -> None:
    other = SqliteLog(path, ManualClock())
    assert other.append(0, [record("a")]) == 1
    assert log.append(0, [record("b")]) == Conflict(1)
    assert log.append(1, [record("b")]) == 2


def test_an_unfinished_append_leaves_nothing(log: SqliteLog) -> None:
    broken = Record("kind", "b", None, "someone")  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="NOT NULL"):
        log.append(0, [record("a"), broken])
    assert log.read() == ()
    assert log.append(0, [record("a")]) == 1


def test_watching_returns_what_is_there_already(log: SqliteLog) -> None:
    log.append(0, [record("a")])
    assert len(log.watch(0, timeout_s=0)) == 1


def test_watching_ends_when_time_is_up(log: SqliteLog) -> None:
    assert log.watch(0, timeout_s=0.5) == ()


def test_watching_wakes_when_something_is_appended(path: Path) -> None:
    log = SqliteLog(path, SystemClock())
    seen: list[tuple[Entry, ...]] = []
    watcher = threading.Thread(target=lambda: seen.append(log.watch(0, timeout_s=30)))
    watcher.start()
    log.append(0, [record("a")])
    watcher.join(30)
    assert [entry.record.subject for entry in seen[0]] == ["a"]


def test_only_the_owner_may_read_the_file(path: Path, log: SqliteLog) -> None:
    log.append(0, [record("a")])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_entries_are_never_edited_or_deleted(path: Path, log: SqliteLog) -> None:
    log.append(0, [record("a")])
    log.close()
    connection = sqlite3.connect(path)
    for statement in ("UPDATE record SET kind = 'x'", "DELETE FROM record"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)


def test_reading_makes_no_file(path: Path) -> None:
    with pytest.raises(StoreError, match=r"state\.db"):
        SqliteLog(path, ManualClock(), is_read_only=True)
    assert not path.exists()


def test_a_log_opened_for_reading_refuses_to_write(path: Path, log: SqliteLog) -> None:
    log.append(0, [record("a")])
    reader = SqliteLog(path, ManualClock(), is_read_only=True)
    assert len(reader.read()) == 1
    with pytest.raises(StoreError, match="readonly"):
        reader.append(1, [record("b")])


def test_a_closed_log_says_so(log: SqliteLog) -> None:
    log.close()
    with pytest.raises(StoreError, match="closed"):
        log.read()


def test_something_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="restore a copy, or move it away"):
        SqliteLog(path, ManualClock())


def test_a_damaged_log_is_refused(path: Path, log: SqliteLog) -> None:
    log.append(0, [record("x" * 200)] * 200)
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * 4096 + whole[12288:])
    with pytest.raises(StoreError, match="restore a copy, or move it away"):
        SqliteLog(path, ManualClock()).read()


def test_a_truncated_log_is_refused(path: Path, log: SqliteLog) -> None:
    log.append(0, [record("x" * 200)] * 200)
    log.close()
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(StoreError, match="restore a copy, or move it away"):
        SqliteLog(path, ManualClock()).read()


def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(StoreError, match="not a control log"):
        SqliteLog(path, ManualClock())


def test_a_newer_schema_is_refused(path: Path, log: SqliteLog) -> None:
    log.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=9")
    connection.close()
    with pytest.raises(StoreError, match="schema 9"):
        SqliteLog(path, ManualClock())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        SqliteLog(tmp_path / "file" / "state.db", ManualClock())
