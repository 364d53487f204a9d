"""A measured load on any Open Inference Protocol server.

The engine's generator sends and times; here a load is described, its messages are made
from what the server says of the model, and counts become rates and microseconds.
Latency counts from when a request was due: a server that stalls is charged for the
requests that had to wait for it (coordinated omission). Deliberately absent: judging
the figures, other than that a run which did not reach its rate has none.
"""

import random
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any

from router.client.messages import message
from router.client.values import pack_values, read_values
from router.engine import _engine
from router.errors import RouterError

CONNECT_S = 5.0
PORT_MAX = 65_535
# Below this share of the requests that were due, the server met another load than the
# one asked for.
SENT_SHARE_MIN = 0.99
# Random requests differ, so that nobody answers from a cache; but large ones are few.
MESSAGES_MAX = 16
ELEMENTS_MAX = 500_000

_FLOATS = {"FP16", "BF16", "FP32", "FP64"}

Declared = Mapping[str, tuple[str, tuple[int, ...]]]


class BenchError(RouterError):
    """The load cannot be made or put on the target."""


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests are due at a rate, whatever becomes of those before them."""

    rate: float
    is_poisson: bool = False
    in_flight_max: int = 10_000


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """So many calls are in flight; an answer makes room for the next."""

    concurrency: int = 1


@dataclass(frozen=True, slots=True)
class Units:
    """A request draws one of `count` units, and names it in a metadata field."""

    count: int
    header: str = "x-user-id"


@dataclass(frozen=True, slots=True)
class Load:
    """What is put on a target, and for how long."""

    target: str
    pace: OpenLoop | ClosedLoop
    duration_s: float = 10.0
    connections: int = 1
    timeout_s: float = 5.0
    units: Units | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Requests:
    """What is asked. An input is (NAME, text) or (NAME:DATATYPE, text); those that are
    not given are drawn. `batch` fills a first dimension that the model leaves open."""

    model: str
    inputs: tuple[tuple[str, str], ...] = ()
    batch: int = 1
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Of `count` answers, in microseconds; quantiles are at most 2.2 % too high."""

    count: int
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What was measured. `due` = `sent` + `unsent`; `sent` = the codes + `unanswered`.

    `latency` counts from when a request was due and `latency_from_send` from when it
    left, both of OK answers; `latency_of_errors` from when it was due. `rate_answered`
    is of answers of any code before the time was over.
    """

    is_void: bool
    is_interrupted: bool
    elapsed_s: float
    rate_asked: float | None
    rate_sent: float
    rate_answered: float
    error_share: float
    due: int
    sent: int
    unsent: int
    unanswered: int
    late: int
    late_max_us: float
    held: int
    in_flight_peak: int
    connections_lost: int
    bytes_out: int
    bytes_in: int
    codes: Mapping[str, int]
    versions: Mapping[str, int]
    latency: Latency
    latency_from_send: Latency
    latency_of_errors: Latency
    first_error: str


def bench(load: Load, requests: Requests, stop_fd: int | None = None) -> BenchResult:
    """Ask the server for the model's inputs, put the load on it, say what happened.

    The server is not asked when every input comes with its datatype. The run ends early
    when `stop_fd` becomes readable.
    """
    is_known = requests.inputs and all(":" in name for name, _ in requests.inputs)
    # A server that makes messages loads no gRPC client for it.
    from router.client.metadata import read_inputs

    declared = (
        {} if is_known else read_inputs(load.target, requests.model, load.timeout_s)
    )
    return measure(load, make_messages(requests, declared, load.seed), stop_fd)


def make_messages(
    requests: Requests, declared: Declared, seed: int
) -> tuple[bytes, ...]:
    """ModelInfer messages, alike but for what is drawn."""
    given = {name.partition(":")[0]: name for name, _ in requests.inputs}
    unknown = given.keys() - declared.keys()
    for name in unknown:
        if ":" not in given[name]:
            known = ", ".join(declared) or "none"
            raise BenchError(
                f"model '{requests.model}' has no input '{name}': it has {known}"
            )
    may_batch = any(shape[:1] == (-1,) for _, shape in declared.values())
    if requests.batch > 1 and not may_batch:
        raise BenchError(f"model '{requests.model}' leaves no leading dimension open")
    drawn = {
        name: (datatype, _filled(shape, requests.batch))
        for name, (datatype, shape) in declared.items()
        if name not in given
    }
    elements = sum(prod(shape) for _, shape in drawn.values())
    count = max(1, min(MESSAGES_MAX, ELEMENTS_MAX // elements)) if elements else 1
    draw = random.Random(seed)
    return tuple(_message(requests, declared, drawn, draw) for _ in range(count))


def _filled(shape: tuple[int, ...], batch: int) -> tuple[int, ...]:
    return tuple(
        size if size >= 0 else batch if i == 0 else 1 for i, size in enumerate(shape)
    )


def _message(
    requests: Requests, declared: Declared, drawn: Declared, draw: random.Random
) -> bytes:
    version = "" if requests.version is None else str(requests.version)
    made = message("inference.ModelInferRequest")(
        model_name=requests.model, model_version=version
    )
    for given, text in requests.inputs:
        name, _, named = given.partition(":")
        # A row of values without a declared shape is one row.
        datatype, declared_shape = declared.get(name, (named, (1, -1)))
        shape, values = read_values(name, text, declared_shape)
        made.inputs.add(name=name, datatype=named or datatype, shape=shape)
        made.raw_input_contents.append(pack_values(name, named or datatype, values))
    for name, (datatype, filled) in drawn.items():
        made.inputs.add(name=name, datatype=datatype, shape=filled)
        values = [_value(datatype, draw) for _ in range(prod(filled))]
        made.raw_input_contents.append(pack_values(name, datatype, values))
    data: bytes = made.SerializeToString()
    return data


def _value(datatype: str, draw: random.Random) -> Any:
    # Integers are often indices: small ones are in range for most models.
    if datatype in _FLOATS:
        return draw.random()
    return draw.randrange(2 if datatype == "BOOL" else 10)


def measure(
    load: Load, messages: tuple[bytes, ...], stop_fd: int | None = None
) -> BenchResult:
    """Put `messages`, in turn, on the target."""
    options = {
        "authority": "localhost" if load.target.startswith("unix:") else load.target,
        "duration_ns": str(round(load.duration_s * 1e9)),
        "timeout_ms": str(max(1, round(load.timeout_s * 1000))),
        "seed": str(load.seed),
    }
    pace = load.pace
    if isinstance(pace, OpenLoop):
        options["rate_milli"] = str(round(pace.rate * 1000))
        options["is_poisson"] = str(int(pace.is_poisson))
        options["in_flight_max"] = str(pace.in_flight_max)
    else:
        if pace.concurrency < load.connections:
            raise BenchError(
                f"{load.connections} connections cannot share {pace.concurrency} calls"
            )
        options["concurrency"] = str(pace.concurrency)
    if load.units is not None:
        options["units"] = str(load.units.count)
        options["unit_header"] = load.units.header
    if stop_fd is not None:
        options["stop_fd"] = str(stop_fd)
    sockets = connect(load.target, load.connections)
    return _result(pace, _engine.bench(options, messages, sockets, load.metadata))


def connect(target: str, count: int) -> list[int]:
    """Descriptors of connected sockets, which are the caller's to close."""
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            try:
                one = stack.enter_context(_connect(target))
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                raise BenchError(f"{target}: cannot connect: {why}") from None
            one.setblocking(False)
            opened.append(one)
        return [one.detach() for one in opened]


