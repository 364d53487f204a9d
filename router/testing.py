"""Real parts for tests: models made on the spot, a server process, a plain caller.

Everything here is the real thing made small. Models are ONNX graphs that ONNX Runtime
runs; the server is `python -m router serve` in its own process on loopback; the caller
is grpcio with nothing but bytes and descriptors. There are no mocks.

Three models carry most tests. `tag` answers with its own version, so that an answer
says who made it. `echo` returns its input, so that a datatype proves itself. `faulty`
is `tag` with faults chosen by the request, far outside what a probe sends.
"""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib import resources
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import onnx
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
READY_S = 60.0
SERVE = (sys.executable, "-m", "router", "serve")

# Open Inference Protocol datatypes and what ONNX calls them.
DATATYPES: dict[str, int] = {
    "BOOL": TensorProto.BOOL,
    **{
        name: TensorProto.DataType.Value(name)
        for bits in (8, 16, 32, 64)
        for name in (f"INT{bits}", f"UINT{bits}")
    },
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}

# Column 1 of `faulty`'s input. Values no probe would think of.
FAULT_NAN, FAULT_FAIL, FAULT_HANG, FAULT_SLOW = 1e6, 2e6, 3e6, 4e6
# Loop turns of FAULT_SLOW: about a fifth of a second.
SLOW_TURNS = 150_000


_value = helper.make_tensor_value_info


def _const(name: str, array: NDArray[Any]) -> Any:
    return numpy_helper.from_array(array, name)


def _model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    constants: Sequence[Any] = (),
) -> bytes:
    graph = helper.make_graph(
        list(nodes), "test", list(inputs), list(outputs), list(constants)
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    made.ir_version = 8
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data


def mlp(widths: Sequence[int] = (16, 64, 2), seed: int = 0) -> bytes:
    """A multilayer perceptron with softmax: `x` FP32 [-1, first] to `probabilities`."""
    draw = np.random.default_rng(seed)
    nodes, constants, last = [], [], "x"
    for i, (rows, columns) in enumerate(itertools.pairwise(widths)):
        weights = draw.normal(size=(rows, columns)) / np.sqrt(rows)
        constants += [
            _const(f"w{i}", weights.astype(np.float32)),
            _const(f"b{i}", draw.normal(size=columns).astype(np.float32)),
        ]
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"z{i}"]))
        last = f"z{i}"
        if i < len(widths) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"a{i}"]))
            last = f"a{i}"
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    x = _value("x", TensorProto.FLOAT, ["rows", widths[0]])
    y = _value("probabilities", TensorProto.FLOAT, ["rows", widths[-1]])
    return _model(nodes, [x], [y], constants)


def tag(version: int) -> bytes:
    """`x` FP32 [-1, 2] to `tag` FP32 [-1, 1], the version in every row, and `sum`."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
        helper.make_node("Sub", ["sum", "sum"], ["zero"]),
        helper.make_node("Add", ["zero", "version"], ["tag"]),
    ]
    constants = [
        _const("axis", np.array([1], np.int64)),
        _const("version", np.array([[version]], np.float32)),
    ]
    return _model(
        nodes,
        [_value("x", TensorProto.FLOAT, ["rows", 2])],
        [
            _value("tag", TensorProto.FLOAT, ["rows", 1]),
            _value("sum", TensorProto.FLOAT, ["rows", 1]),
        ],
        constants,
    )


def _turn_body() -> Any:
    """What FAULT_HANG and FAULT_SLOW do over and over: multiply by one."""
    node, state = helper.make_node, TensorProto.FLOAT
    nodes = [
        node("Identity", ["keep"], ["keep_out"]),
        node("Mul", ["state", "one"], ["state_out"]),
    ]
    turn = _value("turn", TensorProto.INT64, [])
    keep, keep_out = (_value(n, TensorProto.BOOL, []) for n in ("keep", "keep_out"))
    old, new = (_value(n, state, ["rows", 1]) for n in ("state", "state_out"))
    one = _const("one", np.array([[1]], np.float32))
    return helper.make_graph(nodes, "turn", [turn, keep, old], [keep_out, new], [one])


def faulty(version: int) -> bytes:
    """`tag`, except where column 1 of some row asks for a fault (FAULT_*).

    NaN instead of the version; a run that fails; one that never ends; one that takes
    its time. The last two loop inside ONNX Runtime, the way a real model would.
    """
    node = helper.make_node
    nodes = [
        node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
        node("Sub", ["sum", "sum"], ["zero"]),
        node("Add", ["zero", "version"], ["plain"]),
        node("Gather", ["x", "column"], ["codes"], axis=1),
        node("ReduceMax", ["codes"], ["code"], keepdims=0),
        node("Equal", ["code", "nan_code"], ["is_nan"]),
        node("Where", ["is_nan", "nan", "plain"], ["marked"]),
        # An index out of range fails when it runs, not when it loads.
        node("Equal", ["code", "fail_code"], ["is_fail"]),
        node("Where", ["is_fail", "far", "first"], ["index"]),
        node("Gather", ["one_row", "index"], ["weight"], axis=0),
        node("Mul", ["marked", "weight"], ["weighted"]),
        node("Equal", ["code", "hang_code"], ["is_hang"]),
        node("Equal", ["code", "slow_code"], ["is_slow"]),
        node("Where", ["is_slow", "slow_turns", "first"], ["some_turns"]),
        node("Where", ["is_hang", "hang_turns", "some_turns"], ["turns"]),
        node("Loop", ["turns", "true", "weighted"], ["tag"], body=_turn_body()),
    ]
    integers = {
        "axis": [1], "column": [1], "far": 7, "first": 0,
        "slow_turns": SLOW_TURNS, "hang_turns": 2**62,
    }  # fmt: skip
    numbers = {
        "nan_code": FAULT_NAN, "fail_code": FAULT_FAIL, "hang_code": FAULT_HANG,
        "slow_code": FAULT_SLOW, "nan": float("nan"),
        "version": [[version]], "one_row": [1],
    }  # fmt: skip
    constants = [
        *(_const(name, np.array(v, np.int64)) for name, v in integers.items()),
        *(_const(name, np.array(v, np.float32)) for name, v in numbers.items()),
        _const("true", np.array(True)),
    ]
    columns = {"tag": 1, "sum": 1}
    return _model(
        nodes,
        [_value("x", TensorProto.FLOAT, ["rows", 2])],
        [_value(n, TensorProto.FLOAT, ["rows", w]) for n, w in columns.items()],
        constants,
    )


def echo(datatype: str, shape: Sequence[int | str | None] = ("n",)) -> bytes:
    """`x` to `y`, unchanged. `datatype` is the protocol's name; [] is a scalar."""
    code = DATATYPES[datatype]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return _model(nodes, [_value("x", code, shape)], [_value("y", code, shape)])


