"""What is published is what was tried out and stored, whoever else writes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from router.clock import SystemClock
from router.config.config import Config
from router.control.publication import Publication, Routing
from router.control.state import fold, variant_record
from router.errors import ConfigError, ConflictError
from router.plan.compile import compile_plan
from router.plan.encode import encode
from router.store.log import Conflict, Record
from router.store.sqlite import SqliteLog

LISTED = {"credit": (1, 2, 3)}
NONE: frozenset[tuple[str, int]] = frozenset()
OUT = variant_record("credit", 3, True, "other", "")


def config(weight: int) -> Config:
    value: dict[str, Any] = {
        "api_version": "router/v1",
        "models": [
            {
                "name": "credit",
                "repository": "r",
                "stable": 1,
                "versions": "all",
                "prediction_id": True,
            }
        ],
        "routes": [{"model": "credit", "split": {1: 100 - weight, 2: weight}}],
    }
    return Config.model_validate(value)


class Tables:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.published: list[bytes] = []

    def publish(self, table: bytes) -> None:
        self.published.append(table)


class Contested(SqliteLog):
    """A log to which another process writes once, before or after our append."""

    before: tuple[Record, ...] = ()
    after: tuple[Record, ...] = ()

    def append(
        self, expected_revision: int, records: Sequence[Record]
    ) -> int | Conflict:
        self._others(self.before)
        self.before = ()
        answer = super().append(expected_revision, records)
        self._others(self.after)
        self.after = ()
        return answer

    def _others(self, records: tuple[Record, ...]) -> None:
        if records:
            super().append(self._revision(), records)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Contested]:
    made = Contested(tmp_path / "state.db", SystemClock())
    yield made
    made.close()


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def publication(log: Contested, tables: Tables) -> Publication:
    return Publication(tables, log, SystemClock(), bytes)


def take(publication: Publication, weight: int) -> Routing:
    return publication.take(config(weight), LISTED, NONE, "someone", "")


def assert_as_stored(routing: Routing, log: SqliteLog, tables: Tables) -> None:
    state = fold(log.read())
    assert routing.state == state
    assert routing.plan == compile_plan(routing.config, state.states(LISTED))
    assert tables.published[-1] == routing.table == encode(routing.plan)


def is_out(routing: Routing) -> bool:
    (model,) = routing.plan.models
    return next(v.is_disabled for v in model.variants if v.version == 3)


def test_what_is_taken_is_what_is_stored(
    publication: Publication, log: Contested, tables: Tables
) -> None:
    for weight in (10, 50, 50, 20):
        assert_as_stored(take(publication, weight), log, tables)
    assert len(tables.published) == 4


def test_what_cannot_be_laid_out_is_neither_stored_nor_published(
    publication: Publication, log: Contested, tables: Tables
) -> None:
    many = {"credit": tuple(range(1, 400))}
    with pytest.raises(ConfigError):
        publication.take(config(10), many, NONE, "someone", "")
    assert log.read() == ()
    assert tables.published == []


def test_what_others_stored_first_is_taken_into_account(
    publication: Publication, log: Contested, tables: Tables
) -> None:
    log.before = (OUT,)
    routing = take(publication, 10)
    assert is_out(routing)
    assert_as_stored(routing, log, tables)


def test_growing_publishes_also_what_others_stored_meanwhile(
    publication: Publication, log: Contested, tables: Tables
) -> None:
    assert not is_out(take(publication, 10))
    log.after = (OUT,)
    routing = publication.grow(
        [variant_record("credit", 2, False, "someone", "")],
    )
    assert is_out(routing)
    assert_as_stored(routing, log, tables)


def test_growing_is_refused_when_others_were_first(
    publication: Publication, log: Contested, tables: Tables
) -> None:
    take(publication, 10)
    log.before = (OUT,)
    with pytest.raises(ConflictError):
        publication.grow([variant_record("credit", 2, False, "someone", "")])
    assert len(tables.published) == 1
