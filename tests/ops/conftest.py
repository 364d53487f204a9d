"""Sources for methods: a snapshot that can be set, and a send that remembers."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from router.control.serving import (
    Catalogue,
    ModelEntry,
    Served,
    Serving,
    Tensor,
    VersionEntry,
)

X = Tensor("x", "FP32", (-1, 2))
TEXT = Tensor("text", "BYTES", (-1,))
Y = Tensor("y", "INT64", (-1, 1))


@dataclass
class ManualClock:
    """Time that moves when it is told to."""

    time: float = 1_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class Sent:
    """What `Engine.send` was asked, and the streams that are still there."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)

    def __call__(
        self,
        stream: int,
        message: bytes | None,
        *,
        end: bool,
        code: int = 0,
        detail: str = "",
    ) -> bool:
        self.calls.append((stream, message, end, code, detail))
        return stream not in self.gone


@dataclass
class Plane:
    """A server as the methods see it."""

    clock: ManualClock
    serving: Serving
    state: dict[str, Any]
    sent: Sent

    def open_breaker(self, model: str, version: int) -> None:
        for entry in self.state["versions"]:
            if (entry["model"], entry["version"]) == (model, version):
                entry["breaker"] = "open"
        self.clock.time += 2


def version_counts(model: str, version: int) -> dict[str, Any]:
    return {
        "model": model,
        "version": version,
        "is_ready": True,
        "breaker": "closed",
        "runs": 3,
        "rows": 7,
        "last_ms": 1_700_000_000_123,
        "memory_bytes": 4096,
        "batch_sizes": [[1, 2, 500], [4, 1, 900]],
    }


def catalogue() -> Catalogue:
    """`credit` with two versions and one that did not load; `text` with one."""
    credit = ModelEntry(
        "credit",
        1,
        (
            VersionEntry(1, True, "", "onnxruntime_onnx", (X,), (Y,)),
            VersionEntry(2, True, "", "onnxruntime_onnx", (X,), (Y,)),
            VersionEntry(3, False, "not readable"),
        ),
    )
    text = ModelEntry("text", 5, (VersionEntry(5, True, "", "", (TEXT,), (Y,)),))
    return Catalogue({"credit": credit, "text": text})


@pytest.fixture
def plane() -> Plane:
    versions = [("credit", 1), ("credit", 2), ("text", 5)]
    state = {"versions": [version_counts(*key) for key in versions], "variants": []}
    clock = ManualClock()
    serving = Serving(lambda: state, clock)
    serving.put(Served(catalogue(), "c" * 16, "a" * 16, True, 1.0))
    serving.start()
    return Plane(clock, serving, state, Sent())