def echo_all() -> bytes:
    """Every datatype at once: inputs `in_fp32`, ... to outputs `out_fp32`, ..."""
    names = {name.lower(): code for name, code in DATATYPES.items()}
    return _model(
        [helper.make_node("Identity", [f"in_{n}"], [f"out_{n}"]) for n in names],
        [_value(f"in_{n}", code, [f"n_{n}"]) for n, code in names.items()],
        [_value(f"out_{n}", code, [f"n_{n}"]) for n, code in names.items()],
    )


def write_model(repository: Path, name: str, versions: Mapping[int, bytes]) -> Path:
    """Write versions in Triton's layout; the model's directory."""
    for version, data in versions.items():
        path = repository / name / str(version) / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return repository / name


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody listens on at the moment, all different."""
    with contextlib.ExitStack() as stack:
        made = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        return [int(stack.enter_context(one).getsockname()[1]) for one in made]


def wait_until(
    condition: Callable[[], object], what: str, timeout_s: float = 15.0
) -> None:
    """Wait for `condition` to be true; fails naming `what` after the timeout."""
    deadline = time.monotonic() + timeout_s
    while True:
        if condition():
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        # A poll needs a pause so that the server gets the processor.
        time.sleep(0.005)


class Server:
    """A `router serve` process of its own, with its configuration in `directory`.

    `config` is everything but `server`, which gets free ports and `settings`;
    `launcher` is a command that starts the command after it. Leaving the `with` block
    terminates the process, and fails if it does not end by itself.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        launcher: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
    ) -> None:
        data, ops = free_ports(2)
        self.directory = directory
        self.address, self.ops = f"127.0.0.1:{data}", f"127.0.0.1:{ops}"
        self.path = directory / "router.yaml"
        self._server = {
            "listen": self.address,
            "ops": self.ops,
            **(settings or {}),
        }
        self.log = directory / "server.log"
        self._launcher, self._pass_fds = tuple(launcher), tuple(pass_fds)
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.write(config)

    def write(self, config: Mapping[str, Any]) -> None:
        """Replace the file in one step; JSON is YAML."""
        whole = {"api_version": "router/v1", "server": self._server, **config}
        partial = self.path.with_suffix(".new")
        partial.write_text(json.dumps(whole, indent=1))
        partial.replace(self.path)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout_s: float = 30.0) -> int:
        """The exit code of a process that was told to leave by other means."""
        assert self._process is not None, "the server is not running"
        code = self._process.wait(timeout_s)
        self._process = None
        return code

    def start(self) -> None:
        """Start the process and wait until it says it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._launcher,
                    sys.executable,
                    "-m",
                    "router",
                    "serve",
                    str(self.path),
                ],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                pass_fds=self._pass_fds,
            )
        self.pid = self._process.pid
        wait_until(self._is_ready, "server ready", READY_S)

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"server ended at start:\n{self.tail()}")
        with contextlib.suppress(OSError):
            return self.get("/readyz")[0] == 200
        return False

    def tail(self, lines: int = 30) -> str:
        """The last lines the server wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page of the ops listener."""
        with contextlib.closing(HTTPConnection(self.ops, timeout=10)) as ops:
            ops.request("GET", path)
            reply = ops.getresponse()
            return reply.status, reply.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that carry these labels."""
        status, page = self.get("/metrics")
        if status != 200:
            raise RuntimeError(f"/metrics answers {status}\n{self.tail()}")
        return sum(
            value
            for sample, found, value in samples(page, name)
            if sample == name and labels.items() <= found.items()
        )

    def reload(self, config: Mapping[str, Any]) -> None:
        """Rewrite the file, send SIGHUP, wait until the new one is published."""
        name = "router_config_last_reload_success_timestamp_seconds"
        before = self.metric(name)
        self.write(config)
        self.hang_up()
        wait_until(lambda: self.metric(name) > before, f"reload\n{self.tail()}")

    def hang_up(self) -> None:
        """SIGHUP: look at the file again."""
        os.kill(self.pid, signal.SIGHUP)

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM and wait; the exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.terminate()
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self) -> None:
        """SIGKILL: the server gets no chance to say goodbye."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        code = self.stop()
        if error[0] is None and code != 0:
            raise RuntimeError(f"server ended with {code}:\n{self.tail()}")


def samples(
    page: str, prefix: str = "router_"
) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of each sample, as this server writes them."""
    for line in page.splitlines():
        if line.startswith(prefix):
            head, _, value = line.rpartition(" ")
            name, _, labels = head.partition("{")
            yield name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)


