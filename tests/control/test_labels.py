"""Keys are rotated and expire; the catalogue names what serves."""

import pytest

from router.config.load import read_config
from router.control.labels import (
    CatalogueBook,
    catalogue_of,
    name_hash,
    readable_keys,
    rotate_key,
)
from router.control.state import fold
from router.plan.compile import States, compile_plan
from router.plan.plan import MintKey
from router.store.sqlite import SqliteLog

CONFIG = """
api_version: router/v1
models:
  - name: credit
    repository: models/credit
    stable: 1
    prediction_id: true
    output: {tensor: p, kind: probability, threshold: 0.3}
  - {name: plain, repository: models/plain, stable: 1}
routes:
  - {model: credit, name: half, split: {1: 50, 2: 50}}
"""
DAY_S = 86_400.0


class ManualClock:
    time = 1_700_000_000.0

    def now(self):
        return self.time

    def monotonic(self):
        return self.time


def applied(keys):
    config = read_config(CONFIG, "router.yaml")
    versions = {"credit": (1, 2), "plain": (1,)}
    return config, compile_plan(config, States(versions, {}, keys))


def test_hashes_are_the_lower_half_of_xxh64():
    # XXH64("", 0) = EF46DB3751D8E999
    assert name_hash("") == 0x51D8E999


def test_the_catalogue_says_what_labels_mean():
    found = catalogue_of(*applied((MintKey(0, bytes(32)),)), 0.0)
    credit = found.models[name_hash("credit")]
    assert (credit.name, credit.kind, credit.threshold) == (
        "credit",
        "probability",
        0.3,
    )
    assert found.models[name_hash("plain")].kind == ""
    assert found.rules == {name_hash("half"): "half"}
    assert found.keys == ((0, bytes(32)),)


def test_a_key_is_read_until_its_last_id_has_left_the_window():
    keys = (MintKey(2, b"c" * 32, 1000.0), MintKey(1, b"b" * 32, 500.0),
            MintKey(0, b"a" * 32))  # fmt: skip
    numbers = lambda now: [n for n, _ in readable_keys(keys, 100.0, now)]  # noqa: E731
    assert numbers(600.0) == [2, 1, 0]
    assert numbers(600.5) == [2, 1]
    assert numbers(1100.0) == [2, 1]
    assert numbers(1100.5) == [2]
    assert numbers(1e9) == [2]


def test_a_key_without_a_time_expires_nobody():
    keys = (MintKey(1, b"b" * 32), MintKey(0, b"a" * 32))
    assert len(readable_keys(keys, 1.0, 1e9)) == 2


@pytest.fixture
def log(tmp_path):
    made = SqliteLog(tmp_path / "state.db", ManualClock())
    yield made
    made.close()


def test_a_rotated_key_mints_and_the_old_ones_are_kept(log):
    for at in range(3):
        rotate_key(log, lambda n, at=at: bytes([at]) * n, "me", 100.0 + at)
    keys = fold(log.read()).keys
    assert [(key.id, key.secret[0], key.made_s) for key in keys] == [
        (2, 2, 102.0), (1, 1, 101.0), (0, 0, 100.0),
    ]  # fmt: skip


def test_there_are_sixteen_keys_at_most(log):
    for at in range(18):
        rotate_key(log, lambda n, at=at: bytes([at]) * n, "me", float(at))
    keys = fold(log.read()).keys
    assert len(keys) == 16
    assert [key.secret[0] for key in keys] == list(range(17, 1, -1))


def test_the_book_follows_what_is_applied_and_the_clock():
    class Source:
        applied = None

    source, clock = Source(), ManualClock()
    book = CatalogueBook(source, clock)
    assert book().models == {}
    keys = (MintKey(1, b"b" * 32, clock.time), MintKey(0, b"a" * 32))
    source.applied = applied(keys)
    first = book()
    assert len(first.keys) == 2
    assert book() is first
    clock.time += 7 * DAY_S + 61
    assert len(book().keys) == 1
