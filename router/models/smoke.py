"""One request to a version by its signature, and what came back.

Ones of the right type in every input, one row: enough to see that a run ends, what it
answers with and what it costs. Whether the answer is right nobody here can say.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from router.models.protobuf import delimited, fields, packed, varints

INFER = "/inference.GRPCInferenceService/ModelInfer"
OPEN_SIZE = 1  # what a dimension that the model leaves open gets
ELEMENTS_MAX = 1 << 22
_ONES = {
    "BOOL": b"\1", "INT8": b"\1", "UINT8": b"\1", "INT16": b"\1\0", "UINT16": b"\1\0",
    "INT32": b"\1\0\0\0", "UINT32": b"\1\0\0\0", "INT64": b"\1" + bytes(7),
    "UINT64": b"\1" + bytes(7), "FP16": b"\x00\x3c", "BF16": b"\x80\x3f",
    "FP32": struct.pack("<f", 1), "FP64": struct.pack("<d", 1),
    "BYTES": b"\1\0\0\0a",
}  # fmt: skip
_FLOATS = {"FP32": "<f", "FP64": "<d", "FP16": "<e"}


def smoke_request(model: str, inputs: Sequence[Mapping[str, Any]]) -> bytes | None:
    """A ModelInferRequest; None when its tensors would be unreasonably large."""
    described, raw = b"", b""
    for tensor in inputs:
        shape = tuple(OPEN_SIZE if size < 0 else size for size in tensor["shape"])
        if math.prod(shape) > ELEMENTS_MAX:
            return None
        body = delimited(1, tensor["name"]) + delimited(2, tensor["datatype"])
        described += delimited(5, body + packed(3, shape))
        raw += delimited(7, _ONES[tensor["datatype"]] * math.prod(shape))
    return delimited(1, model) + described + raw


def read_outputs(response: bytes) -> list[dict[str, Any]]:
    """Name, datatype, shape and finiteness of each output of a ModelInferResponse."""
    outputs, raw = [], []
    for field in fields(memoryview(response)):
        if field.content is None:
            continue
        if field.number == 5:
            outputs.append(_output(field.content))
        elif field.number == 6:
            raw.append(field.content)
    for output, content in zip(outputs, raw, strict=False):
        form = _FLOATS.get(output["datatype"])
        if form is not None:
            values = struct.iter_unpack(form, content)
            output["is_finite"] = all(math.isfinite(value) for (value,) in values)
    return outputs


def _output(view: memoryview) -> dict[str, Any]:
    output: dict[str, Any] = {"name": "", "datatype": "", "shape": []}
    for field in fields(view):
        if field.number == 3 and field.content is not None:
            output["shape"] = [
                value - 2**64 if value >= 2**63 else value
                for value in varints(field.content)
            ]
        elif field.number in (1, 2) and field.content is not None:
            key = "name" if field.number == 1 else "datatype"
            output[key] = bytes(field.content).decode("utf-8", "replace")
    return output
