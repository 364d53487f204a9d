"""Calls of any method in `proto/` through grpcio, without generated stubs.

A method is named "ModelInfer" (of the inference service) or in full,
"grpc.health.v1.Health/Check". Errors are grpcio's own `RpcError`. A loop that calls one
method many times keeps what `unary` or `streaming` gives: making it costs more than a
small call.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message

from router.client.messages import message, method

INFERENCE = "inference.GRPCInferenceService"

Metadata = Sequence[tuple[str, str | bytes]]


def call(
    channel: grpc.Channel,
    name: str,
    request: Message,
    timeout: float | None = None,
    metadata: Metadata = (),
) -> Any:
    """The response of one unary call; `timeout` in seconds, None for no deadline."""
    return unary(channel, name)(request, timeout=timeout, metadata=tuple(metadata))


def unary(channel: grpc.Channel, name: str) -> Callable[..., Any]:
    """A unary method to keep and call; its `with_call` also gives the trailers."""
    path, request_class, response_class = _resolve(name)
    made: Callable[..., Any] = channel.unary_unary(
        path, request_class.SerializeToString, response_class.FromString
    )
    return made


def streaming(
    channel: grpc.Channel,
    name: str,
    requests: Iterable[Message],
    timeout: float | None = None,
    metadata: Metadata = (),
) -> Iterator[Any]:
    """The responses of a streaming method, as they come; `.cancel()` ends the call.

    A method that takes a single request (Health/Watch) reads the first of `requests`.
    """
    path, request_class, response_class = _resolve(name)
    # On the wire a stream of one request is a single request.
    started: Iterator[Any] = channel.stream_stream(
        path, request_class.SerializeToString, response_class.FromString
    )(iter(requests), timeout=timeout, metadata=tuple(metadata))
    return started


def _resolve(name: str) -> tuple[str, Any, Any]:
    service, _, short = name.rpartition("/")
    found = method(service or INFERENCE, short)
    return (
        f"/{service or INFERENCE}/{short}",
        message(found.input_type.full_name),
        message(found.output_type.full_name),
    )
