"""A candidate in a worker takes nobody with it: not when it is killed, crashes, hangs
or eats all the memory it can get, and not when the router itself is killed.

The server, the workers and the signals are real. Traffic runs all the time, half of it
or a twentieth to the candidate; whatever happens, clients see no error.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from conftest import model
from onnx import TensorProto, helper

from router import testing

pytestmark = pytest.mark.slow
CANDIDATE = {"model": "m", "version": "2"}
X = {"x": np.ones((1, 2), np.float32)}
FAULT_EAT = 2.0**30
CALLERS = 4


def hungry(version: int) -> bytes:
    """`tag`, and as many zeros more as column 1 says, four bytes each."""
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
        node("Sub", ["sum", "sum"], ["nothing"]),
        node("Gather", ["x", "column"], ["wanted"], axis=1),
        node("ReduceMax", ["wanted"], ["most"], keepdims=0),
        node("Cast", ["most"], ["count"], to=TensorProto.INT64),
        node("Unsqueeze", ["count", "first"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["zeros"]),
        node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        node("Add", ["nothing", "zero"], ["still"]),
        node("Add", ["still", "version"], ["tag"]),
    ]
    constants = [
        testing._const("axis", np.array([1], np.int64)),
        testing._const("column", np.array([1], np.int64)),
        testing._const("first", np.array([0], np.int64)),
        testing._const("version", np.array([[version]], np.float32)),
    ]
    rows = {"tag": 1, "sum": 1}
    return testing._model(
        nodes,
        [value("x", TensorProto.FLOAT, ["rows", 2])],
        [value(n, TensorProto.FLOAT, ["rows", w]) for n, w in rows.items()],
        constants,
    )


def config(directory: Path, percent: int = 50, **worker: Any) -> dict[str, Any]:
    repository = directory / "models"
    if not repository.exists():  # writing a file again is a change of it
        testing.write_model(repository, "m", {1: testing.tag(1), 2: hungry(2)})
    entry = model(
        repository, "m", stable=1, versions={2: {"isolation": "process"}},
        runtime={
            "timeout_ms": 300, "batching": "off",
            "worker": {"hang_s": 1, "memory_mb": 500, **worker},
        },
    )  # fmt: skip
    shares = {1: 100 - percent, 2: percent}
    split = [{"version": v, "weight": weight} for v, weight in shares.items()]
    route = {"model": "m", "split": split}
    return {"models": [entry], "routes": [route]}


class Traffic:
    """Owner of some threads that call all the time; what they saw."""

    def __init__(self, address: str) -> None:
        self.errors: list[grpc.RpcError] = []
        self.served = {1: 0, 2: 0}
        self._address, self._is_over = address, threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def _call(self) -> None:
        with testing.Caller(self._address) as caller:
            while not self._is_over.is_set():
                try:
                    self.served[caller.infer("m", X, timeout_s=10).version] += 1
                except grpc.RpcError as error:
                    self.errors.append(error)

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def serving(
    directory: Path, percent: int = 50, **worker: Any
) -> Iterator[testing.Server]:
    made = config(directory, percent, **worker)
    with testing.Server(directory, made, settings={"drain_s": 2}) as server:
        yield server


def worker_pids(server: testing.Server) -> list[int]:
    """The server's children that are workers."""
    found = []
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            if b"router.models.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def restarts(server: testing.Server) -> float:
    return server.metric("router_worker_restarts_total", **CANDIDATE)


def is_up(server: testing.Server) -> bool:
    return server.metric("router_worker_up", **CANDIDATE) == 1


def serves_again(traffic: Traffic) -> None:
    """Wait until the candidate answers more than it did."""
    before = traffic.served[2]
    testing.wait_until(lambda: traffic.served[2] > before, "the candidate is back", 60)


def test_a_version_in_a_worker_answers_like_any_other(tmp_path: Path) -> None:
    with serving(tmp_path) as server, testing.Caller(server.address) as caller:
        answers = [caller.infer("m", X) for _ in range(40)]
        assert {answer.version for answer in answers} == {1, 2}
        for answer in answers:
            assert answer.outputs["tag"][0, 0] == answer.version
            assert answer.outputs["sum"][0, 0] == 2
        pinned = caller.infer("m", {"x": np.ones((7, 2), np.float32)}, version="2")
        assert pinned.outputs["tag"].shape == (7, 1)
        assert len(worker_pids(server)) == 1
        assert server.metric("router_worker_memory_bytes", **CANDIDATE) > 2**23


@pytest.mark.parametrize("percent", [5, 50])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_no_client_sees_a_worker_die_or_hang(
    tmp_path: Path, number: signal.Signals, percent: int
) -> None:
    with serving(tmp_path, percent) as server, Traffic(server.address) as traffic:
        serves_again(traffic)
        (worker,) = worker_pids(server)
        os.kill(worker, number)
        testing.wait_until(lambda: restarts(server) == 1, "started again", 60)
        testing.wait_until(lambda: is_up(server), "up again", 60)
        serves_again(traffic)
        assert server.get("/readyz")[0] == 200
    assert traffic.errors == []
    assert traffic.served[1] > traffic.served[2] or percent == 50


