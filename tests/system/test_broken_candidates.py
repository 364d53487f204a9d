"""A candidate that is broken, in every way we know: nobody notices but the controller.

Real server, real models, a stock client. Clients see stable's answers and no error;
the rollout goes back by itself, within seconds of the first failures.
"""

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from entries import model
from onnx import TensorProto, helper, numpy_helper

from router import testing

pytestmark = pytest.mark.slow

# From the twentieth failure, or the breaker's opening, to the roll-back.
BACK_S = 2.0
# An experiment keeps its share open until it is decided, a canary until it is done.
STEPS: dict[str, dict[str, Any]] = {
    "canary": {"steps": [{"weight": {"to": 5, "for": "1h"}}, {"weight": {"to": 100,
               "for": "1h"}}]},
    "ab": {"strategy": "ab", "split": 50, "horizon": "1h",
           "primary": {"metric": "conversion"}},
}  # fmt: skip
FAULTS = {
    "fails": testing.FAULT_FAIL,
    "answers-nan": testing.FAULT_NAN,
    "hangs": testing.FAULT_HANG,
    "is-slow": testing.FAULT_SLOW,
}


def config(directory: Path, rollout: dict[str, Any]) -> dict[str, Any]:
    testing.write_model(
        directory / "models", "m", {1: testing.tag(1), 2: testing.faulty(2)}
    )
    return {
        "models": [
            model(directory / "models", "m", stable=1, output={"tensor": "tag"},
                  runtime={"timeout_ms": 50})
        ],
        "rollouts": [{"name": "m-2", "model": "m", "candidate": 2, **rollout}],
    }  # fmt: skip


def moves(server: testing.Server) -> list[tuple[str, str, float, dict[str, Any]]]:
    """What the control log says: event, phase, time, payload."""
    path = next(server.directory.rglob("state.db"))
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as log:
        rows = log.execute(
            "SELECT payload, time FROM record WHERE kind = 'scope_moved'"
            " ORDER BY revision"
        ).fetchall()
    read = [(json.loads(payload), at) for payload, at in rows]
    return [(one["event"], one["to"], at, one) for one, at in read]


@pytest.mark.parametrize("strategy", STEPS)
@pytest.mark.parametrize("fault", FAULTS)
def test_clients_see_stable_and_the_rollout_goes_back(
    tmp_path: Path, fault: str, strategy: str
) -> None:
    x = {"x": np.array([[0, FAULTS[fault]]], np.float32)}
    server = testing.Server(tmp_path, config(tmp_path, STEPS[strategy]))
    with server, testing.Caller(server.address) as caller:
        testing.wait_until(lambda: moves(server)[-1][1] == "ramping", "traffic")
        give_up = time.monotonic() + 60
        number, failed_at = 0, []
        while moves(server)[-1][1] != "rolled_back" and time.monotonic() < give_up:
            for _ in range(20):
                number += 1
                answer = caller.infer("m", x, {"x-user-id": f"user-{number}"})
                assert answer.version == 1
                if answer.params.get("route_fallback"):
                    failed_at.append(time.time())
        event, phase, at, payload = moves(server)[-1]
        assert (event, phase) == ("roll_back", "rolled_back")
        assert payload["evidence"][0]["verdict"] == "fail"
        assert failed_at
        twentieth = failed_at[min(19, len(failed_at) - 1)]
        assert at - twentieth < BACK_S
        # The next request is stable's, and no fallback any more.
        answer = caller.infer("m", x, {"x-user-id": "user-1"})
        assert (answer.version, answer.params.get("route_fallback")) == (1, None)


