"""Conditions over columns of a small input: what the engine reads of the first row."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16
from plane import INFER, Plane, Request

from router.plan.plan import Feature, Model, Op, Reason, Rule, Variant
from router.plan.plan import Test as Ask

NUMPY: dict[str, Any] = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32,
    "INT64": np.int64, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32,
    "UINT64": np.uint64, "FP16": np.float16, "BF16": bfloat16, "FP32": np.float32,
    "FP64": np.float64,
}  # fmt: skip
TYPED = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
ROW = (0, 1, 3)  # the features of the first row; a second one would say otherwise
FEATURES = tuple(Feature(f"input.f{n}", "t", n) for n in range(3))


def raw(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(v)) + v for v in values)
    return np.array(values).astype(NUMPY[datatype]).tobytes()


def infer(
    datatype: str, values: Sequence[Any], shape: Sequence[int], *, typed: bool = False
) -> bytes:
    made = Request(model_name="m")
    tensor = made.inputs.add(name="t", datatype=datatype)
    tensor.shape.extend(shape)
    if typed:
        getattr(tensor.contents, TYPED[datatype]).extend(values)
    else:
        made.raw_input_contents.append(raw(datatype, values))
    data: bytes = made.SerializeToString()
    return data


@pytest.fixture(scope="module")
def plane() -> Any:
    with Plane(loops=1) as made:
        made.load("m", 1, "delay_us=0")
        made.start()
        yield made


def matches(plane: Plane, ask: Ask, message: bytes, metadata: Any = ()) -> bool:
    """Whether the rule with this condition took the request, whatever became of it."""
    rule = Rule("asked", ask, "s", None, 0, Reason.TARGETING_MATCH)
    model = Model("m", (Variant("v1", 1),), 0, (rule,), features=FEATURES)
    plane.publish(model)

    def taken() -> int:
        return sum(
            entry["metadata"] + entry["none"]
            for entry in plane.snapshot()["routed"]
            if entry["rule"] == "asked"
        )

    before = taken()
    plane.engine.call(INFER, message, metadata)
    return taken() > before


def equal(feature: int, value: float) -> Ask:
    return Ask(f"input.f{feature}", Op.EQUAL, low=float(value))


@pytest.mark.parametrize(
    ("datatype", "typed"),
    [(datatype, False) for datatype in NUMPY]
    + [(datatype, True) for datatype in TYPED if datatype in NUMPY],
)
def test_a_feature_is_its_column_of_the_first_row(
    plane: Plane, datatype: str, typed: bool
) -> None:
    values = [1, 0, 1] if datatype == "BOOL" else [*ROW]
    other = [1 - value for value in values] if datatype == "BOOL" else [7, 7, 7]
    if typed and datatype == "BOOL":
        values, other = [bool(v) for v in values], [bool(v) for v in other]
    message = infer(datatype, [*values, *other], (2, 3), typed=typed)
    for feature, value in enumerate(values):
        assert matches(plane, equal(feature, value), message)
        assert not matches(plane, equal(feature, value + 2), message)


@pytest.mark.parametrize("typed", [False, True], ids=["raw", "typed"])
def test_a_text_feature_is_found_behind_others_of_any_length(
    plane: Plane, typed: bool
) -> None:
    message = infer("BYTES", [b"", b"long" * 99, b"ny"] * 2, (2, 3), typed=typed)
    for feature, text in enumerate((b"", b"long" * 99, b"ny")):
        assert matches(plane, Ask(f"input.f{feature}", Op.IN, (text,)), message)
        assert not matches(plane, Ask(f"input.f{feature}", Op.IN, (b"x",)), message)


@pytest.mark.parametrize("shape", [(1, 3), (3,), (1, 3, 1)])
def test_a_vector_is_a_row_of_its_own(plane: Plane, shape: tuple[int, ...]) -> None:
    message = infer("INT32", ROW, shape)
    for feature, value in enumerate(ROW):
        assert matches(plane, equal(feature, value), message)


@pytest.mark.parametrize(
    "message",
    [
        infer("FP32", [3, 3], (1, 2)),
        infer("FP32", [3, 3, 3, 3], (2, 2)),
        infer("FP32", [3], (1,)),
        infer("FP32", [], (0, 3)),
        Request(model_name="m").SerializeToString(),
    ],
    ids=["short row", "short first row", "scalar", "no rows", "no tensor"],
)
def test_a_feature_that_is_not_there_is_absent(plane: Plane, message: bytes) -> None:
    assert not matches(plane, Ask("input.f2", Op.PRESENT), message)


def test_a_nan_is_there_and_passes_no_comparison(plane: Plane) -> None:
    message = infer("FP32", [float("nan")] * 3, (1, 3))
    everything = Ask("input.f1", Op.RANGE, low=float("-inf"), high=float("inf"))
    assert matches(plane, Ask("input.f1", Op.PRESENT), message)
    assert not matches(plane, everything, message)


def test_nobody_can_say_another_value_beside_the_tensor(plane: Plane) -> None:
    spoken = [("input.f2", b"9")]
    with_tensor = infer("FP32", ROW, (1, 3))
    assert matches(plane, equal(2, 3), with_tensor, spoken)
    assert not matches(plane, equal(2, 9), with_tensor, spoken)
    request = Request.FromString(with_tensor)
    request.parameters["input.f2"].double_param = 9
    assert matches(plane, equal(2, 3), request.SerializeToString())


def test_an_input_without_named_columns_is_read_at_its_first_element(
    plane: Plane,
) -> None:
    message = infer("FP32", [5, 6, 7], (1, 3))
    assert matches(plane, Ask("input.t", Op.EQUAL, low=5.0), message)
