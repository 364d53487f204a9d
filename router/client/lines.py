"""Requests and answers as bytes and as values, for those who replay them.

Requests may also be written by hand: the protocol's JSON form, one request a line.

    {"model_name": "credit", "inputs": [{"name": "x", "datatype": "FP32",
     "shape": [1, 2], "data": [0.5, 1]}]}

with `id`, `model_version`, `outputs` and `parameters` as in the protocol's HTTP
binding, and `metadata` (an object of texts) beside them.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from router.client.messages import message
from router.client.tensors import unpack
from router.client.values import PredictError, pack_values

_KEYS = {
    "model_name", "model_version", "id", "inputs", "outputs", "parameters", "metadata",
}  # fmt: skip


def read_line(line: bytes) -> tuple[Any, dict[str, str]]:
    """The ModelInferRequest in a line and its metadata; ValueError says what is wrong
    with it."""
    try:
        given = json.loads(line)
    except ValueError:
        raise ValueError("not JSON") from None
    if not isinstance(given, dict):
        raise ValueError("not an object")
    unknown = given.keys() - _KEYS
    if unknown:
        raise ValueError(f"unknown key '{sorted(unknown)[0]}'")
    if not isinstance(given.get("model_name"), str):
        raise ValueError("model_name is missing")
    request = message("inference.ModelInferRequest")(
        model_name=given["model_name"],
        model_version=str(given.get("model_version", "")),
        id=str(given.get("id", "")),
    )
    for each in _objects(given, "inputs"):
        _add_input(request, each)
    for each in _objects(given, "outputs"):
        request.outputs.add(name=str(each.get("name", "")))
    for key, value in _texts(given, "parameters").items():
        _set_parameter(request.parameters[key], key, value)
    metadata = _texts(given, "metadata")
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata has a value that is not text")
    return request, dict(metadata)


def read_request(body: bytes) -> Any:
    """The ModelInferRequest in bytes; ValueError when it is none."""
    try:
        return message("inference.ModelInferRequest").FromString(body)
    except DecodeError:
        raise ValueError("not a ModelInferRequest") from None


def read_outputs(body: bytes) -> tuple[str, dict[str, NDArray[Any]]]:
    """The version that answered and its outputs, of a router's ModelInferResponse."""
    reply = message("inference.ModelInferResponse").FromString(body)
    return reply.model_version, {
        tensor.name: unpack(tensor.datatype, tuple(tensor.shape), raw)
        for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }


def read_arrays(request: Any) -> dict[str, NDArray[Any]]:
    """The inputs of a request that has raw contents; nothing of one that has not."""
    if len(request.raw_input_contents) != len(request.inputs):
        return {}
    return {
        tensor.name: unpack(tensor.datatype, tuple(tensor.shape), raw)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


def _objects(given: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = given.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"{key} is not a list of objects")
    return found


def _texts(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = given.get(key, {})
    if not isinstance(found, dict):
        raise ValueError(f"{key} is not an object")
    return found


def _add_input(request: Any, given: Mapping[str, Any]) -> None:
    missing = [key for key in ("name", "datatype", "shape", "data") if key not in given]
    if missing:
        raise ValueError(f"an input has no {missing[0]}")
    name, datatype, shape = str(given["name"]), str(given["datatype"]), given["shape"]
    is_shape = isinstance(shape, list) and all(type(size) is int for size in shape)
    if not is_shape or any(size < 0 for size in shape):
        raise ValueError(f"input '{name}': shape is not a list of sizes")
    values = _flat(given["data"])
    if len(values) != math.prod(shape):
        raise ValueError(f"input '{name}': {len(values)} values for shape {shape}")
    try:
        raw = pack_values(name, datatype, values)
    except PredictError as error:
        raise ValueError(str(error)) from None
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.append(raw)


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    return [value for member in data for value in _flat(member)]


def _set_parameter(parameter: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, str):
        parameter.string_param = value
    else:
        raise ValueError(f"parameter '{key}' is not text, a whole number or a flag")
