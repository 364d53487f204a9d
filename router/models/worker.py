"""One version behind a Unix socket, in a process of its own.

`python -m router.models.worker PARENT PARCEL REPORT LISTENER`: an engine with one loop
and one version, that speaks the protocol every upstream speaks. It listens when it can
answer and not before, so whoever connects too early is refused at once. It has no
configuration, no state and no metrics; all it knows came in its parcel.

It says "ready" once, then beats: each beat is a health check through its own loop and
its own methods, so a beat that is missing means that requests would hang too. The end
of its standard input asks it to finish what it has and leave.
"""

import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from router.engine._engine import DATA, Engine, EngineStopped
from router.errors import EngineError
from router.models.child import (
    Task,
    confine,
    confine_memory,
    end_with_parent,
    tell,
    unpack,
)
from router.models.protobuf import delimited, packed

HEALTH = "/grpc.health.v1.Health/Check"
SERVICE = "/inference.GRPCInferenceService/"
POOL = 0
PULL_TIMEOUT_MS = 1_000
TRUE = b"\x08\x01"  # a message whose first field is true, or SERVING
STDIN = 0
BACKLOG = 1024


def answers_of(task: Task, report: Mapping[str, Any]) -> dict[str, bytes]:
    """What each method answers; none of them looks at its request."""
    words = task.words
    server = delimited(1, "router-worker") + delimited(2, str(words["version"]))
    model = delimited(1, words["model"]) + delimited(2, str(words["version"]))
    model += delimited(3, report["platform"])
    for field, key in ((4, "inputs"), (5, "outputs")):
        for tensor in report[key]:
            body = delimited(1, tensor["name"]) + delimited(2, tensor["datatype"])
            model += delimited(field, body + packed(3, tuple(tensor["shape"])))
    return {
        HEALTH: TRUE,
        SERVICE + "ServerLive": TRUE,
        SERVICE + "ServerReady": TRUE,
        SERVICE + "ModelReady": TRUE,
        SERVICE + "ServerMetadata": server,
        SERVICE + "ModelMetadata": model,
    }


def serve(task: Task, listener: int, say: Callable[[Mapping[str, Any]], None]) -> None:
    """Serve until standard input ends. EngineError when the version cannot be."""
    words = task.words
    engine = Engine(words["engine"])
    confine_memory(task.limits())
    report = engine.load(words["model"], words["version"], task.model, words["options"])
    engine.publish(task.table)
    methods = {
        engine.method(path, streaming=False, pool=POOL, listeners=DATA): answer
        for path, answer in answers_of(task, report).items()
    }
    bound = socket.socket(fileno=listener)
    bound.listen(BACKLOG)
    engine.listen(listener, DATA)
    engine.start()
    pool = threading.Thread(
        target=_answer, args=(engine, methods), name="methods", daemon=True
    )
    pool.start()
    if not _is_well(engine, words["beat_s"] * 10):
        raise EngineError("it does not answer its own health check")
    say({"ready": report})
    while not select.select([STDIN], [], [], words["beat_s"])[0]:
        if _is_well(engine, words["hang_s"]):
            abandoned = engine.snapshot()["executors"]["abandoned"]
            say({"abandoned": abandoned})
    engine.drain(words["drain_s"])


def _is_well(engine: Engine, timeout_s: float) -> bool:
    return engine.call(HEALTH, b"", (), timeout_s).code == 0


def _answer(engine: Engine, methods: Mapping[int, bytes]) -> None:
    while True:
        try:
            event = engine.next(POOL, PULL_TIMEOUT_MS)
        except EngineStopped:
            return
        if event is not None:
            engine.send(event.stream, methods[event.method], end=True)


def main(arguments: list[str]) -> None:
    """Serve, then leave without ceremony: nothing is worth tidying up."""
    parent, parcel, report, listener = map(int, arguments)
    end_with_parent(parent)
    task = unpack(parcel)
    confine(task.limits())
    try:
        serve(task, listener, lambda words: tell(report, words))
    except (EngineError, MemoryError) as error:
        tell(report, {"refused": str(error) or type(error).__name__})
        os._exit(3)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
