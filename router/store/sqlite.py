"""The control log in one SQLite file.

One connection, guarded by a lock; `synchronous=FULL`, so that an acknowledged append
survives a power cut. The schema has a version, and a file of a newer one is refused
rather than guessed at. A file that is damaged, or is something else, is refused with
its path and what to do: a router that went on without its bucket maps would move users.

The file may hold keys, so it is made readable by its owner only.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from router.clock import Clock
from router.errors import StoreError
from router.store.log import Conflict, Entry, Record

APPLICATION_ID = 0x52544C47  # "RTLG": tells our files from other SQLite files
SCHEMA_VERSION = 2
POLL_S = 1.0  # how soon a watcher sees what another process appended
BUSY_TIMEOUT_S = 5.0

# Beside the log: what may be lost without harm, the newest of each name.
_CHECKPOINT = (
    "CREATE TABLE checkpoint (name TEXT PRIMARY KEY, time REAL NOT NULL,"
    " value TEXT NOT NULL) STRICT"
)
_SCHEMA = (
    """CREATE TABLE record (
  revision INTEGER PRIMARY KEY,
  time REAL NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  payload TEXT NOT NULL,
  actor TEXT NOT NULL,
  reason TEXT NOT NULL
) STRICT""",
    """CREATE TRIGGER record_is_never_edited BEFORE UPDATE ON record
BEGIN SELECT RAISE(ABORT, 'the control log is append-only'); END""",
    _CHECKPOINT,
    """CREATE TRIGGER record_is_never_deleted BEFORE DELETE ON record
BEGIN SELECT RAISE(ABORT, 'the control log is append-only'); END""",
)
_REPAIR = "restore a copy, or move it away to start without bucket maps"


class SqliteLog:
    """A control log in a file. Any thread may call it."""

    def __init__(
        self, path: str | Path, clock: Clock, *, is_read_only: bool = False
    ) -> None:
        self._path = Path(path)
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        with self._explained():
            self._connection = self._open(is_read_only)
            try:
                self._prepare(is_read_only)
            except BaseException:
                self._connection.close()
                raise

    def append(
        self, expected_revision: int, records: Sequence[Record]
    ) -> int | Conflict:
        """The last record's revision once all are on disk; a conflict if none is."""
        with self._changed:
            with self._explained(), self._transaction():
                revision = self._revision()
                if revision != expected_revision:
                    return Conflict(revision)
                now = self._clock.now()
                for record in records:
                    revision += 1
                    self._connection.execute(
                        "INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (
                            revision, now, record.kind, record.subject, record.payload,
                            record.actor, record.reason,
                        ),
                    )  # fmt: skip
            self._changed.notify_all()
            return revision

    def read(self, since: int = 0) -> tuple[Entry, ...]:
        """Every entry after a revision, in order."""
        with self._changed, self._explained():
            rows = self._connection.execute(
                "SELECT revision, time, kind, subject, payload, actor, reason"
                " FROM record WHERE revision > ? ORDER BY revision",
                (since,),
            ).fetchall()
        return tuple(Entry(row[0], row[1], Record(*row[2:])) for row in rows)

    def watch(self, since: int, timeout_s: float) -> tuple[Entry, ...]:
        """Every entry after a revision, as soon as there is one; () when time is up.

        Another process's appends are seen within POLL_S.
        """
        deadline = self._clock.monotonic() + timeout_s
        with self._changed:
            while True:
                entries = self.read(since)
                left_s = deadline - self._clock.monotonic()
                if entries or left_s <= 0:
                    return entries
                self._changed.wait(min(left_s, POLL_S))

    def save(self, name: str, text: str) -> None:
        """Keep a checkpoint in place of the last one of that name."""
        with self._changed, self._explained(), self._transaction():
            self._connection.execute(
                "INSERT INTO checkpoint VALUES (?, ?, ?) ON CONFLICT (name)"
                " DO UPDATE SET time = excluded.time, value = excluded.value",
                (name, self._clock.now(), text),
            )

    def load(self, name: str) -> str | None:
        """The last checkpoint of that name."""
        with self._changed, self._explained():
            row = self._connection.execute(
                "SELECT value FROM checkpoint WHERE name = ?", (name,)
            ).fetchone()
        return None if row is None else str(row[0])

    def close(self) -> None:
        """Give the file back. A closed log answers nothing but StoreError."""
        with self._changed:
            self._connection.close()

    def _open(self, is_read_only: bool) -> sqlite3.Connection:
        if not is_read_only:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        # Read-only is said to SQLite later: a journal left by a crash has to be rolled
        # back before anything can be read, and that is a write.
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        return sqlite3.connect(
            uri,
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )

    def _prepare(self, is_read_only: bool) -> None:
        """Check that the file is ours and whole; make the tables of a new one."""
        execute = self._connection.execute
        execute("PRAGMA synchronous=FULL")
        if not is_read_only:
            with self._transaction():
                if execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                    for statement in _SCHEMA:
                        execute(statement)
                    execute(f"PRAGMA application_id={APPLICATION_ID}")
                    execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        if execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreError(f"{self._path} is not a control log: set server.state")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version == 1 and not is_read_only:
            self._migrate()
            version = SCHEMA_VERSION
        if version not in ((1, SCHEMA_VERSION) if is_read_only else (SCHEMA_VERSION,)):
            raise StoreError(
                f"{self._path} has schema {version}, this router knows"
                f" {SCHEMA_VERSION}: run the release that wrote it"
            )
        damage = execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise StoreError(f"{self._path} is damaged ({damage}): {_REPAIR}")
        if is_read_only:
            execute("PRAGMA query_only=ON")

    def _migrate(self) -> None:
        """From schema 1, which had no checkpoints; all or nothing."""
        with self._transaction():
            self._connection.execute(_CHECKPOINT)
            self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _revision(self) -> int:
        row = self._connection.execute("SELECT max(revision) FROM record").fetchone()
        return row[0] or 0

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say which file failed and what to do, whatever the library said."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", None)
            is_damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            remedy = f": {_REPAIR}" if is_damaged else ""
            raise StoreError(f"{self._path}: {error}{remedy}") from error
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror or error}") from error
