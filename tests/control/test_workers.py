"""Workers: started, heard, ended, started again, given up. The processes are real."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from router import testing
from router.clock import SystemClock
from router.config.config import Config
from router.control.options import find_runtime_library
from router.control.rundir import LOCK_NAME, PREFIX, RunDirectory, remove_stale
from router.control.workers import (
    Patience,
    Started,
    Workers,
    WorkerSpec,
    WorkerState,
    judge_crash,
)
from router.errors import ModelError
from router.models.child import Limits, Task, limits_words
from router.plan.compile import States, compile_plan
from router.plan.encode import encode

NO_LIMITS = Limits()
QUICK = Patience(pause_min_s=0.01, pause_max_s=0.05)
X = {"x": np.ones((1, 2), np.float32)}


def table() -> bytes:
    model = {"name": "m", "repository": "-", "stable": 2, "versions": [2]}
    config = Config.model_validate({"api_version": "router/v1", "models": [model]})
    return encode(compile_plan(config, States({"m": (2,)}, {}, ())))


def spec(
    data: bytes, limits: Limits = NO_LIMITS, hang_s: float = 10.0, memory_mb: int = 0
) -> WorkerSpec:
    words = {
        "model": "m",
        "version": 2,
        "options": {"kind": "ort", "library": find_runtime_library()},
        "engine": {"loops": "1", "executors": "1"},
        "limits": limits_words(limits),
        "beat_s": 0.05,
        "hang_s": hang_s,
        "drain_s": 2.0,
    }
    return WorkerSpec("m", 2, Task(words, table(), data), hang_s, 60.0, memory_mb)


@pytest.fixture
def directory() -> Iterator[RunDirectory]:
    # Not pytest's own folder: its path is too long for a socket.
    made = RunDirectory()
    yield made
    made.close()


@pytest.fixture
def workers(directory: RunDirectory) -> Iterator[Workers]:
    made = Workers(directory, SystemClock(), QUICK)
    yield made
    made.close()


def state(workers: Workers) -> WorkerState:
    (one,) = workers.states()
    return one


def answer(started: Started) -> int:
    with testing.Caller(f"unix:{started.path}") as caller:
        return int(caller.infer("m", X).outputs["tag"][0, 0])


def wait_up(workers: Workers, restarts: int) -> WorkerState:
    def is_up() -> bool:
        now = state(workers)
        return now.is_up and now.restarts == restarts

    testing.wait_until(is_up, f"up after {restarts} restarts", 30)
    return state(workers)


def is_alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


# -- the rules -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crashes", "streak", "pause_s"),
    [
        ([100], 1, 0.5),
        ([99, 100], 2, 1.0),
        ([90, 95, 98, 100], 4, 4.0),
        ([90, 95, 97, 98, 100], 5, None),
        ([40, 95, 97, 98, 100], 5, None),  # sixty seconds ago still counts
        ([39, 95, 97, 98, 100], 5, 8.0),
        ([-500, -300, -100, 10, 100], 7, 30.0),
        ([-500, -300, -100, 10, 100], 5000, 30.0),
    ],
)
def test_a_pause_doubles_up_to_half_a_minute_and_five_crashes_end_it(
    crashes: list[float], streak: int, pause_s: float | None
) -> None:
    assert judge_crash(Patience(), crashes, streak, 100) == pause_s


# -- real processes --------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_answers_on_a_socket_that_only_its_user_may_use(
    workers: Workers, directory: RunDirectory
) -> None:
    started = workers.start(spec(testing.tag(2)))
    assert answer(started) == 2
    assert started.path.stat().st_mode & 0o777 == 0o600
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert [tensor["name"] for tensor in started.report["outputs"]] == ["tag", "sum"]
    now = state(workers)
    assert now.is_up
    assert now.memory_bytes > 10_000_000


@pytest.mark.slow
def test_a_worker_tells_stock_clients_what_it_serves(workers: Workers) -> None:
    import tritonclient.grpc as triton

    started = workers.start(spec(testing.tag(2)))
    with triton.InferenceServerClient(f"unix:{started.path}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("m", "2")
        told = client.get_model_metadata("m", as_json=True)
    assert (told["name"], told["versions"]) == ("m", ["2"])
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "2"]}]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_worker_that_dies_is_started_again_on_the_same_socket(
    workers: Workers, number: signal.Signals
) -> None:
    started = workers.start(spec(testing.tag(2)))
    before = state(workers).pid
    os.kill(before, number)
    after = wait_up(workers, 1)
    assert after.pid != before
    assert answer(started) == 2


@pytest.mark.slow
def test_while_a_worker_is_away_connections_are_refused_at_once(
    directory: RunDirectory,
) -> None:
    workers = Workers(directory, SystemClock(), Patience(pause_min_s=30))
    try:
        started = workers.start(spec(testing.tag(2)))
        os.kill(state(workers).pid, signal.SIGKILL)
        testing.wait_until(lambda: not state(workers).is_up, "down")
        with (
            testing.Caller(f"unix:{started.path}") as caller,
            pytest.raises(grpc.RpcError) as raised,
        ):
            caller.infer("m", X)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        workers.close()


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_started_again(workers: Workers) -> None:
    workers.start(spec(testing.tag(2), hang_s=1.0))
    before = state(workers).pid
    os.kill(before, signal.SIGSTOP)
    assert wait_up(workers, 1).pid != before
    assert not is_alive(before)


@pytest.mark.slow
def test_a_worker_that_grows_too_large_is_killed(workers: Workers) -> None:
    # Smaller than any worker ever is.
    workers.start(spec(testing.tag(2), memory_mb=1))
    testing.wait_until(lambda: state(workers).restarts > 0, "killed", 30)


@pytest.mark.slow
def test_a_run_that_wants_too_much_fails_and_the_worker_lives(workers: Workers) -> None:
    made = spec(eater(), Limits(memory_mb=300))
    started = workers.start(made)
    with testing.Caller(f"unix:{started.path}") as caller:
        with pytest.raises(grpc.RpcError) as raised:
            caller.infer("m", {"x": np.array([2**30], np.float32)})
        assert raised.value.code() == grpc.StatusCode.INTERNAL
        assert caller.infer("m", {"x": np.array([2])}).outputs["y"].size == 2
    assert state(workers).restarts == 0


@pytest.mark.slow
def test_a_worker_that_keeps_dying_is_given_up_until_it_is_loaded_anew(
    workers: Workers,
) -> None:
    first = workers.start(spec(testing.tag(2)))
    for restarts in range(QUICK.crashes_max):
        os.kill(wait_up(workers, restarts).pid, signal.SIGKILL)
    testing.wait_until(lambda: state(workers).is_quarantined, "quarantine")
    workers.stop(first.id)
    second = workers.start(spec(testing.tag(2)))
    assert answer(second) == 2
    assert not state(workers).is_quarantined


@pytest.mark.slow
def test_a_version_that_cannot_be_loaded_is_an_error_and_no_worker(
    workers: Workers,
) -> None:
    with pytest.raises(ModelError, match="its worker failed"):
        workers.start(spec(b"no model"))
    testing.wait_until(lambda: workers.states() == (), "forgotten")


@pytest.mark.slow
def test_a_worker_that_is_stopped_leaves_and_takes_its_socket(workers: Workers) -> None:
    started = workers.start(spec(testing.tag(2)))
    pid = state(workers).pid
    workers.stop(started.id)
    testing.wait_until(lambda: workers.states() == (), "gone")
    assert not is_alive(pid)
    assert not started.path.exists()


@pytest.mark.slow
def test_limits_hold_in_the_worker(workers: Workers) -> None:
    limits = Limits(memory_mb=500, files_max=64, cores=1, nice=3)
    workers.start(spec(testing.tag(2), limits))
    pid = state(workers).pid
    told = Path(f"/proc/{pid}/limits").read_text()
    rows = {line[:26].strip(): line[26:].split() for line in told.splitlines()}
    assert rows["Max open files"][:2] == ["64", "64"]
    assert rows["Max core file size"][0] == "0"
    assert 500 * 2**20 < int(rows["Max address space"][1]) < 2**31
    assert len(os.sched_getaffinity(pid)) == 1
    assert (
        os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 3
    )


@pytest.mark.slow
def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from test_workers import *\n"
        "workers = Workers(RunDirectory(), SystemClock())\n"
        "workers.start(spec(testing.tag(2)))\n"
        "print(state(workers).pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(script), str(Path(__file__).parent)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    try:
        worker = int(parent.stdout.readline())
        assert is_alive(worker)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    testing.wait_until(lambda: not is_alive(worker), "the worker has gone too")


def test_a_run_directory_that_nobody_holds_is_removed_and_a_held_one_is_not(
    tmp_path: Path,
) -> None:
    held = RunDirectory(tmp_path)
    stale = tmp_path / f"{PREFIX}stale"
    stale.mkdir()
    (stale / LOCK_NAME).touch()
    other = tmp_path / "other"
    other.mkdir()
    remove_stale(tmp_path)
    assert held.path.exists()
    assert other.exists()
    assert not stale.exists()
    held.close()
    assert not held.path.exists()


def eater() -> bytes:
    """Answers with as many zeros as it is asked for."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["x"], ["n"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["n"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["k"])
    graph = helper.make_graph(nodes, "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    data: bytes = made.SerializeToString()
    return data
