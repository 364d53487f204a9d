"""A version is run where it can do no harm, before anybody routes to it.

The models are real, and so are the children that die. Crashes that no model of ours
makes come from a runtime library that crashes while it is opened.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from router import testing
from router.config.config import Config
from router.control.options import find_runtime_library
from router.errors import ModelError
from router.models.child import MIB, Limits, Task, pack, unpack
from router.models.probe import (
    ProbeLimits,
    Prober,
    Subject,
    has_memory_words,
    judge_death,
    judge_report,
    run_probe,
)
from router.models.smoke import read_outputs, smoke_request
from router.plan.compile import States, compile_plan
from router.plan.encode import encode

LIMITS = ProbeLimits(memory_mb=512, cpu_s=20, wall_s=60)
pytestmark = pytest.mark.slow


def table() -> bytes:
    model = {"name": "m", "repository": "-", "stable": 1, "versions": [1]}
    config = Config.model_validate({"api_version": "router/v1", "models": [model]})
    return encode(compile_plan(config, States({"m": (1,)}, {}, ())))


def subject(data: bytes, library: str = "") -> Subject:
    options = {"kind": "ort", "library": library or find_runtime_library()}
    return Subject("m", 1, data, options, table())


def single(node: object, size: int, constant: np.ndarray) -> bytes:
    """One node between `x` and `y`, and a constant `s`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weight = numpy_helper.from_array(constant, "s")
    graph = helper.make_graph([node], "g", [x], [y], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    assert len(made.SerializeToString()) < size
    data: bytes = made.SerializeToString()
    return data


def glutton() -> bytes:
    """A hundred bytes that want four gigabytes in their first run."""
    node = helper.make_node("Expand", ["x", "s"], ["y"])
    return single(node, 150, np.array([2**30, 1], np.int64))


def greedy_at_load() -> bytes:
    """As much again, but folded into a constant while it is loaded."""
    node = helper.make_node("ConstantOfShape", ["s"], ["y"])
    return single(node, 150, np.array([2**30], np.int64))


def endless() -> bytes:
    """A loop of 2**62 turns, whatever it is given."""
    node = helper.make_node
    body = testing._turn_body()
    nodes = [node("Loop", ["turns", "true", "x"], ["y"], body=body)]
    constants = [
        numpy_helper.from_array(np.array(2**62, np.int64), "turns"),
        numpy_helper.from_array(np.array(True), "true"),
    ]
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 1]) for n in "xy"
    )
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    data: bytes = made.SerializeToString()
    return data


def library(folder: Path, body: str) -> str:
    """A shared library that does this as soon as it is opened."""
    source = folder / "bad.c"
    source.write_text(
        "#include <unistd.h>\n"
        f"__attribute__((constructor)) static void begin(void) {{ {body} }}\n"
    )
    made = folder / "bad.so"
    command = ["gcc", "-shared", "-fPIC", "-O0", str(source), "-o", str(made)]
    subprocess.run(command, check=True)
    return str(made)


def refusal(made: Subject, limits: ProbeLimits = LIMITS) -> str:
    with pytest.raises(ModelError) as raised:
        run_probe(made, limits)
    return str(raised.value)


def test_a_version_that_passes_says_what_it_took_and_answered() -> None:
    report = run_probe(subject(testing.mlp()), LIMITS)
    (output,) = report["outputs"]
    assert output == {
        "name": "probabilities", "datatype": "FP32", "shape": [1, 2], "is_finite": True,
    }  # fmt: skip
    assert 0 < report["peak_bytes"] < 200 * MIB
    assert report["load_ms"] > 0
    assert report["run_ms"] > 0
    assert (report["code"], report["warnings"]) == (0, [])


@pytest.mark.parametrize("make", [glutton, greedy_at_load])
def test_a_small_model_that_takes_gigabytes_is_refused(make) -> None:
    assert "killed by its memory limit of 512 MB" in refusal(subject(make()))


def test_a_version_that_the_runtime_refuses_says_its_words() -> None:
    said = refusal(subject(b"no model"))
    assert said.startswith("model 'm' version 1: failed its probe: ")
    assert "protobuf" in said.lower()


def test_a_run_without_end_is_ended_by_processor_time() -> None:
    limits = ProbeLimits(memory_mb=512, cpu_s=2, wall_s=60)
    assert "more than 2 s of processor time" in refusal(subject(endless()), limits)


def test_a_child_that_waits_forever_is_ended_by_the_clock(tmp_path: Path) -> None:
    limits = ProbeLimits(memory_mb=512, cpu_s=20, wall_s=0.75)
    made = subject(testing.mlp(), library(tmp_path, "for (;;) pause();"))
    assert "it took more than 0.75 s" in refusal(made, limits)


def test_a_crash_is_the_childs_alone_and_has_a_name(tmp_path: Path) -> None:
    made = subject(testing.mlp(), library(tmp_path, "*(volatile int *)0 = 1;"))
    assert "killed by SIGSEGV" in refusal(made)


