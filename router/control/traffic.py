"""What a snapshot says of each version's requests, as totals, and over the last minute.

Totals are since a point that the caller keeps (the start of an attempt). A counter that
went down means that the engine began again: what was counted before is kept.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.analysis.quantile import Histogram, latency_edges
from router.control.evidence import Traffic

RECENT_S = 60.0
RATE_S = 10.0
EDGES = latency_edges()
_FIRST = -640

Key = tuple[str, int]  # model, version
NUMBERS = ("requests", "failures", "invalid", "fallbacks", "run_us", "scores",
           "score_sum", "score_squares")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Totals:
    """Additive numbers of one version."""

    numbers: tuple[float, ...] = (0.0,) * len(NUMBERS)
    latency: tuple[tuple[int, int], ...] = ()  # (native index, count), ascending
    memory_bytes: int = 0

    def minus(self, other: "Totals") -> "Totals":
        """What was added since `other`; since the beginning if a counter went down."""
        if any(a < b for a, b in zip(self.numbers[:4], other.numbers[:4], strict=True)):
            return self
        before = dict(other.latency)
        left = tuple((i, n - before.get(i, 0)) for i, n in self.latency)
        return Totals(
            tuple(a - b for a, b in zip(self.numbers, other.numbers, strict=True)),
            tuple((i, n) for i, n in left if n > 0),
            self.memory_bytes,
        )

    def plus(self, other: "Totals") -> "Totals":
        """Both together; memory is the newer one's, which is ours."""
        counts = dict(self.latency)
        for i, n in other.latency:
            counts[i] = counts.get(i, 0) + n
        return Totals(
            tuple(a + b for a, b in zip(self.numbers, other.numbers, strict=True)),
            tuple(sorted(counts.items())),
            self.memory_bytes,
        )

    def histogram(self) -> Histogram:
        """The latency of these requests, edges in seconds."""
        counts = [0] * (len(EDGES) + 1)
        for index, count in self.latency:
            counts[min(index - _FIRST, len(EDGES))] += count
        return Histogram(EDGES, tuple(counts))


NONE = Totals()


def read_traffic(snapshot: Mapping[str, Any]) -> dict[Key, Totals]:
    """Every version's totals; all variants of a version together."""
    found: dict[Key, Totals] = {}
    memory, cpu_us = {}, {}
    for version in snapshot.get("versions", ()):
        key = version["model"], version["version"]
        memory[key] = int(version.get("memory_bytes", 0))
        cpu_us[key] = version.get("cpu_ns", 0) / 1e3
    for entry in snapshot.get("variants", ()):
        key = entry["model"], entry["version"]
        found[key] = _read_variant(entry, memory.get(key, 0)).plus(found.get(key, NONE))
    run = NUMBERS.index("run_us")
    for key, totals in found.items():
        numbers = list(totals.numbers)
        numbers[run] = cpu_us.get(key, 0.0)
        found[key] = Totals(tuple(numbers), totals.latency, memory.get(key, 0))
    return found


def _read_variant(entry: Mapping[str, Any], memory: int) -> Totals:
    score = entry.get("score", {})
    failures = entry["failures"] + entry["timeouts"] + entry["invalid"]
    numbers = (
        float(sum(entry["codes"].values())), float(failures), float(entry["invalid"]),
        float(entry["fallbacks"]), 0.0, float(score.get("count", 0)),
        float(score.get("sum", 0.0)), float(score.get("sum_squares", 0.0)),
    )  # fmt: skip
    buckets = entry["stages"]["total"]["buckets"]
    return Totals(numbers, tuple((int(i), int(n)) for i, n in buckets), memory)


@dataclass(slots=True)
class Window:
    """Owner of the totals of the last minute, oldest first."""

    points: deque[tuple[float, Totals]] = field(default_factory=deque)

    def add(self, at_s: float, totals: Totals) -> None:
        """A point in time; those that are too old are forgotten, but for one."""
        self.points.append((at_s, totals))
        while len(self.points) > 2 and self.points[1][0] <= at_s - RECENT_S:
            self.points.popleft()

    def recent(self) -> Totals:
        """What the last minute added."""
        return self.points[-1][1].minus(self.points[0][1]) if self.points else NONE

    def rate(self) -> float:
        """Requests a second, over the last ten seconds or what there is of them."""
        if len(self.points) < 2:
            return 0.0
        now, last = self.points[-1]
        then, first = next(
            (p for p in self.points if p[0] >= now - RATE_S), self.points[-2]
        )
        if then == now:
            then, first = self.points[-2]
        return max(0.0, last.minus(first).numbers[0] / max(now - then, 1e-9))


def traffic_of(totals: Totals, window: Window) -> Traffic:
    """The numbers as judges read them."""
    recent = window.recent()
    requests, failures, invalid, fallbacks, run_us, scores, score, squares = (
        totals.numbers
    )
    return Traffic(
        requests=int(requests),
        failures=int(failures),
        invalid=int(invalid),
        fallbacks=int(fallbacks),
        recent_requests=int(recent.numbers[0]),
        recent_failures=int(recent.numbers[1]),
        latency=totals.histogram(),
        cpu_us_per_request=run_us / requests if requests else 0.0,
        memory_bytes=totals.memory_bytes,
        rate=window.rate(),
        score_count=int(scores),
        score_sum=score,
        score_squares=squares,
    )
