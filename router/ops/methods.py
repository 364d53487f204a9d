"""gRPC methods that Python serves: what one is, and the thread that serves them.

The engine decodes HTTP/2 and gRPC and queues calls; a pool's thread pulls them, so no
Python is ever entered from native code. A pool has one thread: the methods are short
and hold the GIL anyway, and one thread sees the events of a stream in order. Stream
methods are told about messages and never wait for one.

A method answers or raises `MethodError`. Anything else it raises is our mistake: the
client gets INTERNAL without a word of it, the log gets the trace.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from google.protobuf.message import DecodeError, Message

from router.errors import RouterError

log = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 5
PEER_IDENTITY = (
    "x-peer-identity"  # the engine's word; what clients send of it is dropped
)


class Code(IntEnum):
    """The gRPC codes that methods of this plane answer with."""

    OK = 0
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    INTERNAL = 13
    UNAVAILABLE = 14


class EventKind(IntEnum):
    """What happened on a stream; the numbers are the engine's."""

    MESSAGE = 0
    END = 1
    CANCELLED = 2


class Event(Protocol):
    """What a client did; `MethodEvent` of the engine."""

    @property
    def stream(self) -> int: ...
    @property
    def method(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def message(self) -> bytes: ...
    @property
    def metadata(self) -> tuple[tuple[str, bytes], ...]: ...


class Send(Protocol):
    """`Engine.send`: False when the stream is gone."""

    def __call__(
        self, stream: int, message: bytes | None, *, end: bool, code: int = 0,
        detail: str = "",
    ) -> bool: ...  # fmt: skip


class MethodError(RouterError):
    """A refusal with the code and the sentence the client gets."""

    def __init__(self, code: Code, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(detail)


class StreamCalls(Protocol):
    """What serves a streaming method. Called by the pool's thread only."""

    def opened(self, stream: int, request: Any) -> None:
        """A message came; the first one or a later one."""

    def half_closed(self, stream: int) -> None:
        """The client will send no more."""

    def gone(self, stream: int) -> None:
        """The stream is no more; sending to it does nothing."""


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """One request, one answer."""

    path: str
    request: type[Message]
    answer: Callable[[Any], Message]


@dataclass(frozen=True, slots=True)
class Reply:
    """Who waits for one answer. Any thread may answer, once."""

    stream: int
    send: Send

    def answer(self, message: Message) -> None:
        self.send(self.stream, message.SerializeToString(), end=True)

    def refuse(self, error: MethodError) -> None:
        self.send(self.stream, None, end=True, code=error.code, detail=error.detail)


@dataclass(frozen=True, slots=True)
class DeferredMethod:
    """One request, one answer that comes when it is ready: the pool does not wait."""

    path: str
    request: type[Message]
    begin: Callable[[Any, Reply], None]
    """May raise instead of replying."""


@dataclass(frozen=True, slots=True)
class OperatorMethod:
    """One request, one answer that may depend on who asks.

    `answer` is told the peer's identity as the listener knows it, from its certificate;
    "" where it asks for none.
    """

    path: str
    request: type[Message]
    answer: Callable[[Any, str], Message]


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """Messages either way, at any time."""

    path: str
    request: type[Message]
    calls: StreamCalls


Method = UnaryMethod | DeferredMethod | OperatorMethod | StreamMethod


class MethodPool:
    """Owner of the thread that serves some methods.

    `events` ends when the engine has stopped, and with it the thread.
    """

    def __init__(
        self,
        name: str,
        events: Iterable[Event],
        send: Send,
        methods: Mapping[int, Method],
    ) -> None:
        self._events, self._send, self._methods = events, send, dict(methods)
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait for the end; after the engine was stopped."""
        self._thread.join(JOIN_TIMEOUT_S)

    def _serve(self) -> None:
        for event in self._events:
            serve_event(self._methods[event.method], event, self._send)


def serve_event(method: Method, event: Event, send: Send) -> None:
    """Do what an event asks for. Never raises."""
    try:
        if isinstance(method, UnaryMethod):
            if event.kind == EventKind.MESSAGE:
                answer = method.answer(_decode(method, event.message))
                send(event.stream, answer.SerializeToString(), end=True)
        elif isinstance(method, DeferredMethod):
            if event.kind == EventKind.MESSAGE:
                request = _decode(method, event.message)
                method.begin(request, Reply(event.stream, send))
        elif isinstance(method, OperatorMethod):
            if event.kind == EventKind.MESSAGE:
                asked = _decode(method, event.message)
                answer = method.answer(asked, _peer(event))
                send(event.stream, answer.SerializeToString(), end=True)
        elif event.kind == EventKind.MESSAGE:
            method.calls.opened(event.stream, _decode(method, event.message))
        elif event.kind == EventKind.END:
            method.calls.half_closed(event.stream)
        else:
            method.calls.gone(event.stream)
    except MethodError as error:
        _refuse(method, event, send, error)
    except Exception:
        log.exception("a method failed", extra={"fields": {"method": method.path}})
        _refuse(method, event, send, MethodError(Code.INTERNAL, "internal error"))


def _peer(event: Event) -> str:
    said = (value for key, value in event.metadata if key == PEER_IDENTITY)
    return next(said, b"").decode("utf-8", "replace")


def _decode(method: Method, data: bytes) -> Message:
    try:
        return method.request.FromString(data)
    except DecodeError:
        name = method.request.DESCRIPTOR.full_name
        raise MethodError(
            Code.INVALID_ARGUMENT, f"the request is not a {name} message"
        ) from None


def _refuse(method: Method, event: Event, send: Send, error: MethodError) -> None:
    send(event.stream, None, end=True, code=error.code, detail=error.detail)
    if isinstance(method, StreamMethod):
        method.calls.gone(event.stream)