def twice_the_rows() -> bytes:
    """`tag`'s inputs and outputs, each row of the answer twice where column 1 is 1."""
    node, tensor = helper.make_node, numpy_helper.from_array
    nodes = [
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Equal", ["most", "one"], ["is_one"]),
        node("Where", ["is_one", "two_times", "one_time"], ["times"]),
        node("ReduceSum", ["x", "axis"], ["plain"], keepdims=1),
        node("Tile", ["plain", "times"], ["sum"]),
        node("Identity", ["sum"], ["tag"]),
    ]
    constants = [
        tensor(np.array(1, np.float32), "one"),
        tensor(np.array([2, 1]), "two_times"),
        tensor(np.array([1, 1]), "one_time"),
        tensor(np.array([1]), "axis"),
    ]
    number = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", number, ["rows", 2])],
        [helper.make_tensor_value_info(n, number, ["rows", 1]) for n in ("tag", "sum")],
        constants,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", testing.OPSET)]
    model_ = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return bytes(model_.SerializeToString())


def test_an_answer_of_another_shape_is_no_answer(tmp_path: Path) -> None:
    made = config(tmp_path, STEPS["ab"])
    path = tmp_path / "models" / "m" / "2" / "model.onnx"
    path.write_bytes(twice_the_rows())
    x = {"x": np.array([[0, 1]], np.float32)}
    server = testing.Server(tmp_path, made)
    with server, testing.Caller(server.address) as caller:
        testing.wait_until(lambda: moves(server)[-1][1] == "ramping", "traffic")
        give_up = time.monotonic() + 60
        number = 0
        while moves(server)[-1][1] != "rolled_back" and time.monotonic() < give_up:
            number += 1
            answer = caller.infer("m", x, {"x-user-id": f"user-{number}"})
            assert (answer.version, answer.outputs["tag"].shape) == (1, (1, 1))
        assert moves(server)[-1][:2] == ("roll_back", "rolled_back")


def test_a_candidate_that_fails_after_a_thousand_calls_goes_back(
    tmp_path: Path,
) -> None:
    well = {"x": np.zeros((1, 2), np.float32)}
    ill = {"x": np.array([[0, testing.FAULT_FAIL]], np.float32)}
    server = testing.Server(tmp_path, config(tmp_path, STEPS["ab"]))
    with server, testing.Caller(server.address) as caller:
        testing.wait_until(lambda: moves(server)[-1][1] == "ramping", "traffic")
        number = served = 0
        while served < 1_000:
            number += 1
            served += caller.infer("m", well, {"x-user-id": f"u-{number}"}).version == 2
        assert moves(server)[-1][1] == "ramping"
        began = time.time()
        give_up = time.monotonic() + 60
        while moves(server)[-1][1] != "rolled_back" and time.monotonic() < give_up:
            number += 1
            assert caller.infer("m", ill, {"x-user-id": f"u-{number}"}).version == 1
        event, phase, at, _ = moves(server)[-1]
        assert (event, phase) == ("roll_back", "rolled_back")
        assert at - began < BACK_S


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_shadow_is_nobodys_trouble(tmp_path: Path, fault: str) -> None:
    shadow = {"strategy": "shadow", "steps": [{"shadow": {
        "percent": 100, "for": "1h", "gates": [
            {"metric": "disagreement", "max": "1%", "min_samples": 50}]}}]}  # fmt: skip
    x = {"x": np.array([[0, FAULTS[fault]]], np.float32)}
    server = testing.Server(tmp_path, config(tmp_path, shadow))
    with server, testing.Caller(server.address) as caller:
        testing.wait_until(lambda: moves(server)[-1][1] == "shadowing", "a shadow")
        for number in range(600):
            answer = caller.infer("m", x, {"x-user-id": f"user-{number}"})
            assert answer.version == 1
            assert "route_fallback" not in answer.params


def test_a_candidate_that_does_not_load_never_gets_traffic(tmp_path: Path) -> None:
    broken = config(tmp_path, STEPS["canary"])
    (tmp_path / "models" / "m" / "2" / "model.onnx").write_bytes(b"not a model")
    x = {"x": np.zeros((1, 2), np.float32)}
    server = testing.Server(tmp_path, broken)
    with server, testing.Caller(server.address) as caller:
        for number in range(200):
            assert caller.infer("m", x, {"x-user-id": f"user-{number}"}).version == 1
        assert moves(server)[-1][1] == "pending"
