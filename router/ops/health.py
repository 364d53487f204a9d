"""grpc.health.v1: is the server, or a model, worth sending requests to?

The empty name and the inference service mean the server's readiness, `model/<name>` a
model's stable version. A watcher is a number in a dictionary, told when its answer
changes; it costs no thread and no timer.

Draining ends the watches after their last word: a stream that stays open would hold the
drain for its whole grace, and a client that watches comes back to the successor.
"""

import threading
from typing import Any

from router.client.messages import message
from router.control.serving import Serving
from router.ops.methods import (
    Code,
    Method,
    MethodError,
    Send,
    StreamMethod,
    UnaryMethod,
)

PREFIX = "/grpc.health.v1.Health/"
SERVER_NAMES = frozenset(
    {"", "inference.GRPCInferenceService", "grpc.health.v1.Health"}
)
MODEL_PREFIX = "model/"
# Connections and streams have limits of their own; this one bounds a refresh.
WATCHERS_MAX = 10_000

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def judge_health(serving: Serving, service: str) -> int:
    """The serving status of a name, SERVICE_UNKNOWN for one that means nothing."""
    if service in SERVER_NAMES:
        return SERVING if serving.is_ready() else NOT_SERVING
    model = service.removeprefix(MODEL_PREFIX)
    if model == service or model not in serving.catalogue.models:
        return SERVICE_UNKNOWN
    return SERVING if serving.is_version_ready(model) else NOT_SERVING


class Watchers:
    """Owner of the open watches. Any thread may refresh."""

    def __init__(self, serving: Serving, send: Send) -> None:
        self._serving, self._send = serving, send
        self._lock = threading.Lock()
        self._watches: dict[int, tuple[str, int]] = {}
        self._has_ended = False

    def opened(self, stream: int, request: Any) -> None:
        with self._lock:
            if stream in self._watches:
                raise MethodError(Code.INVALID_ARGUMENT, "a watch has one request")
            if self._has_ended:
                raise MethodError(Code.UNAVAILABLE, "the server is draining")
            if len(self._watches) >= WATCHERS_MAX:
                raise MethodError(Code.RESOURCE_EXHAUSTED, "too many watches")
            self._watches[stream] = (request.service, 0)
        self.refresh()

    def half_closed(self, stream: int) -> None:
        """A watch has one request, so its end says nothing new."""

    def gone(self, stream: int) -> None:
        with self._lock:
            self._watches.pop(stream, None)

    def refresh(self) -> None:
        """Tell every watcher whose answer has changed."""
        # Sending only queues, so it stays under the lock: two refreshes at once must
        # not tell a watcher the older answer last.
        with self._lock:
            statuses: dict[str, int] = {}
            for stream, (service, told) in list(self._watches.items()):
                if service not in statuses:
                    statuses[service] = judge_health(self._serving, service)
                status = statuses[service]
                if status == told:
                    continue
                if self._send(stream, _response(status), end=False):
                    self._watches[stream] = (service, status)
                else:
                    del self._watches[stream]

    def end(self) -> None:
        """Tell everybody for the last time and end the streams: the server drains."""
        self.refresh()
        with self._lock:
            self._has_ended = True
            watches, self._watches = list(self._watches), {}
        for stream in watches:
            detail = "the server is draining"
            self._send(stream, None, end=True, code=Code.UNAVAILABLE, detail=detail)


def health_methods(serving: Serving, watchers: Watchers) -> tuple[Method, ...]:
    """Check and Watch."""
    request = message("grpc.health.v1.HealthCheckRequest")

    def check(asked: Any) -> Any:
        status = judge_health(serving, asked.service)
        if status == SERVICE_UNKNOWN:
            raise MethodError(Code.NOT_FOUND, f"unknown service '{asked.service}'")
        return message("grpc.health.v1.HealthCheckResponse")(status=status)

    return (
        UnaryMethod(PREFIX + "Check", request, check),
        StreamMethod(PREFIX + "Watch", request, watchers),
    )


def _response(status: int) -> bytes:
    data: bytes = message("grpc.health.v1.HealthCheckResponse")(
        status=status
    ).SerializeToString()
    return data
