"""A plane with shadows, and answers of every shape that a script cannot give.

Scripted versions answer with constants and misbehave; `lookup` is a real model that
answers row n of a table for input n, so that any pair of answers can be compared.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from plane import INFER, Plane, Request, request, split

from router.plan.plan import Model, Output, OutputKind, Shadow
from router.testing import wait_until

EVERYONE = bytes([1]) * 10_000


def shadowed(
    *shadows: Shadow, versions: tuple[int, ...] = (1, 2), **settings: Any
) -> Model:
    """A model whose first version answers everything."""
    made = split("m", versions, 0)
    output = settings.pop("output", Output("y", 0, OutputKind.VALUE))
    values = {name: getattr(made, name) for name in ("name", "variants", "stable")}
    return Model(**values, output=output, shadows=shadows, **settings)


def state(plane: Plane, name: str = "s") -> dict[str, Any]:
    """What the snapshot says of a shadow."""
    return next(s for s in plane.snapshot()["shadows"] if s["shadow"] == name)


def settled(plane: Plane, name: str = "s") -> dict[str, Any]:
    """The same, once nothing of it is on its way."""
    wait_until(lambda: state(plane, name)["waiting"] == 0, f"shadow {name}")
    return state(plane, name)


def call(plane: Plane, count: int = 1, **fields: Any) -> None:
    """Calls that have to be answered, each by stable."""
    metadata = fields.pop("metadata", ())
    wanted = request(**fields)
    for _ in range(count):
        result = plane.engine.call(INFER, wanted, metadata)
        assert result.code == 0, result.detail


def lookup(rows: NDArray[Any]) -> bytes:
    """A model: `x` INT64 [n] to `y`, row x of `rows`; objects are texts."""
    nodes = [helper.make_node("Gather", ["rows", "x"], ["y"], axis=0)]
    code, table = TensorProto.STRING, rows
    if rows.dtype == object:
        # ONNX Runtime's Gather copies one text a row: texts are looked up one by one.
        texts, at = np.unique(rows.astype(str), return_inverse=True)
        table = at.reshape(rows.shape).astype(np.int64)
        nodes = [
            helper.make_node("Gather", ["rows", "x"], ["at"], axis=0),
            helper.make_node(
                "LabelEncoder", ["at"], ["y"], domain="ai.onnx.ml",
                keys_int64s=range(len(texts)), values_strings=texts.tolist(),
            ),
        ]  # fmt: skip
    else:
        code = helper.np_dtype_to_tensor_dtype(rows.dtype)
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", code, ["n", *rows.shape[1:]])],
        [numpy_helper.from_array(table, "rows")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    data: bytes = model.SerializeToString()
    return data


def ask(*numbers: int) -> bytes:
    """A request for these rows of `lookup`."""
    made = Request(model_name="m")
    made.inputs.add(name="x", datatype="INT64").shape.append(len(numbers))
    made.raw_input_contents.append(np.array(numbers, "<i8").tobytes())
    data: bytes = made.SerializeToString()
    return data
