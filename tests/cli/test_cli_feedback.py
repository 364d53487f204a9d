"""Files of truths, the import of one, and the rotation of a key."""

import json

import pytest

from router.cli.main import _guarded, router
from router.client.truths import Truth, read_truths
from router.clock import SystemClock
from router.control.apply import read_state
from router.errors import RouterError


def run(*arguments: str) -> int:
    return _guarded(lambda: router.main(arguments, "router", standalone_mode=False))


def test_the_three_formats_say_the_same(tmp_path):
    import pyarrow
    from pyarrow import parquet

    expected = [
        Truth("p1", "label", 1.0, 2, (("region", "north"),), "", 1_700_000_000_000),
        Truth("p2", "clicks", 3.0, 0, (), "e1", 0),
    ]
    (tmp_path / "a.csv").write_text(
        "prediction_id,label,metric,value,row,time,idempotency_id,group:region\n"
        "p1,1,,,2,2023-11-14T22:13:20Z,,north\n"
        "p2,,clicks,3,,,e1,\n"
    )
    rows = [
        {"prediction_id": "p1", "label": 1, "row": 2, "time": 1_700_000_000,
         "groups": {"region": "north"}},
        {"prediction_id": "p2", "metric": "clicks", "value": 3, "idempotency_id": "e1"},
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    flat = {
        "prediction_id": ["p1", "p2"], "label": [1, None], "metric": [None, "clicks"],
        "value": [None, 3.0], "row": [2, 0], "time": [1_700_000_000, None],
        "idempotency_id": [None, "e1"], "group:region": ["north", None],
    }  # fmt: skip
    parquet.write_table(pyarrow.table(flat), tmp_path / "a.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        assert list(read_truths(str(tmp_path / f"a.{suffix}"))) == expected, suffix


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("p,one", ":2: label: 'one' is not a number"),
        ("p,nan", ":2: label: 'nan' is not a finite number"),
        (",1", ":2: no prediction_id"),
        ("p,", ":2: give one of label, reward and metric"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, told):
    path = tmp_path / "a.csv"
    path.write_text(f"prediction_id,label\n{row}\n")
    with pytest.raises(RouterError) as caught:
        list(read_truths(str(path)))
    assert str(caught.value) == f"{path}{told}"


def test_a_column_nobody_knows_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prediction_id,lable\np,1\n")
    with pytest.raises(RouterError, match="unknown column 'lable'"):
        list(read_truths(str(path)))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(RouterError, match=r"\.csv, \.jsonl or \.parquet"):
        list(read_truths(str(tmp_path / "a.xlsx")))


def test_a_rotated_key_is_in_the_control_log(tmp_path, capsys):
    state = tmp_path / "state.db"
    path = tmp_path / "router.yaml"
    path.write_text(json.dumps({
        "api_version": "router/v1", "server": {"state": str(state)},
        "models": [{"name": "credit", "repository": "x", "stable": 1}],
    }))  # fmt: skip
    assert run("key", "rotate", str(path)) == 0
    assert run("key", "rotate", str(path)) == 0
    assert "key 1 is stored" in capsys.readouterr().out
    keys = read_state(state, SystemClock()).keys
    assert [key.id for key in keys] == [1, 0]
    assert keys[0].secret != keys[1].secret
    assert keys[0].made_s > 1e9


def test_one_kind_of_truth_is_needed(capsys):
    assert run("feedback", "send", "127.0.0.1:1", "p") == 64
    assert "one of --label" in capsys.readouterr().err
