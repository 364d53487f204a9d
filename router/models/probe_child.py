"""Loads a version and runs it once, in a process that may die of it.

`python -m router.models.probe_child PARENT PARCEL REPORT`: the limits first, then the
engine, then the model, then one request. It says what that came to in one line, or dies
and its parent says of what.
"""

import os
import sys
import time
from typing import Any

from router.engine._engine import Engine
from router.errors import EngineError
from router.models.child import (
    Task,
    confine,
    confine_memory,
    end_with_parent,
    peak_bytes,
    tell,
    unpack,
)
from router.models.smoke import INFER, read_outputs, smoke_request


def probe(task: Task) -> dict[str, Any]:
    """The report of a version; EngineError when it cannot be loaded."""
    words = task.words
    engine = Engine({"loops": "1", "executors": "1"})
    confine_memory(task.limits())
    base = peak_bytes()
    begun = time.monotonic()
    loaded = engine.load(words["model"], words["version"], task.model, words["options"])
    loaded_at = time.monotonic()
    report: dict[str, Any] = {
        "load_ms": round((loaded_at - begun) * 1000, 3),
        "warnings": loaded["warnings"],
    }
    request = smoke_request(words["model"], loaded["inputs"])
    if request is not None:
        engine.publish(task.table)
        engine.start()
        called_at = time.monotonic()
        answer = engine.call(INFER, request, (), words["wall_s"])
        report["run_ms"] = round((time.monotonic() - called_at) * 1000, 3)
        report["code"] = answer.code
        if answer.code == 0:
            report["outputs"] = read_outputs(answer.message)
    report["peak_bytes"] = max(peak_bytes() - base, 0)
    return report


def main(arguments: list[str]) -> None:
    """Probe, tell, and leave without ceremony: nothing is worth tidying up."""
    parent, parcel, report = map(int, arguments)
    end_with_parent(parent)
    task = unpack(parcel)
    confine(task.limits())
    try:
        tell(report, {"report": probe(task)})
    except EngineError as error:
        tell(report, {"refused": str(error)})
    except MemoryError:
        tell(report, {"refused": "MemoryError"})
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