def test_a_child_that_leaves_silently_is_told_with_its_code(tmp_path: Path) -> None:
    made = subject(testing.mlp(), library(tmp_path, "_exit(7);"))
    assert "ended with 7" in refusal(made)


def test_a_version_that_dislikes_made_up_input_still_passes() -> None:
    # An index that is out of range for most values: the run fails, as real ones do.
    node = helper.make_node("GatherND", ["s", "i"], ["y"])
    i = helper.make_tensor_value_info("i", TensorProto.INT64, ["n", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    weight = numpy_helper.from_array(np.zeros(1, np.float32), "s")
    graph = helper.make_graph([node], "g", [i], [y], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    report = run_probe(subject(made.SerializeToString()), LIMITS)
    assert report["code"] != 0
    assert "outputs" not in report
    assert any("warm-up failed" in warning for warning in report["warnings"])


def test_a_probe_that_passed_is_not_repeated(tmp_path: Path) -> None:
    prober, made = Prober(tmp_path / "probes"), subject(testing.tag(1))
    first = prober.probe(made, LIMITS)
    again = Prober(tmp_path / "probes").probe(made, LIMITS)
    assert (first.pop("is_remembered"), again.pop("is_remembered")) == (False, True)
    assert first == again
    other = ProbeLimits(memory_mb=600, cpu_s=20, wall_s=60)
    assert not prober.probe(made, other)["is_remembered"]
    assert not prober.probe(subject(testing.tag(2)), LIMITS)["is_remembered"]


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    prober = Prober(tmp_path / "probes")
    for _ in range(2):
        with pytest.raises(ModelError, match="failed its probe"):
            prober.probe(subject(b"no model"), LIMITS)
    assert not (tmp_path / "probes").exists()


def test_a_spoilt_memory_is_probed_anew(tmp_path: Path) -> None:
    prober, made = Prober(tmp_path), subject(testing.tag(1))
    prober.probe(made, LIMITS)
    (path,) = tmp_path.iterdir()
    path.write_text("{")
    assert not prober.probe(made, LIMITS)["is_remembered"]


def test_a_folder_that_cannot_be_written_costs_only_another_probe(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    prober = Prober(tmp_path / "file" / "probes")
    assert not prober.probe(subject(testing.tag(1)), LIMITS)["is_remembered"]


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    made = library(tmp_path, "for (;;) pause();")
    script = (
        "import os, sys; from router.models.child import *\n"
        "task = Task({'model': 'm', 'version': 1, 'wall_s': 60, 'limits': {},"
        f" 'options': {{'kind': 'ort', 'library': {made!r}}}}}, b'', b'')\n"
        "child = spawn('router.models.probe_child', pack(task), 1)\n"
        "print(child.pid, flush=True); child.wait()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        testing.wait_until(
            lambda: "bad.so" in Path(f"/proc/{child}/maps").read_text(),
            "the child holds on",
        )
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    testing.wait_until(lambda: not is_alive(child), "the child has gone too")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_a_parcel_holds_what_was_packed_and_has_no_name() -> None:
    task = Task({"limits": {"memory_mb": 5}}, b"table", bytes(range(256)) * 5000)
    with pack(task) as packed:
        assert unpack(packed.fileno()) == task
        assert unpack(packed.fileno()) == task
        assert os.fstat(packed.fileno()).st_nlink == 0
    assert task.limits() == Limits(memory_mb=5)


@pytest.mark.parametrize(
    ("code", "errors", "said"),
    [
        (None, "", "it took more than 60 s"),
        (-signal.SIGXCPU, "", "more than 20 s of processor time"),
        (-signal.SIGABRT, "what():  std::bad_alloc", "memory limit of 512 MB"),
        (-signal.SIGABRT, "assertion failed", "killed by SIGABRT"),
        (-signal.SIGKILL, "", "killed by SIGKILL"),
        (1, "Traceback: oops", "ended with 1 before it said anything: Traceback: oops"),
    ],
)
def test_a_death_is_told_by_its_cause(code: int | None, errors: str, said: str) -> None:
    assert said in judge_death(code, errors, LIMITS)


def test_a_report_is_judged_by_memory_and_by_the_end_of_its_run() -> None:
    assert judge_report({"warnings": ["no batching"], "code": 13}, LIMITS) == ""
    assert "memory" in judge_report({"warnings": ["x bad_alloc"]}, LIMITS)
    assert "one run took" in judge_report({"warnings": [], "code": 4}, LIMITS)
    assert not has_memory_words("an index is out of range")


def test_a_smoke_request_is_not_made_of_too_much() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 2**23]}
    assert smoke_request("m", [tensor]) is None


def test_an_answer_without_raw_contents_has_outputs_all_the_same() -> None:
    assert read_outputs(b"") == []
