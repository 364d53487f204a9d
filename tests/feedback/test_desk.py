"""Reports are joined, stored once, and answered when they are on disk."""

import sqlite3

import pytest
from minted import CREDIT, DAY_S, NOW, RULE, SECRET, label, mint

from router import testing
from router.errors import StoreError, StoreFullError
from router.feedback import writer as writing
from router.feedback.desk import BusyError
from router.feedback.join import Catalogue, ModelTruth, Report
from router.feedback.sums import Sum


def test_a_label_joins_once(open_desk):
    made = open_desk()
    assert made.outcomes(label(1)) == ["JOINED"]
    (again,) = made.report(label(1))
    assert (again.outcome.name, again.reason) == ("DUPLICATE", "reported before")


def test_another_value_for_a_label_changes_nothing_and_says_so(open_desk):
    made = open_desk()
    made.report(label(1, 1.0))
    (answer,) = made.report(label(1, 0.0))
    assert answer.outcome.name == "DUPLICATE"
    assert "another value" in answer.reason


def test_two_equal_reports_of_one_message_are_one_label(open_desk):
    assert open_desk().outcomes(label(1), label(2), label(1)) == [
        "JOINED",
        "JOINED",
        "DUPLICATE",
    ]


def test_rows_metrics_and_events_of_a_prediction_are_apart(open_desk):
    one = mint(1)
    reports = [
        Report(one, 0, "label", 1.0),
        Report(one, 1, "label", 1.0),
        Report(one, 0, "reward", 2.0),
        Report(one, 0, "clicks", 1.0, "a"),
        Report(one, 0, "clicks", 1.0, "b"),
        Report(one, 0, "clicks", 1.0, "a"),
    ]
    assert open_desk().outcomes(*reports) == [*["JOINED"] * 5, "DUPLICATE"]


@pytest.mark.parametrize(
    ("prediction_id", "reason"),
    [
        ("", "keys"),
        ("x" * 64, "keys"),
        (mint(1, secret=bytes(32)), "keys"),
        (mint(1, key=4), "keys"),
        (mint(1)[:-1] + "_", "keys"),
        (mint(1, model=99), "not served"),
        (mint(1, time_s=NOW + 301), "future"),
    ],
)
def test_an_id_that_is_not_ours_is_unknown(open_desk, prediction_id, reason):
    (answer,) = open_desk().report(Report(prediction_id, 0, "label", 1.0))
    assert answer.outcome.name == "UNKNOWN"
    assert reason in answer.reason


def test_an_id_from_a_replica_whose_clock_is_ahead_joins(open_desk):
    assert open_desk().outcomes(label(1, time_s=NOW + 300)) == ["JOINED"]


def test_a_label_is_late_once_its_window_is_over(open_desk):
    made = open_desk(window_s=7 * DAY_S)
    at_the_edge = label(1, time_s=NOW - 7 * DAY_S)
    after = label(2, time_s=NOW - 7 * DAY_S - 1)
    assert made.outcomes(at_the_edge, after) == ["JOINED", "LATE"]


def test_what_was_seen_in_time_and_told_later_is_not_late(open_desk):
    made = open_desk(window_s=7 * DAY_S, retention_s=30 * DAY_S)
    prediction = mint(1, time_s=NOW - 10 * DAY_S)
    seen = Report(prediction, 0, "label", 1.0, observed_s=NOW - 9 * DAY_S)
    assert made.outcomes(seen) == ["JOINED"]


def test_a_prediction_older_than_is_kept_is_late(open_desk):
    made = open_desk(window_s=7 * DAY_S, retention_s=30 * DAY_S)
    kept = mint(1, time_s=NOW - 30 * DAY_S)
    gone = mint(2, time_s=NOW - 30 * DAY_S - 1)
    seen = [
        Report(p, 0, "label", 1.0, observed_s=NOW - 29 * DAY_S) for p in (kept, gone)
    ]
    assert made.outcomes(*seen) == ["JOINED", "LATE"]


def test_an_old_key_is_read_as_long_as_the_catalogue_has_it(open_desk):
    old, new = bytes(32), SECRET
    models = {CREDIT: ModelTruth("credit", "probability")}
    keys = [((4, new), (3, old)), ((4, new),)]
    made = open_desk(catalogue=lambda: Catalogue(keys[0], models, {}))
    assert made.outcomes(label(1, secret=old)) == ["JOINED"]
    del keys[0]
    assert made.outcomes(label(2, secret=old)) == ["UNKNOWN"]
    assert made.outcomes(label(3, key=4)) == ["JOINED"]


def test_answers_come_in_the_order_of_messages(open_desk):
    made = open_desk()
    for at in range(50):
        made.send(Report("", 0, "label", 1.0) if at % 2 else label(at))
    testing.wait_until(lambda: len(made.told) == 50, "fifty answers")
    outcomes = [told[0].outcome.name for told in made.told]
    assert outcomes == ["JOINED", "UNKNOWN"] * 25


