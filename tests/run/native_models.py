"""Small ONNX models, one for each thing the native run tests have to see.

Written into a folder the tests are told of; nothing is checked in, because a model file
is opaque and this page is not.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, STRING, BOOL = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.STRING,
    TensorProto.BOOL,
)


def _value(name: str, kind: int, shape: list[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: list, inputs: list, outputs: list, **weights: np.ndarray
) -> onnx.ModelProto:
    constants = [
        numpy_helper.from_array(array, name) for name, array in weights.items()
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def mlp(sizes: tuple[int, ...] = (16, 64, 2)) -> onnx.ModelProto:
    """Rows are independent; the usual small model."""
    random = np.random.default_rng(7)
    nodes, weights, last = [], {}, "x"
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        weights[f"w{i}"] = random.normal(0, 0.3, (fan_in, fan_out)).astype(np.float32)
        weights[f"b{i}"] = random.normal(0, 0.3, fan_out).astype(np.float32)
        is_last = i == len(sizes) - 2
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"h{i}"]))
        nodes.append(
            helper.make_node(
                "Softmax" if is_last else "Relu",
                [f"h{i}"],
                ["y" if is_last else f"r{i}"],
            )
        )
        last = f"r{i}"
    return _model(
        nodes,
        [_value("x", FLOAT, ["n", sizes[0]])],
        [_value("y", FLOAT, ["n", sizes[-1]])],
        **weights,
    )


def mean() -> onnx.ModelProto:
    """Subtracts the batch's mean: a row's answer depends on its neighbours."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    return _model(nodes, [_value("x", FLOAT, ["n", 4])], [_value("y", FLOAT, ["n", 4])])


def nonzero() -> onnx.ModelProto:
    """As many rows out as there are large values in: breaks only on some inputs."""
    nodes = [
        helper.make_node("Greater", ["x", "limit"], ["large"]),
        helper.make_node("Not", ["large"], ["small"]),
        helper.make_node("Compress", ["x", "small"], ["y"], axis=0),
    ]
    return _model(
        nodes,
        [_value("x", FLOAT, ["n"])],
        [_value("y", FLOAT, ["k"])],
        limit=np.array([100], dtype=np.float32),
    )


def strings() -> onnx.ModelProto:
    nodes = [helper.make_node("Identity", ["s"], ["t"])]
    return _model(
        nodes, [_value("s", STRING, ["n", "k"])], [_value("t", STRING, ["n", "k"])]
    )


def two() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Mul", ["a", "b"], ["product"]),
    ]
    return _model(
        nodes,
        [_value("a", FLOAT, ["n", 3]), _value("b", FLOAT, ["n", 3])],
        [_value("sum", FLOAT, ["n", 3]), _value("product", FLOAT, ["n", 3])],
    )


def scalar() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return _model(nodes, [_value("x", FLOAT, [])], [_value("y", FLOAT, [])])


def unranked() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return _model(nodes, [_value("x", FLOAT, None)], [_value("y", FLOAT, None)])


def typed(kind: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return _model(nodes, [_value("x", kind, ["n", 2])], [_value("y", kind, ["n", 2])])


def passthrough() -> onnx.ModelProto:
    """The graph's output is its input: the runtime returns the caller's own memory."""
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    return _model(
        nodes,
        [_value("x", FLOAT, ["n", 2])],
        [_value("x", FLOAT, ["n", 2]), _value("y", FLOAT, ["n", 2])],
    )


def gather() -> onnx.ModelProto:
    """Fails at run time when an index is out of range."""
    nodes = [helper.make_node("Gather", ["table", "i"], ["y"])]
    return _model(
        nodes,
        [_value("i", INT64, ["n"])],
        [_value("y", FLOAT, ["n"])],
        table=np.arange(10, dtype=np.float32),
    )


def picky() -> onnx.ModelProto:
    """Fails on every value a probe makes up."""
    nodes = [
        helper.make_node("Add", ["i", "offset"], ["j"]),
        helper.make_node("Gather", ["table", "j"], ["y"]),
    ]
    return _model(
        nodes,
        [_value("i", INT64, ["n"])],
        [_value("y", FLOAT, ["n"])],
        offset=np.array([-1000], dtype=np.int64),
        table=np.arange(10, dtype=np.float32),
    )


def endless() -> onnx.ModelProto:
    """Loops for ever when x[0] is larger than 100."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_out"]),
            helper.make_node("Add", ["v", "one"], ["v_out"]),
        ],
        "body",
        [_value("i", INT64, []), _value("go", BOOL, []), _value("v", FLOAT, ["n"])],
        [_value("go_out", BOOL, []), _value("v_out", FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([1], dtype=np.float32), "one")],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "limit"], ["go"]),
        helper.make_node("Loop", ["", "go", "x"], ["y"], body=body),
    ]
    return _model(
        nodes,
        [_value("x", FLOAT, ["n"])],
        [_value("y", FLOAT, ["n"])],
        limit=np.array(100, dtype=np.float32),
    )


def zipmap(keeps_label: bool) -> onnx.ModelProto:
    """A classifier as exported by default: the probabilities are a sequence of maps."""
    nodes = [
        helper.make_node(
            "ZipMap", ["x"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
        ),
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
    ]
    element = helper.make_map_type_proto(
        INT64, helper.make_tensor_type_proto(FLOAT, [])
    )
    maps = helper.make_value_info("maps", helper.make_sequence_type_proto(element))
    outputs = [_value("label", INT64, ["n"])] if keeps_label else []
    if not keeps_label:
        nodes = nodes[:1]
    return _model(nodes, [_value("x", FLOAT, ["n", 2])], [*outputs, maps])


def sequence_input() -> onnx.ModelProto:
    nodes = [helper.make_node("SequenceLength", ["s"], ["y"])]
    sequence = helper.make_tensor_sequence_value_info("s", FLOAT, None)
    return _model(nodes, [sequence], [_value("y", INT64, [])])


def external() -> onnx.ModelProto:
    """Names a file for its weights, as a model from memory must not."""
    model = mlp()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {
        "location": "weights.bin",
        "offset": "0",
        "length": "4096",
    }.items():
        weight.external_data.add(key=key, value=value)
    return model


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": mlp,
    "medium": lambda: mlp((256, 1024, 8)),
    "mean": mean,
    "nonzero": nonzero,
    "strings": strings,
    "two": two,
    "scalar": scalar,
    "unranked": unranked,
    "passthrough": passthrough,
    "gather": gather,
    "picky": picky,
    "endless": endless,
    "zipmap": lambda: zipmap(True),
    "only_maps": lambda: zipmap(False),
    "sequence_input": sequence_input,
    "external": external,
    **{
        f"typed_{name}": (lambda kind=kind: typed(kind))
        for name, kind in {
            "BOOL": BOOL,
            "UINT8": TensorProto.UINT8,
            "UINT16": TensorProto.UINT16,
            "UINT32": TensorProto.UINT32,
            "UINT64": TensorProto.UINT64,
            "INT8": TensorProto.INT8,
            "INT16": TensorProto.INT16,
            "INT32": TensorProto.INT32,
            "INT64": INT64,
            "FP16": TensorProto.FLOAT16,
            "BF16": TensorProto.BFLOAT16,
            "FP32": FLOAT,
            "FP64": TensorProto.DOUBLE,
        }.items()
    },
}


def write_models(folder: Path) -> None:
    for name, make in MODELS.items():
        (folder / f"{name}.onnx").write_bytes(make().SerializeToString())
