"""The models that are measured and the requests that are sent to them.

small: 16-64-2 MLP, medium: 256-1024-8 MLP, tensor: an addition over 150,000 float32
(600 KB), so that all that is measured there is moving bytes. Each has two versions with
different weights, in Triton's layout (`<folder>/<name>/<version>/model.onnx`). Weights
come from fixed seeds: two machines measure the same models.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import service_pb2

VERSIONS = (1, 2)
OPSET = 17
# Written explicitly: a new onnx writes a format that an older runtime refuses.
IR_VERSION = 8


@dataclass(frozen=True, slots=True)
class Model:
    """A model by what a client must know to call it."""

    name: str
    columns: int
    hidden: int = 0
    outputs: int = 0


SMALL = Model("small", 16, 64, 2)
MEDIUM = Model("medium", 256, 1024, 8)
TENSOR = Model("tensor", 150_000)
MODELS = (SMALL, MEDIUM, TENSOR)


def write_models(
    folder: Path,
    models: tuple[Model, ...] = MODELS,
    versions: tuple[int, ...] = VERSIONS,
) -> Path:
    """Write these versions of these models below `folder`, and return it."""
    for model in models:
        for version in versions:
            path = folder / model.name / str(version) / "model.onnx"
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx.save(onnx_of(model, version), path)
    return folder


def onnx_of(model: Model, version: int) -> onnx.ModelProto:
    """One version of a model: float32 "x" with any number of rows in, "y" out."""
    rng = np.random.default_rng([version, model.columns])
    if model.hidden:
        nodes, weights = _mlp(model, rng)
    else:
        nodes = [helper.make_node("Add", ["x", "offset"], ["y"])]
        weights = {"offset": np.array([version], np.float32)}
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", model.columns])
    width = model.outputs or model.columns
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, model.name, [x], [y], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    made.ir_version = IR_VERSION
    onnx.checker.check_model(made)
    return made


def _mlp(
    model: Model, rng: np.random.Generator
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    def matrix(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) / rows**0.5).astype(np.float32)

    weights = {
        "w1": matrix(model.columns, model.hidden),
        "b1": matrix(1, model.hidden)[0],
        "w2": matrix(model.hidden, model.outputs),
        "b2": matrix(1, model.outputs)[0],
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"], axis=1),
    ]
    return nodes, weights


def row_of(model: Model) -> np.ndarray:
    """The one row that every request carries."""
    rng = np.random.default_rng(model.columns)
    return rng.standard_normal((1, model.columns)).astype(np.float32)


def request_of(model: Model) -> service_pb2.ModelInferRequest:
    """A request without a unit and without a version: routing decides about both."""
    request = service_pb2.ModelInferRequest(model_name=model.name)
    request.inputs.add(name="x", datatype="FP32", shape=[1, model.columns])
    request.raw_input_contents.append(row_of(model).tobytes())
    return request


def write_body(model: Model, path: Path) -> Path:
    """The body of one gRPC call, length prefix included, for `h2load -d`."""
    message = request_of(model).SerializeToString()
    path.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    return path


def expected_answer(model: Model, version: int) -> np.ndarray:
    """What a version answers to `row_of(model)`, by the reference evaluator of ONNX."""
    from onnx.reference import ReferenceEvaluator  # slow to import, seldom wanted

    session = ReferenceEvaluator(onnx_of(model, version))
    return session.run(None, {"x": row_of(model)})[0]
