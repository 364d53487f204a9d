"""One prediction from any Open Inference Protocol server, from text to values.

For people at a prompt: asks the server what the model's inputs are, reads the values
given as text accordingly, and says what came back. A program uses ordinary stubs or
tritonclient.
"""

import json
import math
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from router.client.channel import TlsFiles, open_channel
from router.client.messages import message
from router.errors import RouterError

SERVICE = "/inference.GRPCInferenceService/"

# struct's letter for each datatype of fixed size; BF16 is the upper half of an FP32.
_LETTERS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b",
    "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_FLOATS = {"FP16", "FP32", "FP64", "BF16"}


class PredictError(RouterError):
    """The question cannot be put, or the server refused it."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask: inputs and parameters as text."""

    model: str
    inputs: tuple[tuple[str, str], ...]
    unit: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the answer, its values in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and how long it took from here."""

    model: str
    version: str
    outputs: tuple[Tensor, ...]
    parameters: tuple[tuple[str, Any], ...]
    elapsed_ms: float


def predict(
    target: str, question: Question, timeout_s: float, tls: TlsFiles | None = None
) -> Answer:
    """The server's answer. PredictError says why there is none."""
    with open_channel(target, tls) as channel:
        try:
            return _predict(channel, question, timeout_s)
        except grpc.RpcError as error:
            code, detail = error.code().name, error.details() or "no message"
            raise PredictError(f"{target}: {code}: {detail}") from None


def _predict(channel: grpc.Channel, question: Question, timeout_s: float) -> Answer:
    version = "" if question.version is None else str(question.version)
    asked = message("inference.ModelMetadataRequest")(
        name=question.model, version=version
    )
    metadata = _call(channel, "ModelMetadata", asked, timeout_s)
    request = message("inference.ModelInferRequest")(
        model_name=question.model, model_version=version
    )
    declared = {tensor.name: tensor for tensor in metadata.inputs}
    for name, text in question.inputs:
        if name not in declared:
            raise PredictError(
                f"model '{question.model}' has no input '{name}': it has"
                f" {', '.join(declared)}"
            )
        tensor = declared[name]
        shape, values = read_values(name, text, tuple(tensor.shape))
        request.inputs.add(name=name, datatype=tensor.datatype, shape=shape)
        request.raw_input_contents.append(pack_values(name, tensor.datatype, values))
    for key, value in question.parameters:
        request.parameters[key].string_param = value
    if question.unit is not None:
        request.parameters["targeting_key"].string_param = question.unit
    started = time.perf_counter()
    reply = _call(channel, "ModelInfer", request, timeout_s)
    return _answer(reply, (time.perf_counter() - started) * 1000)


def _call(channel: grpc.Channel, method: str, request: Any, timeout_s: float) -> Any:
    stub: Any = channel.unary_unary(
        SERVICE + method,
        request_serializer=lambda value: value.SerializeToString(),
        response_deserializer=message(f"inference.{method}Response").FromString,
    )
    return stub(request, timeout=timeout_s)


def _answer(reply: Any, elapsed_ms: float) -> Answer:
    outputs = []
    for i, output in enumerate(reply.outputs):
        if i < len(reply.raw_output_contents):
            values = unpack_values(output.datatype, reply.raw_output_contents[i])
        else:
            values = tuple(
                v for _, listed in output.contents.ListFields() for v in listed
            )
        shape = tuple(output.shape)
        outputs.append(Tensor(output.name, output.datatype, shape, values))
    parameters = sorted(
        (key, getattr(value, value.WhichOneof("parameter_choice") or "string_param"))
        for key, value in reply.parameters.items()
    )
    return Answer(
        reply.model_name,
        reply.model_version,
        tuple(outputs),
        tuple(parameters),
        elapsed_ms,
    )


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