@pytest.mark.parametrize("percent", [5, 50])
def test_no_client_sees_a_worker_eat_memory(tmp_path: Path, percent: int) -> None:
    eat = {"x": np.array([[1, FAULT_EAT]], np.float32)}
    with (
        serving(tmp_path, percent) as server,
        Traffic(server.address) as traffic,
        testing.Caller(server.address) as caller,
    ):
        serves_again(traffic)
        with pytest.raises(grpc.RpcError):
            caller.infer("m", eat, version="2")  # a pin has no fallback
        for _ in range(20):
            assert caller.infer("m", eat).version in (1, 2)
        assert server.metric("router_worker_memory_bytes", **CANDIDATE) < 5e8
        serves_again(traffic)
    assert traffic.errors == []


def test_a_worker_that_keeps_dying_is_given_up_until_its_file_is_touched(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as server, Traffic(server.address) as traffic:
        for _ in range(5):
            testing.wait_until(lambda: is_up(server), "up", 60)
            (worker,) = worker_pids(server)
            os.kill(worker, signal.SIGKILL)
            testing.wait_until(lambda: not is_up(server), "down")
        testing.wait_until(
            lambda: server.metric("router_worker_quarantined", **CANDIDATE) == 1,
            "quarantine",
        )
        assert worker_pids(server) == []
        assert server.get("/readyz")[0] == 200
        assert server.metric("router_version_ready", **CANDIDATE) == 0
        server.reload(config(tmp_path))  # the same again changes nothing
        assert server.metric("router_worker_quarantined", **CANDIDATE) == 1
        os.utime(tmp_path / "models" / "m" / "2" / "model.onnx")
        server.reload(config(tmp_path))
        assert is_up(server)
        assert restarts(server) == 4  # quarantine is no restart, and a load is none
        serves_again(traffic)
    assert traffic.errors == []


def test_no_worker_outlives_a_router_that_is_killed(tmp_path: Path) -> None:
    server = testing.Server(tmp_path, config(tmp_path))
    server.start()
    (worker,) = worker_pids(server)
    server.kill()

    def is_gone() -> bool:
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2]
        except OSError:
            return True
        return state.split()[0] in "ZX"

    testing.wait_until(is_gone, "the worker has gone too")


def test_a_router_that_leaves_takes_its_workers_and_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    with serving(tmp_path) as server:
        (worker,) = worker_pids(server)
        words = Path(f"/proc/{worker}/cmdline").read_bytes()
        assert str(server.pid).encode() in words.split(b"\0")
    assert not Path(f"/proc/{worker}").exists()


def test_changed_limits_give_the_version_a_worker_of_its_own_without_an_error(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as server, Traffic(server.address) as traffic:
        serves_again(traffic)
        (before,) = worker_pids(server)
        server.reload(config(tmp_path, nice=1))
        testing.wait_until(lambda: before not in worker_pids(server), "the old one", 30)
        (after,) = worker_pids(server)
        assert os.getpriority(os.PRIO_PROCESS, after) == 1 + os.getpriority(
            os.PRIO_PROCESS, server.pid
        )
        serves_again(traffic)
    assert traffic.errors == []


def test_a_version_that_fails_its_probe_is_never_routable_and_says_why(
    tmp_path: Path,
) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["many", "n"])
    node = helper.make_node("Expand", ["x", "s"], ["y"])
    size = testing._const("s", np.array([2**30, 1], np.int64))
    glutton = testing._model([node], [x], [y], [size])
    testing.write_model(tmp_path / "models", "m", {1: testing.tag(1), 2: glutton})
    entry = model(tmp_path / "models", "m", stable=1, on_mismatch="allow")
    routed = {"models": [entry], "routes": [{"model": "m", "version": 2}]}
    with (
        testing.Server(tmp_path, routed) as server,
        testing.Caller(server.address) as caller,
    ):
        assert caller.infer("m", X).version == 1
        with pytest.raises(grpc.RpcError, match="disabled"):
            caller.infer("m", X, version="2")
        assert "killed by its memory limit of 2048 MB" in server.log.read_text()


def test_a_passed_probe_is_remembered_across_restarts(tmp_path: Path) -> None:
    testing.write_model(tmp_path / "models", "m", {1: testing.tag(1)})
    plain = {"models": [model(tmp_path / "models", "m")]}
    for _ in range(2):
        with testing.Server(tmp_path, plain) as server:
            pass
    log = server.log.read_text()
    passed = [line for line in log.splitlines() if "passed its probe" in line]
    assert ['"is_remembered": false' in line for line in passed] == [True, False]
    assert len(list((tmp_path / "run" / "probes").iterdir())) == 1
