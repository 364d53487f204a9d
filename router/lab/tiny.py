"""A tiny ONNX model, written without the onnx package: a self-test runs anywhere.

`x` FP32 [-1, WIDTH] is averaged by `layers` matrix products, and `y` is the square root
of the mean less `below`: not a number for an input whose mean is smaller. So one number
sets how often a version fails, another how long it takes.
"""

import struct

WIDTH = 64
_IR, _OPSET = 8, 17
_FLOAT = 1


def tiny_model(layers: int, below: float) -> bytes:
    """The model's bytes."""
    mean = struct.pack("<f", 1 / WIDTH)
    nodes, last = b"", "x"
    for i in range(layers):
        nodes += _node("MatMul", (last, "mix"), f"h{i}")
        last = f"h{i}"
    nodes += _node("MatMul", (last, "one"), "mean")
    nodes += _node("Sub", ("mean", "below"), "left") + _node("Sqrt", ("left",), "y")
    graph = (
        nodes
        + _text(2, "tiny")
        + _tensor("mix", (WIDTH, WIDTH), mean * WIDTH * WIDTH)
        + _tensor("one", (WIDTH, 1), mean * WIDTH)
        + _tensor("below", (1,), struct.pack("<f", below))
        + _bytes(11, _value("x", WIDTH))
        + _bytes(12, _value("y", 1))
    )
    opset = _bytes(8, _number(2, _OPSET))
    return _number(1, _IR) + _bytes(7, graph) + opset


def _node(kind: str, inputs: tuple[str, ...], output: str) -> bytes:
    named = b"".join(_text(1, name) for name in inputs)
    return _bytes(1, named + _text(2, output) + _text(4, kind))


def _tensor(name: str, shape: tuple[int, ...], raw: bytes) -> bytes:
    dims = b"".join(_number(1, size) for size in shape)
    return _bytes(5, dims + _number(2, _FLOAT) + _text(8, name) + _bytes(9, raw))


def _value(name: str, columns: int) -> bytes:
    shape = _bytes(1, _text(2, "rows")) + _bytes(1, _number(1, columns))
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, _FLOAT) + _bytes(2, shape)))


# Protocol buffers: a field is its number and wire type, then a varint or sized bytes.


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
