"""The inputs and outputs of an ONNX file, read from its bytes.

For people who look at a repository: nothing is loaded, and bytes that are no model have
no inputs. What a server answers with comes from the runtime.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from router.models.protobuf import NotProtobufError, fields

# Field numbers of onnx.proto3: model, graph; value, its type; tensor type, shape.
_GRAPH, _INITIALIZER, _INPUT, _OUTPUT = 7, 5, 11, 12
_NAME, _TYPE, _TENSOR_NAME = 1, 2, 8
_TENSOR_TYPE, _ELEMENT, _SHAPE, _DIM = 1, 1, 2, 1
_SIZE, _SYMBOL = 1, 2
_DATATYPES = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64",
    8: "BYTES", 9: "BOOL", 10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64",
    16: "BF16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as the file declares it; a dimension is a number, a name or -1."""

    name: str
    datatype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.shape)}".replace("'", "")


@dataclass(frozen=True, slots=True)
class FileSignature:
    """What goes in and what comes out."""

    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()


def signature_of(data: bytes) -> FileSignature:
    """The signature of a model; an empty one for bytes that are none."""
    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []
    weights: set[str] = set()
    try:
        for graph in _inner(memoryview(data), _GRAPH):
            for field in fields(graph):
                if field.content is None:
                    continue
                if field.number == _INITIALIZER:
                    weights.add(_text(field.content, _TENSOR_NAME))
                elif field.number == _INPUT:
                    inputs.append(_tensor(field.content))
                elif field.number == _OUTPUT:
                    outputs.append(_tensor(field.content))
    except NotProtobufError:
        return FileSignature()
    # Old files list their weights among the inputs.
    asked = tuple(one for one in inputs if one.name not in weights)
    return FileSignature(asked, tuple(outputs))


def _tensor(view: memoryview) -> TensorInfo:
    element, shape = 0, []
    for kind in _inner(view, _TYPE):
        for tensor in _inner(kind, _TENSOR_TYPE):
            element = _number(tensor, _ELEMENT)
            for dims in _inner(tensor, _SHAPE):
                shape += [_size(dim) for dim in _inner(dims, _DIM)]
    datatype = _DATATYPES.get(element, "unknown")
    return TensorInfo(_text(view, _NAME), datatype, tuple(shape))


def _size(dim: memoryview) -> int | str:
    for field in fields(dim):
        if field.number == _SIZE:
            return field.value
        if field.number == _SYMBOL and field.content is not None:
            return bytes(field.content).decode("utf-8", "replace") or -1
    return -1


def _inner(view: memoryview, number: int) -> Iterator[memoryview]:
    for field in fields(view):
        if field.number == number and field.content is not None:
            yield field.content


def _text(view: memoryview, number: int) -> str:
    found = next(_inner(view, number), memoryview(b""))
    return bytes(found).decode("utf-8", "replace")


def _number(view: memoryview, number: int) -> int:
    return next((f.value for f in fields(view) if f.number == number), 0)
