"""Labels in a SQLite file of their own, beside the control log.

Feedback comes in thousands a second and is committed in groups; the control log takes a
record now and then that must not wait for them. Two files are two writers that never
wait for each other, and a full label store leaves rollouts alone.

A label's key is its prediction, row, metric and event: the first one stored wins, and
that is all that "exactly once" needs. `seq` is the order of arrival. Rows carry what
the prediction id said, because the key that made the id may be gone when they are read
again. Write-ahead log and `synchronous=FULL`: what `append` returned for is on disk.

One thread writes and reads; nothing here knows what a label means.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import IntEnum
from operator import attrgetter
from pathlib import Path

from router.errors import StoreError, StoreFullError

APPLICATION_ID = 0x52544C42  # "RTLB": tells our files from other SQLite files
SCHEMA_VERSION = 1
PAGE_BYTES = 4096
BUSY_TIMEOUT_S = 5.0
READ_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One label, reward or measurement, and the prediction it is about.

    Times are seconds since 1970. `made_s` to `unit_tag` are what the prediction id
    says; `score` is None when the answer had none. `groups` is JSON text of sorted
    pairs, or empty.
    """

    made_s: int
    prediction: bytes
    row: int
    metric: str
    event: str
    value: float
    observed_s: float
    received_s: float
    groups: str
    model_hash: int
    version: int
    rule_hash: int
    rollout_revision: int
    variant: int
    bucket: int
    is_fallback: bool
    is_sticky: bool
    propensity_bp: int
    score: float | None
    unit_tag: int


class Added(IntEnum):
    """What became of a row: stored, there before, there before with another value."""

    STORED = 0
    SAME = 1
    DIFFERENT = 2


_NAMES = tuple(field.name for field in fields(LabelRow))
_values = attrgetter(*_NAMES)  # a fifteenth of what astuple() costs
_COLUMNS = ", ".join(_NAMES)
_TYPES = {
    "prediction": "BLOB", "metric": "TEXT", "event": "TEXT", "groups": "TEXT",
    "value": "REAL", "observed_s": "REAL", "received_s": "REAL", "score": "REAL",
}  # fmt: skip
_SCHEMA = (
    "CREATE TABLE label (seq INTEGER PRIMARY KEY, "
    + ", ".join(
        f"{name} {_TYPES.get(name, 'INTEGER')}{'' if name == 'score' else ' NOT NULL'}"
        for name in _NAMES
    )
    + ") STRICT",
    # Leads with the time of the decision: retention is a range of this index.
    "CREATE UNIQUE INDEX label_key ON label (made_s, prediction, row, metric, event)",
)
_INSERT = (
    f"INSERT INTO label ({_COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))})"
    " ON CONFLICT DO NOTHING"
)
_FIND = (
    "SELECT value FROM label WHERE made_s = ? AND prediction = ? AND row = ?"
    " AND metric = ? AND event = ?"
)


class LabelStore:
    """Owner of the file. Made, used and closed by one thread."""

    def __init__(self, path: str | Path, bytes_max: int) -> None:
        self._path = Path(path)
        with self._explained():
            self._connection = self._open()
            try:
                self._prepare(bytes_max)
            except BaseException:
                self._connection.close()
                raise

    def append(self, rows: Sequence[LabelRow]) -> tuple[Added, ...]:
        """What became of each row, once all of it is on disk.

        StoreFullError when there is no room, StoreError otherwise; then none is stored.
        """
        execute = self._connection.execute
        with self._explained(), self._transaction():
            added = []
            for row in rows:
                if execute(_INSERT, _values(row)).rowcount == 1:
                    added.append(Added.STORED)
                    continue
                key = (row.made_s, row.prediction, row.row, row.metric, row.event)
                (value,) = execute(_FIND, key).fetchone()
                added.append(Added.SAME if value == row.value else Added.DIFFERENT)
        return tuple(added)

    def last_seq(self) -> int:
        """The number of the newest row; 0 when there is none."""
        with self._explained():
            found = self._connection.execute("SELECT max(seq) FROM label").fetchone()
        return found[0] or 0

    def read(
        self, since: int, until: int, count: int = READ_ROWS
    ) -> list[tuple[int, LabelRow]]:
        """Rows after `since` up to `until`, in order of arrival, at most `count`."""
        with self._explained():
            found = self._connection.execute(
                f"SELECT seq, {_COLUMNS} FROM label WHERE seq > ? AND seq <= ?"
                " ORDER BY seq LIMIT ?",
                (since, until, count),
            ).fetchall()
        return [(row[0], LabelRow(*row[1:])) for row in found]

    def prune(self, made_before_s: float, count: int) -> int:
        """Delete labels of older decisions, at most `count`; how many there were."""
        with self._explained(), self._transaction():
            done = self._connection.execute(
                "DELETE FROM label WHERE seq IN (SELECT seq FROM label"
                " INDEXED BY label_key WHERE made_s < ? LIMIT ?)",
                (int(made_before_s), count),
            )
        return done.rowcount

    def close(self) -> None:
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        return sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None,
            check_same_thread=True,
        )  # fmt: skip

    def _prepare(self, bytes_max: int) -> None:
        """Check that the file is ours; make the table of a new one."""
        execute = self._connection.execute
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        if execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
            with self._transaction():
                for statement in _SCHEMA:
                    execute(statement)
                execute(f"PRAGMA application_id={APPLICATION_ID}")
                execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        if execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreError(f"{self._path} is not a label store: set feedback.store")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} has schema {version}, this router knows"
                f" {SCHEMA_VERSION}: run the release that wrote it"
            )
        page_bytes = execute("PRAGMA page_size").fetchone()[0]
        execute(f"PRAGMA max_page_count={max(1, bytes_max // page_bytes)}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # some errors have rolled back already
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say which file failed, whatever the library said."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            kind = StoreFullError if code == sqlite3.SQLITE_FULL else StoreError
            raise kind(f"{self._path}: {error}") from error
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror or error}") from error
