"""Server reflection, v1 and v1alpha: clients without our protos can call us.

Both versions have the same messages under two names, so they are one set of functions.
What is described is what `router/wire.desc` holds; it is a constant of the build.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FileDescriptor

from router.client.messages import message, pool
from router.ops.methods import Code, Method, Send, StreamMethod

VERSIONS = ("v1", "v1alpha")
SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
    "router.v1.Feedback",
)


class Reflection:
    """Answers of one version, one for each message, in order."""

    def __init__(self, version: str, send: Send) -> None:
        name = f"grpc.reflection.{version}.ServerReflectionResponse"
        self._response: Any = message(name)
        self._send = send

    def opened(self, stream: int, request: Any) -> None:
        answer = self._response(valid_host=request.host)
        answer.original_request.CopyFrom(request)
        kind = request.WhichOneof("message_request")
        fill = _ANSWERS.get(kind, _unknown)
        fill(answer, getattr(request, kind) if kind else "")
        self._send(stream, answer.SerializeToString(), end=False)

    def half_closed(self, stream: int) -> None:
        self._send(stream, None, end=True)

    def gone(self, stream: int) -> None:
        """Nothing is kept between messages."""


def reflection_methods(send: Send) -> tuple[Method, ...]:
    """ServerReflectionInfo under both names."""
    return tuple(
        StreamMethod(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            message(f"grpc.reflection.{version}.ServerReflectionRequest"),
            Reflection(version, send),
        )
        for version in VERSIONS
    )


def _services(answer: Any, _: Any) -> None:
    for name in SERVICES:
        answer.list_services_response.service.add(name=name)


def _by_filename(answer: Any, name: str) -> None:
    _add_file(answer, pool().FindFileByName, name, "file")


def _by_symbol(answer: Any, name: str) -> None:
    _add_file(answer, _file_containing, name, "symbol")


def _file_containing(symbol: str) -> FileDescriptor:
    """The file of a message, enum, service, field or method; KeyError if there is none.

    The library finds no methods by itself.
    """
    try:
        return pool().FindFileContainingSymbol(symbol)
    except KeyError:
        service, _, method = symbol.rpartition(".")
        found = pool().FindServiceByName(service)
        if method not in found.methods_by_name:
            raise
        return found.file


def _add_file(
    answer: Any, find: Callable[[str], FileDescriptor], name: str, kind: str
) -> None:
    try:
        found = find(name)
    except KeyError:
        _not_found(answer, f"{kind} '{name}' is not found")
        return
    data = [file.serialized_pb for file in _with_imports(found)]
    answer.file_descriptor_response.file_descriptor_proto.extend(data)


def _with_imports(file: FileDescriptor) -> list[FileDescriptor]:
    """The file first, then everything it needs, each once."""
    ordered = {file.name: file}
    waiting = list(file.dependencies)
    while waiting:
        one = waiting.pop()
        if one.name not in ordered:
            ordered[one.name] = one
            waiting.extend(one.dependencies)
    return list(ordered.values())


def _extension(answer: Any, asked: Any) -> None:
    number = asked.extension_number
    _not_found(answer, f"'{asked.containing_type}' has no extension {number}")


def _extensions(answer: Any, name: str) -> None:
    _not_found(answer, f"'{name}' has no extensions")


def _unknown(answer: Any, _: Any) -> None:
    answer.error_response.error_code = Code.INVALID_ARGUMENT
    answer.error_response.error_message = "the request asks for nothing"


def _not_found(answer: Any, text: str) -> None:
    answer.error_response.error_code = Code.NOT_FOUND
    answer.error_response.error_message = text


_ANSWERS: dict[str | None, Callable[[Any, Any], None]] = {
    "file_by_filename": _by_filename,
    "file_containing_symbol": _by_symbol,
    "file_containing_extension": _extension,
    "all_extension_numbers_of_type": _extensions,
    "list_services": _services,
}