def _connect(target: str) -> socket.socket:
    if target.startswith("unix:"):
        local = socket.socket(socket.AF_UNIX)
        local.settimeout(CONNECT_S)
        try:
            local.connect(target.removeprefix("unix:").removeprefix("//"))
        except OSError:
            local.close()
            raise
        return local
    host, colon, port = target.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > PORT_MAX:
        raise ValueError("expected HOST:PORT or unix:PATH")
    made = socket.create_connection((host.strip("[]"), int(port)), CONNECT_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _result(pace: OpenLoop | ClosedLoop, raw: Mapping[str, Any]) -> BenchResult:
    elapsed_s = raw["elapsed_ns"] / 1e9
    sent, due, codes = raw["sent"], raw["due"], raw["codes"]
    answered = sum(codes.values())
    per_second = 1 / elapsed_s if elapsed_s > 0 else 0.0
    copied = (
        "due", "sent", "late", "held", "in_flight_peak", "connections_lost",
        "bytes_out", "bytes_in", "codes", "versions", "first_error",
    )  # fmt: skip
    return BenchResult(
        is_interrupted=bool(raw["is_interrupted"]),
        is_void=sent == 0 or sent < SENT_SHARE_MIN * due,
        elapsed_s=elapsed_s,
        rate_asked=pace.rate if isinstance(pace, OpenLoop) else None,
        rate_sent=sent * per_second,
        rate_answered=raw["answered_in_time"] * per_second,
        error_share=1 - codes.get("OK", 0) / answered if answered else 0.0,
        unsent=due - sent,
        unanswered=sent - answered,
        late_max_us=raw["late_max_ns"] / 1000,
        latency=_latency(raw["latency"]),
        latency_from_send=_latency(raw["latency_from_send"]),
        latency_of_errors=_latency(raw["latency_of_errors"]),
        **{name: raw[name] for name in copied},
    )


def _latency(raw: Mapping[str, int]) -> Latency:
    mean_us = raw["sum_ns"] / max(1, raw["count"]) / 1000
    names = ("p50", "p90", "p99", "p999", "max")
    return Latency(raw["count"], mean_us, *(raw[f"{name}_ns"] / 1000 for name in names))
