"""A recording asked of two real versions: what comes of it, and what is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.analysis.ratio import Ratio
from router.errors import ModelError, NotFoundError
from router.lab.recording import RecordingError
from router.lab.rehearsal import Outcome, Trial, try_recording
from router.lab.replay import Limits, Question, Replayed, judge_replay
from router.testing import FAULT_FAIL, FAULT_NAN, faulty, mlp, tag, write_model

QUESTION = Question("m", 1, 2)


def world(folder: Path, models: dict[int, bytes], **settings: Any) -> str:
    write_model(folder, "m", models)
    path = folder / "router.yaml"
    model = {"name": "m", "repository": str(folder / "m"), "stable": 1, **settings}
    runtime = {"runtime": {"probe": {"off": True}}}
    server = {"state": str(folder / "state.db")}
    whole = {"api_version": "router/v1", "server": server, "models": [runtime | model]}
    path.write_text(yaml.safe_dump(whole))
    return str(path)


def recording(folder: Path, rows: list[list[float]], model: str = "m") -> str:
    path = folder / "requests.jsonl"
    x = {"name": "x", "datatype": "FP32"}
    path.write_text(
        "".join(
            json.dumps({
                "model_name": model,
                "inputs": [{**x, "shape": [1, len(row)], "data": row}],
            }) + "\n"
            for row in rows
        )
    )  # fmt: skip
    return str(path)


def tried(folder: Path, config: str, rows: list[list[float]], **asked: Any) -> Outcome:
    return try_recording(Trial(recording(folder, rows), config, "2", **asked))


ROWS = [[0.25, float(i)] for i in range(40)]


def test_two_copies_of_a_model_agree_in_everything(tmp_path: Path) -> None:
    config = world(tmp_path, {1: mlp((2, 8, 2)), 2: mlp((2, 8, 2))})
    found = tried(tmp_path, config, ROWS)
    assert found.verdict.verdict == "pass"
    assert (found.replayed.compared, found.replayed.kinds) == (40, {})
    assert found.replayed.latency is not None
    assert found.replayed.latency.pairs == 37


def test_another_model_disagrees_and_examples_say_where(tmp_path: Path) -> None:
    config = world(tmp_path, {1: tag(1), 2: tag(2)})
    found = tried(tmp_path, config, ROWS)
    assert found.verdict.verdict == "fail"
    assert "disagrees in 100 %" in found.verdict.reason
    assert len(found.replayed.worst) == 5
    worst = found.replayed.worst[0]
    assert (worst.stable["tag"], worst.candidate["tag"]) == ([1.0], [2.0])


def test_a_tolerance_may_allow_what_differs(tmp_path: Path) -> None:
    config = world(tmp_path, {1: tag(1), 2: tag(2)})
    assert tried(tmp_path, config, ROWS, tolerance=1.0).verdict.verdict == "pass"


def test_a_probability_may_move_and_decide_the_same(tmp_path: Path) -> None:
    output = {"tensor": "tag", "kind": "probability", "threshold": 1.5, "range": [0, 9]}
    config = world(tmp_path, {1: tag(1), 2: tag(2), 3: tag(3)}, output=output)
    found = tried(tmp_path, config, ROWS[:3])
    assert found.replayed.kinds == {"value": 3, "decision": 3}
    against = tried(tmp_path, config, ROWS[:3], against="3")
    assert against.verdict.verdict == "pass"
    assert against.replayed.kinds == {"value": 3}


def test_nan_and_failures_are_faults_however_few(tmp_path: Path) -> None:
    config = world(tmp_path, {1: tag(1), 2: faulty(1)}, on_mismatch="allow")
    rows = [*ROWS[:8], [0.5, FAULT_NAN], [0.5, FAULT_FAIL]]
    found = tried(tmp_path, config, rows, limits=Limits(disagreement=0.5))
    assert found.verdict.verdict == "fail"
    assert found.replayed.faulty == 2
    assert found.replayed.kinds["nan"] == 1
    assert found.replayed.kinds["failed"] == 1
    assert [example.request for example in found.replayed.worst[:2]] == [9, 8]
    assert "NaN" in found.verdict.reason


def test_what_leaves_the_declared_range_is_a_fault(tmp_path: Path) -> None:
    output = {"tensor": "tag", "range": [0, 1]}
    config = world(tmp_path, {1: tag(1), 2: tag(2)}, output=output)
    found = tried(tmp_path, config, ROWS[:2], tolerance=9.0)
    assert found.verdict.verdict == "fail"
    assert "outside [0, 1]" in found.verdict.reason


def test_requests_of_others_are_left_out(tmp_path: Path) -> None:
    config = world(tmp_path, {1: tag(1), 2: tag(2)})
    path = recording(tmp_path, ROWS[:2], model="other")
    found = try_recording(Trial(path, config, "2", model="m"))
    assert found.verdict.verdict == "inconclusive"
    assert found.replayed.skipped == 2


def test_a_damaged_recording_is_refused(tmp_path: Path) -> None:
    config = world(tmp_path, {1: tag(1), 2: tag(2)})
    path = Path(recording(tmp_path, ROWS[:2]))
    path.write_text(path.read_text() + "{")
    with pytest.raises(RecordingError, match=":3: not JSON"):
        try_recording(Trial(str(path), config, "2"))


def test_versions_that_are_not_there_are_named(tmp_path: Path) -> None:
    config = world(tmp_path, {1: tag(1), 2: b"nonsense"})
    path = recording(tmp_path, ROWS[:2])
    with pytest.raises(NotFoundError, match=r"version 7 .* serves 1, 2"):
        try_recording(Trial(path, config, "7"))
    with pytest.raises(NotFoundError, match="called 'best'"):
        try_recording(Trial(path, config, "best"))
    with pytest.raises(NotFoundError, match="with itself"):
        try_recording(Trial(path, config, "1"))
    with pytest.raises(ModelError, match="version 2"):
        try_recording(Trial(path, config, "2"))


def replayed(**changes: Any) -> Replayed:
    return Replayed(QUESTION, **({"compared": 100} | changes))


@pytest.mark.parametrize(
    ("found", "limits", "verdict"),
    [
        (replayed(), Limits(), "pass"),
        (replayed(compared=0), Limits(), "inconclusive"),
        (replayed(disagreed=1), Limits(), "fail"),
        (replayed(disagreed=1), Limits(disagreement=0.01), "pass"),
        (replayed(disagreed=2), Limits(disagreement=0.01), "fail"),
        (replayed(faulty=1), Limits(disagreement=1.0), "fail"),
        (replayed(stable_failed=9), Limits(), "pass"),
        (replayed(), Limits(latency_worse_by=0.1), "inconclusive"),
        (replayed(latency=Ratio(1.0, 0.9, 1.1, 99)), Limits(0, 0.1), "pass"),
        (replayed(latency=Ratio(1.1, 1.0, 1.2, 99)), Limits(0, 0.1), "inconclusive"),
        (replayed(latency=Ratio(1.2, 1.1, 1.3, 99)), Limits(0, 0.1), "inconclusive"),
        (replayed(latency=Ratio(1.2, 1.11, 1.3, 99)), Limits(0, 0.1), "fail"),
        (replayed(latency=Ratio(9.0, 8.0, 10.0, 99)), Limits(), "pass"),
    ],
)
def test_a_verdict_follows_from_the_numbers(
    found: Replayed, limits: Limits, verdict: str
) -> None:
    assert judge_replay(found, limits).verdict == verdict
