"""A bad candidate never reaches the client: stable answers, the candidate is charged.

The candidates are real ONNX models that fail, answer NaN, never end or are slow when a
request asks them to (`testing.faulty`). Each test has a model of its own, because a
breaker remembers.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from entries import model

from router import testing

NAMES = ("failing", "nan", "ranged", "hanging", "slow", "breaking", "bare", "late")
TIMEOUT_MS = 60
FAULTS = {
    "failing": testing.FAULT_FAIL,
    "nan": testing.FAULT_NAN,
    "hanging": testing.FAULT_HANG,
    "slow": testing.FAULT_SLOW,
}
# Which counter of the candidate's says what went wrong.
CHARGED = {
    "failing": "router_variant_failures_total",
    "nan": "router_invalid_outputs_total",
    "hanging": "router_variant_timeouts_total",
    "slow": "router_variant_timeouts_total",
}


def config(directory: Path) -> dict[str, Any]:
    models, routes = [], []
    for name in NAMES:
        versions = {1: testing.tag(1), 2: testing.faulty(2)}
        testing.write_model(directory / "models", name, versions)
        output: dict[str, Any] = {"tensor": "tag"}
        if name == "ranged":
            output["range"] = [0, 1.5]
        models.append(
            model(
                directory / "models",
                name,
                stable=1,
                fallback=name != "bare",
                output=output,
                runtime={"batching": "off", "timeout_ms": TIMEOUT_MS},
            )
        )
        routes.append({"model": name, "version": 2})
    return {"models": models, "routes": routes}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Server]:
    directory = tmp_path_factory.mktemp("fallback")
    with testing.Server(directory, config(directory), settings={"drain_s": 2}) as made:
        yield made


@pytest.fixture
def caller(server: testing.Server) -> Iterator[testing.Caller]:
    with testing.Caller(server.address) as made:
        yield made


def x(fault: float = 0.0) -> dict[str, Any]:
    return {"x": np.array([[1, fault]], np.float32)}


def test_a_healthy_candidate_answers_itself(caller: testing.Caller) -> None:
    answer = caller.infer("failing", x())
    assert answer.version == 2
    assert "route_fallback" not in answer.params


@pytest.mark.parametrize("name", FAULTS)
def test_stable_answers_for_a_bad_candidate_and_the_candidate_is_charged(
    server: testing.Server, caller: testing.Caller, name: str
) -> None:
    def count(metric: str) -> float:
        return server.metric(metric, model=name, version="2")

    before = count(CHARGED[name]), count("router_fallbacks_total")
    answer = caller.infer(name, x(FAULTS[name]), timeout_s=2)
    assert (answer.version, answer.outputs["tag"][0, 0]) == (1, 1)
    assert answer.params["route_reason"] == "FALLBACK"
    assert answer.params["route_fallback"] == "2"
    testing.wait_until(
        lambda: (
            (count(CHARGED[name]), count("router_fallbacks_total"))
            == (before[0] + 1, before[1] + 1)
        ),
        f"{name} charged once",
    )
    # Served by stable, and still on the candidate's account.
    assert server.metric("router_requests_total", model=name, version="1") == 0
    assert caller.infer(name, x()).version == 2


@pytest.mark.parametrize("name", ["hanging", "slow"])
def test_a_late_candidate_costs_its_timeout_and_not_the_deadline(
    caller: testing.Caller, name: str
) -> None:
    start = time.monotonic()
    assert caller.infer(name, x(FAULTS[name]), timeout_s=10).version == 1
    # Generous on a busy machine; without the timeout it would be seconds, or never.
    assert time.monotonic() - start < TIMEOUT_MS / 1000 + 0.5


def test_an_answer_outside_its_range_is_not_served(caller: testing.Caller) -> None:
    answer = caller.infer("ranged", x())
    assert answer.version == 1
    assert answer.params["route_reason"] == "FALLBACK"


def test_half_of_a_short_deadline_is_kept_for_stable(caller: testing.Caller) -> None:
    for _ in range(3):
        assert caller.infer("late", x(testing.FAULT_HANG), timeout_s=0.1).version == 1
        assert caller.infer("late", x()).version == 2


def test_without_fallback_the_failure_is_the_answer(caller: testing.Caller) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.infer("bare", x(testing.FAULT_FAIL))
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert caller.infer("bare", x()).version == 2


def test_a_candidate_that_keeps_failing_is_taken_out(
    server: testing.Server, caller: testing.Caller
) -> None:
    def is_open() -> bool:
        labels = {"model": "breaking", "version": "2"}
        return server.metric("router_breaker_open", **labels) == 1

    for _ in range(200):
        assert caller.infer("breaking", x(testing.FAULT_FAIL)).version == 1
        if is_open():
            break
    assert is_open()
    failures = server.metric("router_version_failures_total", model="breaking")
    for _ in range(50):
        assert caller.infer("breaking", x(testing.FAULT_FAIL)).version == 1
    # Taken out means not even asked, but for a probe now and then.
    after = server.metric("router_version_failures_total", model="breaking")
    assert after - failures <= 2


def test_a_client_that_leaves_takes_its_run_with_it(
    server: testing.Server, caller: testing.Caller
) -> None:
    def terminated() -> float:
        return server.metric(
            "router_version_terminated_total", model="bare", version="2"
        )

    before = terminated()
    with pytest.raises(grpc.RpcError):
        caller.infer("bare", x(testing.FAULT_HANG), timeout_s=0.05)
    testing.wait_until(lambda: terminated() > before, "the run is ended")
    assert caller.infer("bare", x()).version == 2
