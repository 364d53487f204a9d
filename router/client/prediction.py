"""A prediction as values: what is asked, what came back, and what went wrong.

Shared by the blocking and the asyncio client; nothing here touches the network.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import ArrayLike, NDArray

from router.client.messages import message
from router.client.tensors import as_array, datatype_of, pack, unpack
from router.errors import RouterError

# A contents field for each datatype, for servers that do not answer raw.
_CONTENTS = {
    "BOOL": "bool_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
    "INT64": "int64_contents", "UINT64": "uint64_contents", "BYTES": "bytes_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
}  # fmt: skip
PUSHBACK = "grpc-retry-pushback-ms"
_HEADER = re.compile(r"[0-9a-z_.-]+", re.ASCII)


class CallError(RouterError):
    """The server said no, or could not be reached.

    `code` is the gRPC code's name ("NOT_FOUND"), `detail` the server's sentence.
    `retry_after_s` is when to come back: None if the server gave no advice, negative
    if it advised not to.
    """

    def __init__(
        self, target: str, code: str, detail: str, retry_after_s: float | None = None
    ) -> None:
        self.target, self.code, self.detail = target, code, detail
        self.retry_after_s = retry_after_s
        super().__init__(f"{target}: {code}: {detail or 'no message'}")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model answered, and the decision that led to it.

    `version` is the one that answered, `variant` its name. `rollout` is the rule that
    decided ("" if none did), `reason` why, `bucket` where the unit fell (None when none
    was drawn). `is_fallback` says that `fallback_from` should have answered and stable
    did instead. Where the model does not annotate its answers, only `version` is known.
    """

    outputs: Mapping[str, NDArray[Any]]
    version: int
    variant: str = ""
    rollout: str = ""
    reason: str = ""
    bucket: int | None = None
    prediction_id: str = ""
    is_fallback: bool = False
    fallback_from: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call carries beside its inputs."""

    unit: str | int | None = None
    metadata: Mapping[str, str] | None = None
    version: int | None = None


def infer_request(model: str, inputs: Mapping[str, ArrayLike], asked: Asked) -> Any:
    """The message that asks; ValueError names an input that cannot be sent."""
    request = message("inference.ModelInferRequest")(model_name=model)
    if asked.version is not None:
        request.model_version = str(asked.version)
    if isinstance(asked.unit, int):
        request.parameters["targeting_key"].int64_param = asked.unit
    elif asked.unit is not None:
        request.parameters["targeting_key"].string_param = asked.unit
    for key, value in (asked.metadata or {}).items():
        if not _is_header(key, value):
            # The router reads attributes from both places, parameters first; only
            # headers are limited to printable ASCII and small letters.
            request.parameters[key].string_param = value
    for name, given in inputs.items():
        array = as_array(given)
        try:
            datatype = datatype_of(array)
        except ValueError as error:
            raise ValueError(f"input '{name}': {error}") from None
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(pack(array))
    return request


def headers(asked: Asked) -> tuple[tuple[str, str], ...]:
    """The metadata that HTTP/2 can carry."""
    given = (asked.metadata or {}).items()
    return tuple((key, value) for key, value in given if _is_header(key, value))


def _is_header(key: str, value: str) -> bool:
    # A name ending in -bin means base64, one beginning with grpc- is the library's.
    is_free = not key.endswith("-bin") and not key.startswith("grpc-")
    is_value = all(" " <= c <= "~" for c in value) and value == value.strip()
    return is_free and is_value and _HEADER.fullmatch(key) is not None


def read_prediction(reply: Any, trailers: Mapping[str, str]) -> Prediction:
    """The prediction in an answer; the decision may be in the trailers instead."""
    said = {
        **{key: value for key, value in trailers.items() if key in _DECISION},
        **{key: _parameter(value) for key, value in reply.parameters.items()},
    }
    bucket = said.get("route_bucket")
    fallback_from = str(said.get("route_fallback", ""))
    return Prediction(
        outputs=_outputs(reply),
        version=int(reply.model_version or 0),
        variant=str(said.get("route_variant", "")),
        rollout=str(said.get("route_rollout", "")),
        reason=str(said.get("route_reason", "")),
        bucket=None if bucket is None else int(bucket),
        prediction_id=str(said.get("prediction_id", "")),
        is_fallback=bool(fallback_from),
        fallback_from=fallback_from,
        revision=str(said.get("route_revision", "")),
    )


_DECISION = frozenset({
    "route_variant", "route_rollout", "route_reason", "route_bucket", "route_revision",
    "route_fallback", "prediction_id",
})  # fmt: skip


def _parameter(value: Any) -> Any:
    return getattr(value, value.WhichOneof("parameter_choice") or "string_param")


def _outputs(reply: Any) -> dict[str, NDArray[Any]]:
    raws = reply.raw_output_contents
    outputs: dict[str, NDArray[Any]] = {}
    for i, output in enumerate(reply.outputs):
        shape = tuple(output.shape)
        if i < len(raws):
            outputs[output.name] = unpack(output.datatype, shape, raws[i])
        else:
            listed = list(getattr(output.contents, _CONTENTS[output.datatype]))
            kind = object if output.datatype == "BYTES" else None
            outputs[output.name] = np.array(listed, kind).reshape(shape)
    return outputs


def call_error(target: str, error: grpc.RpcError) -> CallError:
    """What a failed call says, without the library's trace."""
    code = getattr(error, "code", lambda: None)()
    detail = getattr(error, "details", lambda: "")() or ""
    said = text_metadata(getattr(error, "trailing_metadata", lambda: ())())
    pushback = said.get(PUSHBACK, "")
    wait = int(pushback) / 1000 if pushback.lstrip("-").isdigit() else None
    return CallError(target, code.name if code else "UNKNOWN", detail, wait)


def text_metadata(metadata: Any) -> dict[str, str]:
    """Metadata that is text, by key."""
    return {k: v for k, v in metadata or () if isinstance(v, str)}
