"""Values as text to raw contents of a tensor and back; no network, no gRPC."""

import json
import math
import struct
from collections.abc import Iterator
from typing import Any

from router.errors import RouterError

# struct's letter for each datatype of fixed size; BF16 is the upper half of an FP32.
_LETTERS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b",
    "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_FLOATS = {"FP16", "FP32", "FP64", "BF16"}


class PredictError(RouterError):
    """The question cannot be put, or the server refused it."""


def read_values(
    name: str, text: str, declared: tuple[int, ...]
) -> tuple[list[int], list[Any]]:
    """Shape and flat values of a text: JSON, or one row of values and commas.

    JSON lists give their own shape; a row takes the declared one, with 1 for each size
    the model leaves open but the last, which the number of values settles.
    """
    if text.lstrip().startswith("["):
        try:
            nested = json.loads(text)
        except ValueError:
            raise PredictError(f"input '{name}': not JSON") from None
        shape = list(_shape(nested))
        values = list(_flat(nested))
        if math.prod(shape) != len(values):
            raise PredictError(f"input '{name}': rows of different lengths")
        return shape, values
    row: list[Any] = [value.strip() for value in text.split(",")]
    shape = [1 if size < 0 else size for size in declared]
    if declared and declared[-1] < 0:
        shape[-1] = max(1, len(row) // max(1, math.prod(shape[:-1])))
    if math.prod(shape) != len(row):
        raise PredictError(
            f"input '{name}': {len(row)} values do not fill shape {list(declared)}"
        )
    return shape, row


def _shape(nested: Any) -> Iterator[int]:
    while isinstance(nested, list):
        yield len(nested)
        nested = nested[0] if nested else None


def _flat(nested: Any) -> Iterator[Any]:
    if isinstance(nested, list):
        for member in nested:
            yield from _flat(member)
    else:
        yield nested


def pack_values(name: str, datatype: str, values: list[Any]) -> bytes:
    """The raw contents of values, read as the datatype wants them."""
    try:
        if datatype == "BYTES":
            texts = [str(value).encode() for value in values]
            return b"".join(struct.pack("<I", len(text)) + text for text in texts)
        if datatype == "BF16":
            halves = [struct.pack("<f", float(value))[2:] for value in values]
            return b"".join(halves)
        numbers = [_number(datatype, value) for value in values]
        return struct.pack(f"<{len(numbers)}{_LETTERS[datatype]}", *numbers)
    except (ValueError, TypeError, OverflowError, struct.error):
        raise PredictError(f"input '{name}': not {datatype} values") from None
    except KeyError:
        raise PredictError(f"input '{name}': unknown datatype {datatype}") from None


def _number(datatype: str, value: Any) -> Any:
    if datatype == "BOOL":
        word = str(value).lower()
        if word not in ("true", "1", "false", "0"):
            raise ValueError(word)
        return word in ("true", "1")
    return float(value) if datatype in _FLOATS else int(value)


def unpack_values(datatype: str, raw: bytes) -> tuple[Any, ...]:
    """The values in raw contents."""
    if datatype == "BYTES":
        texts = []
        at = 0
        while at + 4 <= len(raw):
            (length,) = struct.unpack_from("<I", raw, at)
            texts.append(raw[at + 4 : at + 4 + length].decode("utf-8", "replace"))
            at += 4 + length
        return tuple(texts)
    if datatype == "BF16":
        halves = (raw[at : at + 2] for at in range(0, len(raw), 2))
        return tuple(struct.unpack("<f", b"\0\0" + half)[0] for half in halves)
    return tuple(v for (v,) in struct.iter_unpack(f"<{_LETTERS[datatype]}", raw))
