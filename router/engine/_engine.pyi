"""The door between Python and the data plane."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

DATA: Final[int]
ADMIN: Final[int]
EVENT_MESSAGE: Final[int]
EVENT_END: Final[int]
EVENT_CANCELLED: Final[int]

class MethodEvent:
    """What a client did on a stream of a method that Python serves."""

    stream: int
    method: int
    kind: int
    message: bytes
    metadata: tuple[tuple[str, bytes], ...]

class CallResult:
    """The answer of `Engine.call`: gRPC code, status message, message, trailers."""

    code: int
    detail: str
    message: bytes
    trailers: tuple[tuple[str, bytes], ...]

class Engine:
    """Owner of the loops, executors, tables and versions. Methods may be called from
    any thread; long ones release the GIL."""

    def __init__(self, options: Mapping[str, str]) -> None: ...
    def load(
        self, model: str, version: int, data: bytes, options: Mapping[str, str]
    ) -> dict[str, Any]:
        """Load, warm and probe a version; its report.

        {"inputs": [{"name", "datatype", "shape"}], "outputs": [...], "platform",
        "providers": [...], "warnings": [...], "may_batch": bool, "memory_bytes": int}.
        Raises EngineError when the version cannot be served.
        """

    def unload(self, model: str, version: int) -> None: ...
    def publish(self, table: bytes) -> None:
        """Swap the routing table; EngineError when it does not check or a version it
        names is not loaded, and then the old table keeps serving."""

    def method(
        self, path: str, *, streaming: bool, pool: int, listeners: int
    ) -> int: ...
    def listen(self, fd: int, listener: int) -> None: ...
    def tls(
        self,
        listener: int,
        certificates: bytes,
        key: bytes,
        authorities: bytes = b"",
        *,
        requires_client: bool = False,
    ) -> dict[str, Any]:
        """Use these PEM texts for new connections of a listener, DATA or ADMIN.

        {"expires_s": Unix time}. EngineError when anything is wrong with them, and then
        nothing changes. Connections that exist keep what they began with.
        """

    def start(self) -> None: ...
    def next(self, pool: int, timeout_ms: int) -> MethodEvent | None:
        """A pool's next event; None after the timeout; EngineStopped at the end."""

    def send(
        self,
        stream: int,
        message: bytes | None,
        *,
        end: bool,
        code: int = 0,
        detail: str = "",
    ) -> bool: ...
    def call(
        self,
        path: str,
        message: bytes,
        metadata: Iterable[tuple[str, bytes]] = (),
        timeout_s: float = 30.0,
    ) -> CallResult: ...
    def snapshot(self) -> dict[str, Any]: ...
    def thresholds(
        self,
        thresholds: Iterable[tuple[str, int, int, int, Sequence[int | None]]],
    ) -> None:
        """Set the latencies that are too long: (scope, attempt, version, ordinal, three
        indices of histogram buckets for p90, p99 and p99.9). The table stays.

        EngineError when a scope is not in a table; the others are set all the same.
        """

    def filters_save(self) -> bytes:
        """What scopes have seen and counted, for `filters_restore` after a restart."""

    def filters_restore(self, saved: bytes) -> None:
        """Take up what was saved, before the first publish. EngineError when it is
        damaged."""

    def tape(self) -> bytes:
        """What the loops recorded since the last time, each record once: frames as
        `telemetry/tape.py` reads them. Also after `stop`."""

    def drain(self, grace_s: float) -> int: ...
    def stop(self) -> None: ...

class EngineStopped(Exception):  # noqa: N818  (an end, not an error)
    """The engine has stopped; a method pool should end."""

def crc32c(data: bytes) -> int: ...
def tls_check(
    certificates: bytes,
    key: bytes,
    authorities: bytes = b"",
    *,
    requires_client: bool = False,
) -> dict[str, Any]:
    """What `Engine.tls` would return or raise; changes nothing."""

def regex_problem(pattern: str) -> str | None: ...
def regex_match(pattern: bytes, value: bytes) -> bool: ...

PREDICTION_FIELDS: Final[tuple[str, ...]]

def prediction_read(
    keys: Sequence[tuple[int, bytes]], prediction_id: str
) -> dict[str, Any] | None: ...
def predictions_read(
    keys: Sequence[tuple[int, bytes]], prediction_ids: Iterable[str]
) -> list[list[Any] | None]:
    """What each prediction id of one of `keys` (id, 32 secret bytes) says: the values
    of PREDICTION_FIELDS in order; None for a text that no key made."""

def runtime(library: str) -> dict[str, Any]: ...
def bench(
    options: Mapping[str, str],
    frames: Sequence[bytes],
    sockets: Sequence[int],
    metadata: Iterable[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Load a server over connected, non-blocking sockets, which it takes and closes.

    Options and the keys of the answer are those of `serve/generator.h`. Runs on the
    calling thread for the duration asked and at most the timeout longer; a signal is
    noticed only through the option `stop_fd`. EngineError when an option is wrong.
    """