def messages(package: str = "inference") -> Callable[[str], type[Any]]:
    """Message classes of the served protocols, from a pool nobody else shares.

    Generated modules of the same package (tritonclient's) may live in this process and
    must not meet these.
    """
    pool = descriptor_pool.DescriptorPool()
    wire = resources.files("router").joinpath("wire.desc").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(wire).file:
        pool.Add(file)

    def message(name: str) -> type[Any]:
        found = pool.FindMessageTypeByName(f"{package}.{name}")
        made: type[Any] = message_factory.GetMessageClass(found)
        return made

    return message


Inputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client learns from one inference."""

    model: str
    version: int
    id: str
    params: dict[str, Any]
    outputs: dict[str, NDArray[Any]]


class Caller:
    """A grpcio client of the inference service: arrays in, an `Answer` out."""

    def __init__(self, address: str, options: Sequence[tuple[str, int]] = ()) -> None:
        # Its own subchannel pool: two callers are two connections.
        alone = ("grpc.use_local_subchannel_pool", 1)
        self.channel = grpc.insecure_channel(address, options=[alone, *options])
        self._request = messages()("ModelInferRequest")
        self._infer: Any = self.channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages()("ModelInferResponse").FromString,
        )

    def request(
        self,
        model: str,
        inputs: Inputs,
        version: str = "",
        params: Mapping[str, str] | None = None,
    ) -> Any:
        """The message for FP32 inputs."""
        request = self._request(model_name=model, model_version=version)
        for name, array in inputs.items():
            tensor = request.inputs.add(name=name, datatype="FP32")
            tensor.shape.extend(array.shape)
            request.raw_input_contents.append(array.astype("<f4").tobytes())
        for key, value in (params or {}).items():
            request.parameters[key].string_param = value
        return request

    def infer(
        self,
        model: str,
        inputs: Inputs,
        metadata: Mapping[str, str] | None = None,
        version: str = "",
        timeout_s: float = 30.0,
    ) -> Answer:
        """One inference; grpc.RpcError when the server says no."""
        reply = self._infer(
            self.request(model, inputs, version),
            metadata=tuple((metadata or {}).items()),
            timeout=timeout_s,
        )
        params = {
            name: getattr(value, value.WhichOneof("parameter_choice"))
            for name, value in reply.parameters.items()
        }
        raws = reply.raw_output_contents
        outputs = {
            output.name: np.frombuffer(raw, "<f4").reshape(list(output.shape))
            for output, raw in zip(reply.outputs, raws, strict=True)
            if output.datatype == "FP32"
        }
        return Answer(
            reply.model_name, int(reply.model_version), reply.id, params, outputs
        )

    def versions(
        self, model: str, inputs: Inputs, units: Sequence[str]
    ) -> dict[str, int]:
        """The version that answers each unit, many calls in flight at a time."""
        request = self.request(model, inputs)
        answers: dict[str, int] = {}
        for start in range(0, len(units), 64):
            calls = {}
            for unit in units[start : start + 64]:
                met = (("x-user-id", unit),)
                calls[unit] = self._infer.future(request, metadata=met, timeout=30)
            answers |= {u: int(c.result().model_version) for u, c in calls.items()}
        return answers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.channel.close()