def test_a_restart_remembers_every_label_and_folds_it_again(open_desk):
    first = open_desk()
    first.report(*(label(at, at % 2) for at in range(100)))
    testing.wait_until(lambda: _joined(first) == 100, "labels folded")
    before = first.desk.fold.read(CREDIT, "label")
    first.desk.close()
    second = open_desk()
    testing.wait_until(lambda: second.desk.fold.is_complete, "labels folded again")
    assert second.desk.fold.read(CREDIT, "label") == before
    assert second.outcomes(label(7, 1.0), label(100)) == ["DUPLICATE", "JOINED"]
    testing.wait_until(lambda: _joined(second) == 101, "the new label folded")


def _joined(made):
    return sum(f.prompt[Sum.JOINED] for f in made.desk.fold.read(CREDIT, "label"))


def test_labels_that_come_while_old_ones_are_read_are_folded_once(
    open_desk,
):
    first = open_desk()
    for at in range(10):
        first.report(*(label(at * 256 + n) for n in range(256)))
    first.desk.close()
    second = open_desk()
    for at in range(10, 20):
        second.send(*(label(at * 256 + n) for n in range(256)))
    testing.wait_until(lambda: _joined(second) == 20 * 256, "all folded")
    assert second.desk.fold.is_complete


def test_a_full_store_refuses_and_takes_again_when_there_is_room(open_desk):
    made = open_desk(mib_max=0.05)
    results = [made.report(*(label(at * 64 + n) for n in range(64))) for at in range(9)]
    assert isinstance(results[-1], StoreFullError)
    kept = [at for at, one in enumerate(results) if not isinstance(one, StoreError)]
    assert kept
    assert made.desk.writer.counts.full == 64 * (9 - len(kept))
    made.desk.close()
    larger = open_desk(mib_max=1)
    # What was acknowledged is there, what was refused is not.
    assert larger.outcomes(label(0)) == ["DUPLICATE"]
    assert larger.outcomes(label(8 * 64)) == ["JOINED"]


def test_a_file_that_is_something_else_refuses_and_is_left_alone(open_desk, tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    made = open_desk(path=path)
    result = made.report(label(1))
    assert isinstance(result, StoreError)
    assert "not a label store" in str(result)
    with sqlite3.connect(path) as other:
        tables = other.execute("SELECT name FROM sqlite_schema").fetchall()
    assert tables == [("mine",)]


def test_a_store_that_becomes_usable_is_used(open_desk, tmp_path):
    path = tmp_path / "labels.db"
    path.mkdir()
    made = open_desk(path=path)
    assert isinstance(made.report(label(1)), StoreError)
    path.rmdir()
    assert isinstance(made.report(label(1)), StoreError)  # looked at once a second
    made.clock.time += writing.REOPEN_S
    assert made.outcomes(label(1)) == ["JOINED"]


def test_a_desk_without_feedback_makes_no_file(open_desk, tmp_path):
    made = open_desk()
    assert made.outcomes(Report("", 0, "label", 1.0)) == ["UNKNOWN"]
    made.desk.close()
    assert not (tmp_path / "labels.db").exists()


def test_a_queue_that_is_full_refuses_at_once(open_desk, monkeypatch):
    made = open_desk()
    monkeypatch.setattr(writing, "QUEUE_ROWS", 3)
    with pytest.raises(BusyError):
        made.send(*(label(at) for at in range(4)))
    assert made.outcomes(*(label(at) for at in range(3))) == ["JOINED"] * 3
    assert made.desk.writer.counts.refused == 4


def test_a_closed_desk_refuses(open_desk):
    made = open_desk()
    made.desk.close()
    with pytest.raises(BusyError):
        made.send(label(1))


def test_old_labels_are_deleted_and_forgotten(open_desk):
    made = open_desk(retention_s=30 * DAY_S)
    made.report(label(1, time_s=NOW - 60))
    testing.wait_until(lambda: made.desk.fold.is_complete, "the store read")
    made.clock.time += 31 * DAY_S
    testing.wait_until(lambda: made.desk.writer.counts.pruned == 1, "pruned")
    assert made.desk.fold.read(CREDIT, "label") == ()


def test_evidence_names_what_it_does_not_know(open_desk):
    made = open_desk()
    assert made.desk.evidence("credit", "credit-2", "label").early.versions == ()
    with pytest.raises(ValueError, match="'other'"):
        made.desk.evidence("other", "credit-2", "label")
    with pytest.raises(ValueError, match="'gone'"):
        made.desk.evidence("credit", "gone", "label")


def test_evidence_of_a_rule_has_its_labels_only(open_desk):
    made = open_desk()
    made.report(label(1, 1.0), label(2, 0.0), label(3, 1.0, rule=0))
    testing.wait_until(lambda: _joined(made) == 3, "folded")
    evidence = made.desk.evidence("credit", "credit-2", "label")
    assert [(v.version, v.joined) for v in evidence.early.versions] == [(2, 2)]
    assert evidence.early.of(2).measures.accuracy == 0.5
    assert (evidence.mature.versions, evidence.cohorts) == ((), 0)
    assert RULE in {f.key.rule for f in made.desk.fold.read(CREDIT, "label")}
