"""One prediction from any Open Inference Protocol server, from text to values.

For people at a prompt: asks the server what the model's inputs are, reads the values
given as text accordingly, and says what came back. A program uses ordinary stubs or
tritonclient.
"""

import time
from dataclasses import dataclass
from typing import Any

import grpc

from router.client.channel import TlsFiles, open_channel
from router.client.messages import message
from router.client.values import (
    PredictError,
    pack_values,
    read_values,
    unpack_values,
)

SERVICE = "/inference.GRPCInferenceService/"


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
