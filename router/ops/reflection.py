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
CLIENT_SERVICES = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
    "router.v1.Feedback",
)


class Reflection:
    """Answers of one version, one for each message, in order.

    Describes these services and what they need, nothing else that the build has: a
    client is not told what operators can do.
    """

    def __init__(self, version: str, send: Send, services: tuple[str, ...]) -> None:
        self._services = tuple(sorted(services))
        self._files = _files_of(services)
        name = f"grpc.reflection.{version}.ServerReflectionResponse"
        self._response: Any = message(name)
        self._send = send

    def opened(self, stream: int, request: Any) -> None:
        answer = self._response(valid_host=request.host)
        answer.original_request.CopyFrom(request)
        kind = request.WhichOneof("message_request")
        asked = getattr(request, kind) if kind else ""
        match kind:
            case "list_services":
                for name in self._services:
                    answer.list_services_response.service.add(name=name)
            case "file_by_filename":
                self._add_file(answer, pool().FindFileByName, asked, "file")
            case "file_containing_symbol":
                self._add_file(answer, _file_containing, asked, "symbol")
            case _:
                _ANSWERS.get(kind, _unknown)(answer, asked)
        self._send(stream, answer.SerializeToString(), end=False)

    def half_closed(self, stream: int) -> None:
        self._send(stream, None, end=True)

    def gone(self, stream: int) -> None:
        """Nothing is kept between messages."""

    def _add_file(
        self, answer: Any, find: Callable[[str], FileDescriptor], name: str, kind: str
    ) -> None:
        try:
            found = find(name)
        except KeyError:
            found = None
        if found is None or found.name not in self._files:
            _not_found(answer, f"{kind} '{name}' is not found")
            return
        data = [file.serialized_pb for file in _with_imports(found)]
        answer.file_descriptor_response.file_descriptor_proto.extend(data)


def reflection_methods(
    send: Send, services: tuple[str, ...] = CLIENT_SERVICES
) -> tuple[Method, ...]:
    """ServerReflectionInfo of these services, under both names."""
    return tuple(
        StreamMethod(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            message(f"grpc.reflection.{version}.ServerReflectionRequest"),
            Reflection(version, send, services),
        )
        for version in VERSIONS
    )


def _files_of(services: tuple[str, ...]) -> frozenset[str]:
    found = (pool().FindServiceByName(name).file for name in services)
    return frozenset(file.name for first in found for file in _with_imports(first))


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
    "file_containing_extension": _extension,
    "all_extension_numbers_of_type": _extensions,
}
