"""numpy arrays to the protocol's tensors and back.

Always by raw contents: little-endian, row-major. An array is sent as the datatype it
has; what is not an array becomes one, and floats among it FP32, because that is what
nearly every model wants and nearly no list says. BF16 has no numpy type: arrays of
`ml_dtypes.bfloat16` are sent as they are, answers come as float32, which holds every
value of it.
"""

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_NAMES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32",
    "uint64": "UINT64", "int8": "INT8", "int16": "INT16", "int32": "INT32",
    "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "bfloat16": "BF16",
}  # fmt: skip
_TYPES = {
    name: np.dtype(kind).newbyteorder("<")
    for kind, name in _NAMES.items()
    if kind != "bfloat16"
}
_LENGTH = struct.Struct("<I")


def as_array(value: ArrayLike) -> NDArray[Any]:
    """The array to send for a value."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    made = np.asarray(value)
    return made.astype(np.float32) if made.dtype == np.float64 else made


def datatype_of(array: NDArray[Any]) -> str:
    """The protocol's name of an array's type; ValueError when it has none."""
    if array.dtype.kind in "SUO":
        return "BYTES"
    name = _NAMES.get(array.dtype.name)
    if name is None:
        raise ValueError(f"arrays of {array.dtype} cannot be sent")
    return name


def pack(array: NDArray[Any]) -> bytes:
    """The raw contents of an array."""
    if array.dtype.kind in "SUO":
        return b"".join(_packed(element) for element in array.ravel())
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and _IS_BIG):
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes()


_IS_BIG = np.dtype(np.uint16).newbyteorder("=") == np.dtype(">u2")


def _packed(element: Any) -> bytes:
    data = element if isinstance(element, bytes) else str(element).encode()
    return _LENGTH.pack(len(data)) + data


def unpack(datatype: str, shape: tuple[int, ...], raw: bytes) -> NDArray[Any]:
    """The array in raw contents, read-only where it shares their memory.

    ValueError when they do not fit the shape.
    """
    if datatype == "BYTES":
        return _unpack_bytes(shape, raw)
    if datatype == "BF16":
        halves = np.frombuffer(raw, "<u2").astype("<u4") << 16
        return halves.view("<f4").reshape(shape)
    if datatype not in _TYPES:
        raise ValueError(f"unknown datatype {datatype!r}")
    return np.frombuffer(raw, _TYPES[datatype]).reshape(shape)


def _unpack_bytes(shape: tuple[int, ...], raw: bytes) -> NDArray[Any]:
    made = np.empty(math.prod(shape), object)
    at = 0
    for i in range(len(made)):
        if at + 4 > len(raw):
            raise ValueError("BYTES contents are cut short")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += 4 + length
        if at > len(raw):
            raise ValueError("BYTES contents are cut short")
        made[i] = raw[at - length : at]
    if at != len(raw):
        raise ValueError("BYTES contents go on after the last element")
    return made.reshape(shape)
