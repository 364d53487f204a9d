"""Streams that tell what there is to see, and again whenever it looks different.

A watch is a number in a dictionary: it costs no thread and no timer of its own. One
thread looks again when the control log grows, and once a second for what moves without
a record (elapsed time, requests a second). A watch never asks for more than the newest
state, so a slow client misses intermediate ones and no queue grows.

Draining ends the watches after their last word, as health does.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from router.admin.codes import refusal
from router.errors import RouterError
from router.ops.methods import Code, MethodError, Send

log = logging.getLogger(__name__)

WATCHES_MAX = 256  # a method
LOOK_AGAIN_S = 1.0
JOIN_TIMEOUT_S = 5.0
DRAINING = "the server is draining"

Read = Callable[[Any], Any]


class Watches:
    """Owner of the open streams of one method. Any thread may refresh.

    `read` makes the message for a request, or raises what refuses it.
    """

    def __init__(self, read: Read, send: Send) -> None:
        self._read, self._send = read, send
        self._lock = threading.Lock()
        self._open: dict[int, tuple[Any, bytes]] = {}
        self._has_ended = False

    def opened(self, stream: int, request: Any) -> None:
        with self._lock:
            if stream in self._open:
                raise MethodError(Code.INVALID_ARGUMENT, "a watch has one request")
            if self._has_ended:
                raise MethodError(Code.UNAVAILABLE, DRAINING)
            if len(self._open) >= WATCHES_MAX:
                raise MethodError(Code.RESOURCE_EXHAUSTED, "too many watches")
            first = self._message(request)
            self._open[stream] = (request, first)
            self._send(stream, first, end=False)

    def half_closed(self, stream: int) -> None:
        """A watch has one request, so its end says nothing new."""

    def gone(self, stream: int) -> None:
        with self._lock:
            self._open.pop(stream, None)

    def refresh(self) -> None:
        """Tell every stream whose answer looks different now."""
        # Sending only queues, so it stays under the lock.
        with self._lock:
            made: dict[bytes, bytes | MethodError] = {}
            for stream, (request, told) in list(self._open.items()):
                key = request.SerializeToString()
                if key not in made:
                    made[key] = self._try(request)
                now = made[key]
                if isinstance(now, MethodError):
                    self._send(stream, None, end=True, code=now.code, detail=now.detail)
                    del self._open[stream]
                elif now != told:
                    if self._send(stream, now, end=False):
                        self._open[stream] = (request, now)
                    else:
                        del self._open[stream]

    def end(self) -> None:
        """Tell everybody for the last time and end the streams."""
        self.refresh()
        with self._lock:
            self._has_ended = True
            streams, self._open = list(self._open), {}
        for stream in streams:
            code = Code.UNAVAILABLE
            self._send(stream, None, end=True, code=code, detail=DRAINING)

    def _try(self, request: Any) -> bytes | MethodError:
        try:
            return self._message(request)
        except MethodError as error:
            return error

    def _message(self, request: Any) -> bytes:
        try:
            data: bytes = self._read(request).SerializeToString()
        except RouterError as error:
            refused = refusal(error)
            if refused is None:
                raise
            raise refused from error
        return data


class Waits(Protocol):
    """What tells that the control log has grown."""

    def watch(self, since: int, timeout_s: float) -> tuple[Any, ...]: ...


class Lookout:
    """Owner of the thread that refreshes watches."""

    def __init__(self, waits: Waits, watches: tuple[Watches, ...]) -> None:
        self._waits, self._watches = waits, watches
        self._is_leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """End every stream: the server drains. Harmless the second time."""
        self._is_leaving.set()
        for one in self._watches:
            one.end()

    def join(self) -> None:
        self._is_leaving.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        since = 0
        while not self._is_leaving.is_set():
            try:
                entries = self._waits.watch(since, LOOK_AGAIN_S)
                since = entries[-1].revision if entries else since
                for one in self._watches:
                    one.refresh()
            except Exception:
                # The log cannot be read, or a message not made: look again later.
                log.exception("watches cannot be told")
                self._is_leaving.wait(LOOK_AGAIN_S)
